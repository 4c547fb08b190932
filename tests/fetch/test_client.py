"""Fetching: the mirror's bytes, checked, by whatever name; what cannot be had is said, not replaced."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest

from mirror import AsyncFetcher, Fetcher
from mirror.errors import Flagged, NotMirrored
from mirror.sync.run import sync
from tests.conftest import Place
from tests.photos import blank, fill, photo, url_of


@pytest.fixture
def settings(place: Place, tmp_path: Path):
    fill(tmp_path / "cache", {url_of(n): photo(n) for n in range(20)} | {url_of(99): blank()})
    made = place.settings(
        cache={"dir": str(tmp_path / "cache")}, state={"dir": str(tmp_path / "state")}
    )
    assert sync(made).exit_status == 0
    return made


def test_thin(settings) -> None:
    with Fetcher(settings) as fetch:
        assert fetch(url_of(3)) == photo(3)
        got = dict(fetch.many([url_of(n) for n in (5, 99, 100, 7)]))
        assert got[url_of(5)] == photo(5)
        assert isinstance(got[url_of(99)], Flagged)
        assert isinstance(got[url_of(100)], NotMirrored)
        assert fetch.coverage([url_of(n) for n in (5, 99, 100, 7)]).counts == {
            "ok": 2,
            "blank": 1,
            "not_mirrored": 1,
        }
        again = pickle.loads(pickle.dumps(fetch))
        assert again(url_of(5)) == photo(5)
        again.close()

    async def go() -> list[str]:
        async with AsyncFetcher(settings) as fetch:
            assert await fetch(url_of(3)) == photo(3)
            return [u async for u, r in fetch.many([url_of(1), url_of(2)])]

    assert asyncio.run(go()) == [url_of(1), url_of(2)]
