"""GETs over connections that are kept, to the mirror's hosts only, each with its deadlines.

Lives on one event loop. One attempt: what failed is another layer's to try again.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

from mirror._version import __version__
from mirror.errors import Unreachable
from mirror.fetch.fork_lock import NO_FORK
from mirror.fetch.http.allowed_hosts import AllowedHosts, HostPort, split
from mirror.fetch.http.connection import Connection, Stale
from mirror.fetch.http.response_parser import HttpResponse
from mirror.system.http_headers import REDIRECT_STATUSES

_MOST_REDIRECTS: Final = 3
# When IPv6 does not answer, IPv4 is tried beside it (RFC 8305).
_HAPPY_EYEBALLS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds: to `connect`; of `silence` before the first byte and between any two; in `total`."""

    connect: float = 10.0
    silence: float = 20.0
    total: float = 300.0


class Transport:
    """Connections to the mirror.

    Args:
        guard: says where they may lead.
        deadlines: of each attempt.
    """

    def __init__(self, guard: AllowedHosts, deadlines: Deadlines) -> None:
        self._guard = guard
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._free: dict[HostPort, list[Connection]] = {origin: [] for origin in guard.origins}
        self._all: set[Connection] = set()
        self._busy: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._watch: asyncio.TimerHandle | None = None

    async def get(self, url: str, most: int, *, fresh: bool = False) -> HttpResponse:
        """One answer, redirects within the mirror followed.

        Args:
            url: of an object, sent as it stands.
            most: bytes of a body that are wanted; one more is read, to see that there is more.
            fresh: ask caches on the way for the origin's bytes and not their own.

        Raises:
            OriginBlocked: it leads, or the server sends us, out of the mirror.
            Unreachable: no connection, no answer in time, or an answer that breaks off.
        """
        parts = split(url)
        if parts is None:
            raise Unreachable("The mirror's address is no web address; correct bucket.endpoint.")
        for _ in range(_MOST_REDIRECTS + 1):
            origin, target = parts
            answer = await self._ask(origin, _request(origin, target, fresh=fresh), most)
            location = answer.headers.get("location")
            if answer.status not in REDIRECT_STATUSES or location is None:
                return answer
            parts = self._guard.admitted(f"{origin}{target}", location)
        raise Unreachable(f"{origin} redirects without end.")

    async def _ask(self, origin: HostPort, request: bytes, most: int) -> HttpResponse:
        self._guard.require(origin)
        free = self._free[origin]
        while free:
            connection = free.pop()
            if connection.free:
                try:
                    return await self._answer(connection, origin, request, most)
                except Stale:
                    continue
        return await self._answer(await self._connect(origin), origin, request, most)

    async def _answer(
        self, connection: Connection, origin: HostPort, request: bytes, most: int
    ) -> HttpResponse:
        coming = connection.get(request, most)
        self._busy.add(connection)
        if self._watch is None:
            self._look()
        try:
            answer = await coming
        except BaseException:
            connection.close()
            raise
        finally:
            self._busy.discard(connection)
        if connection.free:
            self._free[origin].append(connection)
        return answer

    async def _connect(self, origin: HostPort) -> Connection:
        self._guard.require(origin)  # and nowhere else is a connection opened
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
                "SSL_CERT_FILE names one that is."
            ) from None
        except TimeoutError:
            seconds = self._deadlines.connect
            raise Unreachable(f"{origin}: no connection within {seconds:g} s.") from None
        except OSError as error:
            said = error.strerror or error
            raise Unreachable(f"{origin}: no connection ({said}).") from None
        self._all.add(connection)
        if not connection.free:
            self._all.discard(connection)
            raise Unreachable(f"{origin}: the connection ended as soon as it was there.")
        return connection

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = await asyncio.to_thread(_trusting)
            context.set_alpn_protocols(["http/1.1"])
            self._tls = context
        return self._tls

    def _look(self) -> None:
        """Ends what is too late. One timer for all requests: a timer for each costs more."""
        now = self._loop.time()
        limits = self._deadlines
        for connection in list(self._busy):
            if now - connection.heard_at > limits.silence:
                connection.fail(f"silent for {limits.silence:g} s")
            elif now - connection.asked_at > limits.total:
                connection.fail(f"no whole answer in {limits.total:g} s")
        every = min(limits.silence, limits.total) / 8
        self._watch = self._loop.call_later(every, self._look) if self._busy else None

    async def aclose(self) -> None:
        """Ends all connections; what waits for an answer is told."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for connection in list(self._all):
            connection.fail("closed")
        while self._all:  # noqa: ASYNC110 - the loop tells each of its end
            await asyncio.sleep(0)


def _trusting() -> ssl.SSLContext:
    with NO_FORK:
        return ssl.create_default_context()


def _request(origin: HostPort, target: str, *, fresh: bool) -> bytes:
    lines = f"GET {target} HTTP/1.1\r\nHost: {origin.authority}\r\n{_HEADERS}"
    return f"{lines}Cache-Control: no-cache\r\n\r\n".encode() if fresh else f"{lines}\r\n".encode()


_HEADERS: Final = (
    f"User-Agent: dataset-mirror/{__version__}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
)
