"""`Fetcher` and `AsyncFetcher`: a URL in, the verified bytes of its image out."""

from __future__ import annotations

import asyncio
import os
import queue
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from mirror.catalog.index import Index
from mirror.config.loading import load
from mirror.config.settings import Settings, parse_size
from mirror.errors import FetchError
from mirror.fetch.engine import Engine, RequestPolicy, Tier
from mirror.fetch.fork_lock import ForkLock
from mirror.fetch.http.allowed_hosts import AllowedHosts
from mirror.fetch.image_lookup import Coverage, ImageLookup, MirroredImage
from mirror.fetch.process_state import OnStats, ProcessState
from mirror.fetch.remote.load_index import load_index
from mirror.fetch.statistics import FetchStats
from mirror.fetch.stream import FetchStream, Result

# Images between two reports of statistics.
_REPORT_EVERY: Final = 64


class Fetcher:
    """Reads images from the mirror and verifies them. Safe for threads.

        with Fetcher.from_config("mirror.toml") as fetch:
            data = fetch(url)                           # bytes, or an exception
            for url, result in fetch.many(urls):        # bytes or the error, in order
                ...

    A fetcher can be pickled, and used after a fork: each process opens its own connections on first
    use. The index is read once, when the fetcher is made.

    Args:
        settings (Settings): where the mirror and the caches are.
        offline (bool | None): read only the caches of this machine, and the index that was last
            stored here. Default: `fetch.offline` of the settings.
        index (Index | None): the index to look URLs up in. Default: the mirror's, read now.
        policy (RequestPolicy | None): retries, deadlines and hedging. Default: those for training.

    Raises:
        ConfigError: the settings name iNaturalist as the mirror.
        MirrorError: there is no mirror, or its index cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        offline: bool | None = None,
        index: Index | None = None,
        policy: RequestPolicy | None = None,
    ) -> None:
        self._settings = settings
        self._offline = settings.fetch.offline if offline is None else offline
        self._policy = policy or RequestPolicy()
        AllowedHosts(settings.object_urls.web_bases)  # refuses iNaturalist before any request
        self._index = load_index(settings, offline=self._offline) if index is None else index
        self._prepare()

    def _prepare(self) -> None:
        settings = self._settings
        self._images = ImageLookup(self._index, settings.fetch.match)
        self._max_bytes = parse_size(settings.fetch.bytes_in_flight, "fetch.bytes_in_flight")
        self._state: ProcessState | None = None

    @classmethod
    def from_config(cls, path: str | Path | None = None, *, offline: bool | None = None) -> Self:
        """Make a fetcher from a configuration file.

        Args:
            path: the file. Default: the files that the command `mirror` finds, ./mirror.toml first.
            offline: as for `Fetcher`.

        Raises:
            ConfigError: the configuration is missing or wrong.
            MirrorError: there is no mirror, or its index cannot be read.
        """
        return cls(load(config=None if path is None else Path(path)), offline=offline)

    def __call__(self, url: str) -> bytes:
        """Return an image's bytes, verified against the catalog's SHA-256.

        `fetch.verify` and a private fetch cache may allow its content hash alone.

        Args:
            url: the original URL, the mirror's own URL in any form, or a content hash in hex.

        Raises:
            NotMirrored: the mirror has never seen the URL.
            Flagged: the mirror has seen it, but no good image was there.
            CorruptObject: the object is missing, or has other bytes than the catalog says.
            OriginBlocked: the request would have left the mirror.
            StoreUnavailable: the mirror does not answer now. NotCached: it is not asked (offline).
            MirrorError: no image can be read: wrong credentials, no bucket, …
        """
        ((_, result),) = self.many((url,))
        if isinstance(result, FetchError):
            raise result
        return result

    def many(self, urls: Iterable[str]) -> Generator[tuple[str, Result], None, None]:
        """Yield `(url, bytes or error)` for each URL, in order, many requests at a time.

        An error is yielded, not raised: one missing image does not stop the others. `urls` is read
        ahead; up to `fetch.bytes_in_flight` bytes of images wait for their turn.

        Args:
            urls: URLs in any form that a call takes.

        Raises:
            MirrorError: no image can be read: wrong credentials, no bucket, a foreign cache folder.
        """
        return self._read(urls)

    def _read(
        self, urls: Iterable[str], on_stats: OnStats | None = None
    ) -> Generator[tuple[str, Result], None, None]:
        """`many`, reporting statistics.

        Args:
            urls: as for `many`.
            on_stats: called periodically and at the end with the statistics since the last call.
                The sum over all concurrent readings that report is right.
        """
        arrivals: queue.SimpleQueue[None] = queue.SimpleQueue()
        unreported = 0
        with self._open_stream(urls, lambda: arrivals.put(None), on_stats) as (state, stream):
            while (taken := stream.take()) is not None:
                yield from taken
                unreported += len(taken)
                if unreported >= _REPORT_EVERY:
                    unreported = 0
                    state.report(stream)
                if not taken and stream.awaits():
                    started = time.perf_counter()
                    while stream.awaits():
                        arrivals.get()
                    stream.waited += time.perf_counter() - started

    def coverage(self, urls: Iterable[str]) -> Coverage:
        """Look up which URLs are mirrored, flagged or not mirrored. Nothing is fetched."""
        return self._images.coverage(urls)

    def cached(self, urls: Sequence[str]) -> list[bool | FetchError]:
        """Whether a cache on this machine has each image, by name and size; no bytes are read.

        Returns:
            One entry a URL. For a URL that is not mirrored or flagged: the error that a fetch gives.
        """
        return [
            tier if isinstance(tier, FetchError) else tier is not None
            for tier in self._local_tiers(urls)
        ]

    def _local_tiers(self, urls: Sequence[str]) -> list[Tier | FetchError | None]:
        """Like `cached`, with the cache that has the image, or None."""
        engine = self._open_engine()
        return [
            engine.local_tier(found) if isinstance(found, MirroredImage) else found
            for found in self._images.find_all(urls)
        ]

    def stats(self) -> FetchStats:
        """The statistics of this fetcher in this process, since it was made."""
        state = self._state
        return FetchStats() if state is None or state.pid != os.getpid() else state.stats()

    def close(self) -> None:
        """Close the connections and threads of this process; a later call opens new ones.

        Images that have arrived are in the fetch cache by then. Calls that still wait for an image
        get StoreUnavailable.
        """
        state = self._state
        if state is not None and state.pid == os.getpid():
            state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        offline = ", offline" if self._offline else ""
        return f"<{type(self).__name__} of {self._settings.bucket.url}{offline}>"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "_settings": self._settings,
            "_offline": self._offline,
            "_policy": self._policy,
            "_index": self._index,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    @contextmanager
    def _open_stream(
        self, urls: Iterable[str], wake: Callable[[], object], on_stats: OnStats | None = None
    ) -> Iterator[tuple[ProcessState, FetchStream]]:
        state, engine = self._open()
        stream = FetchStream(engine, self._images.find_all, urls, self._max_bytes, wake)
        state.add(stream, on_stats)
        try:
            yield state, stream
        finally:
            stream.close()
            state.remove(stream)

    def _open_engine(self) -> Engine:
        return self._open()[1]

    def _open(self) -> tuple[ProcessState, Engine]:
        """The state and the engine of this process, made on first use."""
        state = self._state
        if state is not None and state.pid == os.getpid() and (engine := state.engine) is not None:
            return state, engine
        with _opening:
            state = self._state
            if state is None or state.pid != os.getpid():
                if state is not None:
                    _states_of_parents.append(state)
                self._state = state = ProcessState()
            engine = state.engine
            if engine is None:
                engine = Engine(self._settings, offline=self._offline, policy=self._policy)
                state.adopt(engine, self)
        return state, engine


class AsyncFetcher:
    """`Fetcher` for asyncio: `await fetch(url)`, `async for … in fetch.many(urls)`.

        async with AsyncFetcher.from_config("mirror.toml") as fetch:
            data = await fetch(url)
            async for url, result in fetch.many(urls):
                ...

    Several tasks may share one, and so may one event loop after another. The index is read on a
    thread, when the fetcher is entered or first used.

    Args:
        settings (Settings): where the mirror and the caches are.
        offline (bool | None): as for `Fetcher`.
        policy (RequestPolicy | None): as for `Fetcher`.

    Raises:
        ConfigError, MirrorError: as for `Fetcher`, when the fetcher is entered or first used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        offline: bool | None = None,
        policy: RequestPolicy | None = None,
    ) -> None:
        self._settings = settings
        self._make = partial(Fetcher, settings, offline=offline, policy=policy)
        self._mutex = ForkLock()
        self._fetcher: Fetcher | None = None

    @classmethod
    def from_config(cls, path: str | Path | None = None, *, offline: bool | None = None) -> Self:
        """As `Fetcher.from_config`. The configuration is read now, the index on first use."""
        return cls(load(config=None if path is None else Path(path)), offline=offline)

    async def __call__(self, url: str) -> bytes:
        """As `Fetcher.__call__`."""
        async for _, result in self.many((url,)):
            if isinstance(result, FetchError):
                raise result
            return result
        raise AssertionError

    async def many(self, urls: Iterable[str]) -> AsyncIterator[tuple[str, Result]]:
        """As `Fetcher.many`. A thread reads local files and iterates over `urls`."""
        fetcher = await self._opened()
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        wake = partial(loop.call_soon_threadsafe, arrived.set)
        with fetcher._open_stream(urls, wake) as (_, stream):  # noqa: SLF001 - the same module
            while (taken := await asyncio.to_thread(stream.take)) is not None:
                for result in taken:
                    yield result
                if not taken and stream.awaits():
                    started = time.perf_counter()
                    while stream.awaits():
                        await arrived.wait()
                        arrived.clear()
                    stream.waited += time.perf_counter() - started

    async def coverage(self, urls: Iterable[str]) -> Coverage:
        """As `Fetcher.coverage`."""
        fetcher = await self._opened()
        return await asyncio.to_thread(fetcher.coverage, urls)

    def stats(self) -> FetchStats:
        """As `Fetcher.stats`."""
        return FetchStats() if self._fetcher is None else self._fetcher.stats()

    async def aclose(self) -> None:
        """As `Fetcher.close`."""
        if self._fetcher is not None:
            await asyncio.to_thread(self._fetcher.close)

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._settings.bucket.url}>"

    async def _opened(self) -> Fetcher:
        if self._fetcher is None:
            await asyncio.to_thread(self._open)
        assert self._fetcher is not None
        return self._fetcher

    def _open(self) -> None:
        with self._mutex:
            if self._fetcher is None:
                self._fetcher = self._make()


_opening: Final = ForkLock()

# States that a forked child inherited. Deleting one would end the parent's connections, because TLS
# sends a goodbye on them, or wake the parent's loop. So they live as long as the child.
_states_of_parents: Final[list[ProcessState]] = []
