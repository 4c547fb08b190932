"""A lock that a forked child finds free, whoever held it in its parent."""

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


def _renew_all() -> None:
    for lock in list(_locks):
        lock.renew()


os.register_at_fork(after_in_child=_renew_all)
