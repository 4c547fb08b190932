"""Which URLs show the same photo, and the same photo in the same size; other spellings of a URL."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.content.photo import SIZES, photo_key, photo_of, spellings

OPEN_DATA = "https://inaturalist-open-data.s3.amazonaws.com"
STATIC = "https://static.inaturalist.org"

ONE_PHOTO = [
    "https://inaturalist-open-data.s3.amazonaws.com/photos/123/medium.jpg",
    "https://inaturalist-open-data.s3.amazonaws.com/photos/123/medium.jpeg",
    "https://inaturalist-open-data.s3.amazonaws.com/photos/123/original.JPG?1545345",
    "https://inaturalist-open-data.s3.us-east-1.amazonaws.com/photos/123/square.png",
    "http://s3.amazonaws.com/inaturalist-open-data/photos/123/large.jpg",
    "https://s3.us-east-1.amazonaws.com/inaturalist-open-data/photos/123/large.jpg",
    "https://s3.amazonaws.com/static.inaturalist.org/photos/123/large.jpg",
    "https://static.inaturalist.org/photos/123/medium.jpg?1545345",
    "https://STATIC.inaturalist.org:443/photos/123/medium.jpg#top",
    "https://me:secret@static.inaturalist.org/photos/123/medium.jpg",
    "http://static.inaturalist.org/photos/123/",
    "//static.inaturalist.org/photos/123/small.jpg",
    "https://www.inaturalist.org/photos/123",
    "https://inaturalist.org/photos/123?size=large",
    " https://static.inaturalist.org/photos/123/medium.jpg\n",
]

OTHERS = [
    "https://static.inaturalist.org/photos/124/medium.jpg",
    "https://static.inaturalist.org/photos/1234/medium.jpg",
    "https://static.inaturalist.org/photos/123x/medium.jpg",
    "https://static.inaturalist.org/photos/123/sub/medium.jpg",
    "https://static.inaturalist.org/attachments/users/icons/123/medium.jpg",
    "https://static.inaturalist.org.example.com/photos/123/medium.jpg",
    "https://notinaturalist.org/photos/123/medium.jpg",
    "https://example.com/?u=https://static.inaturalist.org/photos/123/medium.jpg",
    "https://example.com/photos/123/medium.jpg",
    "https://s3.amazonaws.com/other-bucket/photos/123/medium.jpg",
    "https://other.s3.amazonaws.com/photos/123/medium.jpg",
    "ftp://static.inaturalist.org/photos/123/medium.jpg",
    "https://static.inaturalist.org/photos/\u0661\u0662\u0663/medium.jpg",
    "not a url",
    "",
]


@pytest.mark.parametrize("url", ONE_PHOTO)
def test_every_spelling_of_a_photos_url_is_that_photo(url: str) -> None:
    assert photo_of(url) == "https://www.inaturalist.org/photos/123"


@pytest.mark.parametrize("url", OTHERS)
def test_other_urls_are_not_that_photo(url: str) -> None:
    assert photo_of(url) not in {photo_of(spelling) for spelling in ONE_PHOTO}
    assert photo_key(url) not in {photo_key(spelling) for spelling in ONE_PHOTO} - {0}


@given(st.text())
def test_any_other_text_is_its_own_photo(text: str) -> None:
    url = f"https://example.org/{text}"
    assert photo_of(url) == url
    assert photo_key(url) == 0
    assert spellings(url) == []


@given(st.one_of(st.text(), st.sampled_from([*ONE_PHOTO, *OTHERS])))
def test_the_photo_of_a_photos_page_is_the_same(text: str) -> None:
    assert photo_of(photo_of(text)) == photo_of(text)


NUMBERS = st.one_of(st.integers(1, 3), st.integers(1, 10**18 - 1))
SIZE = st.sampled_from(SIZES)
EXTENSION = st.sampled_from(["jpg", "jpeg", "png", "gif", "JPG", "JPEG", "PNG", "webp"])
QUERY = st.sampled_from(["", "?1", "?1545345000", "#x"])
HOST = st.sampled_from(
    [OPEN_DATA, STATIC, "http://static.inaturalist.org", "https://s3.amazonaws.com/static.inaturalist.org"]
)  # fmt: skip
URL = st.builds("{}/photos/{}/{}.{}{}".format, HOST, NUMBERS, SIZE, EXTENSION, QUERY)


@given(NUMBERS, SIZE, EXTENSION, QUERY, HOST)
def test_only_the_number_counts(number: int, size: str, ext: str, query: str, host: str) -> None:
    url = f"{host}/photos/{number}/{size}.{ext}{query}"
    assert photo_of(url) == f"https://www.inaturalist.org/photos/{number}"


@given(st.tuples(NUMBERS, SIZE), st.tuples(NUMBERS, SIZE), *[st.tuples(HOST, EXTENSION, QUERY)] * 2)
def test_a_key_means_one_photo_in_one_size(one, two, as_one, as_two) -> None:
    keys = [
        photo_key(f"{host}/photos/{number}/{size}.{extension}{query}")
        for (number, size), (host, extension, query) in ((one, as_one), (two, as_two))
    ]
    assert all(0 < key < 2**64 for key in keys)
    assert (keys[0] == keys[1]) == (one == two)


def test_the_sizes_of_one_photo_have_a_key_each() -> None:
    assert len({photo_key(f"{STATIC}/photos/7/{size}.jpg") for size in SIZES} - {0}) == len(SIZES)


@pytest.mark.parametrize(
    "name", ["medium", "medium.", "medium.jpg", "medium.jpg/", "medium.JPEG?1"]
)
def test_the_extension_does_not_matter(name: str) -> None:
    assert photo_key(f"{STATIC}/photos/7/{name}") == photo_key(f"{OPEN_DATA}/photos/7/medium.png")


@pytest.mark.parametrize(
    "path",
    ["", "/", "/huge.jpg", "/Medium.jpg", "/mediums.jpg", "/medium.jpg.txt", "/.jpg", "/medium%2Ejpg"],
)  # fmt: skip
def test_without_a_size_that_is_known_there_is_no_key(path: str) -> None:
    assert photo_of(f"{STATIC}/photos/7{path}") == "https://www.inaturalist.org/photos/7"
    assert photo_key(f"{STATIC}/photos/7{path}") == 0
    assert spellings(f"{STATIC}/photos/7{path}") == []


@pytest.mark.parametrize("number", ["0", "007", "1" + "0" * 18, "9" * 5000])
def test_an_impossible_number_has_no_key(number: str) -> None:
    assert photo_key(f"{STATIC}/photos/{number}/medium.jpg") == 0
    assert spellings(f"{STATIC}/photos/{number}/medium.jpg") == []


def test_the_likeliest_spellings_come_first() -> None:
    assert spellings(f"{STATIC}/photos/7/large.jpeg?1545")[:4] == [
        f"{OPEN_DATA}/photos/7/large.jpeg",
        f"{STATIC}/photos/7/large.jpeg",
        f"{OPEN_DATA}/photos/7/large.jpg",
        f"{STATIC}/photos/7/large.jpg",
    ]


@given(URL)
def test_spellings_are_other_plain_urls_of_the_same_photo_and_size(url: str) -> None:
    others = spellings(url)
    assert len({url, *others}) == len(others) + 1
    assert {photo_key(other) for other in others} == {photo_key(url)}
    assert not any("?" in other or "#" in other for other in others)
    for base in (OPEN_DATA, STATIC):
        extensions = {re.sub(r".*\.", "", other) for other in {url, *others} if base in other}
        assert {"jpg", "jpeg", "png", "gif", "JPG", "JPEG"} <= extensions


@given(URL)
def test_all_spellings_of_a_photo_lead_to_the_same_urls(url: str) -> None:
    usual = {url, *spellings(url)}
    for other in usual - {url}:
        assert {other, *spellings(other)} <= usual
