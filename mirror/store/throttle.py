"""How many requests at once, and how many bytes a second: shared by all workers of a run.

Concurrency follows additive increase, multiplicative decrease (Chiu & Jain, 1989): each success
adds 1/limit, a refusal halves, at most once per `settle` seconds because the requests that were
already in flight will be refused too and say nothing new. S3 answers 503 while it repartitions and
R2 answers 5xx for "too many at once"; both mean everyone, not just the request that was hit.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from mirror.errors import Throttled, Unreachable
from mirror.store.base import Chunks, Headers, Operation, Store, StoreWrapper
from mirror.store.retry import Sleep

T = TypeVar("T")
Clock = Callable[[], float]


class AdaptiveLimit:
    """How many requests may be in flight; a state machine without I/O.

    Args:
        most: the limit never exceeds this.
        settle: seconds after a decrease during which further refusals are the same news.
    """

    def __init__(self, most: int, settle: float = 1.0) -> None:
        self.limit = float(most)
        self._most = most
        self._settle = settle
        self._decreased_at = float("-inf")

    def succeeded(self) -> None:
        self.limit = min(float(self._most), self.limit + 1.0 / self.limit)

    def refused(self, now: float) -> None:
        if now - self._decreased_at >= self._settle:
            self.limit = max(1.0, self.limit / 2)
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
            try:
                result = await request()
            except (Throttled, Unreachable):
                self.limit.refused(clock())
                raise
            self.limit.succeeded()
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

    async def put_multipart(
        self, key: str, chunks: Chunks, part_size: int, headers: Headers
    ) -> str:
        async def counted() -> AsyncIterator[bytes]:
            async for chunk in chunks():
                self.requests["put"] += 1
                yield chunk

        self.requests["put"] += 1  # to begin; one a part; `_call` counts the one that completes
        return await super().put_multipart(key, counted, part_size, headers)
