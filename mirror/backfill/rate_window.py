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
class RateWindow:
    """At most `limit` of something in any `seconds`.

    Attributes:
        counts: by slice, the earliest first; at most `SLICES` + 2 of them.
    """

    seconds: float
    limit: int
    counts: dict[int, int] = field(default_factory=dict)
    _total: int = 0

    def _slice(self, now: float) -> int:
        return math.floor(now * SLICES / self.seconds)

    def _leaves_at(self, at: int) -> float:
        return (at + 1) * self.seconds / SLICES + self.seconds

    def add(self, now: float, amount: int) -> None:
        """Count something, no earlier than what was counted before; forget what has left."""
        while (first := next(iter(self.counts), None)) is not None:
            if self._leaves_at(first) > now:
                break
            self._total -= self.counts.pop(first)
        at = self._slice(now)
        self.counts[at] = self.counts.get(at, 0) + amount
        self._total += amount

    def fits_at(self, now: float, amount: int) -> float:
        """When `amount` more will fit; `now` when it does already, infinity when it never will."""
        excess = self._total + amount - self.limit
        if excess <= 0:
            return now
        for at, counted in self.counts.items():
            excess -= counted
            if excess <= 0:
                return max(now, self._leaves_at(at))
        return math.inf

    def as_value(self) -> list[list[int]]:
        return [[at, amount] for at, amount in self.counts.items()]

    def take_value(self, value: Any, seconds: float) -> None:
        """Remember what a window of another time counted; its length may have been another."""
        width = seconds / SLICES
        for at, amount in value:
            # The end of the slice: where lengths differ, later is on the safe side.
            mine = self._slice((at + 1) * width) if seconds != self.seconds else at
            self.counts[mine] = self.counts.get(mine, 0) + amount
            self._total += amount
