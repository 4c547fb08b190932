"""Answers are read as RFC 9112 says, whole or in pieces; what is ambiguous is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.fetch.http1 import BadAnswer, Chunks, parse_head


def head(*headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *headers]).encode("latin-1")


@pytest.mark.parametrize(
    ("raw", "length", "chunked", "persistent"),
    [
        (head("Content-Length: 5"), 5, False, True),
        (head("content-LENGTH:5"), 5, False, True),
        (head("Content-Length: 5", "Content-Length: 5"), 5, False, True),
        (head("Content-Length: 5, 5"), 5, False, True),
        (head("Content-Length: 5", "Connection: close"), 5, False, False),
        (head("Content-Length: 5", "Connection: Keep-Alive, Close"), 5, False, False),
        (head("Content-Length: 5", status="HTTP/1.0 200 OK"), 5, False, False),
        (head("Content-Length: 5", "Connection: keep-alive", status="HTTP/1.0 200"), 5, False, True),
        (head("Transfer-Encoding: chunked"), None, True, True),
        (head(), None, False, False),
        (head(status="HTTP/1.1 204 No Content"), 0, False, True),
        (head("Content-Length: 5", status="HTTP/1.1 304 Not Modified"), 0, False, True),
        (head(status="HTTP/1.1 103 Early Hints"), 0, False, True),
        (head("Content-Length: 0", status="HTTP/1.1 404 "), 0, False, True),
    ],
)  # fmt: skip
def test_where_a_body_ends(raw: bytes, length: int | None, chunked: bool, persistent: bool) -> None:
    found = parse_head(raw)
    assert (found.length, found.chunked, found.persistent) == (length, chunked, persistent)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 no",
        b"ICY 200 OK",
        b"<html>",
        head("Content-Length: -5"),
        head("Content-Length: +5"),
        head("Content-Length: 5x"),
        head("Content-Length: 0x5"),
        head("Content-Length: 5", "Content-Length: 6"),
        head("Content-Length: 5", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: gzip, chunked"),
        head("Transfer-Encoding: chunked, chunked"),
        head("Content-Length : 5"),
        head(" folded: 5"),
        head("no colon"),
        head(": no name"),
        head("A: b\nContent-Length: 5"),
        head("A: \0"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse_head(raw)


def test_headers_are_found_by_lower_case_and_joined_when_repeated() -> None:
    headers = parse_head(head("Retry-After: 3", "Via: a", "VIA:  b ")).headers
    assert headers == {"retry-after": "3", "via": "a, b"}


def chunked(pieces: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    frames = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join([*frames, b"0\r\n", trailers, b"\r\n"])


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.integers(1, 50),
    st.sampled_from([b"", b";a=b", b" ;a"]),
    st.sampled_from([b"", b"X: y\r\n", b"X: y\r\nZ: w\r\n"]),
    st.binary(max_size=5),
)
def test_chunks_come_together_however_they_are_cut(
    pieces: list[bytes], step: int, extension: bytes, trailers: bytes, rest: bytes
) -> None:
    raw = chunked(pieces, extension, trailers)
    chunks = Chunks()
    for at in range(0, len(raw), step):
        assert not chunks.whole
        chunks.feed(raw[at : at + step] + (rest if at + step >= len(raw) else b""))
    assert chunks.whole
    assert bytes(chunks.body) == b"".join(pieces)
    assert chunks.rest == rest


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), st.data())
def test_a_chunked_body_that_is_cut_short_is_not_whole(
    pieces: list[bytes], data: st.DataObject
) -> None:
    raw = chunked(pieces)
    chunks = Chunks()
    chunks.feed(raw[: data.draw(st.integers(0, len(raw) - 1))])
    assert not chunks.whole


@pytest.mark.parametrize(
    "raw",
    [b"x\r\n", b"-1\r\n", b"\r\n", b"5\r\nabcdeXX", b"123456789\r\n", b"5" + 5000 * b" "],
)
def test_chunks_of_no_good_size_are_refused(raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        Chunks().feed(raw)
