"""A server that plays iNaturalist on loopback: photos, replacements for them, and strict limits.

    with INaturalist(clock) as server:
        url = server.photo(1, Image(photo(1)))
        …
        assert server.most_requests(3600) <= 150

It counts what it was asked and what it sent by its own clock, which a test may drive.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import itertools
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

HOSTS = ("static.inaturalist.org", "inaturalist-open-data.s3.amazonaws.com")
LOOPBACK = "127.0.0.1"
HTML = b"<!DOCTYPE html><title>We are sorry</title><p>Please try again later.</p>"
# Bytes that the system buffers ahead of the client; small, so that the bytes sent are the bytes counted.
_SEND_BUFFER = 16 << 10


@dataclass(frozen=True)
class Image:
    """An answer with a body. `length`: a false Content-Length."""

    body: bytes
    status: int = 200
    content_type: str = "image/jpeg"
    length: int | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stall:
    """Sends the head and half of the body, then nothing more."""

    body: bytes = b"x" * 1000


@dataclass(frozen=True)
class Reset:
    """Breaks the connection before the answer, or in the middle of its body."""

    body: bytes = b""


@dataclass(frozen=True)
class Endless:
    """A body of a given size, without a Content-Length."""

    nbytes: int
    status: int = 200


@dataclass(frozen=True)
class First:
    """One answer for a number of requests, then another."""

    times: int
    first: Any
    then: Any


Answer = Image | Stall | Reset | Endless | First


def gone(status: int = 404) -> Image:
    return Image(b"<Error><Code>AccessDenied</Code></Error>", status, "application/xml")


def html() -> Image:
    return Image(HTML, content_type="text/html; charset=utf-8")


def redirect(location: str, status: int = 302) -> Image:
    return Image(b"", status, headers=(f"Location: {location}",))


@dataclass(frozen=True)
class Hit:
    """A request. `at`: when it came, by the server's clock."""

    at: float
    path: str
    host: str
    agent: str
    status: int


class Everywhere(AbstractResolver):
    """A resolver that gives this machine's address for every name."""

    def __init__(self, address: str = LOOPBACK) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return await ThreadedResolver().resolve(self._address, port, family)

    async def close(self) -> None:
        pass


@dataclass
class INaturalist:
    """The server, on a thread of its own.

    Attributes:
        clock: what it counts by.
        per_hour: more requests in an hour are refused.
        robots: its robots.txt; none where empty.
        hits: every request that came.
        sent: `(when, bytes)` of bodies.
        refused_until: when all is refused, as after too many requests.
    """

    clock: Callable[[], float]
    per_hour: int = 10**9
    robots: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    sent: list[tuple[float, int]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    _refusals: Iterator[int] = field(default_factory=itertools.count)
    _released: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def _listen(self) -> asyncio.Server:
        self._over = asyncio.Event()
        return await asyncio.start_server(self._serve, LOOPBACK, 0)

    def __exit__(self, *_: object) -> None:
        async def close() -> None:
            self._over.set()
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def photo(self, number: int, answer: Answer, host: str = HOSTS[0], query: str = "") -> str:
        """Serve a photo, and return its URL."""
        path = f"/photos/{number}/medium.jpg{query}"
        self.answers[path] = answer
        return f"http://{host}:{self.port}{path}"

    # --- what a test wants to know ---

    def times_asked(self, url: str) -> int:
        return self.asked[url.split(f":{self.port}", 1)[1]]

    def most_requests(self, seconds: float) -> int:
        """The most within any period of a length in seconds."""
        return most_within([(hit.at, 1) for hit in self.hits], seconds)

    def most_bytes(self, seconds: float) -> int:
        return most_within(self.sent, seconds)

    # --- serving ---

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        writer.transport.set_write_buffer_limits(high=_SEND_BUFFER)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            await self._answer(path, headers, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self, path: str, headers: dict[str, str], writer: asyncio.StreamWriter
    ) -> None:
        now = self.clock()
        answer: Any = self._refusal(now) or self._of(path)
        status = getattr(answer, "status", 200)
        self.hits.append(
            Hit(now, path, headers.get("Host", ""), headers.get("User-Agent", ""), status)
        )
        if isinstance(answer, Image):
            await self._send(writer, answer)
        elif isinstance(answer, Stall):
            await self._head(writer, 200, "image/jpeg", len(answer.body))
            await self._body(writer, answer.body[: len(answer.body) // 2])
            await self._over.wait()
        elif isinstance(answer, Endless):
            await self._head(writer, answer.status, "image/jpeg", None)
            for begin in range(0, answer.nbytes, 4096):
                await self._body(writer, b"\xff" * min(4096, answer.nbytes - begin))
        else:
            if answer.body:
                await self._head(writer, 200, "image/jpeg", len(answer.body))
                await self._body(writer, answer.body[: len(answer.body) // 2])
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def _refusal(self, now: float) -> Image | None:
        within = sum(1 for hit in reversed(self.hits[-self.per_hour :]) if now - hit.at < 3600)
        if within < self.per_hour:
            return None
        oldest = self.hits[-self.per_hour].at
        wait = oldest + 3600 - now
        if next(self._refusals) % 2:
            told = f"{wait:.0f}"
        else:
            told = email.utils.formatdate(now + wait, usegmt=True)
        date = email.utils.formatdate(now, usegmt=True)
        return Image(
            b"slow down", 429, "text/plain", headers=(f"Retry-After: {told}", f"Date: {date}")
        )

    def _of(self, path: str) -> Answer:
        if path == "/robots.txt":
            return Image(self.robots.encode(), content_type="text/plain") if self.robots else gone()
        self.asked[path] += 1
        answer: Any = self.answers.get(path, gone())
        while isinstance(answer, First):
            answer = answer.first if self.asked[path] <= answer.times else answer.then
        assert isinstance(answer, Answer)
        return answer

    async def _send(self, writer: asyncio.StreamWriter, image: Image) -> None:
        length = len(image.body) if image.length is None else image.length
        await self._head(writer, image.status, image.content_type, length, image.headers)
        await self._body(writer, image.body)

    async def _head(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        content_type: str,
        length: int | None,
        more: Sequence[str] = (),
    ) -> None:
        lines = [
            f"HTTP/1.1 {status} So",
            f"Content-Type: {content_type}",
            "Connection: close",
            *more,
        ]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await writer.drain()

    async def _body(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        for begin in range(0, len(body), 16 << 10):
            piece = body[begin : begin + (16 << 10)]
            writer.write(piece)
            await writer.drain()
            self.sent.append((self.clock(), len(piece)))


def most_within(events: Sequence[tuple[float, int]], seconds: float) -> int:
    """The largest sum of events within less than `seconds`."""
    most = total = begin = 0
    for at, amount in events:
        total += amount
        while at - events[begin][0] >= seconds:
            total -= events[begin][1]
            begin += 1
        most = max(most, total)
    return most
