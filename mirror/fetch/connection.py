"""One connection to the mirror: a GET at a time, its answer read into memory that is kept.

aiohttp, with everything off that can be, spends 270 µs of CPU on an object of 45 kB; this spends 55.
An image of a training is asked for once an epoch by a process that has better uses for the rest,
and all that is needed is a GET: so it is written here, on asyncio's own transports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from mirror.errors import Unreachable
from mirror.fetch.http1 import BadAnswer, Chunks, Head, UntilTheEnd, parse_head

# Kept by each connection: a head and what mostly comes with it. Longer bodies get their own memory.
_BUFFER: Final = 128 << 10
# Of an answer that is no image: S3's word for what is wrong.
_MOST_OF_A_REFUSAL: Final = 16 << 10
_HEAD_ENDS: Final = b"\r\n\r\n"


class Answer(NamedTuple):
    """`body`: at most one byte more than was asked for; a refusal's may be cut short or missing."""

    status: int
    headers: dict[str, str]
    body: bytes


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
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._answer: asyncio.Future[Answer] | None = None
        self._used = False
        self.free = False
        self.asked_at = self.heard_at = 0.0
        self._begin(0)

    def _begin(self, most: int) -> None:
        self._most = most
        self._filled = 0  # of the memory that is being read into
        self._head: Head | None = None
        self._begins = self._ends = 0  # of a body that the buffer holds
        self._long: bytearray | None = None  # a body that it does not hold
        self._pieces: Chunks | UntilTheEnd | None = None  # one whose length is not known before

    def get(self, request: bytes, most: int) -> asyncio.Future[Answer]:
        """Send a request; the answer's body is read up to `most` bytes and one more."""
        assert self.free
        assert self._transport is not None
        self.free = False
        self._begin(most)
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
        memory = self._view if self._long is None else memoryview(self._long)
        return memory[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self.heard_at = self._clock()
        if self._answer is None or self._answer.done():
            self.close()  # bytes that nobody asked for, or nobody waits for any more
            return
        self._filled += nbytes
        try:
            if self._head is None:
                self._read_head()
            else:
                self._read_body(self._head)
        except BadAnswer as error:
            self.fail(f"{error}")

    def eof_received(self) -> None:
        if isinstance(self._pieces, UntilTheEnd) and self._answer is not None:
            self._finish(bytes(self._pieces.body), clean=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.free = False
        self._lost(self)
        if self._used and not self._filled and self._head is None:
            self._fail(Stale())
        else:
            said = f" ({exc})" if exc else ""
            self.fail(f"the connection ended before the answer did{said}")

    # --- the answer ---

    def _read_head(self) -> None:
        end = self._buffer.find(_HEAD_ENDS, 0, self._filled)
        if end < 0:
            if self._filled == len(self._buffer):
                raise BadAnswer("the answer's head does not end")
            return
        head = parse_head(bytes(self._view[:end]))
        begin = end + len(_HEAD_ENDS)
        if head.status < 200:  # a word in between; the answer follows
            rest = bytes(self._view[begin : self._filled])
            self._view[: len(rest)] = rest
            self._filled = len(rest)
            if rest:
                self._read_head()
            return
        self._head = head
        if head.status != 200:
            self._most = _MOST_OF_A_REFUSAL
        if head.length is None:
            self._pieces = Chunks() if head.chunked else UntilTheEnd()
            came = bytes(self._view[begin : self._filled])
            self._view[: len(came)] = came
            self._filled = len(came)
        else:
            length = min(head.length, self._most + 1)  # what is too long is not read to its end
            self._begins, self._ends = begin, begin + length
            if self._ends > len(self._buffer):
                self._long = bytearray(length)
                came_so_far = self._view[begin : self._filled]
                self._long[: len(came_so_far)] = came_so_far
                self._filled = len(came_so_far)
        self._read_body(head)

    def _read_body(self, head: Head) -> None:
        pieces = self._pieces
        if pieces is not None:
            pieces.feed(self._view[: self._filled])
            self._filled = 0
            if pieces.whole or len(pieces.body) > self._most:
                body = bytes(pieces.body[: self._most + 1])
                self._finish(body, clean=pieces.whole and not pieces.rest)
        elif self._long is not None:
            if self._filled == len(self._long):
                self._finish(bytes(self._long), clean=head.length == self._filled)
        elif self._filled >= self._ends:
            clean = self._filled == self._ends and head.length == self._ends - self._begins
            self._finish(bytes(self._view[self._begins : self._ends]), clean=clean)

    def _finish(self, body: bytes, *, clean: bool) -> None:
        """The answer is there; `clean` says that the connection stands right behind it."""
        head, answer = self._head, self._answer
        assert head is not None
        assert answer is not None
        self._answer = self._long = self._pieces = None
        self._filled = 0
        self._used = True
        self.free = clean and head.persistent and self._transport is not None
        if not self.free:
            self.close()
        answer.set_result(Answer(head.status, head.headers, body))

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        self.close()
        if answer is not None and not answer.done():
            answer.set_exception(error)
