"""Retry transient failures: a wrapper that works the same for every engine, whatever its SDK does.

The pause has full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
Before attempt n it is uniform between 0 and min(cap, base · 2ⁿ), so workers that were refused
together do not return together. A server's Retry-After is a lower bound.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mirror.errors import StoreError, Transient
from mirror.store.base import Created, NewObject, Operation, Store, StoreWrapper

T = TypeVar("T")

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try, and how long to pause.

    Attributes:
        attempts: the most attempts, the first one included.
        base: seconds; the pause may double from here with each failure.
        cap: seconds; the longest pause of our own.
        longest_retry_after: seconds; a longer Retry-After is cut to this.
    """

    attempts: int = 8
    base: float = 0.2
    cap: float = 20.0
    longest_retry_after: float = 120.0

    def pause(self, failures: int, retry_after: float | None, jitter: float) -> float:
        """Seconds to wait before the next attempt.

        Args:
            failures: how many attempts have failed.
            retry_after: seconds that the server asked for, or None.
            jitter: a random number, uniform in [0, 1).
        """
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
    """Send a request until it succeeds, fails for good, or runs out of attempts.

    Args:
        request: sends the request; each call sends it again.
        policy: how often to try, and how long to pause.
        sleep: waits for a number of seconds.
        jitter: returns a random number, uniform in [0, 1).
        retrying: called before each pause.

    Raises:
        Transient: the last attempt's error, when all have failed.
        StoreError: any other error of the request, at once.
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
    """Retry requests that fail with Transient, and raise the last error in the end.

    A DELETE is never retried here; see `Store.delete`.

    A retried conditional PUT may meet the object of its own first attempt, whose answer was lost. It
    then raises AlreadyExists. The caller checks the object anyway, and finds its own bytes.

    Attributes:
        retries: how many attempts were repeated so far.
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

    async def delete(self, keys: Sequence[str], etags: Sequence[str] = ()) -> dict[str, StoreError]:
        return await self._inner.delete(keys, etags)

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        """Make the first attempts only; pause after a transient failure. `put` makes the others."""
        created = await self._inner.create_in_turn(objects, stopped)
        if isinstance(created.error, Transient):
            self.retries += 1
            await self._sleep(self._policy.pause(1, created.error.retry_after, self._jitter()))
        return created
