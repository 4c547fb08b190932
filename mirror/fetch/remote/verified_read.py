"""Read an image from the mirror: with retries, and verified before it is returned.

response                               result
the bytes that the catalog says        returned
other bytes, or no such object         asked for once more, past caches; then CorruptObject
429, 5xx, reset, silence, cut short,   retried with full jitter; finally StoreUnavailable
a folder that is not there
access denied, other refusals          StoreUnavailable
bad credentials, no bucket, …          raised unchanged: every other image would fail, too
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from mirror.errors import (
    BadCredentials,
    BucketMissing,
    ClockSkew,
    CorruptObject,
    NotFound,
    StoreError,
    StoreUnavailable,
    WrongRegion,
)
from mirror.fetch.image_lookup import MirroredImage, VerifyBy
from mirror.fetch.remote.object_sources import ObjectSource
from mirror.fetch.statistics import Histogram
from mirror.store.retry import RetryPolicy, Sleep, retried
from mirror.store.throttle import Clock, ConcurrencyGate

# Refusals that every image would meet. AccessDenied is not one of them: if the credentials may not
# list the bucket, S3 answers so for an object that is not there.
_AFFECT_ALL: Final = (BadCredentials, BucketMissing, ClockSkew, WrongRegion)


@dataclass
class ReadCounts:
    """Counts of reads from the mirror; `bytes` are those received."""

    bytes: int = 0
    retries: int = 0
    mismatches: int = 0


class MirrorReader:
    """Reads images from a source. Lives on one event loop.

    Args:
        source: the mirror.
        gate: limits concurrent requests.
        policy: attempts, and the pauses between them.
        verify: the hash that is compared.
        clock, sleep, jitter: time and chance; tests pass their own.

    Attributes:
        counts: counts since it was made.
        durations: of images read, retries and pauses included.
    """

    def __init__(
        self,
        source: ObjectSource,
        gate: ConcurrencyGate,
        policy: RetryPolicy,
        verify: VerifyBy,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._gate = gate
        self._policy = policy
        self._verify = verify
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self.counts = ReadCounts()
        self.durations = Histogram()

    async def read(self, image: MirroredImage) -> bytes:
        """Return the image's verified bytes.

        Raises:
            CorruptObject: the object is missing, or has other bytes.
            StoreUnavailable: the mirror does not answer now.
            OriginBlocked: the request would have left the mirror.
            StoreSetupError: the mirror refuses every image: wrong credentials, no bucket, …
        """
        started = self._clock()
        data = None
        for fresh in (False, True):
            try:
                data = await self._get(image, fresh=fresh)
            except NotFound:
                data = None
                continue
            except _AFFECT_ALL:
                raise
            except StoreError as error:
                raise StoreUnavailable(str(error)) from None
            self.counts.bytes += len(data)
            if image.has_bytes(data, self._verify):
                self.durations.add(self._clock() - started)
                return data
            self.counts.mismatches += 1
        what = "is missing" if data is None else "has other bytes than the catalog says"
        raise CorruptObject(
            f"{image.key} {what}, in two attempts; run mirror repair where the cache is."
        )

    async def _get(self, image: MirroredImage, *, fresh: bool) -> bytes:
        attempt = partial(self._source.get, image.key, image.size, fresh=fresh)
        return await retried(
            partial(self._gate.through, attempt, self._clock),
            self._policy,
            sleep=self._sleep,
            jitter=self._jitter,
            retrying=self._count_retry,
        )

    def _count_retry(self) -> None:
        self.counts.retries += 1
