"""What an HTTP/1.1 answer to a GET says, and where its body ends (RFC 9112). Pure.

Where a length could be read in two ways the answer is refused, not guessed: bytes left over would
be taken for the next answer on the connection.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# The whole head at once: a match for each of its lines would cost more than all the rest.
_HEAD: Final = re.compile(
    r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?((?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*)*)"
)
_LENGTH: Final = re.compile(r"[0-9]{1,15}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")

# Of a chunk's line, and of the trailers behind the last one: nobody sends so much.
_LONGEST_LINE: Final = 4096


class BadAnswer(Exception):
    """Bytes that are no HTTP/1.1 answer. Its message says why."""


class Head(NamedTuple):
    """Status and headers of an answer.

    Attributes:
        status: of three digits.
        headers: by lower-case name; what stands twice is joined by commas.
        length: bytes of the body; None where it comes in chunks or until the connection ends.
        chunked: the body comes in chunks.
        persistent: the connection may be used again behind the body.
    """

    status: int
    headers: dict[str, str]
    length: int | None
    chunked: bool
    persistent: bool


def parse_head(head: bytes) -> Head:
    """An answer's head, without the empty line that ends it.

    Raises:
        BadAnswer: it is no head, or the body's length is not to be told.
    """
    match = _HEAD.fullmatch(head.decode("latin-1"))
    if match is None:
        raise BadAnswer("the answer is not HTTP/1.1")
    status = int(match[2])
    headers: dict[str, str] = {}
    for line in match[3].split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    coding = headers.get("transfer-encoding", "").lower()
    length = _length(headers.get("content-length"))
    if coding not in ("", "chunked") or (coding and length is not None):
        raise BadAnswer("the length of the body is not to be told")
    if status < 200 or status in (204, 304):
        length, coding = 0, ""
    options = headers.get("connection", "").lower()
    persistent = "close" not in options and (match[1] == "1" or "keep-alive" in options)
    bounded = coding != "" or length is not None
    return Head(status, headers, length, coding != "", persistent and bounded)


def _length(text: str | None) -> int | None:
    if text is None:
        return None
    if "," in text:  # the same twice is the same
        values = {value.strip() for value in text.split(",")}
        text = values.pop() if len(values) == 1 else ""
    if not _LENGTH.fullmatch(text):
        raise BadAnswer("the answer has no good Content-Length")
    return int(text)


class UntilTheEnd:
    """A body that ends with its connection. Attributes as of `Chunks`; it never says `whole`."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.whole = False
        self.rest = b""

    def feed(self, data: bytes | memoryview) -> None:
        """More bytes."""
        self.body += data


class Chunks:
    """A body that comes in chunks.

    Attributes:
        body: what has come of it.
        whole: the last chunk and its trailers are there.
        rest: bytes behind it.
    """

    def __init__(self) -> None:
        self.body = bytearray()
        self.whole = False
        self.rest = b""
        self._pending = bytearray()
        self._left = 0  # of the chunk that is being read, its line's end included
        self._last = False

    def feed(self, data: bytes | memoryview) -> None:
        """More bytes. Raises: BadAnswer."""
        self._pending += data
        while not self.whole and self._step():
            pass
        if self.whole:
            self.rest, self._pending = bytes(self._pending), bytearray()

    def _step(self) -> bool:
        if self._left > 2:
            piece = self._pending[: self._left - 2]
            self.body += piece
            self._left -= len(piece)
            del self._pending[: len(piece)]
            return bool(piece)
        if self._left:
            if len(self._pending) < 2:
                return False
            if self._pending[:2] != b"\r\n":
                raise BadAnswer("a chunk is longer than it says")
            del self._pending[:2]
            self._left = 0
            return True
        end = self._pending.find(b"\r\n")
        if end < 0:
            if len(self._pending) > _LONGEST_LINE:
                raise BadAnswer("a chunk has no size")
            return False
        line = bytes(self._pending[:end])
        del self._pending[: end + 2]
        if self._last:  # trailers, up to an empty line
            self.whole = not line
            return True
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise BadAnswer("a chunk has no size")
        size = int(match[1], 16)
        self._last = size == 0
        self._left = size + 2 if size else 0
        return True
