"""The fetch tiers of one process, and the thread that reads from the mirror.

    1. the URL-keyed cache   read-only; the caller's own thread looks files up and reads them
    2. the fetch cache       likewise; the mirror thread writes what it has downloaded
    3. the mirror            read by one thread with an event loop, started on first use

Nothing here crosses a fork or a pickle: `process_state.py` makes an engine for each process.
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

from mirror.config.settings import Settings, parse_size
from mirror.errors import NotCached, StoreUnavailable
from mirror.fetch.disk_cache.object_cache import FetchCache, WriteRefusal, WriteTicket
from mirror.fetch.disk_cache.url_cache import UrlCache
from mirror.fetch.fork_lock import NO_FORK
from mirror.fetch.http.allowed_hosts import AllowedHosts
from mirror.fetch.http.transport import Deadlines, Transport
from mirror.fetch.image_lookup import MirroredImage, VerifyBy
from mirror.fetch.remote.hedging import HedgePolicy, Hedging
from mirror.fetch.remote.object_sources import FolderSource, HttpSource, ObjectSource
from mirror.fetch.remote.object_urls import request_urls
from mirror.fetch.remote.verified_read import MirrorReader
from mirror.store.retry import RetryPolicy
from mirror.store.throttle import AdaptiveLimit, ConcurrencyGate
from mirror.system.files import open_regular
from mirror.system.private_folder import is_own

_log = logging.getLogger(__name__)

# While another process downloads an image: seconds until the first check for its file. The pause
# doubles up to the longest. After the last check the image is downloaded here, too.
_FIRST_CHECK: Final = 0.005
_LONGEST_PAUSE: Final = 0.1
_MAX_CHECKS: Final = 600


# Where an image came from, as `FetchStats` counts it.
Tier = Literal["cache", "fetch_cache", "mirror"]


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """Retries, deadlines and hedging of requests to the mirror. The defaults suit a training.

    Attributes:
        retry: attempts, and the pauses between them.
        deadlines: seconds that one attempt may take.
        hedge: when a slow request is sent a second time.
    """

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    deadlines: Deadlines = field(default_factory=Deadlines)
    hedge: HedgePolicy = field(default_factory=HedgePolicy)


class ImageRequest:
    """A request for one image; one thread completes it, another reads the result.

    Attributes:
        image: the image to read.
        result: its bytes, or the error; None until the request is complete.
        is_local: a file on this machine has the image's name and size.
        local_failed: that file was read, and its bytes were wrong.
        requested: the mirror was asked for the image.
        cancelled: the caller no longer waits.
        busy_checks: how often another process was found downloading the image.
        on_ready: called with this request once it is `ready`, on any thread.
    """

    __slots__ = (
        "busy_checks", "cancelled", "image", "is_local", "local_failed", "on_ready", "requested",
        "result",
    )  # fmt: skip

    def __init__(self, image: MirroredImage, on_ready: Callable[[ImageRequest], object]) -> None:
        self.image = image
        self.on_ready = on_ready
        self.result: bytes | Exception | None = None
        self.is_local = self.local_failed = self.requested = self.cancelled = False
        self.busy_checks = 0

    @property
    def ready(self) -> bool:
        return self.result is not None or self.is_local

    def complete(self, result: bytes | Exception) -> None:
        self.result = result
        self.notify()

    def notify(self) -> None:
        """Call `on_ready`. An error there must not affect other requests."""
        try:
            self.on_ready(self)
        except Exception:  # noqa: BLE001 - for example: the caller's event loop is closed
            _log.debug("The caller that asked for %s is gone.", self.image.key, exc_info=True)


class Engine:
    """The tiers of one process.

    Args:
        settings: where the mirror and the caches are.
        offline: never ask the mirror.
        policy: retries, deadlines and hedging.

    Raises:
        ConfigError: the fetch cache's folder holds other files.
    """

    def __init__(self, settings: Settings, *, offline: bool, policy: RequestPolicy) -> None:
        fetch = settings.fetch
        self._offline = offline
        self._verify = fetch.verify
        self._url_cache = None
        if settings.cache.dir and os.path.isdir(settings.cache.dir):
            self._url_cache = UrlCache(settings.cache.dir, settings.cache.extensions)
        self._cache = None
        if fetch.cache_dir:
            max_bytes = parse_size(fetch.cache_bytes, "fetch.cache_bytes")
            self._cache = FetchCache(Path(fetch.cache_dir), max_bytes, fetch.admission)
        self.mismatches = 0
        self._settings = settings
        self._policy = policy
        self._mutex = threading.Lock()
        self._mirror: _MirrorThread | None = None

    def local_tier(self, image: MirroredImage) -> Tier | None:
        """The cache of this machine with a file of the image's name and size; no bytes are read."""
        if self._url_cache is not None and self._url_cache.has(image.url_md5, image.size):
            return "cache"
        if self._cache is not None and self._cache.has(image.content_hash, image.size):
            return "fetch_cache"
        return None

    def read_local(self, image: MirroredImage) -> tuple[bytes, Tier] | None:
        """The image's verified bytes from a file on this machine; None when no file has them."""
        if self._url_cache is not None:
            for path in self._url_cache.paths(image.url_md5):
                if (data := self._read_url_cache(path, image)) is not None:
                    return data, "cache"
        if self._cache is not None:
            path_in_cache = self._cache.path(image.content_hash)
            if (data := self._read_cache(self._cache, path_in_cache, image)) is not None:
                self._cache.touch(path_in_cache)
                return data, "fetch_cache"
        return None

    def _read_url_cache(self, path: bytes, image: MirroredImage) -> bytes | None:
        # Other programs fill this cache, so even this user's own files may be forged.
        read = _read_file(path, image.size)
        return None if read is None else self._verified(read[0], image, self._verify)

    def _read_cache(self, cache: FetchCache, path: str, image: MirroredImage) -> bytes | None:
        if (read := _read_file(path, image.size)) is None:
            return None
        data, status = read
        verify = "xxh3" if cache.is_private and is_own(status) else self._verify
        verified = self._verified(data, image, verify)
        if verified is None:
            cache.discard(path)
        return verified

    def _verified(self, data: bytes, image: MirroredImage, verify: VerifyBy) -> bytes | None:
        if image.has_bytes(data, verify):
            return data
        # A file of another size is another image, and no mismatch.
        self.mismatches += len(data) == image.size
        return None

    def request(self, requests: Sequence[ImageRequest]) -> None:
        """Start reading images from the mirror.

        Each request is completed on the mirror thread; offline, it is completed at once.

        Raises:
            BadCredentials: there are no credentials to sign with.
        """
        if not self._offline:
            if self._mirror is None:
                with self._mutex:
                    self._mirror = self._mirror or _MirrorThread(
                        self._settings, self._cache, self._policy
                    )
            self._mirror.request(requests)
            return
        for request in requests:
            request.complete(
                NotCached(
                    f"{request.image.key} is in no cache on this machine, and offline mode does not "
                    "ask the mirror; run mirror prefetch once while online."
                )
            )

    @property
    def has_room(self) -> bool:
        """Whether the fetch cache would keep another image, as far as is known."""
        return self._cache is not None and self._cache.has_room

    def recount(self) -> None:
        """Count the files in the fetch cache again, and wait for the result."""
        if self._cache is not None:
            self._cache.recount()

    def counts(self) -> dict[str, Any]:
        """The values of `FetchStats` that the engine counts."""
        counts: dict[str, Any] = {"mismatches": self.mismatches}
        if self._cache is not None:
            counts |= {"kept": self._cache.kept, "not_kept": self._cache.not_kept}
        if self._mirror is not None:
            mirror = self._mirror.counts()
            counts |= mirror | {"mismatches": self.mismatches + mirror["mismatches"]}
        return counts

    def close(self) -> None:
        if self._mirror is not None:
            self._mirror.close()
        if self._cache is not None:
            self._cache.close()


def _read_file(path: str | bytes, size: int) -> tuple[bytes, os.stat_result] | None:
    """Up to `size` bytes of a file, and its status; None when it cannot be read."""
    # No file object: its buffer and its system calls cost as much as reading the file.
    try:
        descriptor, status = open_regular(path)
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
    return data, status


class _MirrorThread:
    """The thread with the event loop, and everything that lives on the loop."""

    def __init__(self, settings: Settings, cache: FetchCache | None, policy: RequestPolicy) -> None:
        self._settings = settings
        self._cache = cache
        self._policy = policy
        self._concurrency = settings.fetch.concurrency
        self._urls = None
        if settings.bucket_url.scheme == "s3" or settings.bucket.public_url:
            with NO_FORK:  # AWS credentials are read with OpenSSL, and obstore signs
                self._urls = request_urls(settings)
            self._hosts = AllowedHosts([*settings.object_urls.web_bases, self._urls.base])
        self._mutex = threading.Lock()
        self._ended = False
        self._pending: deque[ImageRequest] = deque()
        self._waiting: set[ImageRequest] = set()  # for another process to download the image
        self._in_flight: dict[bytes, list[ImageRequest]] = {}
        self._waits = True
        self._workers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror-fetch", daemon=True)
        self._thread.start()
        self._started.wait()

    # --- called by other threads ---

    def request(self, requests: Sequence[ImageRequest]) -> None:
        if self._urls is not None:
            self._urls.prepare([request.image.key for request in requests])
        with self._mutex:
            if not self._ended:
                self._loop.call_soon_threadsafe(self._accept, requests)
                return
        for request in requests:
            request.complete(_closed())

    def counts(self) -> dict[str, Any]:
        reads = self._reader.counts
        counts: dict[str, Any] = {
            "bytes_read": reads.bytes,
            "retries": reads.retries,
            "mismatches": reads.mismatches,
            "latencies": tuple(self._reader.durations.counts),
        }
        if isinstance(self._source, HttpSource):
            counts["requests"] = self._source.requests
            counts["throttled"] = self._source.throttled
            counts["hedges"] = self._source.hedges
            counts["hedges_won"] = self._source.hedges_won
        return counts

    def close(self) -> None:
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    # --- on the loop ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        with self._mutex:
            self._ended = True
        # Requests that the loop received before `_ended` are still completed.
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._source: ObjectSource
        if self._urls is None:
            self._source = FolderSource(self._settings.bucket_url)
        else:
            transport = Transport(self._hosts, self._policy.deadlines)
            self._source = HttpSource(self._urls, transport, Hedging(self._policy.hedge))
        gate = ConcurrencyGate(AdaptiveLimit(self._concurrency))
        self._reader = MirrorReader(
            self._source, gate, self._policy.retry, self._settings.fetch.verify
        )
        self._started.set()
        await self._stop.wait()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for request in (*self._pending, *self._waiting):
            request.complete(_closed())
        await self._source.aclose()

    def _accept(self, requests: Sequence[ImageRequest]) -> None:
        if self._stop.is_set():
            for request in requests:
                request.complete(_closed())
            return
        self._pending.extend(requests)
        for _ in range(min(len(self._pending), self._concurrency - len(self._workers))):
            self._workers.add(self._loop.create_task(self._work()))

    def _check_again(self, request: ImageRequest) -> None:
        if not self._stop.is_set():  # else `_serve` completes all waiting requests
            self._waiting.remove(request)
            self._accept([request])

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while self._pending:
                request = self._pending.popleft()
                if not request.cancelled:
                    await self._obtain(request)
        finally:
            # Not in a done callback, which runs one turn of the loop later: requests that arrive in
            # between would see a full set of workers, none of which takes another request.
            self._workers.discard(task)

    def _may_wait(self, request: ImageRequest) -> bool:
        """Whether to wait while another process downloads the image.

        A process that is stopped, or a user who may read the folder, can hold the locks of many
        images. After one wait in vain, this process waits for none.
        """
        if request.busy_checks >= _MAX_CHECKS and self._waits:
            self._waits = False
            _log.warning(
                "Another process keeps %s locked; this one waits for no image any more, and "
                "downloads those that others are writing.", request.image.key,
            )  # fmt: skip
        return self._waits

    async def _obtain(self, request: ImageRequest) -> None:
        image = request.image
        if (same_image := self._in_flight.get(image.content_hash)) is not None:
            same_image.append(request)
            return
        ticket = None
        if self._cache is not None:
            outcome = _begin_write(self._cache, image)
            if outcome is WriteRefusal.BUSY and self._may_wait(request):
                pause = min(_LONGEST_PAUSE, _FIRST_CHECK * 2**request.busy_checks)
                request.busy_checks += 1
                self._waiting.add(request)
                self._loop.call_later(pause, self._check_again, request)
                return
            if outcome is WriteRefusal.ALREADY_KEPT and not request.local_failed:
                request.is_local = True
                request.notify()
                return
            ticket = outcome if isinstance(outcome, WriteTicket) else None
        self._in_flight[image.content_hash] = [request]
        result: bytes | Exception = _closed()
        try:
            result = await self._reader.read(image)
        except Exception as error:  # noqa: BLE001 - a bug here must reach the waiting callers, too
            result = error
        finally:
            # Write first, complete then: a caller that has the image can rely on the counts.
            if ticket is not None and self._cache is not None:
                _end_write(self._cache, ticket, result)
            for waiting in self._in_flight.pop(image.content_hash):
                waiting.complete(result)


# The cache handles a full disk itself. No other fault there may cost an image: an exception would
# end the worker and leave its requests incomplete.
def _begin_write(cache: FetchCache, image: MirroredImage) -> WriteTicket | WriteRefusal:
    try:
        return cache.begin(image.content_hash, image.size)
    except Exception:  # noqa: BLE001 - any fault of the cache
        _log.exception("The fetch cache failed.")
        return WriteRefusal.NO_ROOM


def _end_write(cache: FetchCache, ticket: WriteTicket, result: bytes | Exception) -> None:
    try:
        if isinstance(result, bytes):
            cache.keep(ticket, result)
        else:
            cache.drop(ticket)
    except Exception:  # noqa: BLE001 - any fault of the cache
        _log.exception("The fetch cache failed.")


def _closed() -> StoreUnavailable:
    return StoreUnavailable("The fetcher was closed before the image arrived.")
