"""Whose turn it is: the paces of all sources, kept in the ledger, and the waiting for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from mirror.backfill.estimate import PaceStatus
from mirror.backfill.pacing import Go, Limits, Outcome, Pace, Wait
from mirror.backfill.request_log import RequestLog

Sleep = Callable[[float], Awaitable[object]]

# Time goes on while a machine sleeps and a timer does not: look at it again at least so often.
_LONGEST_SLEEP: Final = 300.0
# What is shorter may be too short to be seen on a clock that counts from 1970.
_SHORTEST_SLEEP: Final = 0.001


class Timeline(Protocol):
    """The time of a run: see `mirror.backfill.backfill_clock`."""

    def __call__(self) -> float: ...

    def to_keep(self) -> list[Any]: ...


class Stopped(Exception):
    """The run is over before the next request could begin."""


class Scheduler:
    """Lets requests begin when their source's pace allows it; every change is written down first.

    Attributes:
        clock: the time of the run.
        ends_at: no request begins later.
        stopping: set when the run is to end.
    """

    def __init__(
        self,
        ledger: RequestLog,
        limits: Limits,
        clock: Timeline,
        sleep: Sleep,
        waiting: Callable[[float, str], object],
    ) -> None:
        self.clock = clock
        self.ends_at = math.inf
        self.stopping = False
        self._ledger = ledger
        self._limits = limits
        self._sleep = sleep
        self._waiting = waiting
        self._changed = asyncio.Event()
        self._paces = {
            source: Pace.from_value(value, limits) for source, value in ledger.paces().items()
        }

    def abandon(self) -> None:
        """Whoever holds the lock knows that nobody waits any more for what was in flight before."""
        for source, pace in self._paces.items():
            if pace.abandon(self.clock()):
                self.write_down(source)

    def pace(self, source: str) -> Pace:
        if source not in self._paces:
            self._paces[source] = Pace(self._limits)
        return self._paces[source]

    def situation(self, sources: Iterable[str]) -> PaceStatus:
        """How it stands with the slowest of these sources."""
        now = self.clock()
        paces = [self.pace(source) for source in sources] or [Pace(self._limits)]
        return PaceStatus(
            min(pace.at_once(now) for pace in paces),
            min(pace.factor for pace in paces),
            max(pace.least_interval for pace in paces),
        )

    def write_down(self, source: str) -> None:
        self._ledger.keep_pace(source, self.pace(source).as_value(), self.clock.to_keep())

    async def enter(self, source: str) -> int:
        """Wait until a request may begin; returns its ticket.

        Raises:
            Stopped: the run is over before it may.
        """
        pace = self.pace(source)
        while True:
            now = self.clock()
            if self.stopping or now >= self.ends_at:
                raise Stopped
            decision = pace.may_start(now)
            if isinstance(decision, Go):
                ticket = pace.started(now)
                self.write_down(source)
                return ticket
            if decision.seconds < math.inf and now + decision.seconds > self.ends_at:
                raise Stopped
            await self.pause(decision)

    def leave(
        self,
        source: str,
        ticket: int,
        outcome: Outcome,
        nbytes: int,
        retry_after: float | None,
    ) -> None:
        """A request has ended. Not yet written down: that is done together with what came of it."""
        now = self.clock()
        self.pace(source).finished(now, ticket, outcome, nbytes, retry_after=retry_after)
        self.changed()

    def changed(self) -> None:
        """Something has ended, or the run is to end: who waits looks again."""
        self._changed.set()

    async def pause(self, wait: Wait | None) -> None:
        """Until a wait is over or something has changed; a while at most.

        Args:
            wait: None, or one without end, where only a change can help.
        """
        self._changed.clear()
        waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._changed.wait())}
        if wait is not None and wait.seconds < math.inf:
            self._waiting(wait.seconds, wait.reason)
            seconds = min(wait.seconds, _LONGEST_SLEEP, self.ends_at - self.clock())
            waiting.add(asyncio.ensure_future(self._sleep(max(seconds, _SHORTEST_SLEEP))))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
