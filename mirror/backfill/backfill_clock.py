"""A clock that only goes forward, from one run to the next, however the system's time is set.

Limits and pauses are counted by it. Within a run, and between two runs of one boot, it follows the
machine's clock since boot. That clock cannot be set, and it goes on while the machine sleeps. Only
after a restart is the system's time used, and only forwards. So a clock that was set back makes no
window longer, and one that was years ahead by mistake stops nothing.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from mirror.system.clock import since_boot

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class ClockReading(NamedTuple):
    """A reading of the machine's clocks.

    Attributes:
        wall: seconds since 1970.
        since_boot: seconds since boot.
        boot: the id of this boot; empty where the system has none.
    """

    wall: float
    since_boot: float
    boot: str

    @classmethod
    def now(cls) -> ClockReading:
        boot = ""
        with suppress(OSError):
            boot = _BOOT_ID.read_text().strip()
        return cls(time.time(), since_boot(), boot)


def resumed_time(saved: Any, reading: ClockReading) -> float:
    """The time of a run that begins now.

    | saved by an earlier run | the time is                                          |
    |-------------------------|------------------------------------------------------|
    | nothing                 | the system's time                                    |
    | in this boot            | the saved time and the seconds that have passed since|
    | in another boot         | the system's time, but not before the saved time     |

    Args:
        saved: the result of `to_save` in the earlier run, or None.
        reading: the machine's clocks now.
    """
    if saved is None:
        return reading.wall
    now, since, boot = saved
    if boot and boot == reading.boot and reading.since_boot >= since:
        return float(now + reading.since_boot - since)
    return max(float(now), reading.wall)


def to_save(now: float, reading: ClockReading) -> list[Any]:
    """The state from which the next run resumes.

    Args:
        now: the time of this run.
        reading: the machine's clocks at that time.
    """
    return [now, reading.since_boot, reading.boot]


class BackfillClock:
    """The clock of one run; calling it returns the time in seconds.

    Args:
        saved: the result of `to_save` in the last run, or None.
    """

    def __init__(self, saved: Any = None) -> None:
        reading = ClockReading.now()
        self._offset = resumed_time(saved, reading) - reading.since_boot
        self._boot = reading.boot

    def __call__(self) -> float:
        return since_boot() + self._offset

    def to_save(self) -> list[Any]:
        """The state from which the next run resumes."""
        since = since_boot()
        return to_save(since + self._offset, ClockReading(0.0, since, self._boot))
