"""`Fetcher` and `AsyncFetcher`: a URL in, the bytes of its image out of the mirror.

    with Fetcher.from_config("mirror.toml") as fetch:
        data = fetch(url)
        for url, result in fetch.many(urls): ...

A fetcher pickles, and may be used after a fork: everything live is made per process, when it is
first needed, and what a parent had is left alone. The index is read once, when a fetcher is made.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from mirror.catalog.index import Index
from mirror.config.loading import load
from mirror.config.settings import Settings, parse_size
from mirror.errors import FetchError
from mirror.fetch.engine import Engine, Tuning
from mirror.fetch.fork_lock import ForkLock
from mirror.fetch.http.allowed_hosts import AllowedHosts
from mirror.fetch.image_lookup import Coverage, ImageLookup, MirroredImage
from mirror.fetch.load_index import index_of
from mirror.fetch.statistics import FetchStats
from mirror.fetch.stream import FetchStream, Result

_Tell = Callable[[FetchStats], object]
# Images after which a reading is told of.
_TELL_EVERY: Final = 64


class Fetcher:
    """Reads images from the mirror. Safe for threads.

    Args:
        settings: where the mirror and the caches are.
        offline: ask only caches of this machine, and its newest snapshot of the index; by default
            as `fetch.offline` says.
        index: to look URLs up in; by default the mirror's, read now.
        tuning: how patient to be.

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
        tuning: Tuning | None = None,
    ) -> None:
        self._settings = settings
        self._offline = settings.fetch.offline if offline is None else offline
        self._tuning = tuning or Tuning()
        AllowedHosts(settings.object_urls.web_bases)  # before anything is asked for there
        self._index = index_of(settings, offline=self._offline) if index is None else index
        self._prepare()

    def _prepare(self) -> None:
        settings = self._settings
        self._images = ImageLookup(self._index, settings.fetch.match)
        self._most = parse_size(settings.fetch.bytes_in_flight, "fetch.bytes_in_flight")
        self._here: _ProcessState | None = None

    @classmethod
    def from_config(cls, path: str | Path | None = None, *, offline: bool | None = None) -> Self:
        """A fetcher by a configuration file, or by what is found where `mirror` looks for one."""
        return cls(load(config=None if path is None else Path(path)), offline=offline)

    def __call__(self, url: str) -> bytes:
        """The image's bytes, checked against its content hash.

        Args:
            url: the original URL, the mirror's own in any form, or a content hash in hex.

        Raises:
            NotMirrored: the mirror has never seen it.
            Flagged: it has, and found no good image there.
            CorruptObject: the mirror has other bytes than the catalog says, or none.
            OriginBlocked: the request would have left the mirror.
            StoreUnavailable: the mirror does not give it now, or (NotCached) is not to be asked.
            MirrorError: no image can be had like this.
        """
        ((_, result),) = self.many((url,))
        if isinstance(result, FetchError):
            raise result
        return result

    def many(
        self, urls: Iterable[str], *, tell: _Tell | None = None
    ) -> Generator[tuple[str, Result], None, None]:
        """`(url, bytes or the error)` of each, in order, many at a time.

        An error is an instance here, and not raised: one image that is missing does not end the
        others. `urls` is read ahead of what is yielded, and up to `fetch.bytes_in_flight` of images
        wait for their turn.

        Args:
            urls: as a call takes one.
            tell: is told now and then, and at the end, what this reading alone has come to since. Of
                several at the same time one is told what all of them have asked of the mirror.

        Raises:
            MirrorError: no image can be had like this: the credentials, the bucket, the caches.
        """
        arrivals: queue.SimpleQueue[None] = queue.SimpleQueue()
        untold = 0
        with self._reading(urls, lambda: arrivals.put(None), tell) as (here, stream):
            while (taken := stream.take()) is not None:
                yield from taken
                untold += len(taken)
                if untold >= _TELL_EVERY:
                    untold = 0
                    here.told(stream)
                if not taken and stream.awaits():
                    began = time.perf_counter()
                    while stream.awaits():
                        arrivals.get()
                    stream.waited += time.perf_counter() - began

    def coverage(self, urls: Iterable[str]) -> Coverage:
        """Which of them are mirrored, flagged, not mirrored: from the index, nothing is fetched."""
        return self._images.coverage(urls)

    def cached(self, urls: Sequence[str]) -> list[bool | FetchError]:
        """Whether a cache of this machine has each, by its name and size: no bytes are read.

        What the mirror does not have, or has flagged, is the error that a fetch would give.
        """
        _, engine = self._live()
        return [
            engine.look(found) if isinstance(found, MirroredImage) else found
            for found in self._images.find_all(urls)
        ]

    @property
    def has_room(self) -> bool:
        """Whether the fetch cache keeps what is read now: it is there, not full, not read-only."""
        return self._live()[1].has_room

    def count_again(self) -> None:
        """Count anew what the fetch cache holds, and wait for it: `has_room` then goes by that."""
        self._live()[1].count_again()

    def stats(self) -> FetchStats:
        """What this fetcher has come to in this process."""
        here = self._here
        return FetchStats() if here is None or here.pid != os.getpid() else here.stats()

    def close(self) -> None:
        """End what this process has running; a later use begins anew.

        An image that has come is kept by then. One that is still read is given up: who waits for it
        gets StoreUnavailable.
        """
        here = self._here
        if here is not None and here.pid == os.getpid():
            here.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "_settings": self._settings,
            "_offline": self._offline,
            "_tuning": self._tuning,
            "_index": self._index,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    @contextmanager
    def _reading(
        self, urls: Iterable[str], wake: Callable[[], object], tell: _Tell | None = None
    ) -> Iterator[tuple[_ProcessState, FetchStream]]:
        here, engine = self._live()
        stream = FetchStream(engine, self._images.find_all, urls, self._most, wake)
        here.began(stream, tell)
        try:
            yield here, stream
        finally:
            stream.close()
            here.ended(stream)

    def _live(self) -> tuple[_ProcessState, Engine]:
        here = self._here
        if here is not None and here.pid == os.getpid() and (engine := here.engine) is not None:
            return here, engine
        with _making:
            here = self._here
            if here is None or here.pid != os.getpid():
                if here is not None:
                    _left_alone.append(here)
                self._here = here = _ProcessState()
            engine = here.engine
            if engine is None:
                engine = Engine(self._settings, offline=self._offline, tuning=self._tuning)
                here.opened(engine, self)
        return here, engine


class AsyncFetcher:
    """`Fetcher` for who has an event loop: `await fetch(url)`, `async for … in fetch.many(urls)`.

    The index is read when it is entered or first used, off the loop. It may be used from several
    tasks, and after another from several loops.
    """

    def __init__(
        self, settings: Settings, *, offline: bool | None = None, tuning: Tuning | None = None
    ) -> None:
        self._make = partial(Fetcher, settings, offline=offline, tuning=tuning)
        self._mutex = ForkLock()
        self._fetcher: Fetcher | None = None

    @classmethod
    def from_config(cls, path: str | Path | None = None, *, offline: bool | None = None) -> Self:
        """As `Fetcher.from_config`; the configuration is read at once, the index later."""
        return cls(load(config=None if path is None else Path(path)), offline=offline)

    async def __call__(self, url: str) -> bytes:
        """As `Fetcher.__call__`."""
        async for _, result in self.many((url,)):
            if isinstance(result, FetchError):
                raise result
            return result
        raise AssertionError

    async def many(self, urls: Iterable[str]) -> AsyncIterator[tuple[str, Result]]:
        """As `Fetcher.many`. Files are read, and `urls` is iterated over, on a thread."""
        fetcher = await self._opened()
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        wake = partial(loop.call_soon_threadsafe, arrived.set)
        with fetcher._reading(urls, wake) as (_, stream):  # noqa: SLF001 - its twin
            while (taken := await asyncio.to_thread(stream.take)) is not None:
                for one in taken:
                    yield one
                if not taken and stream.awaits():
                    began = time.perf_counter()
                    while stream.awaits():
                        await arrived.wait()
                        arrived.clear()
                    stream.waited += time.perf_counter() - began

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

    async def _opened(self) -> Fetcher:
        if self._fetcher is None:
            await asyncio.to_thread(self._open)
        assert self._fetcher is not None
        return self._fetcher

    def _open(self) -> None:
        with self._mutex:
            if self._fetcher is None:
                self._fetcher = self._make()


class _ProcessState:
    """A fetcher's life in one process: its engine, if it has one now, and what all have counted."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.engine: Engine | None = None
        self._mutex = threading.Lock()
        self._streams: dict[FetchStream, _Tell | None] = {}
        self._counts: Counter[str] = Counter()  # of readings that have ended
        self._waited = 0.0
        self._engines: list[Engine] = []
        self._asked_before = FetchStats()  # by engines that have been closed
        self._asked_told = FetchStats()
        self._end: weakref.finalize[..., Any] | None = None

    def opened(self, engine: Engine, owner: object) -> None:
        """Close it with its owner, or with the process. Nothing then waits to be kept: an image is
        written as it comes, which closing does not cut short.
        """
        with self._mutex:
            self._end = weakref.finalize(owner, _close, engine, self.pid)
            self._engines.append(engine)
            self.engine = engine

    def began(self, stream: FetchStream, tell: _Tell | None) -> None:
        with self._mutex:
            if tell is not None and not any(self._streams.values()):
                self._asked_told = self._asked()  # what was asked meanwhile was for others
            self._streams[stream] = tell

    def told(self, stream: FetchStream) -> None:
        """Tell what has come to a reading, if that is to be told."""
        tell = self._streams[stream]
        if tell is None:
            return
        with self._mutex:
            taken, asked = stream.stats, self._asked()
            news = (taken - stream.told) + (asked - self._asked_told)
            stream.told, self._asked_told = taken, asked
        tell(news)

    def ended(self, stream: FetchStream) -> None:
        self.told(stream)
        with self._mutex:
            del self._streams[stream]
            self._counts.update(stream.counts)
            self._waited += stream.waited

    def stats(self) -> FetchStats:
        with self._mutex:
            values: dict[str, Any] = self._counts
            ended = FetchStats(**values, waited=self._waited)
            return sum((stream.stats for stream in self._streams), ended + self._asked())

    def _asked(self) -> FetchStats:
        """What engines count: for all readings together."""
        return sum((FetchStats(**one.counted()) for one in self._engines), self._asked_before)

    def close(self) -> None:
        with self._mutex:  # another thread may close it, too, or open the next
            engine, end = self.engine, self._end
            self.engine = self._end = None
        if engine is None or end is None:
            return
        end()
        with self._mutex:
            self._engines.remove(engine)
            self._asked_before += FetchStats(**engine.counted())


def _close(engine: Engine, pid: int) -> None:
    if os.getpid() == pid:
        engine.close()


_making: Final = ForkLock()

# What a forked child has of its parent's: touched, it would end the parent's connections (TLS says
# goodbye on them) or wake its loop; so it stays as it is for as long as the child lives.
_left_alone: Final[list[_ProcessState]] = []
