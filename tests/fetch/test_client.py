"""Fetching: the mirror's bytes, checked, by whatever name; what cannot be had is said, not replaced."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from mirror import AsyncFetcher, Fetcher
from mirror.config import Settings
from mirror.content.digest import digest_of
from mirror.errors import (
    BadCredentials,
    BucketMissing,
    CatalogError,
    ConfigError,
    CorruptObject,
    Flagged,
    NotCached,
    NotFound,
    NotMirrored,
    OriginBlocked,
    StoreUnavailable,
)
from mirror.store.base import Headers, Overwrite
from tests.chaos.tally import seeds
from tests.conftest import MakePlace, Place
from tests.fetch.mirrors import BLANK, HURRY, UNKNOWN, fetching, key_of, mirrored, reached
from tests.fetch.scripted import Scripted, answer
from tests.photos import fill, photo, url_of
from tests.proxy import (
    ACCESS_DENIED,
    Answer,
    Fault,
    FaultProxy,
    Request,
    Reset,
    Rule,
    Stall,
    Truncate,
    refusal,
    seeded,
)
from tests.servers import S3Server

EVERYWHERE = [
    "file",
    "moto-obstore",
    "seaweedfs-obstore",
    "seaweedfs-aioboto3",
    "miniflare-obstore",
]
ALL = [url_of(number) for number in range(20)]
PHOTOS = {url_of(number): photo(number) for number in range(20)}


@pytest.fixture(params=EVERYWHERE)
def anywhere(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    return make_place(request.param)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror in a folder, and the cache that it was made from."""
    folder = tmp_path_factory.mktemp("template")
    mirrored(Place("file", {"url": f"file://{folder}/mirror"}), folder)
    shutil.rmtree(folder / "state")
    return folder


@pytest.fixture
def folder_mirror(make_place: MakePlace, template: Path, tmp_path: Path) -> Settings:
    """A mirror in a folder, which damage can be done to."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return make_place("file").settings(state={"dir": str(tmp_path / "state")})


@pytest.fixture(scope="module")
def moto_bucket(moto: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One that is read over HTTP; moto lets anybody in."""
    place = Place(
        "moto",
        {"url": f"s3://{moto.bucket}/fetched", "endpoint": moto.endpoint, "region": moto.region},
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in moto.environment().items():
            patch.setenv(name, value)
        mirrored(place, tmp_path_factory.mktemp("moto-mirror"))
    return place.layer


@pytest.fixture
def moto_mirror(make_place: MakePlace, moto_bucket: dict[str, str], tmp_path: Path) -> Settings:
    make_place("moto-obstore")  # its environment
    return Place("moto", moto_bucket).settings(state={"dir": str(tmp_path / "state")})


def fetch_all(settings: Settings, *urls: str) -> dict[str, object]:
    with Fetcher(settings, tuning=HURRY) as fetch:
        return dict(fetch.many(urls or ALL))


# --- wherever the mirror stands ---


def test_images_come_from_any_mirror_and_what_is_none_is_said(
    anywhere: Place, tmp_path: Path
) -> None:
    settings = mirrored(anywhere, tmp_path)
    with Fetcher(settings, tuning=HURRY) as fetch:
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


def test_an_image_is_known_by_each_of_its_names(anywhere: Place, tmp_path: Path) -> None:
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
    with Fetcher(settings, tuning=HURRY) as fetch:
        for name, result in fetch.many(names):
            assert result == photo(1), name
        for name in names:
            assert fetch(name) == photo(1)
        assert fetch.coverage(names).counts == {"ok": len(names)}


def test_a_public_url_is_read_without_anybodys_key(
    make_place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place("miniflare-obstore")
    assert place.server is not None
    settings = mirrored(place, tmp_path)
    with Fetcher(settings, tuning=HURRY) as fetch:
        index = fetch._index
    public = f"{place.server.public_url(place.url.bucket)}/{place.url.path}"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with Fetcher(reached(settings, public_url=public), index=index, tuning=HURRY) as fetch:
        assert dict(fetch.many(ALL)) == PHOTOS
    with Fetcher(settings, index=index, tuning=HURRY) as fetch, pytest.raises(BadCredentials):
        fetch(url_of(1))


def test_the_async_fetcher_gives_the_same(moto_mirror: Settings) -> None:
    async def story() -> None:
        async with AsyncFetcher(moto_mirror, tuning=HURRY) as fetch:
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


def test_a_fetcher_may_be_made_where_a_loop_runs(folder_mirror: Settings) -> None:
    async def story() -> bytes:
        with Fetcher(folder_mirror) as fetch:
            return fetch(url_of(1))

    assert asyncio.run(story()) == photo(1)


def test_a_fetcher_is_made_by_a_configuration_file(folder_mirror: Settings, tmp_path: Path) -> None:
    path = tmp_path / "mirror.toml"
    path.write_text(f'[bucket]\nurl = "{folder_mirror.bucket.url}"\n[state]\ndir = "state"\n')
    with Fetcher.from_config(path) as fetch:
        assert fetch(url_of(1)) == photo(1)


def test_a_fetcher_that_was_closed_begins_anew(folder_mirror: Settings) -> None:
    fetch = Fetcher(folder_mirror)
    for _ in range(3):
        assert fetch(url_of(1)) == photo(1)
        fetch.close()
        fetch.close()


def test_reading_on_is_given_up_with_the_iterator(moto_mirror: Settings) -> None:
    taken: list[str] = []

    def endless() -> Iterator[str]:
        for url in itertools.cycle(ALL):
            taken.append(url)
            yield url

    with Fetcher(fetching(moto_mirror, bytes_in_flight="10K"), tuning=HURRY) as fetch:
        for (_, result), _ in zip(fetch.many(endless()), range(50), strict=False):
            assert isinstance(result, bytes)
    # What is read ahead is bounded, although there is no end to it.
    assert len(taken) < 1000


def test_two_readings_at_once_do_not_hold_each_other_up(moto_mirror: Settings) -> None:
    with Fetcher(fetching(moto_mirror, bytes_in_flight="3K"), tuning=HURRY) as fetch:
        for (one, first), (other, second) in zip(
            fetch.many(ALL), fetch.many(reversed(ALL)), strict=True
        ):
            assert (first, second) == (PHOTOS[one], PHOTOS[other])
            assert fetch(url_of(3)) == photo(3)


def test_nothing_is_asked_for_nothing(folder_mirror: Settings) -> None:
    with Fetcher(folder_mirror) as fetch:
        assert list(fetch.many([])) == []
        assert len(fetch.coverage([])) == 0
        assert fetch.stats().images == 0


# --- what goes wrong on the way ---

FAULTS: list[Fault] = [
    refusal(503, "SlowDown"),
    refusal(429, "TooManyRequests", **{"Retry-After": "1"}),
    refusal(500, "InternalError"),
    Reset(),
    Stall(0.6),
    Truncate(100),
    Truncate(0),
]


def through(proxy: FaultProxy, settings: Settings) -> Settings:
    return reached(settings, endpoint=proxy.endpoint)


def images_only(rule: Rule) -> Rule:
    """The rule for objects; the index is read in peace."""
    return lambda request: rule(request) if "/objects/" in request.path else None


@pytest.mark.chaos("network")
@pytest.mark.parametrize("seed", seeds(3))
def test_faults_change_nothing_but_the_time(
    make_place: MakePlace, tmp_path: Path, seed: int
) -> None:
    place = make_place("seaweedfs-obstore")
    settings = mirrored(place, tmp_path)
    assert place.server is not None
    with (
        FaultProxy(place.server.endpoint) as proxy,
        Fetcher(through(proxy, settings), tuning=HURRY) as fetch,
    ):
        proxy.rule = images_only(seeded(0.05, FAULTS, seed))
        results = [list(fetch.many(ALL)) for _ in range(20)]
        stats = fetch.stats()
    assert results == [list(PHOTOS.items())] * 20
    assert stats.retries > 0


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (refusal(503, "SlowDown"), "slow down"),
        (Reset(), "ended before"),
        (Truncate(10), "ended before"),
        (ACCESS_DENIED, "may not do that"),
        (Answer(418), "refused"),
    ],
)
def test_a_mirror_that_does_not_give_an_image_is_unavailable(
    moto_mirror: Settings, fault: Fault, says: str
) -> None:
    assert moto_mirror.bucket.endpoint
    with (
        FaultProxy(moto_mirror.bucket.endpoint) as proxy,
        Fetcher(through(proxy, moto_mirror), tuning=HURRY) as fetch,
    ):
        proxy.rule = images_only(lambda _: fault)
        with pytest.raises(StoreUnavailable, match=says):
            fetch(url_of(1))
        proxy.rule = None
        assert fetch(url_of(1)) == photo(1)
        assert fetch.stats().unavailable == 1


def test_what_no_image_can_be_had_with_is_raised(moto_mirror: Settings) -> None:
    assert moto_mirror.bucket.endpoint
    with (
        FaultProxy(moto_mirror.bucket.endpoint) as proxy,
        Fetcher(through(proxy, moto_mirror), tuning=HURRY) as fetch,
    ):
        proxy.rule = images_only(lambda _: refusal(404, "NoSuchBucket"))
        with pytest.raises(BucketMissing):
            list(fetch.many(ALL))
        proxy.rule = images_only(lambda _: refusal(403, "SignatureDoesNotMatch"))
        with pytest.raises(BadCredentials):
            list(fetch.many(ALL))


def test_there_must_be_a_mirror(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("file")
    with pytest.raises(NotFound, match="mirror sync"):
        Fetcher(place.settings(state={"dir": str(tmp_path / "state")}))


def test_images_that_throttle_are_asked_for_fewer_at_a_time(moto_mirror: Settings) -> None:
    """The server takes two at once, and refuses whoever is one too many."""
    assert moto_mirror.bucket.endpoint
    refused = itertools.count()

    def rule(request: Request) -> Fault | None:
        return refusal(503, "SlowDown") if next(refused) % 3 == 0 else None

    with (
        FaultProxy(moto_mirror.bucket.endpoint) as proxy,
        Fetcher(through(proxy, moto_mirror), tuning=HURRY) as fetch,
    ):
        proxy.rule = images_only(rule)
        assert dict(fetch.many(ALL * 3)) == PHOTOS
        stats = fetch.stats()
    assert stats.throttled > 0
    assert stats.hedges == 0


# --- bytes that are not those of their hash ---


def damaged(data: bytes, at: int) -> bytes:
    """The data with one bit flipped."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("at", [0, 1, 600, -1])
@pytest.mark.parametrize("name", ["file", "moto-obstore"])
def test_a_flipped_bit_in_the_bucket_is_noticed_every_time(
    make_place: MakePlace, tmp_path: Path, name: str, at: int
) -> None:
    place = make_place(name)
    settings = mirrored(place, tmp_path, [1, 2])

    async def damage() -> None:
        store = place.open()
        body = damaged(photo(1), at % len(photo(1)))
        await store.put(key_of(1), body, Overwrite(), Headers())
        await store.aclose()

    asyncio.run(damage())
    with Fetcher(settings, tuning=HURRY) as fetch:
        for _ in range(3):
            with pytest.raises(CorruptObject, match="other bytes"):
                fetch(url_of(1))
        assert fetch(url_of(2)) == photo(2)
        stats = fetch.stats()
        assert (stats.corrupt, stats.mismatches) == (3, 6)


@pytest.mark.parametrize(
    "change", [lambda _: b"", lambda data: data[:-1], lambda data: data + b"\0", lambda _: None]
)
def test_an_object_that_is_cut_longer_or_gone_is_noticed(
    folder_mirror: Settings, change: Callable[[bytes], bytes | None]
) -> None:
    path = Path(folder_mirror.bucket_url.path) / key_of(1)
    if (other := change(photo(1))) is None:
        path.unlink()
    else:
        path.write_bytes(other)
    with Fetcher(folder_mirror, tuning=HURRY) as fetch, pytest.raises(CorruptObject):
        fetch(url_of(1))


def test_bytes_that_were_damaged_on_the_way_are_asked_for_once_more(moto_mirror: Settings) -> None:
    assert moto_mirror.bucket.endpoint
    seen: set[str] = set()

    def rule(request: Request) -> Fault | None:
        if request.path in seen:
            return None
        seen.add(request.path)
        number = next(n for n in range(20) if key_of(n) in request.path)
        return Answer(200, body=damaged(photo(number), 700))

    with (
        FaultProxy(moto_mirror.bucket.endpoint) as proxy,
        Fetcher(through(proxy, moto_mirror), tuning=HURRY) as fetch,
    ):
        proxy.rule = images_only(rule)
        assert dict(fetch.many(ALL)) == PHOTOS
        assert fetch.stats().mismatches == 20


# --- tiers ---


@pytest.fixture
def cached(folder_mirror: Settings, tmp_path: Path) -> Settings:
    return fetching(folder_mirror, cache_dir=str(tmp_path / "fetch"))


def lost(settings: Settings) -> None:
    """Take the mirror away."""
    path = Path(settings.bucket_url.path)
    path.rename(path.with_name("gone"))


def files_of(settings: Settings) -> list[Path]:
    assert settings.fetch.cache_dir
    return [p for p in Path(settings.fetch.cache_dir, "objects").rglob("*") if p.is_file()]


def test_what_was_read_once_is_read_from_this_machine_then(cached: Settings) -> None:
    with Fetcher(cached, tuning=HURRY) as fetch:
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
def test_a_flipped_bit_in_the_fetch_cache_is_noticed_and_mended(cached: Settings, at: int) -> None:
    fetch_all(cached)
    for path in files_of(cached):
        data = path.read_bytes()
        path.write_bytes(damaged(data, at % len(data)))
    with Fetcher(cached, tuning=HURRY) as fetch:
        assert dict(fetch.many(ALL)) == PHOTOS
        stats = fetch.stats()
        assert (stats.mismatches, stats.mirror, stats.kept) == (20, 20, 20)
        lost(cached)
        assert dict(fetch.many(ALL)) == PHOTOS


@pytest.mark.parametrize("layout", ["{name}", "{name:.2}/{name}", "{name:.2}/{rest:.2}/{name}"])
@pytest.mark.parametrize("extension", ["jpg", "JPEG"])
def test_the_url_keyed_cache_is_asked_first_however_it_is_laid_out(
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
    with Fetcher(settings, index=lost_index, tuning=HURRY) as fetch:
        assert dict(fetch.many(ALL)) == PHOTOS
        assert fetch(digest_of(photo(4)).content_hash.hex()) == photo(4)
        assert fetch.stats().cache == 21
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_a_file_of_the_url_keyed_cache_that_is_another_image_does_not_count(
    cached: Settings, tmp_path: Path
) -> None:
    fill(tmp_path / "cache", {url_of(n): photo(n)[:-1] + b"!" for n in range(20)})
    section = msgspec.structs.replace(cached.cache, dir=str(tmp_path / "cache"))
    settings = msgspec.structs.replace(cached, cache=section)
    with Fetcher(settings, tuning=HURRY) as fetch:
        assert dict(fetch.many(ALL)) == PHOTOS
        assert dict(fetch.many(ALL)) == PHOTOS
        stats = fetch.stats()
        assert (stats.cache, stats.mirror, stats.fetch_cache) == (0, 20, 20)
    assert (tmp_path / "cache").is_dir()


def test_a_fetch_cache_that_is_full_changes_nothing_but_where_images_come_from(
    cached: Settings,
) -> None:
    small = fetching(cached, cache_bytes="10K")
    for _ in range(2):
        with Fetcher(small, tuning=HURRY) as fetch:
            assert dict(fetch.many(ALL)) == PHOTOS
    assert 5 <= len(files_of(small)) <= 10


def test_a_folder_that_is_not_the_fetch_caches_is_an_error(
    folder_mirror: Settings, tmp_path: Path
) -> None:
    settings = fetching(folder_mirror, cache_dir=str(tmp_path / "cache"))
    with Fetcher(settings) as fetch, pytest.raises(ConfigError, match="not the fetch cache's"):
        fetch(url_of(1))


# --- offline ---


def test_offline_asks_only_this_machine(cached: Settings) -> None:
    fetch_all(cached, *ALL[:10])
    lost(cached)
    with Fetcher(cached, offline=True, tuning=HURRY) as fetch:
        results = dict(fetch.many(ALL))
        assert all(results[url] == PHOTOS[url] for url in ALL[:10])
        assert all(isinstance(results[url], NotCached) for url in ALL[10:])
        assert fetch.cached(ALL) == [True] * 10 + [False] * 10
        with pytest.raises(NotMirrored):
            fetch(url_of(UNKNOWN))
        assert fetch.stats().unavailable == 10


def test_offline_takes_an_index_that_was_read_before(make_place: MakePlace, tmp_path: Path) -> None:
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


# --- the origin ---


def test_a_redirect_to_the_origin_is_not_followed(moto_mirror: Settings) -> None:
    """iNaturalist is played by a server that counts who connects: nobody does."""
    assert moto_mirror.bucket.endpoint
    image = [answer(photo(1))]
    with Scripted(lambda _, __: image) as origin, FaultProxy(moto_mirror.bucket.endpoint) as proxy:
        with Fetcher(through(proxy, moto_mirror), tuning=HURRY) as fetch:
            there = f"{origin.url}/photos/1/medium.jpg"
            proxy.rule = images_only(lambda _: Answer(302, {"Location": there}))
            with pytest.raises(OriginBlocked):
                fetch(url_of(1))
            assert all(isinstance(result, OriginBlocked) for _, result in fetch.many(ALL))
            assert fetch.stats().blocked == 21
        assert origin.connections == 0


@pytest.mark.parametrize(
    "place",
    [
        {"url": "s3://inaturalist-open-data"},
        {"url": "s3://inaturalist-open-data/photos", "region": "us-east-1"},
        {"url": "s3://plants", "endpoint": "https://static.inaturalist.org"},
        {"url": "s3://plants", "endpoint": "https://inaturalist-open-data.s3.amazonaws.com"},
        {"url": "s3://inaturalist-open-data", "endpoint": "https://s3.us-east-1.amazonaws.com"},
        {"url": "s3://plants", "public_url": "https://inaturalist-open-data.s3.amazonaws.com/photos"},
        {"url": "file:///tmp/mirror", "public_url": "https://static.inaturalist.org/photos"},
    ],
)  # fmt: skip
def test_inaturalist_is_no_mirror_whatever_the_settings_say(
    place: dict[str, str], tmp_path: Path
) -> None:
    settings = Place("test", place).settings(state={"dir": str(tmp_path)})
    with pytest.raises(ConfigError, match="never reads"):
        Fetcher(settings)


def test_the_environments_proxies_are_not_asked(
    moto_mirror: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Fetcher(moto_mirror, tuning=HURRY) as fetch:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert dict(fetch.many(ALL)) == PHOTOS


# --- across processes ---


def test_a_fetcher_crosses_processes_small_and_finds_its_index_again(
    cached: Settings,
) -> None:
    with Fetcher(cached) as fetch:
        fetch(url_of(1))
        pickled = pickle.dumps(fetch)
    assert len(pickled) < 5000
    with pickle.loads(pickled) as again:
        assert dict(again.many(ALL)) == PHOTOS


def test_an_index_in_memory_crosses_as_what_it_is(folder_mirror: Settings) -> None:
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


def test_a_snapshot_that_went_and_left_no_other_is_an_error_that_says_so(
    folder_mirror: Settings, tmp_path: Path
) -> None:
    pickled = pickle.dumps(Fetcher(folder_mirror))
    os.rename(tmp_path / "state", tmp_path / "elsewhere")
    with pytest.raises(CatalogError, match=r"keep state\.dir"):
        pickle.loads(pickled)
