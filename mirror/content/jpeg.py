"""Decode JPEG strictly, and check the scans of progressive files.

libjpeg warns of damage, but also of things that no pixel is made from: an unknown JFIF version, or
stray bytes between two segments. The file is then decoded again without them, just as strictly.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

# More scans than any encoder writes. A scan of a few bytes makes a decoder walk the whole frame, so
# scans × pixels are limited too: ten scans, as libjpeg writes them, of 120 million pixels.
MAX_SCANS: Final = 200
MAX_SCANNED_PIXELS: Final = 1_200_000_000

# Rows and columns of a decoded frame: enough for the verdict and for the perceptual hash.
FRAME_SIDE: Final = 32

# A marker with a length. Stuffed zeros, restart markers, fill bytes and TEM have none.
_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_OF_THE_HEADER: Final = re.compile(
    "extraneous bytes before marker|unknown JFIF revision|Invalid SOS parameters for sequential"
)
# Fewer bytes than this between two segments are stray. More may be a segment with a damaged marker:
# tables are longer.
_STRAY: Final = 16


def dimensions(data: bytes) -> tuple[int, int]:
    """Return `(width, height)` in pixels. Raises: ValueError."""
    import simplejpeg

    height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    return width, height


def decode(data: bytes, colours: str, rows: int = FRAME_SIDE, *, strict: bool = True) -> Any:
    """Decode to the smallest scale that has `rows` rows and `FRAME_SIDE` columns. Raises: ValueError.

    If `rows` is 0, the size is the full one. So it is if the file has fewer rows or columns.

    A warning is an error too if `strict`. Otherwise a damaged file is decoded as far as it goes.
    """
    import simplejpeg

    return simplejpeg.decode_jpeg(
        data,
        colorspace=colours,
        min_height=rows,
        min_width=FRAME_SIDE if rows else 0,
        min_factor=1,
        strict=strict,
    )


def sound(data: bytes, colours: str = "GRAY", rows: int = FRAME_SIDE) -> tuple[bytes, Any]:
    """Return a file that decodes without a warning, and its frame.

    The file is `data`, or `data` without the parts that libjpeg warns of and no pixel is made from.
    """
    for _ in range(2):
        try:
            return data, decode(data, colours, rows)
        except ValueError as error:
            if "extraneous bytes before marker 0xd9" in str(error):
                data = _unpadded(data)
            elif _OF_THE_HEADER.search(str(error)):
                data = _plain_header(data)
            else:
                raise
    return data, decode(data, colours, rows)


def _unpadded(data: bytes) -> bytes:
    """Cut after the first image, and drop the zeros that some cameras write before its end marker."""
    at = 2
    while (marker := _MARKER.search(data, at)) is not None:
        if data[marker.end() - 1] == 0xD9:
            scan = data[: marker.start()].rstrip(b"\0")
            # If the last byte of the stream is 0xff, the zero after it is stuffed, not padding.
            return scan + (b"\0" if scan.endswith(b"\xff") else b"") + b"\xff\xd9"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    return data


def _plain_header(data: bytes) -> bytes:
    """Drop stray bytes before the first scan and all application segments except Adobe's.

    Adobe's segment defines the colours. The parameters of a sequential scan get their only valid
    values.
    """
    parts, at, sequential = [data[:2]], 2, False
    while (marker := _MARKER.search(data, at)) is not None and marker.start() - at < _STRAY:
        code = data[marker.end() - 1]
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
        segment = data[marker.start() : at]
        if code == 0xDA:
            if sequential:
                segment = segment[:-3] + b"\0\x3f\0"
            return b"".join((*parts, segment, data[at:]))
        sequential = sequential or code in (0xC0, 0xC1)
        if code == 0xEE or not 0xE0 <= code <= 0xEF:
            parts.append(segment)
    return data


def check_scans(data: bytes, *, whole: bool = True) -> None:
    """Raise ValueError if there are too many scans, or if they leave coefficients out.

    A file that was cut between two scans and closed leaves some out, and libjpeg has no warning for
    that. The walk checks the coefficients of the first component, and that every component has a
    scan. It leaves everything that it does not understand to libjpeg.

    Args:
        data: the file.
        whole: whether every coefficient must be there.
    """
    with suppress(IndexError):  # the data ends; libjpeg says so better
        _walk_scans(data, whole)


def _walk_scans(data: bytes, whole: bool) -> None:
    components, progressive = b"", False
    seen: set[int] = set()
    # The bits that each coefficient of the first component still lacks.
    lacking = [16] * 64
    scans, most, at = 0, MAX_SCANS, 2
    while (marker := _MARKER.search(data, at)) is not None:
        code, at = data[marker.end() - 1], marker.end()
        if code == 0xD9:
            break
        length = int.from_bytes(data[at : at + 2])
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            progressive = code & 3 == 2
            height, width = (
                int.from_bytes(data[at + 3 : at + 5]),
                int.from_bytes(data[at + 5 : at + 7]),
            )
            most = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(1, width * height))
            components = data[at + 8 : at + 8 + 3 * data[at + 7] : 3]
        elif code == 0xDA and components:
            count = data[at + 2]
            if not progressive and count == len(components):
                return  # one scan with all components
            ids = data[at + 3 : at + 3 + 2 * count : 2]
            # Only a progressive scan may leave coefficients to other scans, whatever it declares.
            first, last, bits = (
                (data[at + 3 + 2 * count + i] for i in range(3)) if progressive else (0, 63, 0)
            )
            seen.update(ids)
            if components[0] in ids and last < 64:
                lacking[first : last + 1] = [bits & 15] * (last + 1 - first)
            scans += 1
            if scans > most:
                raise ValueError("too many scans")
        at += length
    if whole and components and (any(lacking) or not seen.issuperset(components)):
        raise ValueError("ends between two scans")
