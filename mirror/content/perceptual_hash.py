"""A perceptual hash: photographs that look alike at any size get hashes that differ in a few bits.

The hash is 256 signs of the lowest cosine coefficients of the grey frame, without the mean. A frame is
what a decoder gives at a fraction of the size; its last row and column may stand for fewer pixels of the
file than the others. So each pixel is integrated over the span that it stands for. Without that, a
photograph at 500 and at 1024 pixels differs in 13 bits; with it, in 2.

The cosines are rounded to integers and all sums stay below 2**53, so they are exact in float64. Every
BLAS, thread count and processor finds the same bits. docs/format.md defines the hash for other programs.

A flat or nearly flat frame has signs that noise decides. The stored value holds its contrast too, and a
reader takes a hash below `LEAST_CONTRAST` for no hash.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

# Hashes of different versions are never compared.
VERSION: Final = 1
BITS: Final = 256
# The version in one byte, the contrast in two, the bits.
STORED_BYTES: Final = 1 + 2 + BITS // 8
# The smallest contrast of a hash that counts, in hundredths of a grey level. Without this limit 45 pairs
# of distinct photographs out of 9.3 million were within 15 bits; with it none was within 31.
LEAST_CONTRAST: Final = 10

# Frequencies in each direction. A frame has at least as many rows and columns, or no contrast.
FREQUENCIES: Final = 20
# By u² + v², then by u: the lowest frequencies, without the mean.
_U, _V = np.divmod(np.arange(FREQUENCIES * FREQUENCIES), FREQUENCIES)
_ORDER = np.lexsort((_U, _U**2 + _V**2))[1 : BITS + 1]
_SCALE: Final = 1 << 19
# Numbers in one product of matrices: below this BLAS stays in the calling thread.
_PRODUCT: Final = 1 << 18
# Pillow's images are reduced to at least this many rows and columns, by at most this factor.
_FRAME_SIDE: Final = 32
_MOST_REDUCED: Final = 8


def perceptual_hash(frame: NDArray[np.uint8], width: int, height: int, step: float) -> bytes:
    """Return the stored form of a frame's hash: version, contrast, bits.

    Args:
        frame: grey levels, rows × columns.
        width: columns of the file, in pixels.
        height: rows of the file, in pixels.
        step: pixels of the file in one pixel of the frame, in both directions.

    Returns:
        `STORED_BYTES` bytes: 1 of `VERSION`; 2 of the contrast in hundredths of a grey level, big-endian;
        32 of bits, the lowest frequency in the highest bit of the first byte.
    """
    rows, columns = frame.shape
    if min(rows, columns) < FREQUENCIES:
        return stored(0, bytes(BITS // 8))
    across, down = _cosines(columns, width, step), _cosines(rows, height, step)
    sums = np.zeros((FREQUENCIES, columns))
    block = max(1, _PRODUCT // (FREQUENCIES * columns))
    for at in range(0, rows, block):
        sums += down[:, at : at + block] @ frame[at : at + block].astype(np.float64)
    coefficients = (sums @ across.T).ravel()[_ORDER]
    sizes = np.abs(coefficients)
    sizes.partition((BITS // 2 - 1, BITS // 2))  # NumPy's median takes five times as long
    contrast = float(sizes[BITS // 2 - 1 : BITS // 2 + 1].sum()) / _SCALE**2
    return stored(round(contrast * 100), np.packbits(coefficients > 0).tobytes())


def stored(contrast: int, bits: bytes) -> bytes:
    """Return the stored form of bits with a contrast in hundredths of a grey level."""
    return bytes((VERSION,)) + min(contrast, 0xFFFF).to_bytes(2) + bits


@lru_cache(maxsize=1024)
def _cosines(count: int, full: int, step: float) -> NDArray[np.float64]:
    """Integrate each cosine over the span of each pixel, as integers: frequencies × pixels.

    Args:
        count: pixels of the frame in this direction.
        full: pixels of the file in this direction.
        step: pixels of the file in one pixel of the frame.
    """
    edges = np.minimum(np.arange(count + 1) * step / full, 1.0)
    k = np.arange(1, FREQUENCIES)[:, None]
    waves = np.diff(np.sin(np.pi * k * edges) / (np.pi * k), axis=1)
    spans: NDArray[np.float64] = np.rint(np.vstack([np.diff(edges)[None], waves]) * _SCALE)
    return spans


def jpeg_step(full: tuple[int, int], frame: tuple[int, int]) -> float:
    """Return the pixels of a JPEG in one pixel of its decoded frame. Raises: ValueError.

    libjpeg decodes at eighths: a side of n pixels becomes ⌈n · k / 8⌉.
    """
    for eighths in range(1, 9):
        if all(-(-whole * eighths // 8) == part for whole, part in zip(full, frame, strict=True)):
            return 8 / eighths
    raise ValueError(f"{frame} is no scaled decode of {full}")


def reduced(grey: Image) -> tuple[NDArray[Any], float]:
    """Return the frame of a grey image that Pillow decoded, and its step."""
    factor = max(1, min(_MOST_REDUCED, grey.width // _FRAME_SIDE, grey.height // _FRAME_SIDE))
    return np.asarray(grey.reduce(factor) if factor > 1 else grey), float(factor)
