"""`FakeFetcher` behaves as `Fetcher` does: one suite for both."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mirror import BadCredentials, CorruptObject, Fetcher, Flagged, NotMirrored
from mirror.testing import FakeFetcher
from tests.conftest import MakePlace
from tests.support.fetch_setup import ALL, BLANK, HURRY, PHOTOS, UNKNOWN, mirrored
from tests.support.photos import url_of


@pytest.fixture(params=["Fetcher", "FakeFetcher"])
def fetch(
    request: pytest.FixtureRequest, make_place: MakePlace, tmp_path: Path
) -> Iterable[Fetcher]:
    """Twenty photos and a blank frame."""
    if request.param == "Fetcher":
        with Fetcher(mirrored(make_place("file"), tmp_path), policy=HURRY) as fetch:
            yield fetch
    else:
        blank = Flagged("It is blank.", "blank")
        with FakeFetcher({**PHOTOS, url_of(BLANK): blank}) as fetch:
            yield fetch


def test_a_call_gives_bytes(fetch: Fetcher) -> None:
    assert fetch(ALL[3]) == PHOTOS[ALL[3]]


def test_an_unknown_url_is_not_mirrored(fetch: Fetcher) -> None:
    with pytest.raises(NotMirrored, match=url_of(UNKNOWN)):
        fetch(url_of(UNKNOWN))


def test_a_flagged_url_has_its_verdict(fetch: Fetcher) -> None:
    with pytest.raises(Flagged) as caught:
        fetch(url_of(BLANK))
    assert caught.value.verdict == "blank"


def test_many_gives_bytes_or_errors_in_order(fetch: Fetcher) -> None:
    urls = [*ALL[:5], url_of(UNKNOWN), ALL[0], url_of(BLANK), *ALL[5:]]
    results = list(fetch.many(iter(urls)))
    assert [url for url, _ in results] == urls
    for url, result in results:
        if url == url_of(UNKNOWN):
            assert isinstance(result, NotMirrored)
        elif url == url_of(BLANK):
            assert isinstance(result, Flagged)
        else:
            assert result == PHOTOS[url]


def test_many_may_be_left_early(fetch: Fetcher) -> None:
    results = fetch.many(ALL)
    assert next(results) == (ALL[0], PHOTOS[ALL[0]])
    results.close()
    assert list(fetch.many([])) == []


def test_coverage(fetch: Fetcher) -> None:
    coverage = fetch.coverage([*ALL[:3], url_of(BLANK), url_of(UNKNOWN)])
    assert coverage.counts == {"ok": 3, "blank": 1, "not_mirrored": 1}
    assert coverage.sizes.tolist() == [*(len(PHOTOS[url]) for url in ALL[:3]), 0, 0]
    assert coverage.mirrored.tolist() == [0, 1, 2]


def test_nothing_is_cached_on_this_machine(fetch: Fetcher) -> None:
    found, flagged, unknown = fetch.cached([ALL[0], url_of(BLANK), url_of(UNKNOWN)])
    assert found is False
    assert isinstance(flagged, Flagged)
    assert isinstance(unknown, NotMirrored)


def test_it_counts(fetch: Fetcher) -> None:
    list(fetch.many([*ALL, url_of(BLANK), url_of(UNKNOWN)]))
    stats = fetch.stats()
    assert (stats.images, stats.mirror, stats.failed) == (20, 20, 2)
    assert (stats.flagged, stats.not_mirrored) == (1, 1)
    assert stats.bytes == sum(map(len, PHOTOS.values()))


def test_it_may_be_closed_and_used_again(fetch: Fetcher) -> None:
    fetch.close()
    assert fetch(ALL[0]) == PHOTOS[ALL[0]]


def test_it_pickles_and_counts_from_zero(fetch: Fetcher) -> None:
    fetch(ALL[0])
    with pickle.loads(pickle.dumps(fetch)) as copy:
        assert copy.stats().images == 0
        assert copy(ALL[1]) == PHOTOS[ALL[1]]


# --- what only a fake can be told to do ---


def test_a_fake_raises_what_it_was_given() -> None:
    broken = CorruptObject("Other bytes than the catalog says.")
    fetch = FakeFetcher({ALL[0]: broken, ALL[1]: b"image", ALL[2]: BadCredentials("Wrong key.")})
    assert list(fetch.many(ALL[:2])) == [(ALL[0], broken), (ALL[1], b"image")]
    assert fetch.coverage(ALL[:2]).counts == {"ok": 2}  # a catalog knows nothing of damage
    with pytest.raises(BadCredentials):
        list(fetch.many(ALL[:3]))


def test_a_fake_feeds_a_dataset(tmp_path: Path, dataset_of: Callable[..., Path]) -> None:
    datasets = pytest.importorskip("mirror.torch")
    path = dataset_of(tmp_path, ALL)
    dataset = datasets.MirrorDataset(path, FakeFetcher(PHOTOS), label_field="species")
    image, label = dataset[0]
    assert image.size[0] > 0
    assert dataset.classes[label] == "oak"
    assert dataset.stats().images == 1


@pytest.fixture
def dataset_of() -> Callable[..., Path]:
    def write(folder: Path, urls: Iterable[str]) -> Path:
        path = folder / "train.jsonl"
        path.write_text("".join(f'{{"image_url": "{url}", "species": "oak"}}\n' for url in urls))
        return path

    return write
