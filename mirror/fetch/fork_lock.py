"""What a forked child must know of itself, and a lock that it finds free, whoever held it."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final


class ForkLock:
    """`threading.Lock`, for what a child works out anew: it has none of its parent's threads."""

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


# A fork waits until no other thread holds it. For work that goes through OpenSSL or obstore: their
# locks, held by a thread of the parent's, would never be free in the child.
NO_FORK: Final = threading.RLock()

_forked = False


def is_forked() -> bool:
    """This process was forked since this module was imported, and has executed no program since."""
    return _forked


def _in_child() -> None:
    global _forked  # noqa: PLW0603 - a fact about the process
    _forked = True
    NO_FORK.release()
    for lock in list(_locks):
        lock.renew()


os.register_at_fork(
    before=NO_FORK.acquire, after_in_parent=NO_FORK.release, after_in_child=_in_child
)
