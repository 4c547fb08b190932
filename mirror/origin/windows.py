"""Sliding windows: how much there was of something in the last hour. Pure, in bounded memory.

Time is cut into slices, `SLICES` to a window. What falls into a slice counts until the whole slice
has left the window: too long by a slice at most, never too short. So no window of that length, by
whosever clock it begins, holds more than the limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

SLICES: Final = 360


@dataclass
class Window:
    """At most `limit` of something in any `seconds`.

    Attributes:
        counts: by slice; at most `SLICES` + 2 of them.
    """

    seconds: float
    limit: int
    counts: dict[int, int] = field(default_factory=dict)

    def _slice(self, now: float) -> int:
        return math.floor(now * SLICES / self.seconds)

    def _leaves_at(self, at: int) -> float:
        return (at + 1) * self.seconds / SLICES + self.seconds

    def forget(self, now: float) -> None:
        """Let go of what has left the window."""
        for at in [at for at in self.counts if self._leaves_at(at) <= now]:
            del self.counts[at]

    def add(self, now: float, amount: int) -> None:
        self.forget(now)
        at = self._slice(now)
        self.counts[at] = self.counts.get(at, 0) + amount

    def fits_at(self, now: float, amount: int) -> float:
        """When `amount` more will fit; `now` when it does already, infinity when it never will."""
        within = [at for at in self.counts if self._leaves_at(at) > now]
        excess = sum(self.counts[at] for at in within) + amount - self.limit
        if excess <= 0:
            return now
        for at in sorted(within):
            excess -= self.counts[at]
            if excess <= 0:
                return self._leaves_at(at)
        return math.inf

    def as_value(self) -> list[list[int]]:
        return [[at, amount] for at, amount in sorted(self.counts.items())]

    def take_value(self, value: Any, seconds: float) -> None:
        """Remember what a window of another time counted; its length may have been another."""
        width = seconds / SLICES
        for at, amount in value:
            # The end of the slice: where lengths differ, later is on the safe side.
            mine = self._slice((at + 1) * width) if seconds != self.seconds else at
            self.counts[mine] = self.counts.get(mine, 0) + amount
