"""One connection to the mirror: a GET at a time, its answer read through memory that is kept.

aiohttp's client spends 1.6 times the CPU of all that a fetch does here, the hash included
(bench/fetch.py, objects of 45 kB). An image is asked for once an epoch by a process that has better
uses for the rest, and all that is needed is a GET: so it is asyncio's own transport and a parser.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from mirror.errors import Unreachable
from mirror.fetch.http.response_parser import BadResponse, HttpResponse, ResponseParser

# Bytes that one read may take from the socket.
_BUFFER: Final = 128 << 10


class Stale(Exception):
    """A kept connection ended before it answered: nothing is wrong, ask on a new one."""


class Connection(asyncio.BufferedProtocol):
    """HTTP/1.1 on a transport, from one request's answer to the next.

    Args:
        clock: seconds; the loop's.
        where: host and port, for messages.
        lost: called with this connection when it has ended.

    Attributes:
        free: nothing is under way and another request may be made.
        asked_at, heard_at: when the request under way was sent, and the last bytes came.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        where: str,
        lost: Callable[[Connection], object],
    ) -> None:
        self._clock = clock
        self._where = where
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(_BUFFER))
        self._reader = ResponseParser()
        self._answer: asyncio.Future[HttpResponse] | None = None
        self._used = False
        self.free = False
        self.asked_at = self.heard_at = 0.0

    def get(self, request: bytes, most: int) -> asyncio.Future[HttpResponse]:
        """Send a request; the answer's body is read up to `most` bytes and one more."""
        assert self.free
        assert self._transport is not None
        self.free = False
        self._reader.begin(most)
        self._answer = asyncio.get_running_loop().create_future()
        self.asked_at = self.heard_at = self._clock()
        self._transport.write(request)
        return self._answer

    def fail(self, why: str) -> None:
        """End the request under way, and the connection."""
        self._fail(Unreachable(f"{self._where}: {why}."))

    def close(self) -> None:
        self.free = False
        if self._transport is not None:
            self._transport.abort()  # nothing that was sent is still on its way

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.free = True

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard_at = self._clock()
        if self._answer is None or self._answer.done():
            self.close()  # bytes that nobody asked for, or nobody waits for any more
            return
        try:
            self._take(self._reader.feed(self._buffer[:nbytes]))
        except BadResponse as error:
            self.fail(f"{error}")

    def eof_received(self) -> None:
        self._take(self._reader.end())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.free = False
        self._lost(self)
        if self._used and not self._reader.heard:
            self._fail(Stale())
        else:
            said = f" ({exc})" if exc else ""
            self.fail(f"the connection ended before the answer did{said}")

    def _take(self, answer: HttpResponse | None) -> None:
        if answer is None:
            return
        waiting, self._answer = self._answer, None
        self._used = True
        self.free = answer.reusable and self._transport is not None
        if not self.free:
            self.close()
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        self.close()
        if answer is not None and not answer.done():
            answer.set_exception(error)
