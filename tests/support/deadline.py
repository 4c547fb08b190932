"""A limit for tests of what must not wait."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seconds_left(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the main thread, even inside a system call, after some seconds."""

    def late(*_: object) -> None:
        raise TimeoutError(f"waited for {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
