"""An image out of the mirror: tried again while that may help, and checked before it is given on.

what comes                             what is done
the bytes of the content hash          they are given on
other bytes, or no such object         asked for once more, past caches; then CorruptObject
429, 5xx, a reset, silence, a part,    tried again with full jitter; in the end StoreUnavailable
a folder that is not there
access denied, another refusal         StoreUnavailable
bad credentials, no bucket, …          raised as it is: no other image would fare better
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import xxhash

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
from mirror.fetch.image_lookup import MirroredImage
from mirror.fetch.remote.object_sources import ObjectSource
from mirror.fetch.statistics import Histogram
from mirror.store.retry import RetryPolicy, Sleep, retried
from mirror.store.throttle import Clock, ConcurrencyGate

# Refusals that every image would meet. Access denied is none: where a key may not list the bucket,
# S3 says so of an object that is not there.
_FOR_ALL: Final = (BadCredentials, BucketMissing, ClockSkew, WrongRegion)


def is_content(data: bytes, found: MirroredImage) -> bool:
    """Whether these are the bytes that the catalog's content hash names."""
    return len(data) == found.size and xxhash.xxh3_128_digest(data) == found.content_hash


@dataclass
class ReadCounts:
    """What reading from the mirror has come to."""

    bytes: int = 0
    retries: int = 0
    mismatches: int = 0


class MirrorReader:
    """Reads images from a source. Lives on one event loop.

    Args:
        source: the mirror.
        gate: how many requests at once.
        policy: how often a request is tried.
        clock, sleep, jitter: time and chance.

    Attributes:
        counts: what it has come to.
        durations: of images read, tries and pauses included.
    """

    def __init__(
        self,
        source: ObjectSource,
        gate: ConcurrencyGate,
        policy: RetryPolicy,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._gate = gate
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self.counts = ReadCounts()
        self.durations = Histogram()

    async def read(self, found: MirroredImage) -> bytes:
        """The image's bytes, checked.

        Raises:
            CorruptObject: the mirror has other bytes under its key, or none.
            StoreUnavailable: it does not give them now.
            OriginBlocked: the request would have left the mirror.
            StoreSetupError: it will not give any image to anyone who asks like this.
        """
        began = self._clock()
        data = None
        for fresh in (False, True):
            try:
                data = await self._tried(found, fresh=fresh)
            except NotFound:
                data = None
                continue
            except _FOR_ALL:
                raise
            except StoreError as error:
                raise StoreUnavailable(str(error)) from None
            self.counts.bytes += len(data)
            if is_content(data, found):
                self.durations.add(self._clock() - began)
                return data
            self.counts.mismatches += 1
        what = "is not there" if data is None else "has other bytes than its hash says"
        raise CorruptObject(
            f"{found.key} {what}, asked for twice; run mirror repair where the cache is."
        )

    async def _tried(self, found: MirroredImage, *, fresh: bool) -> bytes:
        ask = partial(self._source.get, found.key, found.size, fresh=fresh)
        return await retried(
            partial(self._gate.through, ask, self._clock),
            self._policy,
            sleep=self._sleep,
            jitter=self._jitter,
            retrying=self._retrying,
        )

    def _retrying(self) -> None:
        self.counts.retries += 1
