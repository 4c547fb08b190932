"""Keys of format 1 and bucket URLs, built and parsed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import ConfigError
from mirror.layout import (
    FORMATS,
    BucketUrl,
    content_disposition,
    content_type,
    object_key,
    parse_content_hash,
    parse_object_key,
    url_md5,
)

HASH = "ab" + "0" * 29 + "f"


@given(st.binary(min_size=16, max_size=16), st.sampled_from(sorted(FORMATS)))
def test_a_key_is_parsed_into_what_it_was_built_from(content: bytes, kind: str) -> None:
    key = object_key(content, kind)
    assert parse_object_key(key) == (content, FORMATS[kind][0])
    assert key == f"objects/{content.hex()[:2]}/{content.hex()}.{FORMATS[kind][0]}"


STRANGERS = [
    "",
    "format.json",
    "catalog/_delta_log/00000000000000000000.json",
    f"objects/{HASH}.jpg",
    f"objects/ac/{HASH}.jpg",
    f"objects/ab/{HASH}",
    f"objects/ab/{HASH}.",
    f"objects/ab/{HASH}.JPG",
    f"objects/ab/{HASH}.jpg\n",
    f"objects/ab/{HASH}.jpg.part",
    f"objects/ab/{HASH}.ninechars",
    f"objects/ab/{HASH[:-1]}.jpg",
    f"objects/ab/{HASH}0.jpg",
    f"objects/AB/{HASH.upper()}.jpg",
    f"objects/ab/{HASH[:-1]}g.jpg",
    f"/objects/ab/{HASH}.jpg",
    f"inat/objects/ab/{HASH}.jpg",
    f"objects/ab/../ab/{HASH}.jpg",
]


@pytest.mark.parametrize("key", STRANGERS)
def test_a_foreign_key_is_not_an_objects(key: str) -> None:
    assert parse_object_key(key) is None


@given(st.text())
def test_a_parsed_key_is_built_again_unchanged(text: str) -> None:
    for key in (text, f"objects/ab/{HASH}.{text}", f"objects/{text}/{HASH}.jpg"):
        parsed = parse_object_key(key)
        if parsed is not None:
            digits = parsed[0].hex()
            assert key == f"objects/{digits[:2]}/{digits}.{parsed[1]}"


@given(st.binary(min_size=16, max_size=16))
def test_a_content_hash_is_read_as_a_key_writes_it(content: bytes) -> None:
    assert parse_content_hash(content.hex()) == content


@pytest.mark.parametrize(
    "text",
    [
        "",
        HASH[:-1],
        f"{HASH}0",
        HASH.upper(),
        f" {HASH}",
        f"{HASH}\n",
        f"{HASH}.jpg",
        f"{HASH[:-1]}٣",
    ],
)
def test_other_text_is_no_content_hash(text: str) -> None:
    assert parse_content_hash(text) is None


def test_formats_have_distinct_extensions_and_a_content_type_each() -> None:
    assert len({extension for extension, _ in FORMATS.values()}) == len(FORMATS)
    assert {content_type(kind).count("/") for kind in FORMATS} == {1}


def test_only_images_are_served_as_what_they_are() -> None:
    served = {kind: (content_type(kind), content_disposition(kind)) for kind in FORMATS}
    others = {kind for kind, how in served.items() if how != (f"image/{kind}", None)}
    assert others == {"html", "json", "xml", "unknown"}
    assert {served[kind] for kind in others} == {("application/octet-stream", "attachment")}


URLS = [
    ("s3://plants", ("s3", "plants", "")),
    ("s3://plants/", ("s3", "plants", "")),
    ("s3://plants/inat", ("s3", "plants", "inat")),
    ("s3://plants/inat/", ("s3", "plants", "inat")),
    ("s3://plants/a/b", ("s3", "plants", "a/b")),
    ("s3://plants/a%20b", ("s3", "plants", "a b")),
    ("s3://my.bucket-1/x", ("s3", "my.bucket-1", "x")),
    ("file:///data/mirror", ("file", "", "/data/mirror")),
    ("file:///data/mirror/", ("file", "", "/data/mirror")),
    ("file:///data/a%20b%23c", ("file", "", "/data/a b#c")),
]


@pytest.mark.parametrize(("text", "parts"), URLS)
def test_a_bucket_url_is_understood(text: str, parts: tuple[str, str, str]) -> None:
    url = BucketUrl.parse(text)
    assert (url.scheme, url.bucket, url.path) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plants/inat",
        "https://plants.s3.amazonaws.com",
        "s3://",
        "s3:///inat",
        "s3:plants",
        "s3://plants/a//b",
        "s3://plants/./a",
        "s3://plants/a/..",
        "s3://plants/a/%2e%2e/b",
        "s3://plants/a?versionId=1",
        "s3://plants/a#b",
        "s3://../a",
        "s3://pla\nnts/a",
        "s3://plants/a\tb",
        "s3://plants/a%0Ab",
        "s3://plants/a%7f",
        "s3://plants/\udcff",
        "s3://KEY:SECRET@plants/a",
        "s3://[plants",
        "file://host/data",
        "file://data",
        "file:///",
        "file:///%2F",
        "file:///data/a?b",
        "file:///data/a#b",
        "file:///data/\udcff",
    ],
)
def test_a_bucket_url_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"bucket\.url"):
        BucketUrl.parse(text)


@pytest.mark.parametrize("text", ["s3://KEY:SECRET@plants/a", "https://KEY:SEC/RET@h/a"])
def test_a_refused_url_is_shown_without_its_password(text: str) -> None:
    with pytest.raises(ConfigError, match=r"//…@") as caught:
        BucketUrl.parse(text)
    assert "SEC" not in str(caught.value)


PIECE = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="/\x7f"), min_size=1
).filter(lambda piece: piece not in (".", ".."))


@given(st.sampled_from(["s3", "file"]), st.lists(PIECE, min_size=1, max_size=3))
def test_a_bucket_url_is_written_so_that_it_is_read_the_same(
    scheme: str, pieces: list[str]
) -> None:
    path = "/".join(pieces)
    url = BucketUrl("s3", "plants", path) if scheme == "s3" else BucketUrl("file", "", f"/{path}")
    assert BucketUrl.parse(str(url)) == url


@given(st.text(st.characters(codec="utf-8")))
def test_a_url_is_known_by_the_md5_of_its_bytes(url: str) -> None:
    assert url_md5(url) == hashlib.md5(url.encode()).digest()
