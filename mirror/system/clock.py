"""A clock that cannot be set, and that continues while the machine sleeps."""

from __future__ import annotations

import time


def since_boot() -> float:
    """Return seconds since the machine started, including the time that it slept.

    `time.monotonic` stops during sleep on Linux and macOS. Each has another clock that does not.
    """
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):
        if (number := getattr(time, name, None)) is not None:
            return time.clock_gettime(number)
    return time.monotonic()
