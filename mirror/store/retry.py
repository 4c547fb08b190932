"""Another attempt at what may pass: a wrapper, the same for every engine whatever its SDK does.

Full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): the pause
before attempt n is uniform between 0 and min(cap, base · 2ⁿ), so that workers who were refused
together do not come back together. A server's Retry-After is a lower bound on it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mirror.errors import Transient
from mirror.store.base import Created, NewObject, Operation, Store, StoreWrapper

T = TypeVar("T")

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` in all; `base` and `cap` of a pause, and the longest Retry-After kept, in seconds."""

    attempts: int = 8
    base: float = 0.2
    cap: float = 20.0
    longest_retry_after: float = 120.0

    def pause(self, failures: int, retry_after: float | None, jitter: float) -> float:
        """Seconds to wait after the `failures`-th failure; `jitter` is uniform in [0, 1)."""
        backoff = jitter * min(self.cap, self.base * 2.0**failures)
        return max(backoff, min(retry_after or 0.0, self.longest_retry_after))


async def retried(
    request: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    sleep: Sleep,
    jitter: Callable[[], float],
    retrying: Callable[[], object],
) -> T:
    """What a request gives, repeated while it fails with Transient; in the end its last error.

    Args:
        request: makes the request anew at each call.
        policy: how often, and how soon.
        sleep: waits so many seconds.
        jitter: a number uniform in [0, 1).
        retrying: called before each pause.
    """
    failures = 0
    while True:
        try:
            return await request()
        except Transient as error:
            failures += 1
            if failures >= policy.attempts:
                raise
            pause = policy.pause(failures, error.retry_after, jitter())
        retrying()
        await sleep(pause)


class Retrying(StoreWrapper):
    """Repeats requests that failed with Transient; gives up with the last error.

    A repeated conditional PUT may meet its own first attempt, whose answer was lost: it then says
    AlreadyExists, and the caller, who must check what stands there anyway, finds its own bytes.
    """

    def __init__(
        self,
        inner: Store,
        policy: RetryPolicy | None = None,
        *,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(inner)
        self._policy = policy or RetryPolicy()
        self._sleep = sleep
        self._jitter = jitter
        self.retries = 0

    async def _call(
        self, operation: Operation, nbytes: int, request: Callable[[], Awaitable[T]]
    ) -> T:
        def count() -> None:
            self.retries += 1

        return await retried(
            request, self._policy, sleep=self._sleep, jitter=self._jitter, retrying=count
        )

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        """First attempts. After one that may pass there is a pause; the others are `put`'s."""
        created = await self._inner.create_in_turn(objects, stopped)
        if isinstance(created.error, Transient):
            self.retries += 1
            await self._sleep(self._policy.pause(1, created.error.retry_after, self._jitter()))
        return created
