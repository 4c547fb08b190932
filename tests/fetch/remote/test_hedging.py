"""Hedged requests: when, how often, and which of the two counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

import pytest

from mirror.errors import MirrorError, NotFound, Throttled, Unreachable
from mirror.fetch.http.allowed_hosts import AllowedHosts
from mirror.fetch.http.transport import Deadlines, Transport
from mirror.fetch.remote.hedging import HedgePolicy, Hedging
from mirror.fetch.remote.object_sources import HttpSource
from mirror.fetch.remote.object_urls import PublicUrls
from mirror.layout import BucketUrl
from mirror.urls import ObjectUrls
from tests.fetch.http.scripted_server import Close, Never, Piece, Script, Scripted, answer

POLICY = HedgePolicy(share=0.1, percentile=0.9, floor=0.01, cooldown=10.0, min_answers=10)


def warm(policy: HedgePolicy = POLICY, durations: Iterable[float] = (0.02,) * 100) -> Hedging:
    """A `Hedging` that has seen these durations."""
    hedging = Hedging(policy)
    for seconds in durations:
        hedging.start(0.0)
        hedging.note_answer(seconds)
    return hedging


def test_no_hedge_before_enough_answers() -> None:
    assert warm(durations=[0.02] * 9).start(0.0) is None
    assert warm(durations=[0.02] * 10).start(0.0) == 0.02


def test_the_delay_is_the_percentile_of_recent_durations() -> None:
    assert warm(durations=[number / 1000 for number in range(1, 101)]).start(0.0) == pytest.approx(
        0.09, abs=0.04
    )
    slower = warm(durations=[0.02] * 600 + [0.5] * 600)
    assert slower.start(0.0) == 0.5
    faster = warm(durations=[0.5] * 600 + [0.02] * 600)
    assert faster.start(0.0) == 0.02


def test_no_hedge_is_sent_before_the_floor() -> None:
    assert warm(durations=[0.001] * 100).start(0.0) == POLICY.floor


def test_hedges_stay_within_their_share() -> None:
    hedging = warm()
    assert sum(hedging.claim(0.0) for _ in range(100)) == 10
    for _ in range(50):
        hedging.start(0.0)
    assert sum(hedging.claim(0.0) for _ in range(100)) == 5


def test_no_hedge_while_the_server_asks_to_slow_down() -> None:
    hedging = warm()
    hedging.note_throttled(100.0)
    assert hedging.start(109.9) is None
    assert not hedging.claim(109.9)
    assert hedging.start(110.0) == 0.02
    assert hedging.claim(110.0)


KEY = "objects/ab/" + "ab" * 16 + ".jpg"


def read(
    script: Script, deadlines: Deadlines | None = None
) -> tuple[bytes | MirrorError, HttpSource, int]:
    """Read one key from a source that may hedge; returns result, source, requests received."""

    async def ask(base: str) -> tuple[bytes | MirrorError, HttpSource]:
        urls = PublicUrls(ObjectUrls(BucketUrl("s3", "b", ""), public_url=base))
        transport = Transport(AllowedHosts([urls.base]), deadlines or Deadlines())
        source = HttpSource(urls, transport, warm())
        try:
            return await source.get(KEY, 3, fresh=False), source
        except MirrorError as error:
            return error, source
        finally:
            await source.aclose()

    with Scripted(script) as server:
        result, source = asyncio.run(ask(server.url))
        return result, source, len(server.requests)


def by_number(*answers: list[Piece]) -> Script:
    return lambda number, _: answers[number]


def test_the_hedge_wins_if_the_first_request_hangs() -> None:
    result, source, _ = read(by_number([Never], [answer(b"two")]))
    assert result == b"two"
    assert (source.requests, source.hedges, source.hedges_won) == (2, 1, 1)


def test_no_hedge_for_an_answer_in_time() -> None:
    result, source, requests = read(by_number([answer(b"one")]))
    assert result == b"one"
    assert (requests, source.hedges, source.hedges_won) == (1, 0, 0)


def test_the_first_request_wins_if_it_is_faster_after_all() -> None:
    second_is_there = threading.Event()

    def script(number: int, _: bytes) -> Iterable[Piece]:
        if number:
            second_is_there.set()
            return [Never]
        return [second_is_there, answer(b"one")]

    result, source, _ = read(script)
    assert result == b"one"
    assert (source.hedges, source.hedges_won) == (1, 0)


@pytest.mark.parametrize("second", [[Close], [answer(b"", "503 Slow")], [answer(b"", "404 No")]])
def test_a_failed_hedge_changes_nothing(second: list[Piece]) -> None:
    deadlines = Deadlines(silence=0.3)
    result, source, requests = read(by_number([Never], second), deadlines)
    assert isinstance(result, Unreachable)
    assert "silent" in str(result)
    assert (requests, source.hedges, source.hedges_won) == (2, 1, 0)


def test_the_hedge_wins_if_the_first_request_fails() -> None:
    second_is_there, first_has_gone = threading.Event(), threading.Event()

    def script(number: int, _: bytes) -> Iterable[Piece]:
        if number:
            second_is_there.set()
            yield first_has_gone
            yield answer(b"two")
        else:
            yield second_is_there
            first_has_gone.set()
            yield Close

    result, source, _ = read(script)
    assert result == b"two"
    assert source.hedges_won == 1


def test_a_refusal_has_its_code_and_retry_after() -> None:
    body = b"<Error><Code>SlowDown</Code></Error>"
    result, source, _ = read(by_number([answer(body, "503 Slow Down", "Retry-After: 7")]))
    assert isinstance(result, Throttled)
    assert result.retry_after == 7.0
    assert source.throttled == 1
    result, _, _ = read(by_number([answer(b"<Code>NoSuchKey</Code>", "404 Not Found")]))
    assert isinstance(result, NotFound)
