"""When each request may start: the paces of all sources, saved in the request log."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from mirror.backfill.estimate import PaceStatus
from mirror.backfill.pacing import Go, Limits, Pace, RequestOutcome, Wait
from mirror.backfill.request_log import RequestLog

Sleep = Callable[[float], Awaitable[object]]

# Seconds. A timer stops while the machine sleeps and the clock does not: look at the clock this often.
_LONGEST_SLEEP: Final = 300.0
# Seconds. A shorter sleep may be invisible to a clock that counts from 1970.
_SHORTEST_SLEEP: Final = 0.001


class RunClock(Protocol):
    """The clock of a run: see `mirror.backfill.backfill_clock`."""

    def __call__(self) -> float:
        """The time in seconds. It never goes backwards."""
        ...

    def to_save(self) -> list[Any]:
        """The state from which the next run's clock resumes."""
        ...


class Stopped(Exception):
    """The run ends before the next request may start."""


class Scheduler:
    """Starts requests when their source's pace allows, and saves every change before a request.

    Args:
        request_log: where paces are saved.
        limits: of every source.
        clock: of the run.
        sleep: waits for a number of seconds by that clock.
        report_wait: called with seconds and a reason before each timed wait.

    Attributes:
        clock: of the run.
        ends_at: no request starts later than this, by the clock.
        stopping: set to end the run.
    """

    def __init__(
        self,
        request_log: RequestLog,
        limits: Limits,
        clock: RunClock,
        sleep: Sleep,
        report_wait: Callable[[float, str], object],
    ) -> None:
        self.clock = clock
        self.ends_at = math.inf
        self.stopping = False
        self._request_log = request_log
        self._limits = limits
        self._sleep = sleep
        self._report_wait = report_wait
        self._changed = asyncio.Event()
        self._paces = {
            source: Pace.from_value(value, limits) for source, value in request_log.paces().items()
        }

    def abandon_in_flight(self) -> None:
        """Count requests that a killed run had in flight as ended. The caller holds the run's lock."""
        for source, pace in self._paces.items():
            if pace.abandon_in_flight(self.clock()):
                self.save_pace(source)

    def pace(self, source: str) -> Pace:
        """The pace of a source."""
        if source not in self._paces:
            self._paces[source] = Pace(self._limits)
        return self._paces[source]

    def pace_status(self, sources: Iterable[str]) -> PaceStatus:
        """The state of the slowest of these sources' paces."""
        now = self.clock()
        paces = [self.pace(source) for source in sources] or [Pace(self._limits)]
        return PaceStatus(
            min(pace.burst_left(now) for pace in paces),
            min(pace.factor for pace in paces),
            max(pace.min_interval for pace in paces),
        )

    def save_pace(self, source: str) -> None:
        """Write a source's pace to the request log."""
        self._request_log.save_pace(source, self.pace(source).as_value(), self.clock.to_save())

    async def start_request(self, source: str) -> int:
        """Wait until a request may start, and return its ticket.

        Raises:
            Stopped: the run ends first.
        """
        pace = self.pace(source)
        while True:
            now = self.clock()
            if self.stopping or now >= self.ends_at:
                raise Stopped
            decision = pace.may_start(now)
            if isinstance(decision, Go):
                ticket = pace.started(now)
                self.save_pace(source)
                return ticket
            if decision.seconds < math.inf and now + decision.seconds > self.ends_at:
                raise Stopped
            await self.wait(decision)

    def end_request(
        self,
        source: str,
        ticket: int,
        outcome: RequestOutcome,
        nbytes: int,
        retry_after: float | None,
    ) -> None:
        """Record that a request has ended. The caller saves the pace, together with the result.

        Args:
            source: of the request.
            ticket: from `start_request`.
            outcome: how it ended.
            nbytes: bytes that it cost.
            retry_after: seconds that the server asked to wait; None if it did not.
        """
        now = self.clock()
        self.pace(source).finished(now, ticket, outcome, nbytes, retry_after=retry_after)
        self.wake()

    def wake(self) -> None:
        """End all waits, because a request or the run has ended."""
        self._changed.set()

    async def wait(self, wait: Wait | None) -> None:
        """Sleep until a wait is over or `wake` is called, but not for too long at a time.

        Args:
            wait: None or an infinite one if only `wake` can end it.
        """
        self._changed.clear()
        waiters: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._changed.wait())}
        if wait is not None and wait.seconds < math.inf:
            self._report_wait(wait.seconds, wait.reason)
            seconds = min(wait.seconds, _LONGEST_SLEEP, self.ends_at - self.clock())
            waiters.add(asyncio.ensure_future(self._sleep(max(seconds, _SHORTEST_SLEEP))))
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
