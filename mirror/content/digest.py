"""Read a file once: its XXH3-128, its SHA-256, and a check that it did not change meanwhile.

The XXH3-128 is the content hash and makes the object's key. It is fast but not collision-resistant,
and strangers upload the images. So two files are one object only if their SHA-256 agrees too.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import NamedTuple

import xxhash

from mirror.system.files import open_regular


class Digest(NamedTuple):
    """Hashes of some bytes. `content_hash`: XXH3-128, 16 bytes; `sha256`: 32 bytes; `size`: bytes."""

    content_hash: bytes
    sha256: bytes
    size: int


class Identity(NamedTuple):
    """Tells whether a file has changed, without reading it."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Identity:
        return cls(stat.st_size, signed_64(stat.st_mtime_ns), stat.st_ino)


def signed_64(number: int) -> int:
    """Wrap a number into 64 bits with a sign.

    A time in nanoseconds has more bits before the year 1678 and from 2262 on, and some clocks and
    archives make such files. Times are only compared for equality.
    """
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


class FileChanged(Exception):
    """The file was written to while it was read."""


class FileContents(NamedTuple):
    """A file that was read.

    Attributes:
        body: all its bytes, or None if the file is larger than the caller's limit.
        head: its first bytes, up to 64 KiB.
    """

    digest: Digest
    identity: Identity
    body: bytes | None
    head: bytes


HEAD_BYTES = 64 << 10
CHUNK_BYTES = 4 << 20
# Larger files are hashed in chunks, and read again to be sent in parts.
WHOLE_UP_TO = 32 << 20


def digest_of(data: bytes) -> Digest:
    """Digest bytes in memory."""
    return Digest(xxhash.xxh3_128_digest(data), sha256(data).digest(), len(data))


class Hasher:
    """Digests bytes that arrive in pieces."""

    def __init__(self) -> None:
        self._xxh = xxhash.xxh3_128()
        self._sha = sha256()
        self._size = 0

    def update(self, chunk: bytes | memoryview) -> None:
        self._xxh.update(chunk)
        self._sha.update(chunk)
        self._size += len(chunk)

    def digest(self) -> Digest:
        return Digest(self._xxh.digest(), self._sha.digest(), self._size)


def read(path: bytes | str, *, keep_up_to: int) -> FileContents:
    """Read a file once and digest it.

    Args:
        path: the file. Everything but a regular file is refused (OSError), a symbolic link too.
        keep_up_to: size in bytes up to which `body` is kept; larger files are hashed in chunks.

    Raises:
        FileChanged: size, mtime or inode changed during the read.
        OSError: the file cannot be opened or read, or is not a regular file.
    """
    # A file object would make twice as many system calls, and at each of them another thread may
    # take the interpreter's lock.
    file, status = open_regular(path)
    try:
        before = Identity.of(status)
        body = _whole(file, before.size) if before.size <= keep_up_to else None
        if body is not None:
            head, digest = body[:HEAD_BYTES], digest_of(body)
        else:
            head, digest = _digest_in_chunks(file)
        after = Identity.of(os.fstat(file))
    finally:
        os.close(file)
    if before != after or digest.size != before.size:
        raise FileChanged
    return FileContents(digest, before, body, head)


def _whole(file: int, size: int) -> bytes:
    """Read `size` bytes, or fewer at the end. The caller notices a file that has grown by its size."""
    body = os.read(file, size)
    while len(body) < size and (more := os.read(file, size - len(body))):
        body += more
    return body


def _digest_in_chunks(file: int) -> tuple[bytes, Digest]:
    hasher = Hasher()
    head = b""
    while chunk := os.read(file, CHUNK_BYTES):
        head = head or chunk[:HEAD_BYTES]
        hasher.update(chunk)
    return head, hasher.digest()
