"""Unnamed files that a process and its workers share.

The processes of a training share the table of samples, which is memory-mapped so that reading copies
nothing, and the state of the run. A file is gone when the last process that has it open ends, killed
or not. No room in /dev/shm is needed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mirror.errors import StateError

_NO_ITERATION: Final = (-1,) * 5


class SharedFile:
    """A shared file; any process may append to it.

    Workers get the file itself, by fork, spawn and forkserver alike. Any other pickle makes a copy.

    Args:
        fd: the descriptor of an open file to take over; None makes a new file.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is not None:
            self._fd = fd
            return
        with tempfile.TemporaryFile(prefix="mirror-", buffering=0) as file:
            self._fd = os.dup(file.fileno())
        # With O_APPEND the kernel seeks and writes in one step, so writes of two processes do not mix.
        fcntl.fcntl(self._fd, fcntl.F_SETFL, fcntl.fcntl(self._fd, fcntl.F_GETFL) | os.O_APPEND)

    @property
    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def append(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            StateError: the disk is full.
        """
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            raise StateError(
                f"The data that workers share cannot be written to {tempfile.gettempdir()} "
                f"({error.strerror}); set TMPDIR to a folder with room for 100 bytes a sample."
            ) from None

    def read(self, at: int, nbytes: int) -> bytes:
        """Read up to `nbytes` bytes from offset `at`."""
        return os.pread(self._fd, nbytes, at)

    def mapped(self, kind: DTypeLike) -> NDArray[Any]:
        """Map the file, at its present size, as an array that writes through to it."""
        if not self.size:
            return np.empty(0, kind)
        return np.frombuffer(mmap.mmap(self._fd, self.size), kind)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold a lock that one process at a time can have; it is released when the process ends."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is not None:
            return _of_handle, (DupFd(self._fd),)
        return _of_bytes, (self.read(0, self.size),)

    def __del__(self) -> None:
        fd = getattr(self, "_fd", None)
        if fd is not None:
            os.close(fd)


class SharedPosition:
    """Where the next iteration begins: set by one process, read by its workers.

    Attributes:
        seed: seed of the order and of replacements.
        epoch: the epoch.
        begin: the position in the epoch.
    """

    def __init__(self, file: SharedFile) -> None:
        self._file = file
        self._numbers = file.mapped(np.int64)

    @classmethod
    def at(cls, seed: int, epoch: int = 0, begin: int = 0) -> SharedPosition:
        file = SharedFile()
        file.append(np.array([seed, epoch, begin, *_NO_ITERATION], np.int64).tobytes())
        return cls(file)

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedPosition, (self._file,)

    @property
    def seed(self) -> int:
        return int(self._numbers[0])

    @property
    def epoch(self) -> int:
        return int(self._numbers[1])

    @property
    def begin(self) -> int:
        return int(self._numbers[2])

    def set(self, seed: int, epoch: int, begin: int) -> None:
        self._numbers[:3] = seed, epoch, begin

    def of_iteration(self, loader: int, number: int) -> tuple[int, int, int]:
        """Seed, epoch and position at which an iteration began.

        They are those at the moment the iteration's first worker asked. The main process may set new
        ones before the last worker asks.

        Args:
            loader: a number that identifies the loader.
            number: the iteration of that loader.
        """
        with self._file.locked():
            if self._numbers[3:5].tolist() != [loader, number]:
                self._numbers[3:] = [loader, number, *self._numbers[:3]]
            seed, epoch, begin = self._numbers[5:].tolist()
        return seed, epoch, begin


def _of_handle(handle: Any) -> SharedFile:
    return SharedFile(handle.detach())


def _of_bytes(data: bytes) -> SharedFile:
    file = SharedFile()
    file.append(data)
    return file
