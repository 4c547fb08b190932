"""Looking texts up: one at a time and many at once give the same."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from mirror.catalog.index import FORMAT_NAMES, Batch, Index, halves
from mirror.catalog.lookup import Match
from mirror.content.image import VERDICTS
from mirror.content.photo import photo_key
from mirror.errors import Flagged, NotMirrored
from mirror.fetch.image_lookup import ImageLookup, MirroredImage, reason, shown
from mirror.layout import object_key, url_md5
from tests.support.photos import url_of

FORMATS = ("jpeg", "png", "webp")


def content_of(number: int) -> bytes:
    return Random(number).randbytes(16)


def sha256_of(number: int) -> bytes:
    return Random(-1 - number).randbytes(32)


def index_of(rows: Sequence[tuple[str, int, str]], *, tell_photos: bool = False) -> Index:
    """An index of `(url, number of its content, verdict)`."""
    urls = [url for url, _, _ in rows]
    url_hi, url_lo = halves(b"".join(map(url_md5, urls)))
    hash_hi, hash_lo = halves(b"".join(content_of(number) for _, number, _ in rows))
    formats = [FORMAT_NAMES.index(FORMATS[number % 3]) for _, number, _ in rows]
    batch: Batch = {
        "url_hi": url_hi,
        "url_lo": url_lo,
        "hash_hi": hash_hi,
        "hash_lo": hash_lo,
        "sha256": np.frombuffer(b"".join(sha256_of(number) for _, number, _ in rows), "V32"),
        "size": np.array([1000 + number for _, number, _ in rows], "i8"),
        "width": np.full(len(rows), 10, "i4"),
        "height": np.full(len(rows), 10, "i4"),
        "format": np.array(formats, "u1"),
        "verdict": np.array([VERDICTS.index(verdict) for *_, verdict in rows], "u1"),
        "sourced": np.zeros(len(rows), "?"),
        "seen_at": np.arange(len(rows), dtype="i8"),
        "first_seen": np.arange(len(rows), dtype="i8"),
        "near": np.zeros(len(rows), "V35"),
        "photo": np.array([photo_key(url) if tell_photos else 0 for url in urls], "u8"),
    }
    return Index.empty().merged([batch], 0, frozenset())


ROWS = [
    *((url_of(number), number, "ok") for number in range(50)),
    (url_of(60), 60, "blank"),
    (url_of(61), 61, "placeholder"),
    ("https://elsewhere.example/copy-of-60", 60, "ok"),
]


def found(number: int, url: str) -> MirroredImage:
    content = content_of(number)
    return MirroredImage(
        content,
        object_key(content, FORMATS[number % 3]),
        1000 + number,
        url_md5(url),
        sha256_of(number),
    )


def public(number: int) -> str:
    return "https://img.example.org/i/" + found(number, "").key


@pytest.fixture(scope="module")
def images() -> ImageLookup:
    return ImageLookup(index_of(ROWS))


NAMED = {
    "original": (url_of(7), found(7, url_of(7))),
    "public": (public(7), found(7, url_of(7))),
    "s3": ("s3://plants/inat/" + found(7, "").key, found(7, url_of(7))),
    "content hash": (content_of(7).hex(), found(7, url_of(7))),
    "flagged content that has a good name": (
        public(60),
        found(60, "https://elsewhere.example/copy-of-60"),
    ),
    "flagged": (url_of(60), Flagged),
    "flagged content": (public(61), Flagged),
    "unknown": (url_of(999), NotMirrored),
    "unknown content": (public(999), NotMirrored),
    "unknown hash": (content_of(999).hex(), NotMirrored),
    "a hash in capitals": (content_of(7).hex().upper(), NotMirrored),
    "empty": ("", NotMirrored),
    "no URL": ("\ud800 ☃", NotMirrored),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_text_is_looked_up(images: ImageLookup, name: str) -> None:
    text, expected = NAMED[name]
    for one in (images.find(text), images.find_all([text])[0], images.find_all([text, "x"])[0]):
        if isinstance(expected, MirroredImage):
            assert one == expected
        else:
            assert type(one) is expected


def test_many_texts_are_looked_up_like_single_ones(images: ImageLookup) -> None:
    texts = [text for text, _ in NAMED.values()] + [url_of(number) for number in range(70)]
    Random(0).shuffle(texts)
    together, alone = images.find_all(texts), [images.find(text) for text in texts]
    assert [repr(one) for one in together] == [repr(one) for one in alone]


def test_coverage_agrees_with_single_lookups(images: ImageLookup) -> None:
    texts = [text for text, _ in NAMED.values()]
    coverage = images.coverage(iter(texts))
    assert len(coverage) == len(texts)
    results = images.find_all(texts)
    assert coverage.mirrored.tolist() == [
        at for at, one in enumerate(results) if isinstance(one, MirroredImage)
    ]
    assert coverage.flagged.tolist() == [
        at for at, one in enumerate(results) if isinstance(one, Flagged)
    ]
    assert coverage.not_mirrored.tolist() == [
        at for at, one in enumerate(results) if isinstance(one, NotMirrored)
    ]
    assert coverage.where("blank").tolist() == [texts.index(url_of(60))]
    assert coverage.counts == {"ok": 5, "blank": 1, "placeholder": 1, "not_mirrored": 6}
    assert coverage.sizes.tolist() == [
        one.size if isinstance(one, MirroredImage) else 0 for one in results
    ]


@pytest.mark.parametrize("match", ["url", "photo"])
@pytest.mark.parametrize("tell_photos", [False, True])
def test_another_spelling_of_a_photo_is_found_with_match_photo(
    match: Match, tell_photos: bool
) -> None:
    images = ImageLookup(index_of(ROWS, tell_photos=tell_photos), match)
    spelled = "https://static.inaturalist.org/photos/7/medium.jpeg?1545"
    for one in (images.find(spelled), images.find_all([spelled, url_of(1)])[0]):
        if match == "photo" and (tell_photos or isinstance(one, MirroredImage)):
            assert one == found(7, url_of(7))
        elif match == "url":
            assert isinstance(one, NotMirrored)


def test_invalid_utf8_is_escaped() -> None:
    assert shown("http://x/\udcff?Signature=1") == r"http://x/\udcff"
    assert shown("http://x/ü") == "http://x/ü"


def test_a_signature_is_not_shown() -> None:
    url = f"{public(999)}?X-Amz-Credential=a&X-Amz-Signature=secret"
    error = ImageLookup(index_of(ROWS)).find(url)
    assert isinstance(error, NotMirrored)
    assert "secret" not in str(error)
    assert shown(url) == public(999)
    assert shown("https://a/b?size=1") == "https://a/b?size=1"


def test_reasons_are_short() -> None:
    assert reason(NotMirrored("a long sentence")) == "not in the mirror"
    assert reason(Flagged("a long sentence", "blank")) == "flagged: blank"
