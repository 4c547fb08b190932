"""The mirror as a fetcher sees it: a key in, bytes out, one attempt at a time."""

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
from mirror.fetch.remote.object_urls import Addresses
from mirror.layout import FORMAT_KEY, BucketUrl
from mirror.store.engines.file import FileStore
from mirror.store.responses import error_from
from mirror.system.http_headers import retry_after_seconds

_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")


class ObjectSource(Protocol):
    """Where objects come from. Lives on one event loop."""

    async def get(self, key: str, size: int, *, fresh: bool) -> bytes:
        """An object's bytes, as they came: who asks checks them.

        Args:
            key: of the object.
            size: bytes that it should have; of a longer one, one more is given.
            fresh: past the caches on the way.

        Raises:
            StoreError: there is none, or the mirror cannot be reached or refuses.
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
            # Of a disk that is not mounted no image would be there, which is no image's fault.
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
        addresses: of its objects.
        transport: what asks for them.
        hedging: says when to ask a second time.

    Attributes:
        hedges, hedges_won: second requests, and those that were answered first.
        requests: sent, the second ones included.
        throttled: answers that asked to slow down.
    """

    def __init__(self, addresses: Addresses, transport: Transport, hedging: Hedging) -> None:
        self._addresses = addresses
        self._transport = transport
        self._hedging = hedging
        self._loop = asyncio.get_running_loop()
        self.hedges = self.hedges_won = self.requests = self.throttled = 0

    async def get(self, key: str, size: int, *, fresh: bool) -> bytes:
        url = self._addresses.of(key)
        began = self._loop.time()
        after = self._hedging.asked(began)
        self.requests += 1
        if after is None:
            data = await self._attempt(url, key, size, fresh=fresh)
        else:
            race = _Race(after, lambda: self._second(url, key, size, fresh=fresh))
            data = await race.run(self._attempt(url, key, size, fresh=fresh))
            self.hedges_won += race.won
        self._hedging.answered(self._loop.time() - began)
        return data

    async def _second(self, url: str, key: str, size: int, *, fresh: bool) -> bytes | None:
        if not self._hedging.take(self._loop.time()):
            return None
        self.hedges += 1
        self.requests += 1
        with suppress(MirrorError):  # the first one's answer, or its error, is then what counts
            return await self._attempt(url, key, size, fresh=fresh)
        return None

    async def _attempt(self, url: str, key: str, size: int, *, fresh: bool) -> bytes:
        answer = await self._transport.get(url, size, fresh=fresh)
        if answer.status == 200:
            return answer.body
        code = _CODE.search(answer.body)
        error = error_from(
            answer.status,
            code[1].decode() if code else "",
            f"GET {key}",
            retry_after=retry_after_seconds(answer.headers.get("retry-after")),
        )
        if isinstance(error, Throttled):
            self.throttled += 1
            self._hedging.throttled(self._loop.time())
        raise error

    async def aclose(self) -> None:
        await self._transport.aclose()


class _Race:
    """A request, and a second one for the same that begins when the first takes too long.

    Args:
        after: seconds until then.
        second: begins it; gives None where it does not, or fails.

    Attributes:
        won: the second one was faster.
    """

    def __init__(
        self, after: float, second: Callable[[], Coroutine[Any, Any, bytes | None]]
    ) -> None:
        self._after = after
        self._second = second
        self._rival: asyncio.Task[None] | None = None
        self._data: bytes | None = None
        self.won = False

    async def run(self, first: Coroutine[Any, Any, bytes]) -> bytes:
        """What the faster of the two gives; an error only when neither gives anything."""
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(self._after, self._start, task)
        try:
            return await first
        except asyncio.CancelledError:
            # As asyncio.timeout does: told apart from a cancellation that comes from outside.
            if self._data is None or task.uncancel() > 0:
                raise
        except StoreError:
            if self._rival is None:
                raise
            rival, self._rival = self._rival, None
            await rival
            if self._data is None:
                raise
        finally:
            timer.cancel()
            if self._rival is not None:
                self._rival.cancel()
        self.won = True
        return self._data

    def _start(self, first: asyncio.Task[Any]) -> None:
        self._rival = asyncio.get_running_loop().create_task(self._run_second(first))

    async def _run_second(self, first: asyncio.Task[Any]) -> None:
        self._data = await self._second()
        if self._data is not None and self._rival is not None:
            self._rival = None  # it is at its end, and must not be cancelled with the first
            first.cancel()
