"""Locks around a fork: one that is free in the child, one that a fork waits for, and file locks."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from typing import Final

from mirror.system.files import open_sole_name


class ForkLock:
    """A `threading.Lock` that is free in a forked child, even if a thread of the parent held it.

    Work that it guards must be repeatable: the child does it again from the start.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        self._lock = threading.Lock()


_locks: Final[weakref.WeakSet[ForkLock]] = weakref.WeakSet()


# A fork waits while another thread holds this lock. Hold it for work in OpenSSL or obstore: a lock
# of theirs that a thread of the parent holds at the fork would never be free in the child.
NO_FORK: Final = threading.RLock()

# Descriptors that a forked child closes. It shares their file locks (flock): if the parent is killed,
# a lock would last as long as the child.
_unshared: Final[set[int]] = set()

_forked = False


def open_unshared(
    path: str | os.PathLike[str], flags: int, mode: int = 0o644, *, dir_fd: int | None = None
) -> int:
    """Open a file that is to be locked with flock. A forked child does not inherit the lock.

    Close the descriptor with `close_unshared`.

    Raises:
        OSError: as for `os.open`; or it is not a regular file, or has another name.
    """
    with NO_FORK:
        descriptor = open_sole_name(path, flags, mode, dir_fd=dir_fd)
        _unshared.add(descriptor)
    return descriptor


def close_unshared(descriptor: int) -> None:
    """Close a descriptor from `open_unshared`. The locks of this process end.

    Raises:
        OSError: as for `os.close`.
    """
    with NO_FORK:
        _unshared.discard(descriptor)
        os.close(descriptor)


def is_forked() -> bool:
    """Whether this process was forked after this module was imported, without an exec since."""
    return _forked


def _in_child() -> None:
    global _forked  # noqa: PLW0603 - a fact about the process
    _forked = True
    NO_FORK.release()
    for descriptor in _unshared:
        with suppress(OSError):
            os.close(descriptor)
    _unshared.clear()
    for lock in list(_locks):
        lock.renew()


os.register_at_fork(
    before=NO_FORK.acquire, after_in_parent=NO_FORK.release, after_in_child=_in_child
)
