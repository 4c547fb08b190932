"""How fast one source may be requested: a state machine without I/O. The caller passes the time.

    may_start(now) ──► Go ──► started(now) ──► … the request … ──► finished(now, ticket, …)
           └─────────► Wait(seconds, reason)

These limits apply, and the longest wait counts:

| limit                         | counts                                    | until                     |
|-------------------------------|-------------------------------------------|---------------------------|
| concurrency                   | requests in flight                        | one of them ends          |
| windows: second, hour, day;   | requests in flight at their highest cost, | enough has left the       |
|   bytes an hour and a day     |   and requests that ended in the window   |   window                  |
| spacing                       | requests after a burst at the beginning   | the next evenly spaced    |
|                               |                                           |   moment                  |
| pause                         | a refusal's Retry-After                   | it has passed             |
| circuit breaker               | refusals and failures in a row            | it has cooled down        |

A request counts from its start until a whole window after its *end*, because the server counts it
at some moment in between. Its bytes count at their maximum until the real number is known. So no
window is exceeded by the server's clock either.

| a request ended | rate                            | breaker                                       |
|-----------------|---------------------------------|-----------------------------------------------|
| `answered`      | recovers by `RECOVERY`          | closes, and the count of failures restarts    |
| `refused`       | halves once for all requests    | counts one; opens at `MAX_FAILURES` in a row  |
|                 |   then in flight, and pauses    |                                               |
| `failed`        | unchanged                       | counts one, as above                          |
| `forbidden`     | unchanged                       | as `answered`; but `MAX_FORBIDDEN` in a row   |
|                 |                                 |   mean a block: opens for the longest time    |
| `redirected`    | unchanged                       | unchanged: the source's next answer decides   |

An open breaker lets no request start. After it has cooled down, it lets one request start (half
open). That request closes it, or opens it for twice as long.

Time never runs backwards here: a `now` earlier than the last one counts as the last one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from mirror.backfill.rate_window import RateWindow
from mirror.errors import ConfigError

RequestOutcome = Literal["answered", "refused", "failed", "forbidden", "redirected"]

HOUR: Final = 3600.0
DAY: Final = 86_400.0

SLOWEST: Final = 1 / 64
RECOVERY: Final = 0.01
MAX_FAILURES: Final = 5
MAX_FORBIDDEN: Final = 50
COOL_DOWN: Final = 300.0
LONGEST_COOL_DOWN: Final = 6 * HOUR
# Seconds to pause after a refusal without Retry-After; doubles with each failure in a row.
FIRST_PAUSE: Final = 5.0
# A longer Retry-After, in seconds, is cut to this.
LONGEST_PAUSE: Final = DAY
# A fifth of an hour's requests may follow each other directly, so that a small backfill is quick.
_BURST: Final = 5
# Bytes that may be in transit when a transfer is broken off; the server counts them too.
IN_TRANSIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one source may be asked for.

    Attributes:
        per_second, per_hour, per_day: requests.
        bytes_per_hour, bytes_per_day: bytes of answers.
        concurrency: requests at once.
        largest: bytes of one answer.

    Raises:
        ConfigError: one answer may be larger than the bytes of an hour or a day.
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
                f"backfill.max_size and the {IN_TRANSIT_BYTES:,} bytes that may be in transit are more "
                "than backfill.bytes_per_hour or bytes_per_day: lower the one, or raise the others."
            )

    @property
    def reserved(self) -> int:
        """Bytes that a request counts as until it has ended."""
        return self.largest + IN_TRANSIT_BYTES

    @property
    def burst(self) -> int:
        """Requests that may follow each other directly before they are spaced evenly."""
        return max(1, self.per_hour // _BURST)


class Go(NamedTuple):
    """A request may start now."""


class Wait(NamedTuple):
    """No request may start for `seconds`; if infinite, until one in flight has ended."""

    seconds: float
    reason: str


@dataclass
class Pace:
    """The pace of one source. All times are seconds since an origin of the caller's choice.

    Attributes:
        limits: the most that the source may be asked for.
        min_interval: seconds between two requests that the source states in robots.txt; else 0.
        factor: the part of the allowed rate that is used: 1, or less after refusals.
        in_flight: the start of each request that has not ended, by ticket.
    """

    limits: Limits
    min_interval: float = 0.0
    factor: float = 1.0
    in_flight: dict[int, float] = field(default_factory=dict)
    _latest: float = -math.inf
    _tickets: int = 0
    _evenly_spaced_at: float = -math.inf  # when the next evenly spaced request is due
    _paused_until: float = -math.inf
    _slowed_at: float = -math.inf
    _failures: int = 0
    _forbidden: int = 0
    _forbidden_since: float = 0.0
    _cool_down: float = 0.0  # 0: the breaker is closed
    _open_until: float = -math.inf
    _windows: dict[str, RateWindow] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        limits = self.limits
        self._windows = {
            "second": self._second_window(),
            "hour": RateWindow(HOUR, limits.per_hour),
            "day": RateWindow(DAY, limits.per_day),
            "bytes an hour": RateWindow(HOUR, limits.bytes_per_hour),
            "bytes a day": RateWindow(DAY, limits.bytes_per_day),
        }

    def _second_window(self) -> RateWindow:
        per_second = self.limits.per_second
        # A rate below 1 a second means one request in a longer window.
        window = RateWindow(max(1.0, 1.0 / per_second), max(1, math.floor(per_second)))
        if self.min_interval * window.limit > window.seconds:
            window = RateWindow(self.min_interval, 1)
        return window

    def raise_min_interval(self, seconds: float) -> None:
        """Wait at least `seconds` between two requests from now on. A shorter value changes nothing."""
        if seconds > self.min_interval:
            self.min_interval = seconds
            before, window = self._windows["second"], self._second_window()
            window.restore(before.as_value(), before.seconds)
            self._windows["second"] = window

    def breaker(self, now: float) -> Literal["closed", "open", "half-open"]:
        """The state of the circuit breaker."""
        if not self._cool_down:
            return "closed"
        return "open" if max(self._latest, now) < self._open_until else "half-open"

    @property
    def forbidden_since(self) -> float:
        """When the first request of the present run of `forbidden` answers started."""
        return self._forbidden_since

    @property
    def _interval(self) -> float:
        """Seconds between two evenly spaced requests."""
        return HOUR / (self.limits.per_hour * self.factor)

    @property
    def _burst(self) -> float:
        """Seconds by which requests may precede their evenly spaced moment."""
        return (self.limits.burst - 1) * HOUR / self.limits.per_hour

    def burst_left(self, now: float) -> int:
        """Requests that may follow each other directly now, before they are spaced evenly."""
        early = now + self._burst - max(self._evenly_spaced_at, now)
        return 0 if early < 0 else math.floor(early / self._interval) + 1

    def may_start(self, now: float) -> Go | Wait:
        """Say whether a request may start. Changes nothing."""
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
                reason = f"{self._forbidden} answers in a row were 403: this address may be blocked"
            yield Wait(self._open_until - now, reason)
        yield Wait(self._paused_until - now, "the source asked for a pause")
        reason = "spaced evenly" if self.factor == 1 else f"slowed down to {self.factor:.0%}"
        yield Wait(self._evenly_spaced_at - self._burst - now, reason)
        for name, window in self._windows.items():
            costs = self.limits.reserved if name.startswith("bytes") else 1
            fits_at = window.fits_at(now, costs * (running + 1))
            if name.startswith("bytes"):
                yield Wait(fits_at - now, f"{window.limit:,} {name}")
            else:
                yield Wait(fits_at - now, f"{window.limit:,} a {name}")

    def started(self, now: float) -> int:
        """Record that a request starts, and return its ticket. `may_start` must have said Go.

        The caller must save the pace (`as_value`) before it sends the request, so that a killed
        process does not forget the request.
        """
        now = self._now(now)
        self._tickets += 1
        self.in_flight[self._tickets] = now
        self._evenly_spaced_at = max(self._evenly_spaced_at, now) + self._interval
        return self._tickets

    def finished(
        self,
        now: float,
        ticket: int,
        outcome: RequestOutcome,
        nbytes: int,
        *,
        retry_after: float | None = None,
    ) -> None:
        """Record that a request has ended.

        Args:
            now: when it ended.
            ticket: from `started`.
            outcome: how it ended; see the table above.
            nbytes: bytes that it cost, at most `limits.reserved`.
            retry_after: seconds that the server asked to wait; None if it did not.
        """
        now = self._now(now)
        started_at = self.in_flight.pop(ticket)
        self._charge(now, nbytes)
        if outcome == "redirected":
            return
        if outcome != "forbidden":
            self._forbidden = 0
        if outcome == "answered":
            self.factor = min(1.0, self.factor + RECOVERY)
            self._failures, self._cool_down = 0, 0.0
        elif outcome == "forbidden":
            self._forbid(now, started_at)
        else:
            self._failures += 1
            if outcome == "refused":
                self._slow_down(now, started_at, retry_after)
            # Requests that were in flight when it opened do not count again.
            breaker = self.breaker(now)
            enough = self._failures >= MAX_FAILURES
            if breaker == "half-open" or (breaker == "closed" and enough):
                self._open(now, 2 * self._cool_down)

    def _charge(self, now: float, nbytes: int) -> None:
        for name, window in self._windows.items():
            window.add(now, nbytes if name.startswith("bytes") else 1)

    def _slow_down(self, now: float, started_at: float, retry_after: float | None) -> None:
        if (
            started_at >= self._slowed_at
        ):  # later answers of requests in flight at the last refusal do not count
            self._slowed_at = now
            self.factor = max(SLOWEST, self.factor / 2)
        pause = (
            FIRST_PAUSE * 2 ** min(self._failures - 1, 16) if retry_after is None else retry_after
        )
        self._paused_until = max(self._paused_until, now + min(max(pause, 0.0), LONGEST_PAUSE))
        # No burst after a refusal: the next request waits for its evenly spaced moment.
        self._evenly_spaced_at = max(self._evenly_spaced_at, now + self._burst + self._interval)

    def _forbid(self, now: float, started_at: float) -> None:
        if not self._forbidden:
            self._forbidden_since = started_at
        self._forbidden += 1
        self._failures, self._cool_down = 0, 0.0
        if self.is_blocked:
            self._open(now, LONGEST_COOL_DOWN)

    def _open(self, now: float, cool_down: float) -> None:
        self._cool_down = min(max(cool_down, COOL_DOWN), LONGEST_COOL_DOWN)
        self._open_until = now + self._cool_down

    @property
    def is_blocked(self) -> bool:
        """Whether enough answers in a row were `forbidden` to mean a block, not missing images."""
        return self._forbidden >= MAX_FORBIDDEN

    def abandon_in_flight(self, now: float) -> int:
        """Count requests of a killed process as ended now, at their highest cost.

        Returns:
            How many there were.
        """
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
        """The pace as a value for JSON, a few kilobytes at most."""
        return {
            "factor": self.factor,
            "in_flight": len(self.in_flight),
            "latest": self._latest,
            "turn": self._evenly_spaced_at,
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
        """Restore a pace from `as_value`. The limits may have changed since.

        Requests that were in flight still count as such until `abandon_in_flight` is called.
        """
        pace = cls(limits)
        pace.factor = value["factor"]
        pace._latest = _number(value["latest"])
        pace.in_flight = {-n: pace._latest for n in range(1, value["in_flight"] + 1)}
        pace._evenly_spaced_at = _number(value["turn"])
        pace._paused_until = _number(value["paused_until"])
        pace._slowed_at = _number(value["slowed_at"])
        pace._failures = value["failures"]
        pace._forbidden = value["forbidden"]
        pace._forbidden_since = value["forbidden_since"]
        pace._cool_down = value["cool_down"]
        pace._open_until = _number(value["open_until"])
        for name, (seconds, counts) in value["windows"].items():
            pace._windows[name].restore(counts, seconds)
        return pace


def _number(value: float | None) -> float:
    # JSON has no infinity; msgspec writes null.
    return -math.inf if value is None else value
