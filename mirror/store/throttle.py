"""How many requests at once, and how many bytes a second: shared by all workers of a run.

Concurrency follows additive increase, multiplicative decrease (Chiu & Jain, 1989): each success
adds 1/limit, a refusal halves, at most once per `settle` seconds because the requests that were
already in flight will be refused too and say nothing new. S3 answers 503 while it repartitions and
R2 answers 5xx for "too many at once"; both mean everyone, not just the request that was hit.
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


# What a process puts in a second, at best; measured on 2 cores 6,000 objects of 45 kB.
MOST_PUTS_A_SECOND: Final = 8000.0
_FEW: Final = 8


class AdaptiveLimit:
    """How many requests may be in flight; a state machine without I/O.

    Args:
        most: the limit never exceeds this.
        settle: seconds after a decrease during which further refusals are the same news.
        rate: requests a second that no more in flight could exceed. By Little's law (1961) as many
            are in flight as arrive while one lasts: of a server so near that few are enough, more
            would only wait for each other, at twice the CPU time.
    """

    def __init__(self, most: int, settle: float = 1.0, *, rate: float = math.inf) -> None:
        self._allowed = float(most)
        self._most = most
        self._settle = settle
        self._rate = rate
        self._quickest = math.inf
        self._useful = float(most) if rate == math.inf else float(min(most, _FEW))
        self._decreased_at = float("-inf")

    @property
    def limit(self) -> float:
        return min(self._allowed, self._useful)

    def succeeded(self, seconds: float, count: int = 1) -> None:
        """`count` requests, one after the other, took so long."""
        for _ in range(count):
            self._allowed = min(float(self._most), self._allowed + 1.0 / self._allowed)
        if count and seconds / count < self._quickest:
            self._quickest = seconds / count
            if self._rate < math.inf:
                self._useful = min(float(self._most), max(_FEW, self._rate * self._quickest))

    def refused(self, now: float) -> None:
        if now - self._decreased_at >= self._settle:
            self._allowed = max(1.0, self.limit / 2)
            self._decreased_at = now


class ConcurrencyGate:
    """Lets as many callers through as an `AdaptiveLimit` allows, first come first served."""

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.limit = limit
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self._running < int(self.limit.limit) and not self._waiting:
            self._running += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._running -= 1
                self._admit()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._running -= 1
        self._admit()

    async def through(self, request: Callable[[], Awaitable[T]], clock: Clock) -> T:
        """What a request gives that waited for its turn; the limit is told how it went."""
        async with self:
            began = clock()
            try:
                result = await request()
            except (Throttled, Unreachable):
                self.limit.refused(clock())
                raise
            self.limit.succeeded(clock() - began)
            return result

    def _admit(self) -> None:
        while self._waiting and self._running < int(self.limit.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)


class BandwidthLimit:
    """A pacer: bytes leave at `rate` a second on average, a request at a time.

    Each taker books its share of the future and waits until it begins, so the order is fair and no
    more than one request runs ahead of the rate.
    """

    def __init__(
        self, rate: float, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = float("-inf")

    async def take(self, nbytes: int) -> None:
        now = self._clock()
        begins = max(now, self._free_at)
        self._free_at = begins + nbytes / self._rate
        if begins > now:
            await self._sleep(begins - now)


class Throttling(StoreWrapper):
    """Holds requests to the shared limits, and tells the limit how they went."""

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
            # Inside the gate: bytes that were paced first could leave in one burst when it opens.
            if self._bandwidth is not None and nbytes:
                await self._bandwidth.take(nbytes)
            return await request()

        return await self._gate.through(paced, self._clock)

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        if self._bandwidth is not None:  # a turn would leave in one burst
            return await super().create_in_turn(objects, stopped)
        async with self._gate:
            began = self._clock()
            created = await self._inner.create_in_turn(objects, stopped)
            ended = self._clock()
            if isinstance(created.error, (Throttled, Unreachable)):
                self._gate.limit.refused(ended)
            elif created.error is None:
                self._gate.limit.succeeded(ended - began, created.written)
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
    """Counts requests as they are sent, attempts that failed included: they are billed too."""

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

        self.requests["put"] += 1  # to begin; one a part; `_call` counts the one that completes
        return await super().put_multipart(key, counted, part_size, headers)
