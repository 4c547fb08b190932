"""When a second request is sent for what the first takes too long over (Dean & Barroso, "The Tail
at Scale", 2013): past the 95th percentile of late, within a small share of all requests. Pure.

    answers of late   throttled of late   within the budget   → a second request
    fewer than 100    –                   –                     never
    enough            yes                 –                     never: it would make things worse
    enough            no                  no                    never
    enough            no                  yes                   after the percentile, 50 ms at least
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

# Answers that the percentile is taken of, and after how many it is taken anew.
_LATE: Final = 512
_EVERY: Final = 64


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """When a second request may be sent.

    Attributes:
        share: of all requests, that may be second ones.
        percentile: of late durations, past which they are sent.
        floor: seconds; none is sent sooner, whatever the percentile.
        calm: seconds after a throttling answer in which none is sent.
        least: answers that must be known before.
    """

    share: float = 0.02
    percentile: float = 0.95
    floor: float = 0.05
    calm: float = 10.0
    least: int = 100


class Hedging:
    """Watches answers and says when to hedge. The clock is the caller's."""

    def __init__(self, policy: HedgePolicy) -> None:
        self._policy = policy
        self._durations: deque[float] = deque(maxlen=_LATE)
        self._answers = 0
        self._requests = 0
        self._hedges = 0
        self._after: float | None = None
        self._calm_at = float("-inf")

    def answered(self, seconds: float) -> None:
        """An image came after so long."""
        self._durations.append(seconds)
        self._answers += 1
        if self._answers >= self._policy.least and (
            self._after is None or self._answers % _EVERY == 0
        ):
            at = int(self._policy.percentile * len(self._durations))
            self._after = max(self._policy.floor, sorted(self._durations)[at])

    def throttled(self, now: float) -> None:
        """The server asked to slow down."""
        self._calm_at = now + self._policy.calm

    def asked(self, now: float) -> float | None:
        """A first request is sent: seconds after which a second one may be; None for never."""
        self._requests += 1
        return self._after if now >= self._calm_at else None

    def take(self, now: float) -> bool:
        """Whether the second request may be sent after all; if so, it counts."""
        within = self._hedges + 1 <= self._policy.share * self._requests
        if not within or now < self._calm_at:
            return False
        self._hedges += 1
        return True
