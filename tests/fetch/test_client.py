"""Fetching returns verified bytes for any form of a URL; errors are reported, images never replaced."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mirror import AsyncFetcher, Fetcher
from mirror.config.settings import Settings
from mirror.content.digest import digest_of
from mirror.errors import BadCredentials, CatalogError, Flagged, NotMirrored
from mirror.fetch.engine import Engine
from tests.conftest import MakePlace, Place
from tests.support.fetch_setup import (
    ALL,
    BLANK,
    HURRY,
    PHOTOS,
    UNKNOWN,
    fetching,
    key_of,
    mirrored,
    reached,
)
from tests.support.photos import photo, url_of

# --- with every kind of mirror ---


def test_images_come_from_any_mirror_and_errors_are_reported(
    anywhere: Place, tmp_path: Path
) -> None:
    settings = mirrored(anywhere, tmp_path)
    with Fetcher(settings, policy=HURRY) as fetch:
        assert fetch(url_of(3)) == photo(3)
        with pytest.raises(Flagged) as flagged:
            fetch(url_of(BLANK))
        assert flagged.value.verdict == "blank"
        with pytest.raises(NotMirrored, match=url_of(UNKNOWN)):
            fetch(url_of(UNKNOWN))
        asked = [url_of(n) for n in (5, BLANK, 7, UNKNOWN, 5, *range(20))]
        results = list(fetch.many(asked))
        assert [url for url, _ in results] == asked
        for url, result in results:
            if url in PHOTOS:
                assert result == PHOTOS[url]
        assert isinstance(results[1][1], Flagged)
        assert isinstance(results[3][1], NotMirrored)
        stats = fetch.stats()
        assert (stats.images, stats.mirror, stats.flagged, stats.not_mirrored) == (24, 24, 2, 2)
        assert stats.bytes == sum(len(r) for _, r in results if isinstance(r, bytes)) + len(
            photo(3)
        )


def test_an_image_is_found_by_each_form_of_its_url(anywhere: Place, tmp_path: Path) -> None:
    settings = mirrored(anywhere, tmp_path, [1])
    urls = settings.object_urls
    names = [
        url_of(1),
        urls.base(urls.default_scheme) + key_of(1),
        digest_of(photo(1)).content_hash.hex(),
    ]
    if anywhere.server is not None:
        signature = "?X-Amz-Date=x&X-Amz-Signature=0123456789abcdef"
        stored = [base + key_of(1) for base in urls.web_bases]
        names += stored + [url + signature for url in stored]
    with Fetcher(settings, policy=HURRY) as fetch:
        for name, result in fetch.many(names):
            assert result == photo(1), name
        for name in names:
            assert fetch(name) == photo(1)
        assert fetch.coverage(names).counts == {"ok": len(names)}


def test_a_public_url_is_read_without_credentials(
    make_place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place("miniflare-obstore")
    assert place.server is not None
    settings = mirrored(place, tmp_path)
    with Fetcher(settings, policy=HURRY) as fetch:
        index = fetch._index
    public = f"{place.server.public_url(place.url.bucket)}/{place.url.path}"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with Fetcher(reached(settings, public_url=public), index=index, policy=HURRY) as fetch:
        assert dict(fetch.many(ALL)) == PHOTOS
    with Fetcher(settings, index=index, policy=HURRY) as fetch, pytest.raises(BadCredentials):
        fetch(url_of(1))


def test_the_async_fetcher_gives_the_same(moto_mirror: Settings) -> None:
    async def story() -> None:
        async with AsyncFetcher(moto_mirror, policy=HURRY) as fetch:
            assert await fetch(url_of(3)) == photo(3)
            with pytest.raises(NotMirrored):
                await fetch(url_of(UNKNOWN))
            got = [one async for one in fetch.many([*ALL, url_of(BLANK)])]
            assert dict(got[:-1]) == PHOTOS
            assert isinstance(got[-1][1], Flagged)
            both = await asyncio.gather(*(fetch(url) for url in ALL))
            assert both == list(PHOTOS.values())
            assert (await fetch.coverage(ALL)).counts == {"ok": 20}
            assert fetch.stats().images == 41
            async for _ in fetch.many(ALL):
                break

    asyncio.run(story())


def test_a_fetcher_may_be_made_while_a_loop_runs(folder_mirror: Settings) -> None:
    async def story() -> bytes:
        with Fetcher(folder_mirror) as fetch:
            return fetch(url_of(1))

    assert asyncio.run(story()) == photo(1)


def test_a_fetcher_is_made_from_a_configuration_file(
    folder_mirror: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "mirror.toml"
    path.write_text(f'[bucket]\nurl = "{folder_mirror.bucket.url}"\n[state]\ndir = "state"\n')
    with Fetcher.from_config(path) as fetch:
        assert fetch(url_of(1)) == photo(1)


def test_a_closed_fetcher_can_be_used_again(folder_mirror: Settings) -> None:
    fetch = Fetcher(folder_mirror)
    for _ in range(3):
        assert fetch(url_of(1)) == photo(1)
        fetch.close()
        fetch.close()


def test_a_closed_fetcher_keeps_its_counts(folder_mirror: Settings) -> None:
    with Fetcher(folder_mirror) as fetch:
        assert all(fetch(url) for url in ALL[:5])
        reading = fetch.many(ALL)
        next(reading)
        before = fetch.stats()
        fetch.close()
        assert fetch.stats().images == before.images > 5
        assert all(fetch(url) for url in ALL[:5])
        reading.close()
    stats = fetch.stats()
    assert stats.images >= 11
    assert stats.bytes_read >= before.bytes_read + sum(len(PHOTOS[url]) for url in ALL[:5])
    assert min(stats.latencies) == 0


def test_one_thread_closes_a_fetcher_while_another_reads(
    folder_mirror: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Fetcher(folder_mirror) as fetch:
        assert fetch(ALL[0])
        closing, close = [], Engine.close

        def close_late(engine: Engine) -> None:
            closing.append(engine)
            if len(closing) == 1:
                assert fetch(ALL[1]) == PHOTOS[ALL[1]]  # with its own engine
            close(engine)

        monkeypatch.setattr(Engine, "close", close_late)
        fetch.close()
        assert len(closing) == 1
        assert fetch(ALL[2]) == PHOTOS[ALL[2]]
        assert fetch.stats().images == 3
    assert len(closing) == 2
    assert closing[0] is not closing[1]


def test_closing_the_iterator_stops_reading_ahead(moto_mirror: Settings) -> None:
    taken: list[str] = []

    def endless() -> Iterator[str]:
        for url in itertools.cycle(ALL):
            taken.append(url)
            yield url

    with Fetcher(fetching(moto_mirror, bytes_in_flight="10K"), policy=HURRY) as fetch:
        for (_, result), _ in zip(fetch.many(endless()), range(50), strict=False):
            assert isinstance(result, bytes)
    # Reading ahead is bounded, although the URLs never end.
    assert len(taken) < 1000


def test_two_concurrent_readings_do_not_block_each_other(moto_mirror: Settings) -> None:
    with Fetcher(fetching(moto_mirror, bytes_in_flight="3K"), policy=HURRY) as fetch:
        for (one, first), (other, second) in zip(
            fetch.many(ALL), fetch.many(reversed(ALL)), strict=True
        ):
            assert (first, second) == (PHOTOS[one], PHOTOS[other])
            assert fetch(url_of(3)) == photo(3)


def test_no_urls_give_no_images(folder_mirror: Settings) -> None:
    with Fetcher(folder_mirror) as fetch:
        assert list(fetch.many([])) == []
        assert len(fetch.coverage([])) == 0
        assert fetch.stats().images == 0


# --- across processes ---


def test_a_fetcher_pickles_small_and_finds_its_index_again(
    cached: Settings,
) -> None:
    with Fetcher(cached) as fetch:
        fetch(url_of(1))
        pickled = pickle.dumps(fetch)
    assert len(pickled) < 5000
    with pickle.loads(pickled) as again:
        assert dict(again.many(ALL)) == PHOTOS


def test_an_index_in_memory_is_pickled_whole(folder_mirror: Settings) -> None:
    with Fetcher(folder_mirror) as fetch:
        in_memory = msgspec.structs.replace(folder_mirror)
        index = type(fetch._index)(
            fetch._index.version,
            {name: column.copy() for name, column in fetch._index.sightings.items()},
            {name: column.copy() for name, column in fetch._index.objects.items()},
        )
    pickled = pickle.dumps(Fetcher(in_memory, index=index))
    with pickle.loads(pickled) as again:
        assert dict(again.many(ALL)) == PHOTOS


def test_a_missing_snapshot_is_an_error(folder_mirror: Settings, tmp_path: Path) -> None:
    pickled = pickle.dumps(Fetcher(folder_mirror))
    os.rename(tmp_path / "state", tmp_path / "elsewhere")
    with pytest.raises(CatalogError, match=r"keep state\.dir"):
        pickle.loads(pickled)
