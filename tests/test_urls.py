"""URLs of a mirror's objects: built, and recognised on any host."""

from __future__ import annotations

import pickle
from typing import get_args
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror.errors import ConfigError
from mirror.layout import BucketUrl, object_key
from mirror.urls import ObjectUrls, Scheme, content_hash_in

CONTENT = bytes.fromhex("ab" + "0" * 29 + "f")
KEY = object_key(CONTENT, "jpeg")
SIGNATURE = "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=300&X-Amz-Signature=0f"

AWS = ObjectUrls(BucketUrl("s3", "plants", "inat"), None, "eu-west-1", "https://img.example.org/i")
R2 = ObjectUrls(BucketUrl("s3", "plants", "inat"), "https://acc.r2.cloudflarestorage.com", "auto")
ROOT = ObjectUrls(BucketUrl("s3", "plants", ""), None, "eu-west-1")
LOCAL = ObjectUrls(BucketUrl("s3", "plants", "a b/100%"), "http://[::1]:9000/gate/", "us-east-1")
FOLDER = ObjectUrls(BucketUrl("file", "", "/data/my mirror"))
SERVED_FOLDER = ObjectUrls(BucketUrl("file", "", "/data"), public_url="http://Nas.Example:80/")

WRITTEN: list[tuple[ObjectUrls, Scheme, str]] = [
    (AWS, "public", "https://img.example.org/i/"),
    (AWS, "s3", "s3://plants/inat/"),
    (R2, "s3", "s3://plants/inat/"),
    (ROOT, "s3", "s3://plants/"),
    (LOCAL, "s3", "s3://plants/a%20b/100%25/"),
    (FOLDER, "file", "file:///data/my%20mirror/"),
    (SERVED_FOLDER, "file", "file:///data/"),
    (SERVED_FOLDER, "public", "http://nas.example/"),
]


@pytest.mark.parametrize(("urls", "scheme", "base"), WRITTEN)
def test_a_url_is_its_base_and_the_key(urls: ObjectUrls, scheme: Scheme, base: str) -> None:
    assert urls.base(scheme) == base
    assert urls.url(scheme, KEY) == base + KEY
    assert content_hash_in((base + KEY).encode()) == CONTENT


@pytest.mark.parametrize(
    ("urls", "scheme", "advice"),
    [
        (R2, "public", r"set bucket\.public_url .* or choose s3 URLs"),
        (FOLDER, "public", r"set bucket\.public_url .* or choose file URLs"),
        (FOLDER, "s3", r"in a folder .* choose file URLs"),
        (AWS, "file", r"in a bucket .* choose s3, public or presigned"),
    ],
)
def test_a_scheme_that_a_mirror_does_not_have_is_refused_with_advice(
    urls: ObjectUrls, scheme: Scheme, advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice):
        urls.base(scheme)


@pytest.mark.parametrize(
    ("urls", "scheme"),
    [(AWS, "public"), (R2, "s3"), (ROOT, "s3"), (FOLDER, "file"), (SERVED_FOLDER, "public")],
)
def test_the_default_is_public_if_possible(urls: ObjectUrls, scheme: Scheme) -> None:
    assert urls.default_scheme == scheme


@pytest.mark.parametrize("end", ["", SIGNATURE, "?versionId=1", "?AWSAccessKeyId=a&Signature=b%3D"])
@pytest.mark.parametrize(
    "base",
    [
        "https://img.example.org/", "HTTPS://IMG.Example.ORG:443/i/", "s3://plants/inat/", "s3://plants/",
        "https://s3.eu-west-1.amazonaws.com/plants/inat/", "http://[::1]:9000/gate/a%20b/100%25/",
        "file:///data/my%20mirror/", "https://acc.r2.cloudflarestorage.com/objects/",
        "https://bücher.example/",
    ],
)  # fmt: skip
def test_an_objects_url_is_recognised_at_any_place(base: str, end: str) -> None:
    assert content_hash_in((base + KEY + end).encode()) == CONTENT


@pytest.mark.parametrize(
    "url",
    [
        "", KEY, f"/{KEY}", f"//host/{KEY}", f"https://{KEY}", f"://host/{KEY}",
        "https://inaturalist-open-data.s3.amazonaws.com/photos/12345678/medium.jpg",
        "https://host/format.json", f"https://host/{KEY.upper()}", f"https://host/{KEY}/",
        f"https://host/{KEY.replace('/ab', '/AB')}", f"https://host/{KEY.replace('/ab/', '/ac/')}",
        f"https://host/{KEY.replace('/ab', '%2Fab')}", f"https://host/{KEY}#top",
        f" https://host/{KEY}", f"https://host/{KEY} ", f"https://host/{KEY}\n",
        f"ht\ntps://host/{KEY}", f"https://ho\nst/{KEY}", f"https://host/?at=/{KEY}",
        f"https://host/#/{KEY}", f"https://host/x{KEY}", f"https://host/{KEY}{SIGNATURE}#top",
    ],
)  # fmt: skip
def test_other_texts_are_not_object_urls(url: str) -> None:
    assert content_hash_in(url.encode()) is None


@pytest.mark.parametrize("end", ["", "?", "#", KEY, f"{KEY} "])
def test_a_text_of_a_megabyte_is_parsed_in_linear_time(end: str) -> None:
    assert content_hash_in((f"https://host{'/objects/ab' * 100_000}/{end}").encode()) in (
        None, CONTENT,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("public_url", "base"),
    [
        ("https://img.example.org", "https://img.example.org/"),
        ("https://img.example.org///", "https://img.example.org/"),
        ("HTTPS://IMG.example.org:443/Über uns/", "https://img.example.org/%C3%9Cber%20uns/"),
        ("https://img.example.org:8443/a%20b", "https://img.example.org:8443/a%20b/"),
        ("http://127.0.0.1:80/x", "http://127.0.0.1/x/"),
        ("http://127.0.0.1:443/x", "http://127.0.0.1:443/x/"),
    ],
)
def test_a_public_url_is_written_one_way(public_url: str, base: str) -> None:
    urls = ObjectUrls(BucketUrl("s3", "plants", "x"), public_url=public_url)
    assert urls.base("public") == base
    assert content_hash_in((base + KEY).encode()) == CONTENT


NOT_PLAIN = [
    "img.example.org",
    "localhost:9000",
    "ftp://img.example.org",
    "s3://plants",
    "https://",
    "https:///x",
    "https://user:hunter2@img.example.org",
    "https://img.example.org/x?token=hunter2",
    "https://img.example.org/x#hunter2",
    "https://img.example.org/a/../b",
    "https://img.example.org/a/%2e%2E/b",
    "https://img.example.org/./b",
    "https://img.example.org/100%",
    "https://img.example.org/a\nb",
    "https://img.example.org/\udcff",
    "https://img.example.org:x",
    "https://img.example.org:65536",
    "https://bücher.example",
    " https://img.example.org",
]


@pytest.mark.parametrize("setting", ["public_url", "endpoint"])
@pytest.mark.parametrize("address", NOT_PLAIN)
def test_an_address_that_keys_cannot_follow_is_refused_without_repeating_it(
    setting: str, address: str
) -> None:
    with pytest.raises(ConfigError, match=rf"bucket\.{setting} .*https://HOST") as caught:
        ObjectUrls(BucketUrl("s3", "plants", ""), **{setting: address})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("urls", [AWS, R2, ROOT, LOCAL, FOLDER, SERVED_FOLDER])
def test_urls_cross_processes(urls: ObjectUrls) -> None:
    again = pickle.loads(pickle.dumps(urls))
    assert again == urls
    assert again.base(urls.default_scheme) == urls.base(urls.default_scheme)


contents = st.binary(min_size=16, max_size=16)
pieces = st.text(
    st.characters(min_codepoint=32, exclude_characters="/\x7f", codec="utf-8"), min_size=1
).filter(lambda piece: piece not in (".", ".."))
prefixes = st.lists(pieces, max_size=3).map("/".join)


@st.composite
def mirrors(draw: st.DrawFn) -> ObjectUrls:
    prefix = draw(prefixes)
    public = st.sampled_from(
        [None, "https://img.example.org", "http://img.example.org:8080/a%20b/"]
    )
    if draw(st.booleans()) and prefix:
        return ObjectUrls(BucketUrl("file", "", f"/{prefix}"), public_url=draw(public))
    return ObjectUrls(
        BucketUrl("s3", draw(st.sampled_from(["plants", "my.plants", "Old_Plants"])), prefix),
        draw(st.sampled_from([None, "http://127.0.0.1:9000", "https://acc.example.com/gate"])),
        draw(st.sampled_from([None, "auto", "eu-west-1"])),
        draw(public),
    )


def schemes(urls: ObjectUrls) -> list[Scheme]:
    return [
        scheme
        for scheme in get_args(Scheme)
        if scheme == urls.bucket.scheme or (scheme == "public" and urls.public_url)
    ]


@given(mirrors(), contents)
@example(ObjectUrls(BucketUrl("s3", "plants", "a b/%41%2F/ü+&=#?;\\'\"{}~")), CONTENT)
def test_a_written_url_is_recognised(urls: ObjectUrls, content: bytes) -> None:
    for scheme in schemes(urls):
        url = urls.url(scheme, object_key(content, "jpeg"))
        assert content_hash_in(url.encode()) == content
        assert url.isascii()
        assert not urlsplit(url).query
        assert not urlsplit(url).fragment


@pytest.mark.parametrize(
    ("endpoint", "right"),
    [
        ("https://abc.r2.cloudflarestorage.com/plants", "https://abc.r2.cloudflarestorage.com"),
        ("https://abc.r2.cloudflarestorage.com/plants/", "https://abc.r2.cloudflarestorage.com"),
        ("http://10.0.0.1:9000/minio/plants", "http://10.0.0.1:9000/minio"),
        ("https://plants.s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com"),
        ("https://plants.abc.r2.cloudflarestorage.com", "https://abc.r2.cloudflarestorage.com"),
    ],
)
def test_an_endpoint_with_the_bucket_in_it_is_refused(endpoint: str, right: str) -> None:
    bucket = BucketUrl.parse("s3://plants/inat")
    with pytest.raises(ConfigError, match=f"write only the server, {right}, because") as refused:
        ObjectUrls(bucket, endpoint)
    assert refused.value.exit_status == 78
    assert ObjectUrls(bucket, right).endpoint == right


@pytest.mark.parametrize("endpoint", ["https://plants.example.org", "https://s3.plants.io/other"])
def test_an_endpoint_that_only_sounds_like_the_bucket_is_taken(endpoint: str) -> None:
    assert ObjectUrls(BucketUrl.parse("s3://plants/inat"), endpoint).endpoint == endpoint
