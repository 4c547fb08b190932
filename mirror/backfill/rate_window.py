"""Sliding windows: how much was counted in the last hour, say. Pure, in bounded memory.

Time is cut into slices, `SLICES` to a window. An amount counts until its whole slice has left the
window: too long by at most one slice, and never too short. So no period of that length holds more than
the limit, whichever clock it is measured by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

SLICES: Final = 360


@dataclass
class RateWindow:
    """Allows at most `limit` within any `seconds`.

    Attributes:
        counts: the amount of each slice, the earliest first; at most `SLICES` + 2 slices.
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
        """Count an amount, and forget what has left the window. `now` must not decrease."""
        while (first := next(iter(self.counts), None)) is not None:
            if self._leaves_at(first) > now:
                break
            self._total -= self.counts.pop(first)
        at = self._slice(now)
        self.counts[at] = self.counts.get(at, 0) + amount
        self._total += amount

    def fits_at(self, now: float, amount: int) -> float:
        """When `amount` more will fit: `now` if it fits already, infinity if it never will."""
        excess = self._total + amount - self.limit
        if excess <= 0:
            return now
        for at, counted in self.counts.items():
            excess -= counted
            if excess <= 0:
                return max(now, self._leaves_at(at))
        return math.inf

    def as_value(self) -> list[list[int]]:
        """The counts as a value for JSON."""
        return [[at, amount] for at, amount in self.counts.items()]

    def restore(self, value: Any, seconds: float) -> None:
        """Add the counts of a saved window, whose length may have been different.

        Args:
            value: from `as_value`.
            seconds: the length of the saved window.
        """
        width = seconds / SLICES
        for at, amount in value:
            # Take the end of the slice: with another length, later is the safe side.
            mine = self._slice((at + 1) * width) if seconds != self.seconds else at
            self.counts[mine] = self.counts.get(mine, 0) + amount
            self._total += amount
