"""gzip and Zstandard, by a file's first bytes when reading and by its name when writing."""

from __future__ import annotations

import gzip
import io
import sys
from typing import BinaryIO, Final, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["EXTENSIONS", "compressed", "decompressed", "zstd"]

# What a file's name ends with → how it is compressed.
EXTENSIONS: Final = {".gz": "gzip", ".zst": "zstd"}

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def decompressed(file: io.BufferedReader) -> BinaryIO:
    """What `file` holds, decompressed if its first bytes say that it is compressed.

    Reading from it raises EOFError where a compressed file ends too early.
    """
    head = file.peek(4)[:4]
    if head.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if head == _ZSTD:
        return cast("BinaryIO", zstd.ZstdFile(file))
    return file


def compressed(file: BinaryIO, name: str) -> BinaryIO:
    """A stream that writes to `file`, compressed as `name` asks; the same bytes for the same input.

    Closing it leaves `file` open.
    """
    if name.endswith(".gz"):
        # No time stamp and no name inside: running twice gives identical bytes.
        return cast("BinaryIO", gzip.GzipFile("", "wb", 6, fileobj=file, mtime=0))
    if name.endswith(".zst"):
        return cast("BinaryIO", zstd.ZstdFile(file, "wb"))
    return cast("BinaryIO", _Open(file))


class _Open(io.BufferedWriter):
    """Passes on what is written, and stays open when it is closed."""

    def close(self) -> None:
        if not self.closed:
            self.detach()
