"""gzip and Zstandard, by a file's first bytes when reading and by its name when writing."""

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

# What a file's name ends with → how it is compressed.
EXTENSIONS: Final = {".gz": "gzip", ".zst": "zstd"}

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_CHECKED: Final[dict[int, int]] = {zstd.CompressionParameter.checksum_flag: 1}
_MOST: Final = 1 << 20


class Readable(Protocol):
    """What a `TolerantStream` reads from: at least one byte at a time, none at the end."""

    def read1(self, size: int, /) -> bytes: ...


class TolerantStream(io.BufferedIOBase):
    """A file that is read as far as it can be: where it breaks off, it ends.

    Args:
        file: to read from.
        head: what comes before it.
        below: the stream that `file` decompresses: the reason may be there.

    Attributes:
        broken: why it ends where it does, if that is not its end.
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

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes; fewer only at the end."""
        missing = sys.maxsize if size is None or size < 0 else size
        parts = []
        while missing and (part := self.read1(missing)):
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        size = _MOST if size < 0 else min(size, _MOST)
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
    """What `file` holds, decompressed if its first bytes say that it is compressed."""
    # Read, not peeked at: all that a pipe has at first may be one byte.
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
    """The ending of a file's name that says how it is compressed, as it is written; else empty."""
    return next((name[-len(end) :] for end in EXTENSIONS if name.lower().endswith(end)), "")


def compressed(file: BinaryIO, name: str) -> BinaryIO:
    """A stream that writes to `file`, compressed as `name` asks; the same bytes for the same input.

    Closing it leaves `file` open.
    """
    match EXTENSIONS.get(extension_of(name).lower()):
        case "gzip":
            # No time stamp and no name inside: running twice gives identical bytes.
            return cast("BinaryIO", gzip.GzipFile("", "wb", 6, fileobj=file, mtime=0))
        case "zstd":
            packed = zstd.ZstdFile(file, "wb", options=_CHECKED)
            packed.write(b"")  # or nothing would be no frame, which zstd's own tool refuses
            return cast("BinaryIO", packed)
        case _:
            return cast("BinaryIO", _Open(file))


class _Open(io.BufferedWriter):
    """Passes on what is written, and stays open when it is closed."""

    def close(self) -> None:
        if not self.closed:
            self.detach()
