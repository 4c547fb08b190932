"""gzip and Zstandard: recognised by the first bytes when reading, by the name when writing."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from typing import Any, BinaryIO, Final, Protocol, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["EXTENSIONS", "TolerantStream", "compressed", "decompressed", "extension_of", "zstd"]

# Ending of a file's name → its compression.
EXTENSIONS: Final = {".gz": "gzip", ".zst": "zstd"}

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_CHECKED: Final[dict[int, int]] = {zstd.CompressionParameter.checksum_flag: 1}
_LARGEST_READ: Final = 1 << 20


class Readable(Protocol):
    """A source for `TolerantStream`. `read1` gives at least one byte, or none at the end."""

    def read1(self, size: int, /) -> bytes: ...


class TolerantStream(io.BufferedIOBase):
    """A stream that ends where its file becomes unreadable, instead of raising.

    Args:
        file: the source.
        head: bytes that come before it.
        below: the stream that `file` decodes; it may know why reading failed.

    Attributes:
        broken: why the stream ended early; None if it did not.
    """

    def __init__(
        self, file: Readable, head: bytes = b"", below: TolerantStream | None = None
    ) -> None:
        self._file = file
        self._head = head
        self._below = below
        self.broken: str | None = None

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        """Return the next bytes without reading past them."""
        head = self.read(size)
        self._head = head + self._head
        return head

    def read(self, size: int | None = -1, /) -> bytes:
        """Read this many bytes; fewer only at the end."""
        missing = sys.maxsize if size is None or size < 0 else size
        parts = []
        while missing and (part := self.read1(missing)):
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        size = _LARGEST_READ if size < 0 else min(size, _LARGEST_READ)
        if self._head:
            part, self._head = self._head[:size], self._head[size:]
            return part
        if self.broken is None:
            try:
                return self._file.read1(size)
            except EOFError:
                below = self._below and self._below.broken
                self.broken = below or "the compressed file ends too early"
            except (OSError, zlib.error, zstd.ZstdError) as error:
                self.broken = f"the file cannot be read further ({error})"
        return b""


def decompressed(file: Readable) -> TolerantStream:
    """The content of `file`, decompressed if its first bytes are those of gzip or Zstandard."""
    # Not peeked at: a pipe may have only one byte at first.
    start = TolerantStream(file)
    head = start.read(len(_ZSTD))
    whole = TolerantStream(file, head)
    whole.broken = start.broken
    if head.startswith(_GZIP):
        return TolerantStream(gzip.GzipFile(fileobj=cast("Any", whole)), below=whole)
    if head == _ZSTD:
        return TolerantStream(zstd.ZstdFile(cast("Any", whole)), below=whole)
    return whole


def extension_of(name: str) -> str:
    """The ending of a file's name for its compression, as it is written; empty if it has none."""
    return next((name[-len(end) :] for end in EXTENSIONS if name.lower().endswith(end)), "")


def compressed(file: BinaryIO, name: str) -> BinaryIO:
    """A stream that compresses into `file`, as the ending of `name` says.

    The same input gives the same bytes. Closing the stream leaves `file` open.
    """
    match EXTENSIONS.get(extension_of(name).lower()):
        case "gzip":
            # Without time stamp and name, so that two runs give identical bytes.
            return cast("BinaryIO", gzip.GzipFile("", "wb", 6, fileobj=file, mtime=0))
        case "zstd":
            packed = zstd.ZstdFile(file, "wb", options=_CHECKED)
            packed.write(b"")  # an empty file without a frame would be refused by the zstd tool
            return cast("BinaryIO", packed)
        case _:
            return cast("BinaryIO", _Open(file))


class _Open(io.BufferedWriter):
    """A writer that leaves its raw file open when it is closed."""

    def close(self) -> None:
        if not self.closed:
            self.detach()
