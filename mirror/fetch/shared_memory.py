"""A file without a name that this process and its workers have open together.

What the processes of a training share lives in such files: the table of its samples, mapped, so that
reading it copies nothing, and what is known of the run so far. They are gone with the last process
that has them open, killed or not, and need no room in /dev/shm.
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
    """Bytes at the end of which any of the processes may put more.

    Workers get the file itself, by fork, spawn and forkserver alike. Pickled for anybody else it is a
    copy.

    Args:
        fd: an open file to take over; None makes one.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is not None:
            self._fd = fd
            return
        with tempfile.TemporaryFile(prefix="mirror-", buffering=0) as file:
            self._fd = os.dup(file.fileno())
        # The kernel then finds the end and writes there in one step: two processes never mix.
        fcntl.fcntl(self._fd, fcntl.F_SETFL, fcntl.fcntl(self._fd, fcntl.F_GETFL) | os.O_APPEND)

    @property
    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def append(self, data: bytes) -> None:
        """Raises: StateError: there is no room."""
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            raise StateError(
                f"What workers share cannot be written to {tempfile.gettempdir()} "
                f"({error.strerror}); set TMPDIR to a folder with room, 100 bytes a sample."
            ) from None

    def read(self, at: int, nbytes: int) -> bytes:
        """Up to so many bytes from a place on."""
        return os.pread(self._fd, nbytes, at)

    def mapped(self, kind: DTypeLike) -> NDArray[Any]:
        """All of it as it is now, as an array that writes through to the file."""
        if not self.size:
            return np.empty(0, kind)
        return np.frombuffer(mmap.mmap(self._fd, self.size), kind)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Of all processes one at a time; the lock goes with its holder."""
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
    """Where the next iteration begins: one process says it, its workers read it.

    Attributes:
        seed: of orders and replacements.
        epoch: which one.
        begin: position in it.
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
        """Seed, epoch and position with which an iteration began: as they were when the first of its
        workers asked. Who says them may have gone on before the last one does.

        Args:
            loader: a number of what iterates, and of nothing else that ever does.
            number: of the iteration.
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
