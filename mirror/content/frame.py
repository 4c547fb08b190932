"""Find out whether a decoded frame is flat, or whether its lower part was painted in.

Pure functions of arrays. A lenient decoder (Pillow's LOAD_TRUNCATED_IMAGES) paints the missing part
of a truncated file: libjpeg in mid grey, Pillow in black. Once saved again, the file decodes without
a warning; only the band at its bottom gives it away.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]

# Levels by which the luma and the colours of a painted row may vary: a lossy encoder rounds.
_LUMA, _COLOUR = 2, 8
# Levels above black (0) or away from grey (128) that count as picture.
_PICTURE: Final = {0: 24, 128: 8}
# Levels by which writing differs from its paper; an encoder's ringing stays below.
_BOLD: Final = 32
# Share of the columns that must show picture right above the band.
_ENOUGH: Final = 0.6
# Rows that are examined together.
_BLOCK: Final = 32


def spread(values: NDArray[Any]) -> int:
    """Return the difference between the highest and the lowest level."""
    return int(values.max()) - int(values.min())


def could_be_fill(row: NDArray[Any]) -> bool:
    """Whether the last row of a grey frame has a level that a lenient decoder paints."""
    return int(row.max()) <= _LUMA or abs(int(row.flat[0]) - 128) <= _LUMA


def trailing_fill(frame: Frame, scale: float) -> tuple[str, int] | None:
    """Return `("black" or "grey", rows)` of a band painted at the bottom, or None.

    A painted band is flat and neutral over the whole width. It starts at a sharp edge, and the
    picture above it reaches a border. Some images look similar and are not painted. A letterbox has
    a bar at the top too, and a caption has paper above the writing. A silhouette or a dark ground
    has no straight edge, and an object on black reaches no border. Darkness may set in slowly.

    Args:
        frame: the decoded frame, height × width × (red, green, blue).
        scale: rows of the file per row of `frame`.
    """
    level = 0 if float(_luma(frame[-1:]).max()) <= _LUMA + 0.5 else 128
    rows = _painted_rows(frame, level)
    if not rows or rows == frame.shape[0] or _is_bar(_away(frame[:3], level), level):
        return None
    # Rows over which an encoder smears the edge: a block of colour, and one of luma.
    smear = round(24 / scale) + 2
    # From here on rows count from the bottom up, only as far as the rules for the edge need them.
    if level:
        # Height of a row of blocks; the file may have been enlarged since.
        step = max(smear, frame.shape[0] // 8)
        above = frame[::-1][rows : rows + 2 * (step + smear) + 1]
        sharp = _is_grey_edge(_away(above, level), smear, step)
    else:
        above = frame[::-1][rows - 1 : rows + smear + 3]
        sharp = _is_black_edge(_away(above, level), smear)
    return (("grey" if level else "black"), rows) if sharp else None


def _painted_rows(frame: Frame, level: int) -> int:
    """Count the flat and neutral rows at the bottom, a block at a time: there are usually few."""
    height = int(frame.shape[0])
    for end in range(height, 0, -_BLOCK):
        block = frame[max(0, end - _BLOCK) : end][::-1]
        painted: NDArray[np.bool_] = np.logical_and(
            (np.abs(_luma(block) - level) <= _LUMA + 0.5).all(axis=1),
            (_away(block, level) <= _COLOUR).all(axis=1),
        )
        if not painted.all():
            return height - end + int(painted.argmin())
    return height


def _luma(frame: Frame) -> NDArray[np.float32]:
    # A matrix product would wake BLAS's pool of threads.
    red, green, blue = np.moveaxis(frame, 2, 0)
    luma: NDArray[np.float32] = (
        np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    )
    return luma


def _away(frame: Frame, level: int) -> NDArray[np.int16]:
    """Distance of each pixel from a level, in the colour where it is largest."""
    # NumPy's own maximum over an axis this short takes ten times as long.
    red, green, blue = np.moveaxis(np.abs(frame.astype(np.int16) - level), 2, 0)
    away: NDArray[np.int16] = np.maximum(np.maximum(red, green), blue)
    return away


def _is_bar(top: NDArray[np.int16], level: int) -> bool:
    """Whether one of the top rows has the level too, as in a letterbox, apart from ringing.

    A file that broke off within its first row of blocks has picture at the left.
    """
    plain = top <= _PICTURE[level] + 4
    left = plain[:, : max(1, plain.shape[1] // 12)]
    return bool(((plain.mean(axis=1) > 0.85) & (left.mean(axis=1) > 0.5)).any())


def _is_grey_edge(away: NDArray[np.int16], smear: int, step: int) -> bool:
    """Whether the band starts at one edge, or at two that meet in a step.

    A step appears where the stream broke off within a row of blocks. Above a painted band the
    picture continues; above the writing of a caption there is paper again.
    """
    share = (away > _PICTURE[128]).mean(axis=1)
    first = int(np.argmax(share > 0.05))
    if share[first] <= 0.05 or first > step:
        return False
    share, bold = share[first:], (away[first:] > _BOLD).mean(axis=1)
    full = int(np.argmax(share > _ENOUGH))
    if share[full] <= _ENOUGH:
        full = share.size
        if full > smear:  # otherwise the file broke off within its first row of blocks
            return False
    reach = full + smear
    written = np.maximum.accumulate(bold[:reach]) / 3
    return full <= step + smear and bool(
        (share[:reach] >= np.where(written > 0.02, written, 0)).all()
    )


def _is_black_edge(away: NDArray[np.int16], smear: int) -> bool:
    """Whether the columns, from a border on, leave black at the same row and with a jump."""
    share = (away > _PICTURE[0]).mean(axis=1)
    edge = int(np.argmax(share > _ENOUGH / 2))
    if share[edge] <= _ENOUGH / 2 or edge > smear:
        return False
    jump = away[min(edge + 1, away.shape[0] - 1)] - away[max(edge - 2, 0)] > _PICTURE[0]
    side = max(1, jump.size // 12)
    return bool(jump.mean() > _ENOUGH and max(jump[:side].mean(), jump[-side:].mean()) > 0.25)
