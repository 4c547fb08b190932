"""How fast one source may be asked: a state machine without I/O, to which the time is told.

    may_start(now) ──► Go ──► started(now) ──► … the request … ──► finished(now, ticket, …)
           └─────────► Wait(seconds, reason)

Four things can make it wait, and the longest wait counts:

| what                          | counts                                   | until                     |
|-------------------------------|------------------------------------------|---------------------------|
| concurrency                   | requests in flight                       | one of them ends          |
| windows: second, hour, day;   | what is in flight, in full, and what     | enough has left the       |
|   bytes an hour and a day     |   ended within the window                |   window                  |
| spacing                       | requests, after a burst at the beginning | its turn comes            |
| pause                         | a refusal's Retry-After                  | it has passed             |
| circuit breaker               | refusals and failures in a row           | it has cooled down        |

A request counts from its start to a whole window after its *end*, because only in between does the
server count it; its bytes count as the most they may be until it is known how many they were. So no
window is overdrawn by the server's clock either.

| a request ended | rate                          | breaker                                       |
|-----------------|-------------------------------|-----------------------------------------------|
| `answered`      | recovers by `RECOVERY`        | closes; the row of failures is over           |
| `refused`       | halves, once for all that     | counts one; opens at `MOST_FAILURES` in a row |
|                 |   were in flight; pauses      |                                               |
| `failed`        | stays                         | counts one, as above                          |
| `forbidden`     | stays                         | as `answered`; but `MOST_FORBIDDEN` in a row  |
|                 |                               |   are a block: opens for the longest time     |
| `redirected`    | stays                         | stays: what the same source says to the next  |
|                 |                               |   request decides                             |

Open, the breaker lets nothing through; when it has cooled down it lets one request through (half
open). That one closes it, or opens it for twice as long.

Time never runs backwards here: an earlier `now` than the last one is taken for the last one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from mirror.backfill.rate_window import RateWindow
from mirror.errors import ConfigError

Outcome = Literal["answered", "refused", "failed", "forbidden", "redirected"]

HOUR: Final = 3600.0
DAY: Final = 86_400.0

SLOWEST: Final = 1 / 64
RECOVERY: Final = 0.01
MOST_FAILURES: Final = 5
MOST_FORBIDDEN: Final = 50
COOL_DOWN: Final = 300.0
LONGEST_COOL_DOWN: Final = 6 * HOUR
# The pause after a refusal that names none, doubled by each one more in a row.
FIRST_PAUSE: Final = 5.0
# No server's Retry-After is taken for more than a day.
LONGEST_PAUSE: Final = DAY
# A fifth of an hour's requests may come one after the other, so that a small backfill is soon done.
_BURST: Final = 5
# Bytes that may be on their way when a transfer is broken off; the server counts them all the same.
ON_THE_WAY: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one source may be asked for at most. `largest`: bytes of one answer.

    Raises:
        ConfigError: one answer may be larger than all that is allowed.
    """

    per_second: float = 1.0
    per_hour: int = 150
    per_day: int = 10_000
    bytes_per_hour: int = 4_500_000_000
    bytes_per_day: int = 22_000_000_000
    concurrency: int = 1
    largest: int = 20_000_000

    def __post_init__(self) -> None:
        if self.reserved > min(self.bytes_per_hour, self.bytes_per_day):
            raise ConfigError(
                f"backfill.max_size and the {ON_THE_WAY:,} bytes that may be on their way are more "
                "than backfill.bytes_per_hour or bytes_per_day: lower the one, or raise the others."
            )

    @property
    def reserved(self) -> int:
        """Bytes that a request may cost until it has ended."""
        return self.largest + ON_THE_WAY

    @property
    def burst(self) -> int:
        """Requests that may come one after the other before they are spaced evenly."""
        return max(1, self.per_hour // _BURST)


class Go(NamedTuple):
    """A request may start now."""


class Wait(NamedTuple):
    """None may start for so long. Without end (infinity): until one that is in flight has ended."""

    seconds: float
    reason: str


@dataclass
class Pace:
    """The pace of one source. All times are seconds, since whenever the caller began to count.

    Attributes:
        limits: what may be asked.
        least_interval: seconds between two requests, where the source states them (robots.txt).
        factor: how much of the allowed rate is used: 1, or less after refusals.
        in_flight: when each request that has not ended was started, by its ticket.
    """

    limits: Limits
    least_interval: float = 0.0
    factor: float = 1.0
    in_flight: dict[int, float] = field(default_factory=dict)
    _latest: float = -math.inf
    _tickets: int = 0
    _turn: float = -math.inf  # when a request would come that is spaced evenly
    _paused_until: float = -math.inf
    _slowed_at: float = -math.inf
    _failures: int = 0
    _forbidden: int = 0
    _forbidden_since: float = 0.0
    _cool_down: float = 0.0  # 0: the breaker is closed
    _open_until: float = -math.inf
    _windows: dict[str, RateWindow] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        most = self.limits
        self._windows = {
            "second": self._second(),
            "hour": RateWindow(HOUR, most.per_hour),
            "day": RateWindow(DAY, most.per_day),
            "bytes an hour": RateWindow(HOUR, most.bytes_per_hour),
            "bytes a day": RateWindow(DAY, most.bytes_per_day),
        }

    def _second(self) -> RateWindow:
        most = self.limits
        # Less than one a second is one in some seconds.
        second = RateWindow(max(1.0, 1.0 / most.per_second), max(1, math.floor(most.per_second)))
        if self.least_interval * second.limit > second.seconds:
            second = RateWindow(self.least_interval, 1)
        return second

    def keep_interval(self, seconds: float) -> None:
        """The source states so many seconds between two requests; the longest that it ever states."""
        if seconds > self.least_interval:
            self.least_interval = seconds
            before, window = self._windows["second"], self._second()
            window.take_value(before.as_value(), before.seconds)
            self._windows["second"] = window

    def breaker(self, now: float) -> Literal["closed", "open", "half-open"]:
        if not self._cool_down:
            return "closed"
        return "open" if max(self._latest, now) < self._open_until else "half-open"

    @property
    def forbidden_since(self) -> float:
        """When the present row of `forbidden` answers began."""
        return self._forbidden_since

    @property
    def _interval(self) -> float:
        """Seconds from one request to the next when they are spaced evenly."""
        return HOUR / (self.limits.per_hour * self.factor)

    @property
    def _burst(self) -> float:
        """Seconds by which requests may come before their turn."""
        return (self.limits.burst - 1) * HOUR / self.limits.per_hour

    def at_once(self, now: float) -> int:
        """Requests that may come one after the other before they are spaced evenly."""
        early = now + self._burst - max(self._turn, now)
        return 0 if early < 0 else math.floor(early / self._interval) + 1

    def may_start(self, now: float) -> Go | Wait:
        """Whether a request may start. Changes nothing."""
        now = max(self._latest, now)
        running = len(self.in_flight)
        if running >= self.limits.concurrency or (self._cool_down and running):
            return Wait(math.inf, "a request is under way")
        waits = [wait for wait in self._waits(now, running) if wait.seconds > 0]
        return max(waits, key=lambda wait: wait.seconds, default=Go())

    def _waits(self, now: float, running: int) -> Iterable[Wait]:
        if self._cool_down:
            reason = f"{self._failures} failures in a row"
            if self.is_blocked:
                reason = (
                    f"{self._forbidden} answers in a row forbade it: this address may be blocked"
                )
            yield Wait(self._open_until - now, reason)
        yield Wait(self._paused_until - now, "the source asked for a pause")
        reason = "spaced evenly" if self.factor == 1 else f"slowed down to {self.factor:.0%}"
        yield Wait(self._turn - self._burst - now, reason)
        for name, window in self._windows.items():
            costs = self.limits.reserved if name.startswith("bytes") else 1
            fits_at = window.fits_at(now, costs * (running + 1))
            if name.startswith("bytes"):
                yield Wait(fits_at - now, f"{window.limit:,} {name}")
            else:
                yield Wait(fits_at - now, f"{window.limit:,} a {name}")

    def started(self, now: float) -> int:
        """A request starts that `may_start` has let go; returns its ticket.

        What this returns must be remembered together with the whole value before anything is sent:
        a process that is killed must not forget that it has asked.
        """
        now = self._now(now)
        self._tickets += 1
        self.in_flight[self._tickets] = now
        self._turn = max(self._turn, now) + self._interval
        return self._tickets

    def finished(
        self,
        now: float,
        ticket: int,
        outcome: Outcome,
        nbytes: int,
        *,
        retry_after: float | None = None,
    ) -> None:
        """A request has ended.

        Args:
            now: when.
            ticket: which.
            outcome: how; see the table above.
            nbytes: what it cost, at most `limits.reserved`.
            retry_after: seconds that the server asked to wait.
        """
        now = self._now(now)
        began = self.in_flight.pop(ticket)
        self._charge(now, nbytes)
        if outcome == "redirected":
            return
        if outcome != "forbidden":
            self._forbidden = 0
        if outcome == "answered":
            self.factor = min(1.0, self.factor + RECOVERY)
            self._failures, self._cool_down = 0, 0.0
        elif outcome == "forbidden":
            self._forbid(now, began)
        else:
            self._failures += 1
            if outcome == "refused":
                self._slow_down(now, began, retry_after)
            # What was in flight when it opened is no news.
            breaker = self.breaker(now)
            enough = self._failures >= MOST_FAILURES
            if breaker == "half-open" or (breaker == "closed" and enough):
                self._open(now, 2 * self._cool_down)

    def _charge(self, now: float, nbytes: int) -> None:
        for name, window in self._windows.items():
            window.add(now, nbytes if name.startswith("bytes") else 1)

    def _slow_down(self, now: float, began: float, retry_after: float | None) -> None:
        if began >= self._slowed_at:  # what was in flight then says nothing new now
            self._slowed_at = now
            self.factor = max(SLOWEST, self.factor / 2)
        pause = (
            FIRST_PAUSE * 2 ** min(self._failures - 1, 16) if retry_after is None else retry_after
        )
        self._paused_until = max(self._paused_until, now + min(max(pause, 0.0), LONGEST_PAUSE))
        # No burst after a refusal: the next one comes when an evenly spaced one would.
        self._turn = max(self._turn, now + self._burst + self._interval)

    def _forbid(self, now: float, began: float) -> None:
        if not self._forbidden:
            self._forbidden_since = began
        self._forbidden += 1
        self._failures, self._cool_down = 0, 0.0
        if self.is_blocked:
            self._open(now, LONGEST_COOL_DOWN)

    def _open(self, now: float, cool_down: float) -> None:
        self._cool_down = min(max(cool_down, COOL_DOWN), LONGEST_COOL_DOWN)
        self._open_until = now + self._cool_down

    @property
    def is_blocked(self) -> bool:
        """So many answers in a row were `forbidden` that it is not the images that are gone."""
        return self._forbidden >= MOST_FORBIDDEN

    def abandon(self, now: float) -> int:
        """What a killed process had in flight counts as ended now, and in full; returns how many."""
        now = self._now(now)
        for _ in self.in_flight:
            self._charge(now, self.limits.reserved)
        count = len(self.in_flight)
        self.in_flight.clear()
        return count

    def _now(self, now: float) -> float:
        self._latest = max(self._latest, now)
        return self._latest

    def as_value(self) -> dict[str, Any]:
        """Everything to be remembered, as JSON has it: a few kilobytes at most."""
        return {
            "factor": self.factor,
            "in_flight": len(self.in_flight),
            "latest": self._latest,
            "turn": self._turn,
            "paused_until": self._paused_until,
            "slowed_at": self._slowed_at,
            "failures": self._failures,
            "forbidden": self._forbidden,
            "forbidden_since": self._forbidden_since,
            "cool_down": self._cool_down,
            "open_until": self._open_until,
            "windows": {
                name: [window.seconds, window.as_value()] for name, window in self._windows.items()
            },
        }

    @classmethod
    def from_value(cls, value: dict[str, Any], limits: Limits) -> Pace:
        """The pace that was remembered; the limits may have become others.

        Requests that were in flight are still so until `abandon` says that nobody waits for them.
        """
        pace = cls(limits)
        pace.factor = value["factor"]
        pace._latest = _number(value["latest"])
        pace.in_flight = {-n: pace._latest for n in range(1, value["in_flight"] + 1)}
        pace._turn = _number(value["turn"])
        pace._paused_until = _number(value["paused_until"])
        pace._slowed_at = _number(value["slowed_at"])
        pace._failures = value["failures"]
        pace._forbidden = value["forbidden"]
        pace._forbidden_since = value["forbidden_since"]
        pace._cool_down = value["cool_down"]
        pace._open_until = _number(value["open_until"])
        for name, (seconds, counts) in value["windows"].items():
            pace._windows[name].take_value(counts, seconds)
        return pace


def _number(value: float | None) -> float:
    # JSON has no infinity: msgspec writes it as null.
    return -math.inf if value is None else value
