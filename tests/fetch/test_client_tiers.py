"""The order of the tiers: local caches first, and offline only those."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mirror import Fetcher
from mirror.config.settings import Settings
from mirror.content.digest import digest_of
from mirror.errors import CatalogError, ConfigError, NotCached, NotMirrored
from tests.conftest import MakePlace
from tests.support.fault_proxy import FaultProxy
from tests.support.fetch_setup import (
    ALL,
    HURRY,
    PHOTOS,
    UNKNOWN,
    damaged,
    fetching,
    files_of,
    lost,
    mirrored,
    through,
)
from tests.support.photos import fill, photo, url_of


def fetch_all(settings: Settings, *urls: str) -> dict[str, object]:
    with Fetcher(settings, policy=HURRY) as fetch:
        return dict(fetch.many(urls or ALL))


def test_a_second_read_comes_from_this_machine(cached: Settings) -> None:
    with Fetcher(cached, policy=HURRY) as fetch:
        assert dict(fetch.many(ALL)) == PHOTOS
        stats = fetch.stats()
        assert (stats.mirror, stats.fetch_cache, stats.kept) == (20, 0, 20)
        lost(cached)
        assert dict(fetch.many(ALL)) == PHOTOS
        assert fetch(url_of(3)) == photo(3)
        stats = fetch.stats() - stats
        assert (stats.mirror, stats.fetch_cache, stats.bytes_read) == (0, 21, 0)
    assert len(files_of(cached)) == 20


@pytest.mark.parametrize("at", [0, 1, 600, -1])
def test_a_flipped_bit_in_the_fetch_cache_is_noticed_and_repaired(
    cached: Settings, at: int
) -> None:
    fetch_all(cached)
    for path in files_of(cached):
        data = path.read_bytes()
        path.write_bytes(damaged(data, at % len(data)))
    with Fetcher(cached, policy=HURRY) as fetch:
        assert dict(fetch.many(ALL)) == PHOTOS
        stats = fetch.stats()
        assert (stats.mismatches, stats.mirror, stats.kept) == (20, 20, 20)
        lost(cached)
        assert dict(fetch.many(ALL)) == PHOTOS


@pytest.mark.parametrize("layout", ["{name}", "{name:.2}/{name}", "{name:.2}/{rest:.2}/{name}"])
@pytest.mark.parametrize("extension", ["jpg", "JPEG"])
def test_the_url_keyed_cache_comes_first_in_every_layout(
    folder_mirror: Settings, tmp_path: Path, layout: str, extension: str
) -> None:
    cache = tmp_path / "cache"
    for path in list(cache.iterdir()):
        name = f"{path.stem}.{extension}"
        target = cache / layout.format(name=name, rest=name[2:])
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    section = msgspec.structs.replace(folder_mirror.cache, dir=str(cache))
    settings = msgspec.structs.replace(folder_mirror, cache=section)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    lost_index = Fetcher(settings)._index
    lost(settings)
    with Fetcher(settings, index=lost_index, policy=HURRY) as fetch:
        assert dict(fetch.many(ALL)) == PHOTOS
        assert fetch(digest_of(photo(4)).content_hash.hex()) == photo(4)
        assert fetch.stats().cache == 21
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_another_image_in_the_url_keyed_cache_is_ignored(cached: Settings, tmp_path: Path) -> None:
    fill(tmp_path / "cache", {url_of(n): photo(n)[:-1] + b"!" for n in range(20)})
    section = msgspec.structs.replace(cached.cache, dir=str(tmp_path / "cache"))
    settings = msgspec.structs.replace(cached, cache=section)
    with Fetcher(settings, policy=HURRY) as fetch:
        assert dict(fetch.many(ALL)) == PHOTOS
        assert dict(fetch.many(ALL)) == PHOTOS
        stats = fetch.stats()
        assert (stats.cache, stats.mirror, stats.fetch_cache) == (0, 20, 20)
    assert (tmp_path / "cache").is_dir()


def test_with_a_full_fetch_cache_images_come_from_the_mirror(
    cached: Settings,
) -> None:
    small = fetching(cached, cache_bytes="10K")
    for _ in range(2):
        with Fetcher(small, policy=HURRY) as fetch:
            assert dict(fetch.many(ALL)) == PHOTOS
    assert 5 <= len(files_of(small)) <= 10


def test_a_foreign_fetch_cache_folder_is_an_error(folder_mirror: Settings, tmp_path: Path) -> None:
    settings = fetching(folder_mirror, cache_dir=str(tmp_path / "cache"))
    with Fetcher(settings) as fetch, pytest.raises(ConfigError, match="not the fetch cache's"):
        fetch(url_of(1))


# --- offline ---


def test_offline_reads_only_this_machine(cached: Settings) -> None:
    fetch_all(cached, *ALL[:10])
    lost(cached)
    with Fetcher(cached, offline=True, policy=HURRY) as fetch:
        results = dict(fetch.many(ALL))
        assert all(results[url] == PHOTOS[url] for url in ALL[:10])
        assert all(isinstance(results[url], NotCached) for url in ALL[10:])
        assert fetch.cached(ALL) == [True] * 10 + [False] * 10
        with pytest.raises(NotMirrored):
            fetch(url_of(UNKNOWN))
        assert fetch.stats().unavailable == 10


def test_offline_uses_the_stored_index(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("file")
    settings = mirrored(place, tmp_path)
    new_machine = msgspec.structs.replace(
        settings, state=msgspec.structs.replace(settings.state, dir=str(tmp_path / "new"))
    )
    with pytest.raises(CatalogError, match="mirror prefetch"):
        Fetcher(new_machine, offline=True)
    Fetcher(new_machine)
    lost(settings)
    assert Fetcher(new_machine, offline=True).coverage(ALL).counts == {"ok": 20}


def test_offline_sends_nothing(moto_mirror: Settings) -> None:
    assert moto_mirror.bucket.endpoint
    with FaultProxy(moto_mirror.bucket.endpoint) as proxy:
        settings = through(proxy, moto_mirror)
        Fetcher(settings)
        proxy.forget()
        with Fetcher(settings, offline=True) as fetch:
            assert all(isinstance(result, NotCached) for _, result in fetch.many(ALL))
        assert not proxy.requests
