"""What one process has running to fetch images: one thread with an event loop, made when it is first
needed and kept; and the tiers, in order.

    1. the URL-keyed cache   read only; the reader's own thread looks there, and reads
    2. the fetch cache       likewise; the loop puts into it what it has read
    3. the mirror            the loop reads it

Nothing here crosses a fork or a pickle: `client.py` makes an engine for each process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import xxhash

from mirror.config.settings import Settings, parse_size
from mirror.errors import NotCached, StoreUnavailable
from mirror.fetch.disk_cache.object_cache import Begun, FetchCache, WriteTicket
from mirror.fetch.disk_cache.url_cache import UrlCache
from mirror.fetch.fork_lock import NO_FORK
from mirror.fetch.http.allowed_hosts import AllowedHosts
from mirror.fetch.http.transport import Deadlines, Transport
from mirror.fetch.image_lookup import MirroredImage
from mirror.fetch.remote.hedging import HedgePolicy, Hedging
from mirror.fetch.remote.object_sources import FolderSource, HttpSource, ObjectSource
from mirror.fetch.remote.object_urls import addresses_of
from mirror.fetch.remote.verified_read import MirrorReader
from mirror.store.retry import RetryPolicy
from mirror.store.throttle import AdaptiveLimit, ConcurrencyGate

_log = logging.getLogger(__name__)

# Another process is at an image: seconds until it is looked at again, twice as many each time up to
# the latest; and how often, before it is read without waiting any longer.
_FIRST_LOOK: Final = 0.005
_LATEST_LOOK: Final = 0.1
_MOST_LOOKS: Final = 600


# Where an image came from, as `FetchStats` counts it.
Tier = Literal["cache", "fetch_cache", "mirror"]


@dataclass(frozen=True, slots=True)
class Tuning:
    """How patient a fetcher is. The defaults are for everybody; tests are in a hurry."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    deadlines: Deadlines = field(default_factory=Deadlines)
    hedge: HedgePolicy = field(default_factory=HedgePolicy)


class ImageRequest:
    """An image that was asked for; filled in by one thread, read by another.

    Attributes:
        found: what it is.
        result: its bytes or what is wrong; None until then.
        here: a file of this machine is likely to be it.
        tried: such a file was read, and was not.
        ordered: the mirror was asked for it.
        cancelled: nobody waits for it any more.
        looks: how often another process was found to be at it.
        wake: called with this order once it is `ready`.
    """

    __slots__ = ("cancelled", "found", "here", "looks", "ordered", "result", "tried", "wake")

    def __init__(self, found: MirroredImage, wake: Callable[[ImageRequest], object]) -> None:
        self.found = found
        self.wake = wake
        self.result: bytes | Exception | None = None
        self.here = self.tried = self.ordered = self.cancelled = False
        self.looks = 0

    @property
    def ready(self) -> bool:
        return self.result is not None or self.here

    def filled(self, result: bytes | Exception) -> None:
        self.result = result
        self.tell()

    def tell(self) -> None:
        """Wake who waits for it. Where that fails, others still wait for theirs."""
        try:
            self.wake(self)
        except Exception:  # noqa: BLE001 - a loop that was closed with its reader, for one
            _log.debug("Nobody was there to take %s.", self.found.key, exc_info=True)


class Engine:
    """The tiers of one process.

    Args:
        settings: where the mirror and the caches are.
        offline: the mirror is not asked.
        tuning: how patient to be.

    Raises:
        ConfigError: the fetch cache's folder is not ours.
    """

    def __init__(self, settings: Settings, *, offline: bool, tuning: Tuning) -> None:
        fetch = settings.fetch
        self._offline = offline
        self._url_cache = None
        if settings.cache.dir and os.path.isdir(settings.cache.dir):
            self._url_cache = UrlCache(settings.cache.dir, settings.cache.extensions)
        self._cache = None
        if fetch.cache_dir:
            most = parse_size(fetch.cache_bytes, "fetch.cache_bytes")
            self._cache = FetchCache(Path(fetch.cache_dir), most, fetch.admission)
        self.mismatches = 0
        self._settings = settings
        self._tuning = tuning
        self._mutex = threading.Lock()
        self._mirror: _MirrorThread | None = None

    def look(self, found: MirroredImage) -> bool:
        """Whether a file of this machine has its name and its size; it is not read."""
        if self._url_cache is not None and self._url_cache.has(found.url_md5, found.size):
            return True
        return self._cache is not None and self._cache.has(found.content_hash, found.size)

    def read_here(self, found: MirroredImage) -> tuple[bytes, Tier] | None:
        """An image's bytes from a file of this machine, checked; None when none has them."""
        if self._url_cache is not None:
            for path in self._url_cache.paths(found.url_md5):
                if (data := self._checked(path, found)) is not None:
                    return data, "cache"
        if self._cache is not None:
            kept = self._cache.path(found.content_hash)
            if (data := self._checked(kept, found, self._cache)) is not None:
                self._cache.used(kept)
                return data, "fetch_cache"
        return None

    def _checked(
        self, path: str | bytes, found: MirroredImage, cache: FetchCache | None = None
    ) -> bytes | None:
        data = _contents(path, found.size)
        if data is None or xxhash.xxh3_128_digest(data) == found.content_hash:
            return data
        self.mismatches += len(data) == found.size  # of another size, it is another image
        if cache is not None:
            cache.discard(str(path))
        return None

    def ask(self, orders: Sequence[ImageRequest]) -> None:
        """Have the mirror read. Each order is filled in, and its `wake` called: on the loop, or here
        where the mirror is not to be asked.

        Raises:
            BadCredentials: nobody can sign.
        """
        if not self._offline:
            if self._mirror is None:
                with self._mutex:
                    self._mirror = self._mirror or _MirrorThread(
                        self._settings, self._cache, self._tuning
                    )
            self._mirror.ask(orders)
            return
        for order in orders:
            order.filled(
                NotCached(
                    f"{order.found.key} is in no cache of this machine, and the mirror is not "
                    "asked (offline); run mirror prefetch first."
                )
            )

    @property
    def has_room(self) -> bool:
        """Whether what is read now is kept on this machine, as far as that is known."""
        return self._cache is not None and self._cache.has_room

    def count_again(self) -> None:
        """Count anew what the fetch cache holds."""
        if self._cache is not None:
            self._cache.count_again()

    def counted(self) -> dict[str, Any]:
        """Values of `FetchStats` that are counted here."""
        counted: dict[str, Any] = {"mismatches": self.mismatches}
        if self._cache is not None:
            counted |= {"kept": self._cache.kept, "not_kept": self._cache.not_kept}
        if self._mirror is not None:
            mirror = self._mirror.counted()
            counted |= mirror | {"mismatches": self.mismatches + mirror["mismatches"]}
        return counted

    def close(self) -> None:
        if self._mirror is not None:
            self._mirror.close()
        if self._cache is not None:
            self._cache.close()


def _contents(path: str | bytes, size: int) -> bytes | None:
    """A file's bytes, up to so many; None where it cannot be read."""
    # Not through a file object: its buffer and its questions cost as much as reading the file.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(descriptor, size)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return data


class _MirrorThread:
    """The loop's thread, and what lives on it."""

    def __init__(self, settings: Settings, cache: FetchCache | None, tuning: Tuning) -> None:
        self._settings = settings
        self._cache = cache
        self._tuning = tuning
        self._most = settings.fetch.concurrency
        self._addresses = None
        if settings.bucket_url.scheme == "s3" or settings.bucket.public_url:
            with NO_FORK:  # credentials of AWS come by OpenSSL, signatures by obstore
                self._addresses = addresses_of(settings)
            self._guard = AllowedHosts([*settings.object_urls.web_bases, self._addresses.base])
        self._mutex = threading.Lock()
        self._ended = False
        self._pending: deque[ImageRequest] = deque()
        self._waiting: set[ImageRequest] = set()  # for another process
        self._under_way: dict[bytes, list[ImageRequest]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror-fetch", daemon=True)
        self._thread.start()
        self._started.wait()

    # --- for other threads ---

    def ask(self, orders: Sequence[ImageRequest]) -> None:
        if self._addresses is not None:
            self._addresses.expect([order.found.key for order in orders])
        with self._mutex:
            if not self._ended:
                self._loop.call_soon_threadsafe(self._accept, orders)
                return
        for order in orders:
            order.filled(_closed())

    def counted(self) -> dict[str, Any]:
        counts = self._reader.counts
        counted: dict[str, Any] = {
            "bytes_read": counts.bytes,
            "retries": counts.retries,
            "mismatches": counts.mismatches,
            "latencies": tuple(self._reader.durations.counts),
        }
        if isinstance(self._source, HttpSource):
            counted["requests"] = self._source.requests
            counted["throttled"] = self._source.throttled
            counted["hedges"] = self._source.hedges
            counted["hedges_won"] = self._source.hedges_won
        return counted

    def close(self) -> None:
        with suppress(RuntimeError):  # it was closed before
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    # --- on the loop ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        with self._mutex:
            self._ended = True
        # What the loop was given until then is still answered.
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._source: ObjectSource
        if self._addresses is None:
            self._source = FolderSource(self._settings.bucket_url)
        else:
            transport = Transport(self._guard, self._tuning.deadlines)
            self._source = HttpSource(self._addresses, transport, Hedging(self._tuning.hedge))
        gate = ConcurrencyGate(AdaptiveLimit(self._most))
        self._reader = MirrorReader(self._source, gate, self._tuning.retry)
        self._started.set()
        await self._stop.wait()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for order in (*self._pending, *self._waiting):
            order.filled(_closed())
        await self._source.aclose()

    def _accept(self, orders: Sequence[ImageRequest]) -> None:
        if self._stop.is_set():
            for order in orders:
                order.filled(_closed())
            return
        self._pending.extend(orders)
        for _ in range(min(len(self._pending), self._most - len(self._workers))):
            self._workers.add(self._loop.create_task(self._work()))

    def _look_again(self, order: ImageRequest) -> None:
        if not self._stop.is_set():  # else it is answered with all that wait
            self._waiting.remove(order)
            self._accept([order])

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while self._pending:
                order = self._pending.popleft()
                if not order.cancelled:
                    await self._obtain(order)
        finally:
            # Here and not when the loop tells of its end, a turn later: orders that come in between
            # would find as many workers as there may be, and none that looks for more.
            self._workers.discard(task)

    async def _obtain(self, order: ImageRequest) -> None:
        content_hash = order.found.content_hash
        if (same := self._under_way.get(content_hash)) is not None:
            same.append(order)
            return
        ticket = None
        if self._cache is not None:
            begun = _begun(self._cache, order.found)
            if begun is Begun.BUSY and order.looks < _MOST_LOOKS:
                pause = min(_LATEST_LOOK, _FIRST_LOOK * 2**order.looks)
                order.looks += 1
                self._waiting.add(order)
                self._loop.call_later(pause, self._look_again, order)
                return
            if begun is Begun.KEPT and not order.tried:
                order.here = True
                order.tell()
                return
            ticket = begun if isinstance(begun, WriteTicket) else None
        self._under_way[content_hash] = [order]
        result: bytes | Exception = _closed()
        try:
            result = await self._reader.read(order.found)
        except Exception as error:  # noqa: BLE001 - who waits for it must be told of a fault of ours
            result = error
        finally:
            # Kept before it is given on: who has an image knows that it is counted.
            if ticket is not None and self._cache is not None:
                _end(self._cache, ticket, result)
            for one in self._under_way.pop(content_hash):
                one.filled(result)


# A full disk is the cache's own business. Any other fault there must not cost an image either, and a
# worker that it ended would leave orders behind.
def _begun(cache: FetchCache, found: MirroredImage) -> WriteTicket | Begun:
    try:
        return cache.begin(found.content_hash, found.size)
    except Exception:  # noqa: BLE001 - of whatever kind
        _log.exception("The fetch cache failed.")
        return Begun.NO_ROOM


def _end(cache: FetchCache, ticket: WriteTicket, result: bytes | Exception) -> None:
    try:
        if isinstance(result, bytes):
            cache.keep(ticket, result)
        else:
            cache.drop(ticket)
    except Exception:  # noqa: BLE001 - of whatever kind
        _log.exception("The fetch cache failed.")


def _closed() -> StoreUnavailable:
    return StoreUnavailable("The fetcher was closed before the image came.")
