"""Time that only goes forward, from one run to the next, whatever is done to the clock on the wall.

Limits and pauses are counted in it. While a run goes on it follows the machine's own clock since
boot, which nobody sets, and which goes on while the machine sleeps. Between two runs of one boot it
does the same. Only over a restart must the wall be believed, and only forwards: a clock that was set
back makes no window longer, and one that was wrong and years ahead stops nothing.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from mirror.system.clock import since_boot

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class ClockReading(NamedTuple):
    """What a machine's clocks say. `boot`: which boot of it; empty where that is not told."""

    wall: float
    since_boot: float
    boot: str

    @classmethod
    def now(cls) -> ClockReading:
        boot = ""
        with suppress(OSError):
            boot = _BOOT_ID.read_text().strip()
        return cls(time.time(), since_boot(), boot)


def resumed(kept: Any, seen: ClockReading) -> float:
    """What time it is in a run that begins at `seen`.

    | kept of an earlier run | then it is                                             |
    |------------------------|--------------------------------------------------------|
    | nothing                | the wall's time                                        |
    | of this boot           | the kept time, and what has passed since by its clock  |
    | of another boot        | the wall's time, but never earlier than the kept one   |

    Args:
        kept: what `to_keep` gave then, or None.
        seen: the machine's clocks now.
    """
    if kept is None:
        return seen.wall
    now, since, boot = kept
    if boot and boot == seen.boot and seen.since_boot >= since:
        return float(now + seen.since_boot - since)
    return max(float(now), seen.wall)


def to_keep(now: float, seen: ClockReading) -> list[Any]:
    """What the next run resumes from; `now` is the time of this one when the clocks said `seen`."""
    return [now, seen.since_boot, seen.boot]


class BackfillClock:
    """The time of one run: call it."""

    def __init__(self, kept: Any = None) -> None:
        seen = ClockReading.now()
        self._offset = resumed(kept, seen) - seen.since_boot
        self._boot = seen.boot

    def __call__(self) -> float:
        return since_boot() + self._offset

    def to_keep(self) -> list[Any]:
        since = since_boot()
        return to_keep(since + self._offset, ClockReading(0.0, since, self._boot))
