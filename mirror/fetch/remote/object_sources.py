"""Sources of objects: a key in, unverified bytes out, one attempt a call."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from mirror.errors import MirrorError, NotFound, StoreError, Throttled, Unreachable
from mirror.fetch.http.transport import Transport
from mirror.fetch.remote.hedging import Hedging
from mirror.fetch.remote.object_urls import RequestUrls
from mirror.layout import FORMAT_KEY, BucketUrl
from mirror.store.engines.file import FileStore
from mirror.store.responses import error_from
from mirror.system.http_headers import retry_after_seconds

_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")


class ObjectSource(Protocol):
    """A place to read objects from. Lives on one event loop."""

    async def get(self, key: str, size: int, *, fresh: bool) -> bytes:
        """Return an object's unverified bytes; the caller verifies them.

        Args:
            key: the object's key.
            size: bytes that it should have. Of a longer object, one byte more is returned.
            fresh: bypass caches on the way.

        Raises:
            StoreError: there is no such object, or the mirror does not answer or refuses.
            OriginBlocked: the request would leave the mirror.
        """
        ...

    async def aclose(self) -> None: ...


class FolderSource:
    """A mirror in a folder."""

    def __init__(self, url: BucketUrl) -> None:
        self._store = FileStore(url)
        self._mark = Path(url.path, FORMAT_KEY)

    async def get(self, key: str, size: int, *, fresh: bool) -> bytes:
        try:
            return await self._store.get(key)
        except NotFound:
            # If the disk is not mounted, every image is missing: no object is at fault.
            if not await asyncio.to_thread(os.path.isfile, self._mark):
                raise Unreachable(
                    f"GET {key}: {self._mark.parent} has no {self._mark.name}, so there is no mirror "
                    "there now; mount its disk, or correct bucket.url."
                ) from None
            raise

    async def aclose(self) -> None:
        await self._store.aclose()


class HttpSource:
    """A mirror behind HTTP.

    Args:
        urls: the objects' URLs.
        transport: sends the requests.
        hedging: decides when to send a second request.

    Attributes:
        requests: requests sent, hedges included.
        hedges: second requests.
        hedges_won: second requests that were answered first.
        throttled: responses that asked to slow down.
    """

    def __init__(self, urls: RequestUrls, transport: Transport, hedging: Hedging) -> None:
        self._urls = urls
        self._transport = transport
        self._hedging = hedging
        self._loop = asyncio.get_running_loop()
        self.hedges = self.hedges_won = self.requests = self.throttled = 0

    async def get(self, key: str, size: int, *, fresh: bool) -> bytes:
        url = self._urls.of(key)
        started = self._loop.time()
        delay = self._hedging.start(started)
        self.requests += 1
        if delay is None:
            data = await self._attempt(url, key, size, fresh=fresh)
        else:
            race = _Race(delay, lambda: self._hedge(url, key, size, fresh=fresh))
            data = await race.run(self._attempt(url, key, size, fresh=fresh))
            self.hedges_won += race.won
        self._hedging.note_answer(self._loop.time() - started)
        return data

    async def _hedge(self, url: str, key: str, size: int, *, fresh: bool) -> bytes | None:
        if not self._hedging.claim(self._loop.time()):
            return None
        self.hedges += 1
        self.requests += 1
        with suppress(MirrorError):  # then the first request's result counts, or its error
            return await self._attempt(url, key, size, fresh=fresh)
        return None

    async def _attempt(self, url: str, key: str, size: int, *, fresh: bool) -> bytes:
        response = await self._transport.get(url, size, fresh=fresh)
        if response.status == 200:
            return response.body
        code = _CODE.search(response.body)
        error = error_from(
            response.status,
            code[1].decode() if code else "",
            f"GET {key}",
            retry_after=retry_after_seconds(response.headers.get("retry-after")),
        )
        if isinstance(error, Throttled):
            self.throttled += 1
            self._hedging.note_throttled(self._loop.time())
        raise error

    async def aclose(self) -> None:
        await self._transport.aclose()


class _Race:
    """A request, and its hedge: a second request that is sent when the first is slow.

    Args:
        delay: seconds until the hedge is due.
        hedge: sends it; returns None if it is not sent, or fails.

    Attributes:
        won: the hedge was faster.
    """

    def __init__(
        self, delay: float, hedge: Callable[[], Coroutine[Any, Any, bytes | None]]
    ) -> None:
        self._delay = delay
        self._hedge = hedge
        self._hedge_task: asyncio.Task[None] | None = None
        self._data: bytes | None = None
        self.won = False

    async def run(self, first: Coroutine[Any, Any, bytes]) -> bytes:
        """Return the result of the faster one; raises only if neither has a result."""
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(self._delay, self._start, task)
        try:
            return await first
        except asyncio.CancelledError:
            # As in asyncio.timeout: `uncancel` tells our own cancellation from one by the caller.
            if self._data is None or task.uncancel() > 0:
                raise
        except StoreError:
            if self._hedge_task is None:
                raise
            hedge, self._hedge_task = self._hedge_task, None
            await hedge
            if self._data is None:
                raise
        finally:
            timer.cancel()
            if self._hedge_task is not None:
                self._hedge_task.cancel()
        self.won = True
        return self._data

    def _start(self, first: asyncio.Task[Any]) -> None:
        self._hedge_task = asyncio.get_running_loop().create_task(self._run_hedge(first))

    async def _run_hedge(self, first: asyncio.Task[Any]) -> None:
        self._data = await self._hedge()
        if self._data is not None and self._hedge_task is not None:
            self._hedge_task = None  # this task is done, and must not be cancelled with the first
            first.cancel()
