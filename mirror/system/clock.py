"""A clock that nobody sets and that goes on while the machine sleeps."""

from __future__ import annotations

import time


def since_boot() -> float:
    """Seconds. `time.monotonic` stands still during a sleep on Linux and on macOS; each has one that
    does not, under another name.
    """
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):
        if (number := getattr(time, name, None)) is not None:
            return time.clock_gettime(number)
    return time.monotonic()
