"""GETs over kept connections: every way to send a body, broken responses, and silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from mirror.errors import OriginBlocked, Unreachable
from mirror.fetch.http.allowed_hosts import AllowedHosts
from mirror.fetch.http.response_parser import HttpResponse
from mirror.fetch.http.transport import Deadlines, Transport
from tests.fetch.http.scripted_server import Close, Never, Piece, Script, Scripted, answer
from tests.servers.process import free_ports
from tests.support.tls_server import authority

T = TypeVar("T")

BODY = bytes(range(256)) * 20
LONG = bytes(range(256)) * 2000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\n"
# A busy machine may be silent for a while; only the tests of silence use short deadlines.
PATIENT = Deadlines(connect=30.0, silence=30.0, total=30.0)
IMPATIENT = Deadlines(connect=30.0, silence=0.2, total=30.0)


def asked(
    server: Scripted,
    story: Callable[[Transport, str], Awaitable[T]],
    deadlines: Deadlines = PATIENT,
    guard: AllowedHosts | None = None,
) -> T:
    """Run `story` with a transport to the server, and return its result."""

    async def tell() -> T:
        transport = Transport(guard or AllowedHosts([f"{server.url}/mirror/"]), deadlines)
        try:
            return await story(transport, f"{server.url}/mirror/x")
        finally:
            await transport.aclose()

    return asyncio.run(tell())


def sending(*pieces: Piece) -> Script:
    return lambda _, __: pieces


def in_bytes(raw: bytes) -> list[Piece]:
    return [raw[at : at + 1] for at in range(len(raw))]


WAYS: dict[str, tuple[list[Piece], bytes, bool]] = {
    # name: (pieces of an answer, its body, the connection may be used again)
    "at once": ([answer(BODY)], BODY, True),
    "byte by byte": (in_bytes(answer(BODY[:300])), BODY[:300], True),
    "long": ([answer(LONG)], LONG, True),
    "long, in pieces": ([answer(LONG)[:100_000], answer(LONG)[100_000:]], LONG, True),
    "empty": ([answer(b"")], b"", True),
    "after a word in between": ([b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n" + answer(BODY)], BODY, True),
    "in chunks": ([CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"], b"abcde", True),
    "in chunks, byte by byte": (in_bytes(CHUNKED + b"3\r\nabc\r\n0\r\nT: r\r\n\r\n"), b"abc", True),
    "in long chunks": ([CHUNKED, b"7d000\r\n", LONG, b"\r\n0\r\n\r\n"], LONG, True),
    "until it closes": ([TO_THE_END, BODY, Close], BODY, False),
    "until it closes, long": ([TO_THE_END, LONG, Close], LONG, False),
    "said to close": ([answer(BODY, "200 OK", "Connection: close")], BODY, False),
    "with bytes behind it": ([answer(BODY) + b"HTTP/1.1"], BODY, False),
    "a refusal": ([answer(b"<Code>NoSuchKey</Code>", "404 Not Found")], b"<Code>NoSuchKey</Code>", True),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_body_is_whole_in_every_framing(way: str) -> None:
    pieces, body, again = WAYS[way]

    async def twice(transport: Transport, url: str) -> list[HttpResponse]:
        return [await transport.get(url, len(LONG)) for _ in range(2)]

    with Scripted(sending(*pieces)) as server:
        answers = asked(server, twice)
        assert [one.body for one in answers] == [body, body]
        assert server.connections == (1 if again else 2)


@pytest.mark.parametrize(
    "pieces",
    [
        [answer(BODY)],
        [answer(LONG)],
        [CHUNKED + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"],
        [TO_THE_END, BODY, Close],
    ],
)
def test_one_byte_more_is_read_of_a_body_that_is_too_long(pieces: list[Piece]) -> None:
    with Scripted(sending(*pieces)) as server:
        got = asked(server, lambda transport, url: transport.get(url, 1000))
        assert got.body == (BODY + BODY)[:1001]


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ([answer(BODY)[:-1], Close], "before the response was complete"),
        ([answer(LONG)[:-1], Close], "before the response was complete"),
        ([answer(BODY)[:20], Close], "before the response was complete"),
        ([CHUNKED + b"5\r\nab", Close], "before the response was complete"),
        ([Close], "before the response was complete"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], "not HTTP/1.1"),
        ([CHUNKED + b"zz\r\n"], "chunk size"),
        ([b"HTTP/1.1 200 OK\r\nA: " + 200_000 * b"a"], "headers do not end"),
    ],
)
def test_a_broken_response_is_worth_a_retry(pieces: list[Piece], says: str) -> None:
    with Scripted(sending(*pieces)) as server, pytest.raises(Unreachable, match=says):
        asked(server, lambda transport, url: transport.get(url, len(LONG)))


@pytest.mark.parametrize("pieces", [[Never], [answer(BODY)[:-1], Never]])
def test_silence_is_worth_a_retry(pieces: list[Piece]) -> None:
    said = pytest.raises(Unreachable, match=r"silent for 0\.2 s")
    with Scripted(sending(*pieces)) as server, said:
        asked(server, lambda transport, url: transport.get(url, len(LONG)), IMPATIENT)


def test_an_endless_response_ends_at_its_deadline() -> None:
    drops = [answer(b"", length=10_000), *in_bytes(bytes(10_000))]
    deadlines = Deadlines(silence=5.0, total=0.0)
    with (
        Scripted(sending(*drops[:50], Never)) as server,
        pytest.raises(Unreachable, match="complete"),
    ):
        asked(server, lambda transport, url: transport.get(url, 10_000), deadlines)


def test_a_kept_connection_that_the_server_closes_is_no_failure() -> None:
    """The server ends the first connection as the second request arrives on it."""

    def script(number: int, _: bytes) -> list[Piece]:
        return [Close] if number == 1 else [answer(BODY)]

    async def twice(transport: Transport, url: str) -> list[bytes]:
        return [(await transport.get(url, len(BODY))).body for _ in range(2)]

    with Scripted(script) as server:
        assert asked(server, twice) == [BODY, BODY]
        assert (server.connections, len(server.requests)) == (2, 3)


def test_concurrent_requests_have_a_connection_each_and_keep_it() -> None:
    async def several(transport: Transport, url: str) -> None:
        for _ in range(3):
            await asyncio.gather(*(transport.get(url, len(BODY)) for _ in range(5)))

    with Scripted(sending(answer(BODY))) as server:
        asked(server, several)
        assert (server.connections, len(server.requests)) == (5, 15)


def test_a_cancelled_request_closes_its_connection() -> None:
    def script(number: int, _: bytes) -> list[Piece]:
        return [answer(LONG)[:1000], Never] if number == 0 else [answer(BODY)]

    async def give_up(transport: Transport, url: str) -> bytes:
        first = asyncio.create_task(transport.get(url, len(BODY)))
        while not server.requests:  # noqa: ASYNC110 - another thread counts them
            await asyncio.sleep(0.001)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return (await transport.get(url, len(BODY))).body

    with Scripted(script) as server:
        assert asked(server, give_up) == BODY
        assert server.connections == 2


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
def test_a_redirect_within_the_mirror_is_followed(status: str) -> None:
    def script(_: int, head: bytes) -> list[Piece]:
        if b" /mirror/x " in head:
            return [answer(b"", f"{status} Elsewhere", "Location: /mirror/y?z=1")]
        return [answer(head.split()[1])]

    with Scripted(script) as server:
        got = asked(server, lambda transport, url: transport.get(url, 100))
        assert got.body == b"/mirror/y?z=1"


def test_a_redirect_loop_ends() -> None:
    round_and_round = answer(b"", "302 Round", "Location: /mirror/x")
    with Scripted(sending(round_and_round)) as server:
        with pytest.raises(Unreachable, match="redirects without end"):
            asked(server, lambda transport, url: transport.get(url, 100))
        assert len(server.requests) == 4


def test_a_redirect_to_another_server_gets_no_connection() -> None:
    with Scripted(sending(answer(b"not for you"))) as origin:
        there = answer(b"", "302 Found", f"Location: {origin.url}/photos/1/medium.jpg")
        with Scripted(sending(there)) as server, pytest.raises(OriginBlocked, match="redirect"):
            asked(server, lambda transport, url: transport.get(url, 100))
        assert origin.connections == 0


def test_a_url_of_another_server_gets_no_connection() -> None:
    with Scripted(sending(answer(b"not for you"))) as origin, Scripted(sending()) as server:
        with pytest.raises(OriginBlocked, match="was not sent"):
            asked(server, lambda transport, _: transport.get(f"{origin.url}/mirror/x", 100))
        assert (origin.connections, server.connections) == (0, 0)


def test_a_missing_server_is_worth_a_retry() -> None:
    (port,) = free_ports(1)

    async def ask() -> None:
        url = f"http://127.0.0.1:{port}/"
        await Transport(AllowedHosts([url]), PATIENT).get(url, 1)

    with pytest.raises(Unreachable, match="no connection"):
        asyncio.run(ask())


def test_requests_are_plain_and_fresh_ones_bypass_caches() -> None:
    async def both(transport: Transport, url: str) -> None:
        await transport.get(f"{url}?A=%2F&B=+", 100)
        await transport.get(url, 100, fresh=True)

    with Scripted(sending(answer(b""))) as server:
        asked(server, both)
        first, second = server.requests
    assert first.startswith(b"GET /mirror/x?A=%2F&B=+ HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Accept-Encoding: identity\r\n" in first
    assert b"Cookie" not in first
    assert b"Cache-Control" not in first
    assert b"Cache-Control: no-cache\r\n" in second


def test_closing_fails_requests_in_flight() -> None:
    async def close(transport: Transport, url: str) -> None:
        waiting = asyncio.create_task(transport.get(url, 100))
        while not server.requests:  # noqa: ASYNC110 - another thread counts them
            await asyncio.sleep(0.001)
        await transport.aclose()
        await waiting

    with Scripted(sending(Never)) as server, pytest.raises(Unreachable, match="closed"):
        asked(server, close)


def test_https_trusts_the_authorities_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certified = authority(tmp_path)
    deadlines = Deadlines(silence=5.0)

    async def twice(transport: Transport, url: str) -> list[bytes]:
        return [(await transport.get(url, len(LONG))).body for _ in range(2)]

    with Scripted(sending(answer(LONG)), certified.server) as server:
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            asked(server, twice, deadlines)
        monkeypatch.setenv("SSL_CERT_FILE", str(certified.file))
        assert asked(server, twice, deadlines) == [LONG, LONG]
        assert len(server.requests) == 2
