"""Hedged requests: when to send a second request because the first is slow. Pure.

The rule is that of Dean & Barroso, "The Tail at Scale" (2013): hedge after the 95th percentile of
recent durations, and for a small share of all requests only.

    recent answers   recently throttled   share used up   → a second request
    fewer than 100   –                    –               never
    enough           yes                  –               never: it would make things worse
    enough           no                   yes             never
    enough           no                   no              after the percentile, 50 ms at least
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

# Recent answers that the percentile is taken of, and the answers between two updates of it.
_RECENT: Final = 512
_UPDATE_EVERY: Final = 64


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """When a second request may be sent.

    Attributes:
        share: share of all requests that may be hedges.
        percentile: percentile of recent durations after which a hedge is sent.
        floor: seconds before which no hedge is sent, whatever the percentile.
        cooldown: seconds without hedges after a throttling response.
        min_answers: answers that must have come before the first hedge.
    """

    share: float = 0.02
    percentile: float = 0.95
    floor: float = 0.05
    cooldown: float = 10.0
    min_answers: int = 100


class Hedging:
    """Measures durations and decides when to hedge. The caller passes the time in."""

    def __init__(self, policy: HedgePolicy) -> None:
        self._policy = policy
        self._durations: deque[float] = deque(maxlen=_RECENT)
        self._answers = 0
        self._requests = 0
        self._hedges = 0
        self._delay: float | None = None
        self._paused_until = float("-inf")

    def note_answer(self, seconds: float) -> None:
        """An image came after `seconds`."""
        self._durations.append(seconds)
        self._answers += 1
        if self._answers >= self._policy.min_answers and (
            self._delay is None or self._answers % _UPDATE_EVERY == 0
        ):
            at = int(self._policy.percentile * len(self._durations))
            self._delay = max(self._policy.floor, sorted(self._durations)[at])

    def note_throttled(self, now: float) -> None:
        """The server asked to slow down."""
        self._paused_until = now + self._policy.cooldown

    def start(self, now: float) -> float | None:
        """Count a first request; returns the seconds until its hedge is due, or None for no hedge."""
        self._requests += 1
        return self._delay if now >= self._paused_until else None

    def claim(self, now: float) -> bool:
        """Whether the hedge that is due may be sent; if so, it is counted."""
        within_share = self._hedges + 1 <= self._policy.share * self._requests
        if not within_share or now < self._paused_until:
            return False
        self._hedges += 1
        return True
