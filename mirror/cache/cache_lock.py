"""The lock of a cache: one run at a time writes files there, on every machine that shares it.

The lock is a file in the cache itself, because two machines may share nothing else. Linux turns
`flock` into a byte-range lock on NFS, which the server keeps for all its clients; it needs a file that
is open for writing, so a lock on the folder would not do. The holder deletes the file at the end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from typing import Final

from mirror.cache.safe_folder import SafeFolder
from mirror.cache.scan import display
from mirror.errors import Busy
from mirror.run.lock_holder import LONGEST, as_shown, write_holder

LOCK_NAME: Final = b".mirror-lock"

_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}
# A holder may delete the file between another run's open and its lock. It can hardly do so this often.
_ATTEMPTS: Final = 10


@contextmanager
def cache_locked(tree: SafeFolder, root: bytes, command: str) -> Iterator[bool]:
    """Hold the lock of an open cache folder; the kernel frees it when the process ends.

    Args:
        tree: the folder.
        root: its path, for the message.
        command: of this run; another run that is refused tells it.

    Yields:
        Whether the lock is held. False where the file system has no locks: then other runs may be
        writing, and their part files must stay.

    Raises:
        Busy: another run holds it.
        OSError: the lock file cannot be created.
    """
    with tree.parent(LOCK_NAME) as folder:
        file = _acquire(folder, root)
        try:
            if file is not None:
                _note_holder(file, command)
            yield file is not None
        finally:
            if file is not None:
                with suppress(OSError):
                    os.unlink(LOCK_NAME, dir_fd=folder)  # before the lock is freed
                os.close(file)


def _acquire(folder: int, root: bytes) -> int | None:
    """Return the descriptor that has the lock, or None where the file system has no locks."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    holder = ""
    for _ in range(_ATTEMPTS):
        file = os.open(LOCK_NAME, flags, 0o666, dir_fd=folder)
        try:
            flock(file, LOCK_EX | LOCK_NB)
            if _has_name(folder, file):
                return file
        except (BlockingIOError, PermissionError):  # EACCES is what NFS may answer
            holder = _holder(file)
            os.close(file)
            break
        except OSError as error:
            os.close(file)
            if error.errno not in _NO_LOCKS:
                raise
            with suppress(OSError):
                os.unlink(LOCK_NAME, dir_fd=folder)
            return None
        os.close(file)
    raise Busy(
        f"Another run writes to the cache folder {display(root)} (a pull, a backfill or a quarantine "
        f"that restores), here or on another machine{holder}; wait for it to end and run again."
    )


def _note_holder(file: int, command: str) -> None:
    """Write which run has the lock, unless another user made the name a link to some other file."""
    status = os.fstat(file)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        with suppress(OSError):  # such as a full disk
            write_holder(file, command)


def _holder(file: int) -> str:
    try:
        return as_shown(os.pread(file, LONGEST, 0))
    except OSError:
        return ""


def _has_name(folder: int, file: int) -> bool:
    """Whether the locked file is still the one that the next run would open."""
    try:
        status = os.stat(LOCK_NAME, dir_fd=folder, follow_symlinks=False)
        return os.path.samestat(status, os.fstat(file))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise
