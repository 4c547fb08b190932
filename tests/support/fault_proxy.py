"""A proxy between a client and an S3 server that makes requests fail like real networks and services.

    with FaultProxy(server.endpoint, seeded(0.05, [Answer(503), Reset()], seed=7)) as proxy:
        …                         # a client of proxy.endpoint
        assert proxy.counts["list"] == 0

A rule sees each request before the proxy forwards it, and returns its fault. The proxy speaks HTTP/1.1
with bodies by Content-Length or in chunks, and buffers no whole body. Only `Without` changes a request.
The Host header stays, so signatures remain valid. The server answers `Expect: 100-continue`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import md5
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.chaos_tally import count


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. `headers` have lower-case names."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def operation(self) -> str:
        """The operation that a provider bills: put, get, head, list or delete."""
        query = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        if self.method == "GET":
            return "list" if "list-type" in query or "prefix" in query else "get"
        if self.method == "POST":
            return "delete" if "delete" in query else "put"
        return self.method.lower()


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer instead of the server: before it gets the request, or `after` it has done the work."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """Break the connection before the server gets the request."""


@dataclass(frozen=True, slots=True)
class ResetAfter:
    """Let the server do the work, call `then`, and break the connection without its answer."""

    then: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Stall:
    """Stay silent for a number of seconds, then break the connection."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Truncate:
    """Forward a number of bytes of the answer's body, then end."""

    nbytes: int


@dataclass(frozen=True, slots=True)
class DropWrite:
    """Acknowledge a PUT without forwarding it."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Forward after a number of seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Forward once `until` is set, or after a number of seconds."""

    until: threading.Event
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Without:
    """Forward without a header, like a server that ignores it. Works if the server checks no signature."""

    header: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """Forward twice, like a load balancer that got no answer, and return the second answer."""


Fault = Answer | Reset | ResetAfter | Stall | Truncate | DropWrite | Delay | Hold | Without | Repeat
# Called on the proxy's own thread, one request at a time, in order of arrival.
Rule = Callable[[Request], Fault | None]


def name_of(fault: Fault) -> str:
    """The name under which a fault is counted."""
    match fault:
        case Answer(status, after=after):
            return f"{status}{' after the work' if after else ''}"
        case ResetAfter():
            return "broken after the work"
        case Delay() | Hold():
            return "delayed"
        case Without():
            return "header lost"
    words = {Reset: "broken", Stall: "stalled", Truncate: "cut short"}
    return words.get(type(fault), "repeated" if isinstance(fault, Repeat) else "write dropped")


def refusal(status: int, code: str, **headers: str) -> Answer:
    """A refusal in S3's XML."""
    body = f"<Error><Code>{code}</Code><Message>So says the proxy.</Message></Error>"
    return Answer(status, {"Content-Type": "application/xml", **headers}, body.encode())


SLOW_DOWN = refusal(503, "SlowDown")
TOO_MANY_REQUESTS = refusal(429, "TooManyRequests", **{"Retry-After": "1"})
INTERNAL_ERROR = refusal(500, "InternalError")
ACCESS_DENIED = refusal(403, "AccessDenied")


def seeded(probability: float, faults: Sequence[Fault], seed: int) -> Rule:
    """A rule that gives each request one of `faults` with a probability. Equal seeds give equal faults."""
    chance = random.Random(seed)

    def rule(_: Request) -> Fault | None:
        return chance.choice(faults) if chance.random() < probability else None

    return rule


class FaultProxy:
    """A proxy on a free loopback port, in its own thread, while the `with` block runs.

    Args:
        upstream: the server's endpoint, `http://…`, which may have a path.
        rule: returns the fault of each request. It may be replaced at any time.
        tls: the context for clients' connections. The server is reached without TLS.

    Attributes:
        endpoint: the proxy's own.
        counts: requests by operation, as they arrived.
        requests: `(method, path)` in order of arrival.
    """

    def __init__(
        self, upstream: str, rule: Rule | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname, upstream
        self.rule = rule
        self._tls = tls
        self.endpoint = ""
        self.counts: Counter[str] = Counter()
        self.requests: list[tuple[str, str]] = []
        self._upstream = (parts.hostname, parts.port or 80)
        self._path = parts.path
        self._connections: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._errors and error is None:
            raise self._errors[0]

    def forget(self) -> None:
        """Reset the counts."""
        self.counts.clear()
        self.requests.clear()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, backlog=1024, ssl=self._tls
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            scheme = "https" if self._tls else "http"
            self.endpoint = f"{scheme}://127.0.0.1:{port}{self._path}"
            self._ready.set()
            await self._stop.wait()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._attend(_Exchange(reader, writer, self._upstream)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _attend(self, exchange: _Exchange) -> None:
        try:
            while request := await exchange.next_request():
                self.counts[request.operation] += 1
                self.requests.append((request.method, request.path))
                fault = self.rule(request) if self.rule else None
                if fault is not None:
                    count(f"fault {name_of(fault)}")
                if not await exchange.perform(request, fault):
                    break
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # one side has closed, so the other closes too; or the proxy is ending
        except Exception as error:  # noqa: BLE001 - a failing rule must fail its test
            self._errors.append(error)
        finally:
            exchange.close()


class _Exchange:
    """A client's connection, and its connection to the server."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: tuple[str, int],
    ) -> None:
        self._client, self._to_client = reader, writer
        self._address = upstream
        self._server: asyncio.StreamReader | None = None
        self._to_server: asyncio.StreamWriter | None = None

    async def next_request(self) -> Request | None:
        try:
            self._head = await self._client.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        line, headers = _parsed(self._head)
        method, target, _ = line.split(" ")
        return Request(method, target, headers)

    async def perform(self, request: Request, fault: Fault | None) -> bool:
        """Perform the fault. Returns True if the connection stays open."""
        match fault:
            case Answer(after=True):
                await self._unheard(request)
                return await self._answer(request, fault)
            case Answer():
                await self._body_of(request)
                return await self._answer(request, fault)
            case DropWrite():
                etag = md5(await self._body_of(request)).hexdigest()
                return await self._answer(request, Answer(200, {"ETag": f'"{etag}"'}))
            case Repeat():
                return await self._twice(request)
            case Stall(seconds):
                await asyncio.sleep(seconds)
            case ResetAfter(then):
                await self._forward(request, most=None)
                then()
            case Truncate(nbytes):
                return await self._forward(request, most=nbytes)
            case Without(header):
                lines = self._head.split(b"\r\n")
                name = f"{header}:".lower().encode()
                self._head = b"\r\n".join(one for one in lines if not one.lower().startswith(name))
                return await self._forward(request)
            case Delay(seconds):
                await asyncio.sleep(seconds)
                return await self._forward(request)
            case Hold(until, seconds):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        while not until.is_set():  # noqa: ASYNC110 - another thread sets it
                            await asyncio.sleep(0.005)
                return await self._forward(request)
            case None:
                return await self._forward(request)
        self._reset()
        return False

    async def _body_of(self, request: Request) -> bytes:
        """Read a body that the server does not get."""
        if "expect" in request.headers:
            self._to_client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return b"".join([piece async for piece in _body(self._client, request.headers)])

    async def _unheard(self, request: Request) -> None:
        """Let the server do the work. Its answer, or its hanging up, is dropped."""
        await self._forward(request, most=None)
        self._close_upstream()
        self._server = None

    async def _twice(self, request: Request) -> bool:
        body = await self._body_of(request)
        self._head = b"\r\n".join(
            line for line in self._head.split(b"\r\n") if not line.lower().startswith(b"expect:")
        )
        headers = {name: value for name, value in request.headers.items() if name != "expect"}
        plain, client = replace(request, headers=headers), self._client
        try:
            self._client = _filled(body)
            await self._unheard(plain)
            self._client = _filled(body)
            return await self._forward(plain)
        finally:
            self._client = client

    async def _answer(self, request: Request, answer: Answer) -> bool:
        fields = {**answer.headers, "Content-Length": str(len(answer.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        body = b"" if request.method == "HEAD" else answer.body
        self._to_client.write(f"HTTP/1.1 {answer.status} Fault\r\n{head}\r\n".encode() + body)
        await self._to_client.drain()
        return True

    async def _forward(self, request: Request, most: int | None = 1 << 62) -> bool:
        """Forward a request, and return `most` bytes of its answer's body, or nothing for None."""
        if self._server is None or self._to_server is None or self._server.at_eof():
            self._close_upstream()
            self._server, self._to_server = await asyncio.open_connection(*self._address)
        self._to_server.write(self._head)
        sending = asyncio.create_task(self._send_body(request, self._to_server))
        try:
            # A client with `Expect` sends its body after `100 Continue`, or never.
            invited, status = "expect" not in request.headers, 100
            while status < 200:
                head = await self._server.readuntil(b"\r\n\r\n")
                line, headers = _parsed(head)
                status = int(line.split(" ")[1])
                invited = invited or status == 100
                if status < 200 or most is not None:
                    self._to_client.write(head)
            if invited:
                await sending
            closes = line.startswith("HTTP/1.0") or "close" in headers.get("connection", "").lower()
            has_length = not headers.keys().isdisjoint(("content-length", "transfer-encoding"))
            if request.method == "HEAD" or status in (204, 304):
                has_length, headers = True, {}
            left = most or 0
            async for piece in _body(self._server, headers, to_the_end=not has_length):
                self._to_client.write(piece[:left])
                await self._to_client.drain()
                if most is not None and left < len(piece):
                    return False
                left = max(0, left - len(piece))
            await self._to_client.drain()
            return invited and has_length and not closes
        finally:
            sending.cancel()
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await sending

    async def _send_body(self, request: Request, to_server: asyncio.StreamWriter) -> None:
        async for piece in _body(self._client, request.headers):
            to_server.write(piece)
            await to_server.drain()

    def _reset(self) -> None:
        """Close with RST instead of an orderly end."""
        sock = self._to_client.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._to_client.transport.abort()

    def _close_upstream(self) -> None:
        if self._to_server is not None:
            self._to_server.close()

    def close(self) -> None:
        self._to_client.close()
        self._close_upstream()


def _filled(data: bytes) -> asyncio.StreamReader:
    """A stream of exactly these bytes."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    """The first line of a head, and its headers by lower-case name."""
    line, *fields = head.decode("latin-1").split("\r\n")
    pairs = (field.partition(":") for field in fields if field)
    return line, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(
    reader: asyncio.StreamReader, headers: Mapping[str, str], *, to_the_end: bool = False
) -> AsyncIterator[bytes]:
    """The pieces of a message's body as they travel, with the frames of chunks.

    Args:
        reader: positioned behind the message's head.
        headers: the message's. Without a length there is no body, unless `to_the_end` is set.
        to_the_end: the body lasts until the connection closes.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        size = 1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield line + (await reader.readexactly(size + 2) if size else b"")
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            yield line
        yield line
    elif "content-length" in headers or to_the_end:
        left = int(headers.get("content-length", 1 << 62))
        while left:
            piece = await reader.read(min(left, 1 << 16))
            if not piece and not to_the_end:
                raise EOFError
            if not piece:
                return
            left -= len(piece)
            yield piece
