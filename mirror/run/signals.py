"""How a run answers Ctrl-C and SIGTERM."""

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
    """Call `interrupt` on the event loop at the first signal; end the process at the second.

    Ending at once loses nothing that was acknowledged. The next run finds objects without a row,
    compares them and catalogues them.
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
            with suppress(
                ValueError, RuntimeError
            ):  # outside the main thread signals are the caller's task
                loop.add_signal_handler(number, answer)
                added.append(number)
        yield
    finally:
        for number in added:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


@contextmanager
def leaving_at_once_on_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt at once in the block.

    asyncio would answer it only when the loop is free again. A walk of the cache holds the loop and
    has nothing to finish first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
