"""Responses are parsed as in RFC 9112, whole or in pieces; ambiguous ones are refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.fetch.http.response_parser import BadResponse, HttpResponse, ResponseParser

MOST = 1000


def raw(*headers: str, status: str = "HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return "\r\n".join([status, *headers, "", ""]).encode("latin-1") + body


def read(data: bytes, step: int = 10_000, most: int = MOST) -> HttpResponse | None:
    """The answer in `data`, fed `step` bytes at a time and then ended."""
    reader = ResponseParser()
    reader.begin(most)
    for at in range(0, len(data), step):
        answer = reader.feed(data[at : at + step])
        if answer is not None:
            return answer
    return reader.end()


ANSWERS: list[tuple[bytes, bytes, bool]] = [
    # (bytes, the body, the connection may be used again)
    (raw("Content-Length: 5", body=b"abcde"), b"abcde", True),
    (raw("content-LENGTH:5", body=b"abcde"), b"abcde", True),
    (raw("Content-Length: 5", "Connection: close", body=b"abcde"), b"abcde", False),
    (raw("Content-Length: 5", "Connection: Keep-Alive, Close", body=b"abcde"), b"abcde", False),
    (raw("Content-Length: 5", status="HTTP/1.0 200 OK", body=b"abcde"), b"abcde", False),
    (raw("Content-Length: 1", "Connection: keep-alive", status="HTTP/1.0 200 OK", body=b"a"), b"a", True),
    (raw("Transfer-Encoding: chunked", body=b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), b"abc", True),
    (raw("Transfer-Encoding: chunked", body=b"2;a=b\r\nab\r\n0\r\nA: b\r\n\r\n"), b"ab", True),
    (raw(body=b"until the end"), b"until the end", False),
    (raw(status="HTTP/1.1 204 No Content"), b"", True),
    (raw("Content-Length: 5", status="HTTP/1.1 304 Not Modified"), b"", True),
    (raw("A: b", status="HTTP/1.1 103 Early") + raw("Content-Length: 1", body=b"a"), b"a", True),
    (raw(status="HTTP/1.1 100 Continue") * 3 + raw("Content-Length: 1", body=b"a"), b"a", True),
    (raw("Content-Length: 0", status="HTTP/1.1 404 "), b"", True),
]  # fmt: skip


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
@pytest.mark.parametrize(("data", "body", "reusable"), ANSWERS)
def test_a_response_is_the_same_in_pieces_of_any_size(
    data: bytes, body: bytes, reusable: bool, step: int
) -> None:
    answer = read(data, step)
    assert answer is not None
    assert (answer.body, answer.reusable) == (body, reusable)


@pytest.mark.parametrize(
    "data",
    [data for data, _, reusable in ANSWERS if reusable]
    + [
        raw("Content-Length: 9", body=b"abcde"),
        b"HTTP/1.1 200 OK\r\nContent-Le:",
        b"HTTP/1.1 200 OK\r\n",
        b"",
    ],
)
def test_a_truncated_response_is_none(data: bytes) -> None:
    assert read(data[:-1]) is None


@pytest.mark.parametrize(("data", "body", "reusable"), ANSWERS)
@pytest.mark.parametrize("behind", [b"\0", b"HTTP/1.1", raw("Content-Length: 1", body=b"z")])
def test_a_connection_with_extra_bytes_is_not_reused(
    data: bytes, body: bytes, reusable: bool, behind: bytes
) -> None:
    if reusable:
        answer = read(data + behind)
        assert answer is not None
        assert (answer.body, answer.reusable) == (body, False)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"<html>",
        raw("Upgrade: h2c", "Connection: upgrade", status="HTTP/1.1 101 Switching"),
        raw("Content-Length: -5"),
        raw("Content-Length: +5"),
        raw("Content-Length: 5x"),
        raw("Content-Length: 0x5"),
        raw("Content-Length: 99999999999999999999999"),
        raw("Content-Length: 5", "Content-Length: 6"),
        raw("Content-Length: 5", "Transfer-Encoding: chunked"),
        raw("Content-Length : 5"),
        raw("no colon"),
        raw(": no name"),
        raw("A: b\nContent-Length: 5"),
        raw("A: \0"),
        raw("A: " + 70_000 * "b"),
        raw("Transfer-Encoding: chunked", body=b"x\r\n"),
        raw("Transfer-Encoding: chunked", body=b"-1\r\n"),
        raw("Transfer-Encoding: chunked", body=b"\r\n"),
        raw("Transfer-Encoding: chunked", body=b"5\r\nabcdeXX"),
    ],
)
def test_ambiguous_responses_are_refused(data: bytes) -> None:
    with pytest.raises(BadResponse):
        read(data)


def test_headers_are_found_by_lower_case_and_joined_when_repeated() -> None:
    headers = ("Retry-After: 3", "Via: a", "VIA:  b ", "Content-Length: 0")
    answer = read(raw(*headers, status="HTTP/1.1 503 Slow Down"))
    assert answer is not None
    assert answer.headers == {"retry-after": "3", "via": "a, b", "content-length": "0"}


def test_headers_of_interim_responses_and_trailers_are_dropped() -> None:
    early = raw("Early: yes", status="HTTP/1.1 103 Early Hints")
    body = b"1\r\na\r\n0\r\nTrailer: yes\r\n\r\n"
    answer = read(early + raw("Transfer-Encoding: chunked", status="HTTP/1.1 404 No", body=body))
    assert answer is not None
    assert answer.headers == {"transfer-encoding": "chunked"}


@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
def test_one_byte_more_is_read_of_a_body_that_is_too_long(framing: str) -> None:
    body = bytes(range(250)) * 8
    data = {
        "length": raw(f"Content-Length: {len(body)}", body=body),
        "chunks": raw("Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
        "end": raw(body=body),
    }[framing]  # fmt: skip
    for step in (100, len(data)):
        answer = read(data, step)
        assert answer is not None
        assert answer.body == body[: MOST + 1]
        assert not answer.reusable or step == len(data)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.integers(1, 50))
def test_a_connection_carries_one_response_after_the_other(bodies: list[bytes], step: int) -> None:
    reader = ResponseParser()
    for body in bodies:
        reader.begin(MOST)
        assert not reader.started
        data = raw(f"Content-Length: {len(body)}", body=body)
        answers = [reader.feed(data[at : at + step]) for at in range(0, len(data), step)]
        assert answers[:-1] == [None] * (len(answers) - 1)
        last = answers[-1]
        assert last is not None
        assert (last.body, last.reusable) == (body, True)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_response_or_none(data: bytes) -> None:
    for prefix in (b"", b"HTTP/1.1 200 OK\r\n", raw("Transfer-Encoding: chunked")):
        with contextlib.suppress(BadResponse):
            read(prefix + data)
