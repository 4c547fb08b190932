"""Faults between fetcher and mirror, and bytes that do not have their hash."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror import Fetcher
from mirror.config.settings import Settings
from mirror.errors import BadCredentials, BucketMissing, CorruptObject, NotFound, StoreUnavailable
from mirror.store.base import Headers, Overwrite
from tests.conftest import MakePlace
from tests.support.chaos_tally import seeds
from tests.support.fault_proxy import (
    ACCESS_DENIED,
    Answer,
    Fault,
    FaultProxy,
    Request,
    Reset,
    Stall,
    Truncate,
    refusal,
    seeded,
)
from tests.support.fetch_setup import (
    ALL,
    HURRY,
    PHOTOS,
    damaged,
    images_only,
    key_of,
    lost,
    mirrored,
    through,
)
from tests.support.photos import photo, url_of

FAULTS: list[Fault] = [
    refusal(503, "SlowDown"),
    refusal(429, "TooManyRequests", **{"Retry-After": "1"}),
    refusal(500, "InternalError"),
    Reset(),
    Stall(0.6),
    Truncate(100),
    Truncate(0),
]


@pytest.mark.chaos("network")
@pytest.mark.parametrize("seed", seeds(3))
def test_faults_cost_only_time(make_place: MakePlace, tmp_path: Path, seed: int) -> None:
    place = make_place("seaweedfs-obstore")
    settings = mirrored(place, tmp_path)
    assert place.server is not None
    with (
        FaultProxy(place.server.endpoint) as proxy,
        Fetcher(through(proxy, settings), policy=HURRY) as fetch,
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
def test_a_mirror_that_does_not_answer_is_unavailable(
    moto_mirror: Settings, fault: Fault, says: str
) -> None:
    assert moto_mirror.bucket.endpoint
    with (
        FaultProxy(moto_mirror.bucket.endpoint) as proxy,
        Fetcher(through(proxy, moto_mirror), policy=HURRY) as fetch,
    ):
        proxy.rule = images_only(lambda _: fault)
        with pytest.raises(StoreUnavailable, match=says):
            fetch(url_of(1))
        proxy.rule = None
        assert fetch(url_of(1)) == photo(1)
        assert fetch.stats().unavailable == 1


def test_errors_that_affect_every_image_are_raised(moto_mirror: Settings) -> None:
    assert moto_mirror.bucket.endpoint
    with (
        FaultProxy(moto_mirror.bucket.endpoint) as proxy,
        Fetcher(through(proxy, moto_mirror), policy=HURRY) as fetch,
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


def test_throttling_lowers_the_concurrency(moto_mirror: Settings) -> None:
    """The server takes two requests at once, and refuses a third."""
    assert moto_mirror.bucket.endpoint
    refused = itertools.count()

    def rule(request: Request) -> Fault | None:
        return refusal(503, "SlowDown") if next(refused) % 3 == 0 else None

    with (
        FaultProxy(moto_mirror.bucket.endpoint) as proxy,
        Fetcher(through(proxy, moto_mirror), policy=HURRY) as fetch,
    ):
        proxy.rule = images_only(rule)
        assert dict(fetch.many(ALL * 3)) == PHOTOS
        stats = fetch.stats()
    assert stats.throttled > 0
    assert stats.hedges == 0


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
    with Fetcher(settings, policy=HURRY) as fetch:
        for _ in range(3):
            with pytest.raises(CorruptObject, match="other bytes"):
                fetch(url_of(1))
        assert fetch(url_of(2)) == photo(2)
        stats = fetch.stats()
        assert (stats.corrupt, stats.mismatches) == (3, 6)


@pytest.mark.parametrize(
    "change", [lambda _: b"", lambda data: data[:-1], lambda data: data + b"\0", lambda _: None]
)
def test_a_truncated_longer_or_missing_object_is_noticed(
    folder_mirror: Settings, change: Callable[[bytes], bytes | None]
) -> None:
    path = Path(folder_mirror.bucket_url.path) / key_of(1)
    if (other := change(photo(1))) is None:
        path.unlink()
    else:
        path.write_bytes(other)
    with Fetcher(folder_mirror, policy=HURRY) as fetch, pytest.raises(CorruptObject):
        fetch(url_of(1))


@pytest.mark.parametrize("emptied", [False, True])
def test_an_unreachable_folder_is_no_damage(folder_mirror: Settings, emptied: bool) -> None:
    """Without its disk, the mirror's folder is missing or empty."""
    path = Path(folder_mirror.bucket_url.path)
    with Fetcher(folder_mirror, policy=HURRY) as fetch:
        lost(folder_mirror)
        if emptied:
            path.mkdir()
        with pytest.raises(StoreUnavailable, match=r"no mirror there now.*mount"):
            fetch(url_of(1))
        if emptied:
            path.rmdir()
        path.with_name("gone").rename(path)
        assert fetch(url_of(1)) == photo(1)
        assert (fetch.stats().unavailable, fetch.stats().corrupt) == (1, 0)


def test_bytes_damaged_in_transit_are_read_again(moto_mirror: Settings) -> None:
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
        Fetcher(through(proxy, moto_mirror), policy=HURRY) as fetch,
    ):
        proxy.rule = images_only(rule)
        assert dict(fetch.many(ALL)) == PHOTOS
        assert fetch.stats().mismatches == 20
