"""Lookups of URLs: by MD5, as URLs of the mirror, or as other spellings of a photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.catalog.index import FORMAT_NAMES, Batch, Index, halves
from mirror.catalog.lookup import (
    LICENSE,
    NOT_MIRRORED,
    OK,
    OUTCOMES,
    TOO_SMALL,
    UrlLookup,
    digests_of,
)
from mirror.catalog.row import RowSource
from mirror.content.digest import digest_of
from mirror.content.image import VERDICTS
from mirror.layout import object_key, url_md5
from tests.conftest import Place
from tests.support.mirrored_dataset import (
    ABSENT,
    BLANK,
    CORRUPT,
    GOOD,
    NOT_IMAGE,
    PLACEHOLDER,
    SMALL,
    TWINS,
    Mirror,
    plants,
)
from tests.support.photos import blank, fill, photo, url_of

__all__ = ["plants"]


def found(lookup: UrlLookup, *urls: str) -> tuple[list[str], list[bool]]:
    """The outcomes of URLs, and whether each was found only by its photo."""
    encoded = [url.encode() for url in urls]
    at, by_photo = lookup.find(encoded, digests_of(encoded))
    return [OUTCOMES[code] for code in lookup.outcomes(at)], by_photo.tolist()


def contents(lookup: UrlLookup, *urls: str) -> list[str]:
    """The content hashes that URLs are found with, as hexadecimal digits."""
    encoded = [url.encode() for url in urls]
    at = lookup.find(encoded, digests_of(encoded)).positions
    assert (at >= 0).all()
    return [bytes(row).hex() for row in lookup.index.content_hashes(at)]


def hash_of(seed: int) -> str:
    return digest_of(photo(seed)).content_hash.hex()


def test_the_md5_is_that_of_the_layout() -> None:
    urls = ["", "https://x/é", url_of(1)]
    assert digests_of([url.encode() for url in urls]) == b"".join(map(url_md5, urls))


def test_outcomes_begin_with_the_verdicts() -> None:
    assert OUTCOMES[: len(VERDICTS)] == VERDICTS
    assert [OUTCOMES[code] for code in (OK, NOT_MIRRORED, TOO_SMALL, LICENSE)] == [
        "ok", "not_mirrored", "too_small", "license",
    ]  # fmt: skip


def test_each_url_meets_the_verdict_of_its_image(plants: Mirror) -> None:
    expected = {
        "ok": [*GOOD, *TWINS, SMALL],
        "blank": BLANK,
        "corrupt": CORRUPT,
        "not_image": NOT_IMAGE,
        "placeholder": PLACEHOLDER,
        "not_mirrored": ABSENT[:3],
    }
    for outcome, numbers in expected.items():
        told, _ = found(plants.lookup(), *map(url_of, numbers))
        assert told == [outcome] * len(numbers)


def test_nothing_is_found_of_nothing(plants: Mirror) -> None:
    for match in ("url", "photo"):
        assert found(plants.lookup(match=match)) == ([], [])
        assert found(UrlLookup(Index.empty(), match=match), url_of(1)) == (
            ["not_mirrored"],
            [False],
        )


@given(
    st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.sampled_from(FORMAT_NAMES))),
    st.sampled_from(["", "https://img.example/in%20at/"]),
)
def test_keys_of_objects_are_those_of_the_layout(
    wanted: list[tuple[bytes, str]], base: str
) -> None:
    number = len(wanted)
    hi, lo = halves(b"".join(content for content, _ in wanted))
    batch: Batch = {
        "url_hi": np.arange(number, dtype="u8"),
        "url_lo": np.zeros(number, "u8"),
        "hash_hi": hi,
        "hash_lo": lo,
        "sha256": np.zeros(number, "V32"),
        "size": np.ones(number, "i8"),
        "width": np.ones(number, "i4"),
        "height": np.ones(number, "i4"),
        "format": np.array([FORMAT_NAMES.index(name) for _, name in wanted], "u1"),
        "verdict": np.zeros(number, "u1"),
        "sourced": np.zeros(number, "?"),
        "seen_at": np.ones(number, "i8"),
        "first_seen": np.ones(number, "i8"),
        "near": np.zeros(number, "V35"),
        "photo": np.zeros(number, "u8"),
    }
    lookup = UrlLookup(Index.empty().merged([batch], 0, frozenset()))
    keys = lookup.object_keys(np.arange(number), base.encode())
    assert [key.decode() for key in keys] == [base + object_key(*one) for one in wanted]


# --- URLs of objects ---

KEY = object_key(digest_of(photo(3)).content_hash, "jpeg")


@pytest.mark.parametrize(
    "base", ["file:///data/m/", "s3://plants/in%20at/", "https://img.example/x/", "https://old.example/"]
)  # fmt: skip
def test_an_objects_url_is_found_by_its_content_wherever_the_mirror_was(
    plants: Mirror, base: str
) -> None:
    assert contents(plants.lookup(), base + KEY) == [hash_of(3)]
    assert found(plants.lookup(), base + KEY) == (["ok"], [False])


def test_an_objects_url_of_a_content_that_is_not_there_is_not_mirrored(plants: Mirror) -> None:
    url = plants.base + object_key(bytes(16), "jpeg")
    assert found(plants.lookup(), url) == (["not_mirrored"], [False])


def test_where_there_is_no_mirror_there_are_no_objects(plants: Mirror) -> None:
    lookup = UrlLookup(plants.index, of_mirror=False)
    assert found(lookup, plants.url(1)) == (["not_mirrored"], [False])


# --- photos ---

HOSTS = ("https://inaturalist-open-data.s3.amazonaws.com", "https://static.inaturalist.org")


@pytest.fixture(scope="module", params=["the MD5s", "the URLs too"])
def spelled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """A mirror of photos whose catalog has the source URLs that the parameter says.

    1  once, good            2  once, blank
    3  blank as .jpg, good as .jpeg              4  good as .jpg, blank as .jpeg
    5  large                 6  is no iNaturalist photo
    """
    folder = tmp_path_factory.mktemp("spelled")
    open_data, static = HOSTS
    bodies = {
        f"{open_data}/photos/1/medium.jpg": photo(1),
        f"{open_data}/photos/2/medium.jpg": blank(),
        f"{open_data}/photos/3/medium.jpg": blank(),
        f"{open_data}/photos/3/medium.jpeg": photo(3),
        f"{static}/photos/4/medium.jpg": photo(4),
        f"{static}/photos/4/medium.jpeg": blank(),
        f"{static}/photos/5/large.jpg": photo(5),
        "https://example.org/photos/6/medium.jpg": photo(6),
    }
    fill(folder / "cache", bodies)
    sources = {url: RowSource(url) for url in bodies} if request.param == "the URLs too" else None
    return Mirror.of(Place("file", {"url": f"file://{folder}/mirror"}), folder, sources)


SPELLINGS = [
    # URL, its outcome, the seed of its photo; None where nothing is found but by MD5
    (f"{HOSTS[1]}/photos/1/medium.jpeg?1545345", "ok", 1),
    (f"{HOSTS[0]}/photos/1/medium.jpg#top", "ok", 1),
    (f"{HOSTS[0]}/photos/1/medium.png", "ok", 1),
    ("http://www.inaturalist.org/photos/1/medium.JPG", "ok", 1),
    (f"{HOSTS[1]}/photos/2/medium.jpg", "blank", None),
    (f"{HOSTS[0]}/photos/3/medium.jpg", "ok", 3),
    (f"{HOSTS[1]}/photos/3/medium.jpg", "ok", 3),
    (f"{HOSTS[1]}/photos/4/medium.jpeg", "ok", 4),
    (f"{HOSTS[0]}/photos/5/large.jpg?1", "ok", 5),
    (f"{HOSTS[0]}/photos/5/medium.jpg", "not_mirrored", None),
    (f"{HOSTS[0]}/photos/1", "not_mirrored", None),
    (f"{HOSTS[0]}/photos/7/medium.jpg", "not_mirrored", None),
    ("https://example.org/photos/6/medium.jpeg", "not_mirrored", None),
]


def test_a_photo_is_found_under_other_spellings_and_a_good_one_before_a_flagged(
    spelled: Mirror,
) -> None:
    lookup = spelled.lookup(match="photo")
    urls = [url for url, _, _ in SPELLINGS]
    outcomes, by_photo = found(lookup, *urls)
    assert outcomes == [outcome for _, outcome, _ in SPELLINGS]
    assert by_photo == [outcome in ("ok", "blank") for _, outcome, _ in SPELLINGS]
    seeds = {url: seed for url, _, seed in SPELLINGS if seed is not None}
    assert contents(lookup, *seeds) == [hash_of(seed) for seed in seeds.values()]


def test_a_url_that_is_known_and_good_is_not_matched_by_photo(spelled: Mirror) -> None:
    lookup = spelled.lookup(match="photo")
    urls = [f"{HOSTS[0]}/photos/1/medium.jpg", f"{HOSTS[1]}/photos/4/medium.jpg"]
    assert found(lookup, *urls) == (["ok", "ok"], [False, False])


def test_a_flagged_one_without_a_better_spelling_stays_itself(spelled: Mirror) -> None:
    lookup = spelled.lookup(match="photo")
    assert found(lookup, f"{HOSTS[0]}/photos/2/medium.jpg") == (["blank"], [False])


def test_spellings_count_only_when_asked_for(spelled: Mirror) -> None:
    urls = [f"{HOSTS[1]}/photos/1/medium.jpeg?1545345", f"{HOSTS[0]}/photos/3/medium.jpg"]
    assert found(spelled.lookup(), *urls) == (["not_mirrored", "blank"], [False, False])


def test_the_order_of_urls_changes_nothing(spelled: Mirror) -> None:
    lookup = spelled.lookup(match="photo")
    urls = [url for url, _, _ in SPELLINGS]
    outcomes, by_photo = found(lookup, *urls)
    backwards = found(lookup, *urls[::-1])
    assert backwards == (outcomes[::-1], by_photo[::-1])
    assert [found(lookup, url)[0][0] for url in urls] == outcomes


# --- size ---


@pytest.mark.parametrize(
    ("least", "small", "good"),
    [(0, "ok", "ok"), (24, "ok", "ok"), (25, "too_small", "ok"), (48, "too_small", "ok"),
     (49, "too_small", "too_small")],
)  # fmt: skip
def test_the_shorter_side_must_have_so_many_pixels(
    plants: Mirror, least: int, small: str, good: str
) -> None:
    lookup = plants.lookup(min_side=least)
    assert found(lookup, url_of(SMALL), url_of(1))[0] == [small, good]
    # What is wrong otherwise stays wrong for that.
    assert found(lookup, url_of(BLANK[0]), url_of(ABSENT[0]))[0] == ["blank", "not_mirrored"]


def test_the_shorter_side_is_the_one_that_counts(tmp_path: Path) -> None:
    from PIL import Image

    from tests.support.photos import encoded

    wide = Image.effect_noise((200, 20), 80).convert("RGB")
    fill(
        tmp_path / "cache",
        {url_of(1): encoded(wide), url_of(2): encoded(wide.rotate(90, expand=True))},
    )
    mirror = Mirror.of(Place("file", {"url": f"file://{tmp_path}/mirror"}), tmp_path)
    for least, outcome in ((20, "ok"), (21, "too_small")):
        lookup = mirror.lookup(min_side=least)
        assert found(lookup, url_of(1), url_of(2))[0] == [outcome, outcome]
