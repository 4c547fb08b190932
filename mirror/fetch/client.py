"""`Fetcher` and `AsyncFetcher`: a URL in, the bytes of its image out of the mirror.

    with Fetcher.from_config("mirror.toml") as fetch:
        data = fetch(url)
        for url, result in fetch.many(urls): ...

A fetcher pickles, and may be used after a fork: everything live is made per process, when it is
first needed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import xxhash

from mirror.catalog.index import Index
from mirror.catalog.reading import Location, read_index
from mirror.config import Settings, load
from mirror.errors import CorruptObject, FetchError, StoreError, StoreUnavailable
from mirror.fetch.resolve import Coverage, Found, Images
from mirror.fetch.statistics import FetchStats
from mirror.store.base import Store
from mirror.store.retry import Retrying

Result = bytes | FetchError


class Fetcher:
    """Reads images from the mirror.

    Args:
        settings: where the mirror and the caches are.
        offline: ask only caches of this machine, and its newest snapshot of the index.

    Raises:
        MirrorError: there is no mirror, or its index cannot be read.
    """

    def __init__(self, settings: Settings, *, offline: bool = False) -> None:
        self._settings = settings
        self._offline = offline
        self._images = Images(_index_of(settings), settings.object_urls)
        self._live: tuple[int, _Live] | None = None

    @classmethod
    def from_config(cls, path: str | Path | None = None, *, offline: bool = False) -> Self:
        """A fetcher by a configuration file, or by what is found where `mirror` looks for one."""
        return cls(load(config=None if path is None else Path(path)), offline=offline)

    def __call__(self, url: str) -> bytes:
        """The image's bytes, checked against its content hash.

        Args:
            url: the original URL, the mirror's own in any form, or a content hash in hex.

        Raises:
            NotMirrored, Flagged, CorruptObject, OriginBlocked, StoreUnavailable.
        """
        ((_, result),) = self.many([url])
        if isinstance(result, FetchError):
            raise result
        return result

    def many(self, urls: Iterable[str]) -> Iterator[tuple[str, Result]]:
        """`(url, bytes or the error)` of each, in order, many at a time.

        An error is an instance here, and not raised: one image that is missing does not end the
        others. What is wrong with the whole set-up (no credentials, say) is raised.
        """
        live = self._here()
        waiting: deque[tuple[str, Future[Result]]] = deque()
        for url in urls:
            waiting.append((url, live.submit(self._images.find(url))))
            if len(waiting) >= 64:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()

    def coverage(self, urls: Iterable[str]) -> Coverage:
        """Which of them are mirrored, flagged, not mirrored: from the index, nothing is fetched."""
        return self._images.coverage(urls)

    def stats(self) -> FetchStats:
        """What this process has counted with this fetcher so far."""
        return FetchStats()

    def close(self) -> None:
        """Ends what this process has running; a fetcher that is used again makes it anew."""
        if self._live is not None and self._live[0] == os.getpid():
            self._live[1].close()
        self._live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_live": None}

    def _here(self) -> _Live:
        if self._live is None or self._live[0] != os.getpid():
            self._live = os.getpid(), _Live(self._settings)
        return self._live[1]


class AsyncFetcher:
    """`Fetcher` for who has an event loop: `await fetch(url)`, `async for … in fetch.many(urls)`."""

    def __init__(self, settings: Settings, *, offline: bool = False) -> None:
        self._settings = settings
        self._offline = offline
        self._fetcher: Fetcher | None = None

    @classmethod
    def from_config(cls, path: str | Path | None = None, *, offline: bool = False) -> Self:
        return cls(load(config=None if path is None else Path(path)), offline=offline)

    async def __call__(self, url: str) -> bytes:
        fetcher = await self._opened()
        return await asyncio.to_thread(fetcher, url)

    async def many(self, urls: Iterable[str]) -> AsyncIterator[tuple[str, Result]]:
        fetcher = await self._opened()
        results = fetcher.many(urls)
        while (one := await asyncio.to_thread(next, results, None)) is not None:
            yield one

    async def coverage(self, urls: Iterable[str]) -> Coverage:
        fetcher = await self._opened()
        return await asyncio.to_thread(fetcher.coverage, urls)

    def stats(self) -> FetchStats:
        return FetchStats() if self._fetcher is None else self._fetcher.stats()

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._fetcher is not None:
            await asyncio.to_thread(self._fetcher.close)

    async def _opened(self) -> Fetcher:
        if self._fetcher is None:
            self._fetcher = await asyncio.to_thread(Fetcher, self._settings, offline=self._offline)
        return self._fetcher


class _Live:
    """What one process has running."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="mirror-fetch", daemon=True
        )
        self._thread.start()
        self._store: Store = Retrying(Location(settings).store())

    def submit(self, found: Found | FetchError) -> Future[Result]:
        if isinstance(found, FetchError):
            done: Future[Result] = Future()
            done.set_result(found)
            return done
        return asyncio.run_coroutine_threadsafe(self._fetch(found), self._loop)

    async def _fetch(self, found: Found) -> Result:
        for _ in range(2):
            try:
                data = await self._store.get(found.key)
            except StoreError as error:
                return StoreUnavailable(str(error))
            if xxhash.xxh3_128_digest(data) == found.content_hash:
                return data
        return CorruptObject(f"{found.key}: the object's bytes are not those of its hash.")

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._store.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _index_of(settings: Settings) -> Index:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return read_index(settings)[1]
    with ThreadPoolExecutor(1) as pool:  # this thread's loop runs: the reading needs one of its own
        return pool.submit(read_index, settings).result()[1]
