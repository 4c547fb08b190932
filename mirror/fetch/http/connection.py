"""One connection to the mirror: one GET at a time, read through a buffer that is reused.

aiohttp's client alone spends 1.6 times the CPU of everything a fetch does here, the hash included
(bench/fetch.py, objects of 45 kB). A fetch needs only a GET, and a training process has better uses
for the CPU. So this is an asyncio protocol and a parser.
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
    """A kept connection ended before it answered. This is no failure: retry on a new connection."""


class Connection(asyncio.BufferedProtocol):
    """HTTP/1.1 requests on one transport, one after the other.

    Args:
        clock: the loop's clock, in seconds.
        peer: host and port, for messages.
        on_lost: called with this connection when it has ended.

    Attributes:
        free: no request is in flight, and another may be sent.
        sent_at: when the request in flight was sent.
        received_at: when its last bytes came.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        peer: str,
        on_lost: Callable[[Connection], object],
    ) -> None:
        self._clock = clock
        self._peer = peer
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(_BUFFER))
        self._parser = ResponseParser()
        self._response: asyncio.Future[HttpResponse] | None = None
        self._used = False
        self.free = False
        self.sent_at = self.received_at = 0.0

    def get(self, request: bytes, max_body: int) -> asyncio.Future[HttpResponse]:
        """Send a request, and read `max_body` bytes of the response's body and one more."""
        assert self.free
        assert self._transport is not None
        self.free = False
        self._parser.begin(max_body)
        self._response = asyncio.get_running_loop().create_future()
        self.sent_at = self.received_at = self._clock()
        self._transport.write(request)
        return self._response

    def fail(self, why: str) -> None:
        """Fail the request in flight, and close the connection."""
        self._fail(Unreachable(f"{self._peer}: {why}."))

    def close(self) -> None:
        self.free = False
        if self._transport is not None:
            self._transport.abort()  # nothing that was sent is still waiting to go out

    # --- called by asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.free = True

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received_at = self._clock()
        if self._response is None or self._response.done():
            self.close()  # no request is in flight, or its caller has given up
            return
        try:
            self._deliver(self._parser.feed(self._buffer[:nbytes]))
        except BadResponse as error:
            self.fail(f"{error}")

    def eof_received(self) -> None:
        self._deliver(self._parser.end())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.free = False
        self._on_lost(self)
        if self._used and not self._parser.started:
            self._fail(Stale())
        else:
            cause = f" ({exc})" if exc else ""
            self.fail(f"the connection ended before the response was complete{cause}")

    def _deliver(self, response: HttpResponse | None) -> None:
        if response is None:
            return
        waiting, self._response = self._response, None
        self._used = True
        self.free = response.reusable and self._transport is not None
        if not self.free:
            self.close()
        if waiting is not None and not waiting.done():
            waiting.set_result(response)

    def _fail(self, error: Exception) -> None:
        waiting, self._response = self._response, None
        self.close()
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
