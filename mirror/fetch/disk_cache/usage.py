"""The number of bytes in a fetch cache: kept in a file, changed under a lock by all processes.

Room is reserved before an image is written. So a process that is killed may leave the number too
high, never too low; deleting images by hand does the same.

The files are therefore recounted when a process finds no room for the first time, unless that was
done in the last minute. After that, one process recounts once an hour. The cache counts as full until
the recount ends: reading does not wait for it. `mirror prefetch` does wait, before it fetches the
first image and before it reports the cache as full.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mirror.fetch.fork_lock import close_unshared, open_unshared

# Bytes, the time of the last recount (seconds since the epoch), and a checksum of both.
_RECORD: Final = struct.Struct("<QdI")
# Seconds from one recount to the next, and for a process that finds no room for the first time.
RECOUNT_EVERY: Final = 3600.0
RECOUNT_FIRST: Final = 60.0
# A process that is stopped while it holds the lock must not stop all others.
_LOCK_TIMEOUT: Final = 0.5


class DiskUsage:
    """The number of bytes that are kept or reserved.

    Safe for threads. Each process makes its own, because processes share file locks after a fork.
    Every method raises OSError when the file cannot be read or written, or is closed, and TimeoutError
    (an OSError) when another process keeps its lock for too long. Without the lock nothing is written.

    Args:
        path: the file. If it is new or damaged, `count` gives the first number.
        count: counts the bytes of the files that are there.

    Raises:
        OSError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path, count: Callable[[], int]) -> None:
        self._count = count
        self._mutex = threading.Lock()
        self._file = open_unshared(path, os.O_RDWR | os.O_CREAT)
        # A process that keeps the lock may be counting. The first call that gets the lock counts, if need be.
        with suppress(TimeoutError), self._locked():
            self._read()

    def reserve(self, size: int, max_bytes: int) -> bool:
        """Reserve `size` bytes, if the cache then holds at most `max_bytes`."""
        with self._locked():
            used, counted_at = self._read()
            if used + size > max_bytes:
                return False
            self._write(used + size, counted_at)
            return True

    def release(self, size: int) -> None:
        """Subtract `size` bytes that are no longer there."""
        with self._locked():
            used, counted_at = self._read()
            self._write(max(0, used - size), counted_at)

    @property
    def used(self) -> int:
        """Bytes that are kept or reserved."""
        with self._mutex:
            stored = (
                self._stored()
            )  # its checksum tells a half-written record, so no lock is needed
        if stored is not None:
            return stored[0]
        with self._locked():
            return self._read()[0]

    def claim_recount(self, after: float) -> bool:
        """Whether the caller should recount: True for one process, `after` seconds from the last."""
        with self._locked():
            used, counted_at = self._read()
            due = not 0 <= time.time() - counted_at < after
            if due:
                self._write(used, time.time())
            return due

    def recount(self) -> None:
        """Count the files and correct the number. May take long; the lock is free meanwhile."""
        before = self.used
        there = self._count()
        with self._locked():
            now, counted_at = self._read()
            # Bytes reserved during the count may be counted twice: too high, never too low.
            self._write(there + max(0, now - before), counted_at)

    def close(self) -> None:
        """Close the file, once. The next step of a thread that still counts is an error."""
        with self._mutex:
            # The descriptor is forgotten too: the system gives its number to the next open file.
            file, self._file = self._file, -1
            close_unshared(file)

    def _stored(self) -> tuple[int, float] | None:
        """The record; None if the file is new or damaged."""
        raw = os.pread(self._file, _RECORD.size, 0)
        if len(raw) == _RECORD.size:
            used, counted_at, checksum = _RECORD.unpack(raw)
            if checksum == _checksum(used, counted_at):
                return used, counted_at
        return None

    def _read(self) -> tuple[int, float]:
        """The record, made if need be. Only under the lock."""
        if (stored := self._stored()) is not None:
            return stored
        used, counted_at = self._count(), time.time()
        self._write(used, counted_at)
        return used, counted_at

    def _write(self, used: int, counted_at: float) -> None:
        os.pwrite(self._file, _RECORD.pack(used, counted_at, _checksum(used, counted_at)), 0)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file's lock.

        Raises:
            TimeoutError: another process keeps it for too long.
            OSError: the file is closed, or locking it fails.
        """
        deadline = time.monotonic() + _LOCK_TIMEOUT
        with self._mutex:
            if self._file < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            while not _lock(self._file):
                if time.monotonic() >= deadline:
                    raise TimeoutError(
                        errno.ETIMEDOUT, "another process keeps the lock of its usage"
                    )
                time.sleep(0.001)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _checksum(used: int, counted_at: float) -> int:
    return zlib.crc32(struct.pack("<Qd", used, counted_at))
