"""One read of a file → its xxh3-128, its SHA-256, and proof that it held still meanwhile.

The xxh3-128 is the object's key. It is fast but not collision-resistant, and the images are
strangers' uploads: two files are one object only if their SHA-256 agrees too.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import NamedTuple

import xxhash


class Digest(NamedTuple):
    """`content_hash`: xxh3-128, 16 bytes; `sha256`: 32 bytes; `size` in bytes."""

    content_hash: bytes
    sha256: bytes
    size: int


class Identity(NamedTuple):
    """What tells a file that did not change from one that did, without reading it."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Identity:
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


class FileChanged(Exception):
    """The file was written to while it was read."""


class FileContents(NamedTuple):
    """A file as it was read.

    Attributes:
        body: all its bytes, or None where the file is larger than the caller wanted in memory.
        head: its first bytes (up to 64 KiB).
    """

    digest: Digest
    identity: Identity
    body: bytes | None
    head: bytes


HEAD_BYTES = 64 << 10
CHUNK_BYTES = 4 << 20
# Larger files are hashed in chunks, and sent in parts from a second read.
WHOLE_UP_TO = 32 << 20


def digest_of(data: bytes) -> Digest:
    return Digest(xxhash.xxh3_128_digest(data), sha256(data).digest(), len(data))


class Hasher:
    """Digest of bytes that arrive in pieces."""

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
        path: the file; a symbolic link is refused (OSError), for nothing in a cache is one.
        keep_up_to: keep the bytes of a file up to this size, in bytes; larger ones are hashed in
            chunks and let go.

    Raises:
        FileChanged: size, mtime or inode differ after the read from before it.
        OSError: the file cannot be opened or read.
    """
    # Not a file object, which asks the kernel twice as much: every call is a chance for another
    # thread to take the interpreter's lock.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        before = Identity.of(os.fstat(file))
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
    """As many bytes, or fewer at the file's end; one that has grown meanwhile is seen by its size."""
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
