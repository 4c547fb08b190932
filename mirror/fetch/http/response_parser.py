"""Parse HTTP/1.1 responses, one after the other, from the bytes of a connection. Pure.

llhttp, Node's parser, decides what each byte means. It refuses a response whose length is ambiguous:
bytes left over would be read as the next response.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import httptools

# Body bytes to keep of a response that is no image: S3's error document.
_MAX_ERROR_BODY: Final = 16 << 10
# Bytes that may come before the end of the header block; S3 sends about 600.
_MAX_HEAD: Final = 64 << 10
# Headers that delimit a body.
_BODY_LENGTH: Final = {b"content-length", b"transfer-encoding"}


class BadResponse(Exception):
    """The bytes are no HTTP/1.1 response; the message says why."""


class HttpResponse(NamedTuple):
    """A server's response.

    Attributes:
        status: the status code, three digits.
        headers: by lower-case name; repeated headers are joined by commas. Empty for a 200.
        body: at most one byte more than was asked for; of an error, possibly cut short or missing.
        reusable: the connection can take another request.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    reusable: bool


class ResponseParser:
    """Parses the responses to GETs, one at a time; httptools calls its `on_…` methods.

    Attributes:
        started: bytes of the current response have come.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.begin(0)

    def begin(self, max_body: int) -> None:
        """Expect a response, and read `max_body` bytes of its body and one more."""
        self._max_body = max_body
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self._head_bytes = 0  # received so far without the end of a header block
        self._status = 0  # of the final response, known at the end of its header block
        self._complete = self._keep_alive = self._has_extra = False
        self.started = False

    def feed(self, data: bytes | memoryview) -> HttpResponse | None:
        """Parse more bytes; returns the response once enough of it has come.

        Raises:
            BadResponse: the bytes are no response, or its end is ambiguous.
        """
        self.started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BadResponse("the response is in another protocol") from None
        except httptools.HttpParserError as error:
            if not self._complete:
                raise BadResponse(f"the response is not HTTP/1.1 ({error})") from None
            self._has_extra = True  # bytes after a complete response cannot spoil it
        if not self._status:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD:
                raise BadResponse("the response's headers do not end")
            return None
        return self._finish() if self._complete or self._size > self._max_body else None

    def end(self) -> HttpResponse | None:
        """The connection has ended: returns the response, if its body ends with the connection."""
        has_length = any(name.lower() in _BODY_LENGTH for name, _ in self._headers)
        return None if not self._status or has_length else self._finish()

    def _finish(self) -> HttpResponse:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        reusable = self._complete and self._keep_alive and not self._has_extra
        # Converting an image's headers, which are not used, would cost 5 % of the whole fetch.
        headers = {} if self._status == 200 else _by_name(self._headers)
        response = HttpResponse(self._status, headers, body[: self._max_body + 1], reusable)
        self.begin(0)
        return response

    # --- called by httptools ---

    def on_message_begin(self) -> None:
        self._has_extra = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # else it is a trailer
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._complete or status < 200:
            return
        self._status = status
        if status != 200:
            self._max_body = _MAX_ERROR_BODY

    def on_body(self, body: bytes) -> None:
        if self._size <= self._max_body and not self._complete:
            self._body.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self._status:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()
        else:  # an interim response (1xx); the final one follows
            self._headers.clear()


def _by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").rstrip()
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found
