"""Limits on concurrent requests and on bytes per second, shared by all workers of a run.

Concurrency follows additive increase, multiplicative decrease (Chiu & Jain, 1989): each success adds
1/limit, and a refusal halves the limit. It halves at most once per `settle` seconds, because requests
that were already in flight will be refused too and carry no new information. S3 answers 503 while it
repartitions, and R2 answers 5xx for "too many at once". Both concern all requests, not only the one
that was refused.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

from mirror.errors import Throttled, Unreachable
from mirror.store.base import (
    Chunks,
    Created,
    Headers,
    NewObject,
    Operation,
    Store,
    StoreWrapper,
)
from mirror.store.retry import Sleep

T = TypeVar("T")
Clock = Callable[[], float]

# An upper bound on PUTs per second of one process. Measured on 2 cores: 6,000 objects of 45 kB.
MAX_PUTS_PER_SECOND: Final = 8000.0
# With a known rate the limit begins here, and does not fall lower for a fast server.
_MIN_USEFUL: Final = 8


class AdaptiveLimit:
    """The number of requests that may be in flight: a state machine without I/O.

    Args:
        maximum: the limit never exceeds this.
        settle: seconds after a decrease during which further refusals are ignored.
        rate: requests per second that this process can reach at best. By Little's law (1961) the
            useful number in flight is `rate` times the duration of a request. With a nearby server
            that is few. More would only wait for each other, and cost twice the CPU time.
    """

    def __init__(self, maximum: int, settle: float = 1.0, *, rate: float = math.inf) -> None:
        self._allowed = float(maximum)
        self._maximum = float(maximum)
        self._settle = settle
        self._rate = rate
        self._quickest = math.inf
        self._useful = float(maximum) if rate == math.inf else float(min(maximum, _MIN_USEFUL))
        self._decreased_at = float("-inf")

    @property
    def limit(self) -> float:
        """The limit now; its whole part counts."""
        return min(self._allowed, self._useful)

    def succeeded(self, seconds: float, count: int = 1) -> None:
        """Record that `count` requests, sent one after the other, took `seconds` together."""
        for _ in range(count):
            self._allowed = min(self._maximum, self._allowed + 1.0 / self._allowed)
        if count and seconds / count < self._quickest:
            self._quickest = seconds / count
            if self._rate < math.inf:
                self._useful = min(self._maximum, max(_MIN_USEFUL, self._rate * self._quickest))

    def refused(self, now: float) -> None:
        """Record that the server refused a request at `now`, in seconds of any origin."""
        if now - self._decreased_at >= self._settle:
            self._allowed = max(1.0, self.limit / 2)
            self._decreased_at = now


class ConcurrencyGate:
    """Admits as many callers as an `AdaptiveLimit` allows, first come, first served."""

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.limit = limit
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self._running < int(self.limit.limit) and not self._waiting:
            self._running += 1
            return
        admission: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(admission)
        try:
            await admission
        except asyncio.CancelledError:
            if admission.done() and not admission.cancelled():
                self._running -= 1
                self._admit()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._running -= 1
        self._admit()

    async def through(self, request: Callable[[], Awaitable[T]], clock: Clock) -> T:
        """Send a request when the gate admits it, and adapt the limit to its outcome."""
        async with self:
            started = clock()
            try:
                result = await request()
            except (Throttled, Unreachable):
                self.limit.refused(clock())
                raise
            self.limit.succeeded(clock() - started)
            return result

    def _admit(self) -> None:
        while self._waiting and self._running < int(self.limit.limit):
            admission = self._waiting.popleft()
            if not admission.done():
                self._running += 1
                admission.set_result(None)


class BandwidthLimit:
    """Spaces requests so that bytes leave at an average rate.

    Each request books the time that its bytes take, and waits until that time begins. The order is
    fair, and at most one request runs ahead of the rate.

    Args:
        rate: bytes per second.
        clock: seconds of any origin.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self, rate: float, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = float("-inf")

    async def take(self, nbytes: int) -> None:
        """Wait until `nbytes` may leave."""
        now = self._clock()
        begins = max(now, self._free_at)
        self._free_at = begins + nbytes / self._rate
        if begins > now:
            await self._sleep(begins - now)


class Throttling(StoreWrapper):
    """Holds requests to the shared limits, and adapts the concurrency limit to their outcome."""

    def __init__(
        self,
        inner: Store,
        gate: ConcurrencyGate,
        bandwidth: BandwidthLimit | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self._gate = gate
        self._bandwidth = bandwidth
        self._clock = clock

    async def _call(
        self, operation: Operation, nbytes: int, request: Callable[[], Awaitable[T]]
    ) -> T:
        async def paced() -> T:
            # Pace inside the gate: bytes paced before it could leave in one burst when it opens.
            if self._bandwidth is not None and nbytes:
                await self._bandwidth.take(nbytes)
            return await request()

        return await self._gate.through(paced, self._clock)

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        if self._bandwidth is not None:  # one call for all objects would be one burst
            return await super().create_in_turn(objects, stopped)
        async with self._gate:
            started = self._clock()
            created = await self._inner.create_in_turn(objects, stopped)
            ended = self._clock()
            if isinstance(created.error, (Throttled, Unreachable)):
                self._gate.limit.refused(ended)
            elif created.error is None:
                self._gate.limit.succeeded(ended - started, created.written)
        return created

    async def put_multipart(
        self, key: str, chunks: Chunks, part_size: int, headers: Headers
    ) -> str:
        async def paced() -> AsyncIterator[bytes]:
            async for chunk in chunks():
                if self._bandwidth is not None:
                    await self._bandwidth.take(len(chunk))
                yield chunk

        return await super().put_multipart(key, paced, part_size, headers)


class Counting(StoreWrapper):
    """Counts requests when they are sent. Failed attempts count too, because they are billed."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.requests: dict[str, int] = {"put": 0, "get": 0, "head": 0, "list": 0, "delete": 0}

    async def _call(
        self, operation: Operation, nbytes: int, request: Callable[[], Awaitable[T]]
    ) -> T:
        self.requests[operation] += 1
        return await request()

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        created = await self._inner.create_in_turn(objects, stopped)
        self.requests["put"] += created.written + (created.error is not None)
        return created

    async def put_multipart(
        self, key: str, chunks: Chunks, part_size: int, headers: Headers
    ) -> str:
        async def counted() -> AsyncIterator[bytes]:
            async for chunk in chunks():
                self.requests["put"] += 1
                yield chunk

        self.requests["put"] += 1  # begins the upload; `_call` counts the one that completes it
        return await super().put_multipart(key, counted, part_size, headers)
