"""GETs over kept connections, to the mirror's hosts only, each with its deadlines.

Lives on one event loop. Each call is one attempt; retries are made above this layer.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

from mirror._version import __version__
from mirror.errors import Unreachable
from mirror.fetch.fork_lock import NO_FORK
from mirror.fetch.http.allowed_hosts import AllowedHosts, HostPort, split_url
from mirror.fetch.http.connection import Connection, Stale
from mirror.fetch.http.response_parser import HttpResponse
from mirror.system.http_headers import REDIRECT_STATUSES

_MOST_REDIRECTS: Final = 3
# Seconds after which IPv4 is tried beside an IPv6 address that does not answer (RFC 8305).
_HAPPY_EYEBALLS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Limits of one attempt, in seconds.

    Attributes:
        connect: to open a connection.
        silence: before the first byte, and between two reads.
        total: for the whole response.
    """

    connect: float = 10.0
    silence: float = 20.0
    total: float = 300.0


class Transport:
    """A pool of connections to the mirror.

    Args:
        hosts: the hosts that connections may lead to.
        deadlines: limits of each attempt.
    """

    def __init__(self, hosts: AllowedHosts, deadlines: Deadlines) -> None:
        self._hosts = hosts
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._free: dict[HostPort, list[Connection]] = {origin: [] for origin in hosts.origins}
        self._all: set[Connection] = set()
        self._busy: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def get(self, url: str, max_body: int, *, fresh: bool = False) -> HttpResponse:
        """Send one GET; redirects within the mirror are followed.

        Args:
            url: an object's URL, sent unchanged.
            max_body: bytes of the body to read. One more is read, to detect a longer body.
            fresh: ask caches on the way to fetch the object again (`Cache-Control: no-cache`).

        Raises:
            OriginBlocked: the URL or a redirect leads out of the mirror.
            Unreachable: no connection, no response in time, or a response that breaks off.
        """
        parts = split_url(url)
        if parts is None:
            raise Unreachable("The mirror's address is no web address; correct bucket.endpoint.")
        for _ in range(_MOST_REDIRECTS + 1):
            origin, target = parts
            response = await self._send(origin, _request(origin, target, fresh=fresh), max_body)
            location = response.headers.get("location")
            if response.status not in REDIRECT_STATUSES or location is None:
                return response
            parts = self._hosts.redirected(f"{origin}{target}", location)
        raise Unreachable(f"{origin} redirects without end.")

    async def _send(self, origin: HostPort, request: bytes, max_body: int) -> HttpResponse:
        self._hosts.require(origin)
        free = self._free[origin]
        while free:
            connection = free.pop()
            if connection.free:
                try:
                    return await self._send_on(connection, origin, request, max_body)
                except Stale:
                    continue
        return await self._send_on(await self._connect(origin), origin, request, max_body)

    async def _send_on(
        self, connection: Connection, origin: HostPort, request: bytes, max_body: int
    ) -> HttpResponse:
        pending = connection.get(request, max_body)
        self._busy.add(connection)
        if self._timer is None:
            self._check_deadlines()
        try:
            response = await pending
        except BaseException:
            connection.close()
            raise
        finally:
            self._busy.discard(connection)
        if connection.free:
            self._free[origin].append(connection)
        return response

    async def _connect(self, origin: HostPort) -> Connection:
        self._hosts.require(origin)  # this is the only place that opens a connection
        host = origin.host.strip("[]")
        tls = await self._tls_context() if origin.scheme == "https" else None
        try:
            async with asyncio.timeout(self._deadlines.connect):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop.time, str(origin), self._all.discard),
                    host,
                    origin.port,
                    ssl=tls,
                    happy_eyeballs_delay=_HAPPY_EYEBALLS,
                )
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"{origin}: its certificate is not trusted ({error.verify_message}); "
                "set SSL_CERT_FILE to a file with the authorities to trust."
            ) from None
        except TimeoutError:
            seconds = self._deadlines.connect
            raise Unreachable(f"{origin}: no connection within {seconds:g} s.") from None
        except OSError as error:
            cause = error.strerror or error
            raise Unreachable(f"{origin}: no connection ({cause}).") from None
        self._all.add(connection)
        if not connection.free:
            self._all.discard(connection)
            raise Unreachable(f"{origin}: the connection ended as soon as it was there.")
        return connection

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = await asyncio.to_thread(_default_context)
            context.set_alpn_protocols(["http/1.1"])
            self._tls = context
        return self._tls

    def _check_deadlines(self) -> None:
        """Fail requests past a deadline. One timer for all: a timer a request costs more."""
        now = self._loop.time()
        limits = self._deadlines
        for connection in list(self._busy):
            if now - connection.received_at > limits.silence:
                connection.fail(f"silent for {limits.silence:g} s")
            elif now - connection.sent_at > limits.total:
                connection.fail(f"no complete response in {limits.total:g} s")
        every = min(limits.silence, limits.total) / 8
        self._timer = self._loop.call_later(every, self._check_deadlines) if self._busy else None

    async def aclose(self) -> None:
        """Close all connections; requests in flight fail."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._all):
            connection.fail("closed")
        while self._all:  # noqa: ASYNC110 - the loop calls each `connection_lost`
            await asyncio.sleep(0)


def _default_context() -> ssl.SSLContext:
    with NO_FORK:
        return ssl.create_default_context()


def _request(origin: HostPort, target: str, *, fresh: bool) -> bytes:
    lines = f"GET {target} HTTP/1.1\r\nHost: {origin.authority}\r\n{_HEADERS}"
    return f"{lines}Cache-Control: no-cache\r\n\r\n".encode() if fresh else f"{lines}\r\n".encode()


_HEADERS: Final = (
    f"User-Agent: dataset-mirror/{__version__}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
)
