"""URLs of a mirror's objects: written, known again, and never mistaken for each other."""

from __future__ import annotations

import pickle
import re
from typing import get_args
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror.errors import ConfigError
from mirror.layout import BucketUrl, object_key
from mirror.urls import ObjectUrls, Scheme
from tests.chaos.tally import count

CONTENT = bytes.fromhex("ab" + "0" * 29 + "f")
KEY = object_key(CONTENT, "jpeg")
OTHER_KEY = object_key(CONTENT, "png")
KNOWN = (CONTENT, "jpg")
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
    assert urls.parse(base + KEY) == KNOWN


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
def test_the_default_is_public_where_it_can_be(urls: ObjectUrls, scheme: Scheme) -> None:
    assert urls.default_scheme == scheme


OURS = [
    (AWS, f"https://img.example.org/i/{KEY}"),
    (AWS, f"https://IMG.Example.ORG/i/{KEY}"),
    (AWS, f"HTTPS://img.example.org:443/i/{KEY}"),
    (AWS, f"S3://plants/inat/{KEY}"),
    (AWS, f"https://plants.s3.eu-west-1.amazonaws.com/inat/{KEY}"),
    (AWS, f"https://plants.s3.EU-WEST-1.amazonaws.com:443/inat/{KEY}{SIGNATURE}"),
    (AWS, f"https://s3.eu-west-1.amazonaws.com/plants/inat/{KEY}"),
    (AWS, f"https://s3.eu-west-1.amazonaws.com/plants/inat/{KEY}{SIGNATURE}"),
    (AWS, f"https://plants.s3.amazonaws.com/inat/{KEY}"),
    (AWS, f"https://s3.amazonaws.com/plants/inat/{KEY}"),
    (AWS, f"https://s3.amazonaws.com/plants/inat/{KEY}?AWSAccessKeyId=a&Signature=b%3D&Expires=1"),
    (ROOT, f"https://plants.s3.eu-west-1.amazonaws.com/{KEY}"),
    (ROOT, f"https://s3.eu-west-1.amazonaws.com/plants/{KEY}"),
    (R2, f"https://acc.r2.cloudflarestorage.com/plants/inat/{KEY}"),
    (R2, f"https://acc.r2.cloudflarestorage.com/plants/inat/{KEY}{SIGNATURE}"),
    (LOCAL, f"http://[::1]:9000/gate/plants/a%20b/100%25/{KEY}"),
    (FOLDER, f"FILE:///data/my%20mirror/{KEY}"),
    (SERVED_FOLDER, f"http://nas.example:80/{KEY}"),
]


@pytest.mark.parametrize(("urls", "url"), OURS)
def test_our_url_is_known_in_all_its_forms(urls: ObjectUrls, url: str) -> None:
    assert urls.parse(url) == KNOWN
    assert urls.could_be(url)
    assert urls.could_be_bytes(url.encode())


STRANGERS = [
    # other places
    (AWS, f"https://img.example.org/{KEY}"),
    (AWS, f"https://img.example.org/I/{KEY}"),
    (AWS, f"https://img.example.org/i/j/{KEY}"),
    (AWS, f"https://img.example.org.evil.example/i/{KEY}"),
    (AWS, f"https://img.example.org./i/{KEY}"),
    (AWS, f"https://imgxexample.org/i/{KEY}"),
    (AWS, f"https://evil.example/https://img.example.org/i/{KEY}"),
    (AWS, f"http://img.example.org/i/{KEY}"),
    (AWS, f"https://img.example.org:444/i/{KEY}"),
    (AWS, f"https://img.example.org:/i/{KEY}"),
    (AWS, f"https://user@img.example.org/i/{KEY}"),
    (AWS, f"https://user:pw@s3.eu-west-1.amazonaws.com/plants/inat/{KEY}"),
    (AWS, f"https://img.example.org@evil.example/i/{KEY}"),
    (AWS, f"s3://plant/inat/{KEY}"),
    (AWS, f"s3://Plants/inat/{KEY}"),
    (AWS, f"s3://plants/{KEY}"),
    (AWS, f"s3://plants/INAT/{KEY}"),
    (AWS, f"https://plants.s3.eu-west-2.amazonaws.com/inat/{KEY}"),
    (AWS, f"https://plants.s3.eu-west-1.amazonaws.com/plants/inat/{KEY}"),
    (AWS, f"https://other.s3.eu-west-1.amazonaws.com/inat/{KEY}"),
    (AWS, f"https://s3.eu-west-1.amazonaws.com/inat/{KEY}"),
    (AWS, f"https://\u017f3.amazonaws.com/plants/inat/{KEY}"),  # a long s is an s to some
    (AWS, f"file:///plants/inat/{KEY}"),
    (ROOT, f"https://plants.s3.eu-west-1.amazonaws.com/plants/{KEY}"),
    (ROOT, f"s3://plants/inat/{KEY}"),
    (R2, f"https://s3.auto.amazonaws.com/plants/inat/{KEY}"),
    (R2, f"https://acc2.r2.cloudflarestorage.com/plants/inat/{KEY}"),
    (R2, f"http://acc.r2.cloudflarestorage.com/plants/inat/{KEY}"),
    (LOCAL, f"http://[::1]/gate/plants/a%20b/100%25/{KEY}"),
    (LOCAL, f"http://[::1]:9000/plants/a%20b/100%25/{KEY}"),
    (FOLDER, f"file://localhost/data/my%20mirror/{KEY}"),
    (FOLDER, f"/data/my mirror/{KEY}"),
    # escapes, dots and slashes
    (AWS, f"https://img.example.org/%69/{KEY}"),
    (AWS, f"https://img.example.org/i/{KEY.replace('/', '%2F')}"),
    (AWS, f"https://img.example.org/i/{KEY.replace('objects', '%6Fbjects')}"),
    (AWS, f"https://img.example.org/i/{KEY.replace('.', '%2E')}"),
    (AWS, f"https://img.example.org/i/./{KEY}"),
    (AWS, f"https://img.example.org/i/x/../{KEY}"),
    (AWS, f"https://img.example.org/i//{KEY}"),
    (AWS, f"https://img.example.org\\i\\{KEY}"),
    (LOCAL, f"http://[::1]:9000/gate/plants/a b/100%25/{KEY}"),
    (LOCAL, f"http://[::1]:9000/gate/plants/a+b/100%25/{KEY}"),
    (LOCAL, f"http://[::1]:9000/gate/plants/a%20b/100%/{KEY}"),
    (FOLDER, f"file:///data/my mirror/{KEY}"),
    # other keys
    (AWS, "https://img.example.org/i/format.json"),
    (AWS, "https://img.example.org/i/"),
    (AWS, f"https://img.example.org/i/{KEY.upper()}"),
    (AWS, f"https://img.example.org/i/{KEY.replace('/ab', '/AB')}"),
    (AWS, f"https://img.example.org/i/{KEY.replace('/ab/', '/ac/')}"),
    # junk around
    (AWS, ""),
    (AWS, f" https://img.example.org/i/{KEY}"),
    (AWS, f"https://img.example.org/i/{KEY} "),
    (AWS, f"https://img.example.org/i/{KEY}\n"),
    (AWS, f"ht\ntps://img.example.org/i/{KEY}"),
    (AWS, f"https://img.example.org/i/{KEY}/"),
    (AWS, f"https://img.example.org/i/{KEY}#top"),
    (AWS, f"https://img.example.org/i/{KEY}?"),
    (AWS, f"https://img.example.org/i/{KEY}{SIGNATURE}"),
    (AWS, f"s3://plants/inat/{KEY}{SIGNATURE}"),
    (FOLDER, f"file:///data/my%20mirror/{KEY}{SIGNATURE}"),
    (R2, f"https://acc.r2.cloudflarestorage.com/plants/inat/{KEY}?"),
    (R2, f"https://acc.r2.cloudflarestorage.com/plants/inat/{KEY}?versionId=1"),
    (R2, f"https://acc.r2.cloudflarestorage.com/plants/inat/{KEY}{SIGNATURE}#top"),
    (R2, f"https://acc.r2.cloudflarestorage.com/plants/inat/{KEY}{SIGNATURE}\n"),
    (R2, f"https://acc.r2.cloudflarestorage.com/plants/inat/{KEY}/{SIGNATURE}"),
    (R2, f"https://evil.example/{SIGNATURE}/plants/inat/{KEY}"),
]


@pytest.mark.parametrize(("urls", "url"), STRANGERS)
def test_a_strangers_url_is_not_ours(urls: ObjectUrls, url: str) -> None:
    assert urls.parse(url) is None


def test_the_urls_of_the_dataset_are_ruled_out_at_a_glance() -> None:
    for url in (
        "https://inaturalist-open-data.s3.amazonaws.com/photos/12345678/medium.jpg",
        "https://static.inaturalist.org/photos/12345678/medium.jpg?1545345845",
    ):
        assert not AWS.could_be(url)
        assert not AWS.could_be_bytes(url.encode())


@pytest.mark.parametrize("bucket", ["My_Bucket", "Plants"])
def test_a_bucket_whose_name_is_no_host_has_no_virtual_host(bucket: str) -> None:
    urls = ObjectUrls(BucketUrl("s3", bucket, ""), None, "us-east-1")
    assert urls.parse(f"https://{bucket}.s3.us-east-1.amazonaws.com/{KEY}") is None
    assert urls.parse(f"https://s3.us-east-1.amazonaws.com/{bucket}/{KEY}") == KNOWN


def test_without_a_region_only_hosts_that_name_none_are_known() -> None:
    urls = ObjectUrls(BucketUrl("s3", "plants", "inat"))
    assert urls.parse(f"https://plants.s3.amazonaws.com/inat/{KEY}") == KNOWN
    assert urls.parse(f"https://plants.s3.eu-west-1.amazonaws.com/inat/{KEY}") is None


def test_a_public_url_may_be_the_stores_own_address() -> None:
    urls = ObjectUrls(
        BucketUrl("s3", "plants", "inat"),
        "https://s3.example",
        None,
        "https://s3.example/plants/inat",
    )
    url = urls.url("public", KEY)
    assert urls.parse(url) == urls.parse(url + SIGNATURE) == KNOWN


def test_a_place_within_another_of_the_same_mirror_is_told_apart() -> None:
    # The bucket is called "objects": a URL of the store begins like a key behind the public URL.
    urls = ObjectUrls(
        BucketUrl("s3", "objects", ""), "https://s3.example", None, "https://s3.example"
    )
    assert urls.parse(f"https://s3.example/objects/{KEY}") == KNOWN
    assert urls.parse(f"https://s3.example/{KEY}") == KNOWN


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
    assert urls.parse(base + KEY) == KNOWN


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
    assert again.parse(urls.url(urls.default_scheme, KEY)) == KNOWN


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
def test_what_is_written_is_known_again(urls: ObjectUrls, content: bytes) -> None:
    for scheme in schemes(urls):
        url = urls.url(scheme, object_key(content, "jpeg"))
        assert urls.parse(url) == (content, "jpg")
        assert urls.could_be(url)
        assert url.isascii()
        assert not urlsplit(url).query
        assert not urlsplit(url).fragment


SNIPPETS = [
    "", "/", "//", "/../", "/./", "%2F", "%2e", "%", ":", ":443", ":80", "@", "a@", "?", "#", "\n",
    " ", "\t", "\\", "A", "f", "0", ".", ".png", "\0", "\u017f", "\u212a", "objects/", SIGNATURE,
    f"/{KEY}", f"/{OTHER_KEY}", "https://", "http://", "s3://", "file://",
]  # fmt: skip


def spellings(urls: ObjectUrls, key: str) -> set[str]:
    """All ways to write the URL of a key, without ports: said again, and by other means."""
    bucket, below = urls.bucket.bucket, quote(urls.bucket.path) + "/" if urls.bucket.path else ""
    bases = {urls.base(scheme) for scheme in schemes(urls)}
    if bucket and urls.endpoint:
        bases.add(f"{urls.endpoint}/{bucket}/{below}")
    elif bucket:
        for host in ("s3.amazonaws.com", f"s3.{urls.region}.amazonaws.com"):
            bases |= {f"https://{host}/{bucket}/{below}", f"https://{bucket}.{host}/{below}"}
    return {base + key for base in bases}


@st.composite
def damaged(draw: st.DrawFn) -> tuple[ObjectUrls, str]:
    """A mirror, and one of its URLs with one to three places changed."""
    urls = draw(mirrors())
    url = draw(st.sampled_from(sorted(spellings(urls, object_key(draw(contents), "jpeg")))))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(url)))
        end = min(len(url), start + draw(st.sampled_from([0, 0, 1, 1, 2, 8])))
        kept = url[start:end]
        change = draw(
            st.one_of(
                st.sampled_from(SNIPPETS),
                st.text(max_size=2),
                st.sampled_from([kept.upper(), kept.lower(), kept[::-1], kept * 2]),
                st.just("".join(f"%{byte:02X}" for byte in kept.encode())),
            )
        )
        url = url[:start] + change + url[end:]
    return urls, url


def without_case_and_port(url: str) -> str:
    """The scheme and host in lower case and the default port away, as RFC 3986 has them equal."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    scheme = scheme.lower() if scheme.isascii() else scheme
    if scheme in ("http", "https"):
        host = host.lower() if host.isascii() else host
        host = re.sub(":443$" if scheme == "https" else ":80$", "", host)
    return f"{scheme}://{host}{slash}{path}"


@pytest.mark.chaos("hostile input")
@given(damaged())
def test_a_damaged_url_is_known_only_if_it_is_a_spelling_of_that_very_object(
    case: tuple[ObjectUrls, str],
) -> None:
    count("inputs URLs of a mirror with pieces changed")
    urls, url = case
    parsed = urls.parse(url)
    if parsed is None:
        return
    digits = parsed[0].hex()
    key = f"objects/{digits[:2]}/{digits}.{parsed[1]}"
    plain, question, query = url.partition("?")
    assert without_case_and_port(plain) in spellings(urls, key)
    assert urls.could_be(url)
    if question:
        assert "Signature=" in query
        assert "#" not in query
        assert plain.lower().startswith("http")
