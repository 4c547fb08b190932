"""What Ctrl-C and SIGTERM do to a run."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mirror.errors import EXIT_INTERRUPTED


@contextmanager
def stopping_on_signals(interrupt: Callable[[], object]) -> Iterator[None]:
    """The first signal calls `interrupt` on the event loop; a second one leaves at once.

    Leaving at once loses nothing acknowledged: what stands in the bucket without a row is met by
    the next run, compared, and catalogued.
    """
    loop = asyncio.get_running_loop()
    asked = False

    def answer() -> None:
        nonlocal asked
        if asked:
            os._exit(EXIT_INTERRUPTED)
        asked = True
        interrupt()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    added = []
    try:
        for number in before:
            with suppress(ValueError, RuntimeError):  # outside the main thread: the caller's affair
                loop.add_signal_handler(number, answer)
                added.append(number)
        yield
    finally:
        for number in added:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


@contextmanager
def leaving_at_once_on_ctrl_c() -> Iterator[None]:
    """A Ctrl-C is answered by asyncio when the loop is free again; a walk has nothing to finish first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
