"""How many bytes a fetch cache holds: a number in a file, changed under a lock by all processes.

Room is reserved before an image is written. A process that is killed may leave the number too high,
never too low, and so does whoever deletes images. What is really there is therefore counted again when
a process finds no room for the first time, if that was not done in the last minute, and then once an
hour, by one process. Until that is through, the cache counts as full: reading does not wait for it.
`mirror prefetch` does, before it fetches anything and before it says that the cache is full.
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
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# Bytes, when they were last counted (seconds since the epoch), and a check of both.
_NUMBERS: Final = struct.Struct("<QdI")
# Seconds since the last count after which the next is due, and for who finds no room at first.
COUNT_EVERY: Final = 3600.0
COUNT_FIRST: Final = 60.0
# A process that is stopped while it holds the lock must not stop all others.
_PATIENCE: Final = 0.5


class DiskUsage:
    """The number. Safe for threads; made anew in each process, for a fork shares locks.

    Where the file refuses, or is closed, each of its methods raises OSError.

    Args:
        path: of the file; one that is new or damaged begins with what is there.
        count: counts that, in bytes.

    Raises:
        OSError: it cannot be opened for writing.
    """

    def __init__(self, path: Path, count: Callable[[], int]) -> None:
        self._count = count
        self._mutex = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with self._locked():
            self._read()

    def reserve(self, size: int, most: int) -> bool:
        """Whether there is room for `size` bytes more; if so they are counted from now on."""
        with self._locked() as held:
            if not held:
                return False
            used, counted_at = self._read()
            if used + size > most:
                return False
            self._write(used + size, counted_at)
            return True

    def release(self, size: int) -> None:
        """So many bytes are no longer there."""
        with self._locked() as held:
            if held:  # else the number stays too high until the next count
                used, counted_at = self._read()
                self._write(max(0, used - size), counted_at)

    @property
    def used(self) -> int:
        """Bytes that are kept or reserved."""
        with self._locked():
            return self._read()[0]

    def count_is_due(self, after: float) -> bool:
        """Whether to call `count_again`; one process is told so, `after` seconds from the last time."""
        with self._locked() as held:
            if not held:
                return False
            used, counted_at = self._read()
            due = not 0 <= time.time() - counted_at < after
            if due:
                self._write(used, time.time())
            return due

    def count_again(self) -> None:
        """Set the number to what is there; may take long, and holds nobody up meanwhile."""
        before = self.used
        there = self._count()
        with self._locked() as held:
            if held:
                now, counted_at = self._read()
                # What was reserved while it was counted may be counted twice: never too low.
                self._write(there + max(0, now - before), counted_at)

    def close(self) -> None:
        """Once; of a thread that still counts, the next step is then an error."""
        with self._mutex:
            # Forgotten with it: its number is given to the next file that anybody opens.
            file, self._file = self._file, -1
            os.close(file)

    def _read(self) -> tuple[int, float]:
        raw = os.pread(self._file, _NUMBERS.size, 0)
        if len(raw) == _NUMBERS.size:
            used, counted_at, check = _NUMBERS.unpack(raw)
            if check == _check(used, counted_at):
                return used, counted_at
        used, counted_at = self._count(), time.time()
        self._write(used, counted_at)
        return used, counted_at

    def _write(self, used: int, counted_at: float) -> None:
        os.pwrite(self._file, _NUMBERS.pack(used, counted_at, _check(used, counted_at)), 0)

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Holds the file for this thread alone; False where that cannot be had soon.

        Raises:
            OSError: it is closed, or refuses.
        """
        deadline = time.monotonic() + _PATIENCE
        with self._mutex:
            if self._file < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            while not (held := _lock(self._file)) and time.monotonic() < deadline:
                time.sleep(0.001)
            try:
                yield held
            finally:
                if held:
                    fcntl.flock(self._file, fcntl.LOCK_UN)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check(used: int, counted_at: float) -> int:
    return zlib.crc32(struct.pack("<Qd", used, counted_at))
