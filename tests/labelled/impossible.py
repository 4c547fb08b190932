"""Files whose headers name impossible sizes, by the kind of error."""

from __future__ import annotations

import struct
import zlib
from typing import Final

LARGEST: Final = 2**32 - 1


def _png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header))


def _tiff(kind: int, count: int, side: bytes) -> bytes:
    entries = b"".join(struct.pack("<HHI4s", tag, kind, count, side) for tag in (256, 257))
    return b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)


def _big_tiff(side: int) -> bytes:
    entries = b"".join(struct.pack("<HHQQ", tag, 16, 1, side) for tag in (256, 257))
    return b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2) + entries + bytes(8)


IMPOSSIBLE: Final = {
    "a PNG's beyond what PNG allows": _png(LARGEST, 1),
    "an AVIF's as large as can be": b"\0\0\0\x1cftypavif" + bytes(20) + b"ispe" + bytes(4)
    + struct.pack(">II", LARGEST, LARGEST),
    "a JPEG 2000's as large as can be": b"\0\0\0\x0cjP  \r\n\x87\nihdr" + struct.pack(">II", LARGEST, 1),
    "a TIFF's as large as can be": _tiff(4, 1, struct.pack("<I", LARGEST)),
    "a large TIFF's as large as can be": _big_tiff(2**64 - 1),
    "a TIFF's that is negative": _tiff(9, 1, struct.pack("<i", -5)),
    "a TIFF's that is text": _tiff(2, 4, b"\1\1\1\1"),
    "a TIFF's that is a fraction": _tiff(11, 1, struct.pack("<f", 1e30)),
    "a TIFF's that is no number": _tiff(11, 1, struct.pack("<f", float("nan"))),
}  # fmt: skip
