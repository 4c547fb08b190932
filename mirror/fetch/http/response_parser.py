"""One HTTP/1.1 answer after the other, read from the bytes of a connection. Pure.

What a byte means is llhttp's to say, Node's parser, which refuses an answer whose length could be
read in two ways: bytes left over would be taken for the next answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import httptools

# Of an answer that is no image: S3's word for what is wrong.
_MOST_OF_A_REFUSAL: Final = 16 << 10
# Bytes that may come before a head has ended; S3's are some 600.
_LONGEST_HEAD: Final = 64 << 10
# Headers that say where a body ends.
_BOUNDS: Final = {b"content-length", b"transfer-encoding"}


class BadResponse(Exception):
    """Bytes that are no HTTP/1.1 answer. Its message says why."""


class HttpResponse(NamedTuple):
    """What a server said.

    Attributes:
        status: of three digits.
        headers: by lower-case name; what stands twice is joined by commas. Of a 200 none are kept.
        body: at most one byte more than was asked for; a refusal's may be cut short or missing.
        reusable: another request may be made on the connection: it stands right behind the answer.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    reusable: bool


class ResponseParser:
    """Reads the answers to GETs, one at a time; httptools calls its `on_…`.

    Attributes:
        heard: bytes of the answer under way have come.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.begin(0)

    def begin(self, most: int) -> None:
        """An answer is awaited, and of its body `most` bytes and one more."""
        self._most = most
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self._before_body = 0  # bytes that came so far without ending a head
        self._status = 0  # of the final answer, from the end of its head
        self._whole = self._persistent = self._followed = False
        self.heard = False

    def feed(self, data: bytes | memoryview) -> HttpResponse | None:
        """More bytes; the answer, once there is enough of it.

        Raises:
            BadAnswer: they are no answer, or not one that can be told from the next.
        """
        self.heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BadResponse("the answer is in another protocol") from None
        except httptools.HttpParserError as error:
            if not self._whole:
                raise BadResponse(f"the answer is not HTTP/1.1 ({error})") from None
            self._followed = True  # what stands behind a whole answer cannot spoil it
        if not self._status:
            self._before_body += len(data)
            if self._before_body > _LONGEST_HEAD:
                raise BadResponse("the answer's head does not end")
            return None
        return self._answer() if self._whole or self._size > self._most else None

    def end(self) -> HttpResponse | None:
        """The connection has ended: the answer, if that is how its body was to end."""
        bounded = any(name.lower() in _BOUNDS for name, _ in self._headers)
        return None if not self._status or bounded else self._answer()

    def _answer(self) -> HttpResponse:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        reusable = self._whole and self._persistent and not self._followed
        # To read what nobody asks of an image would cost a twentieth of all that it costs to fetch it.
        headers = {} if self._status == 200 else _by_name(self._headers)
        answer = HttpResponse(self._status, headers, body[: self._most + 1], reusable)
        self.begin(0)
        return answer

    # --- what httptools calls ---

    def on_message_begin(self) -> None:
        self._followed = self._whole

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # else it is a trailer
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._whole or status < 200:
            return
        self._status = status
        if status != 200:
            self._most = _MOST_OF_A_REFUSAL

    def on_body(self, body: bytes) -> None:
        if self._size <= self._most and not self._whole:
            self._body.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self._status:
            self._whole = True
            self._persistent = self._parser.should_keep_alive()
        else:  # a word in between; the answer follows
            self._headers.clear()


def _by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").rstrip()
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found
