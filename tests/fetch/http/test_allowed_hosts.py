"""Only the mirror's hosts are contacted, and iNaturalist is never the mirror."""

from __future__ import annotations

import pytest

from mirror.content.photo import from_inaturalist
from mirror.errors import ConfigError, OriginBlocked
from mirror.fetch.http.allowed_hosts import AllowedHosts, HostPort, split_url

MIRROR = "https://img.example.org/inat/"

INATURALIST = [
    "https://inaturalist-open-data.s3.amazonaws.com/photos/1/medium.jpg",
    "https://INATURALIST-open-data.s3.us-east-1.amazonaws.com/photos/1/medium.jpg",
    "http://inaturalist-open-data.s3-us-west-2.amazonaws.com/",
    "https://inaturalist-open-data.s3.dualstack.us-east-1.amazonaws.com/x",
    "https://inaturalist-open-data.s3-accelerate.amazonaws.com/x",
    "https://inaturalist-open-data.s3.amazonaws.com./photos/1/medium.jpg",
    "https://s3.amazonaws.com/inaturalist-open-data/photos/1/medium.jpg",
    "https://s3.us-east-1.amazonaws.com//inaturalist-open-data/photos/1/medium.jpg",
    "https://s3.us-east-1.amazonaws.com/%69naturalist-open-data/photos/1/medium.jpg",
    "https://s3.us-east-1.amazonaws.com/inaturalist-open-data%2Fphotos/1",
    "https://s3.amazonaws.com/static.inaturalist.org/photos/1/medium.jpg",
    "https://static.inaturalist.org/photos/1/medium.jpg",
    "https://static.inaturalist.org:8443/photos/1/medium.jpg",
    "https://user@www.inaturalist.org/",
    "https://inaturalist.org/",
    "https://www.inaturalist.ca/photos/1",
]  # fmt: skip

OTHERS = [
    "https://img.example.org/inat/objects/ab/x.jpg",
    "https://plants.s3.us-east-1.amazonaws.com/inat/objects/ab/x.jpg",
    "https://s3.us-east-1.amazonaws.com/plants/inaturalist-open-data/x.jpg",
    "https://my-inaturalist-open-data.example.org/x.jpg",
    "https://inaturalist.example.org/x.jpg",
    "https://notinaturalist.org/x.jpg",
    "http://127.0.0.1:9000/plants/x.jpg",
]  # fmt: skip


@pytest.mark.parametrize("url", INATURALIST)
def test_every_spelling_of_inaturalist_is_known(url: str) -> None:
    assert from_inaturalist(url)


@pytest.mark.parametrize("url", OTHERS)
def test_another_host_is_not_taken_for_inaturalist(url: str) -> None:
    assert not from_inaturalist(url)


@pytest.mark.parametrize("url", INATURALIST)
def test_inaturalist_as_the_mirror_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="never reads"):
        AllowedHosts([MIRROR, url])


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/elsewhere/x.jpg", "/elsewhere/x.jpg"),
        ("y.jpg", "/inat/objects/ab/y.jpg"),
        ("//IMG.example.org/x.jpg", "/x.jpg"),
        ("https://img.example.org:443/x.jpg#f", "/x.jpg"),
        ("", "/inat/objects/ab/x.jpg"),
        ("?signed=1", "/inat/objects/ab/x.jpg?signed=1"),
    ],
)
def test_a_redirect_within_the_mirror_is_followed(location: str, leads_to: str) -> None:
    at = AllowedHosts([MIRROR]).redirected(f"{MIRROR}objects/ab/x.jpg", location)
    assert at == (HostPort("https", "img.example.org", 443), leads_to)


@pytest.mark.parametrize(
    "location",
    [
        *INATURALIST,
        "http://img.example.org/x.jpg",
        "https://img.example.org:8443/x.jpg",
        "https://img.example.org.evil.example/x.jpg",
        "https://img.example.org@evil.example/x.jpg",
        "//evil.example/x.jpg",
        "file:///etc/passwd",
        "ftp://img.example.org/x.jpg",
        "https://img.example.org/x y.jpg",
        "https://img.example.org/\r\nHost: evil.example",
    ],
)
def test_a_redirect_out_of_the_mirror_is_refused(location: str) -> None:
    guard = AllowedHosts([MIRROR])
    if location == "":
        assert (
            guard.redirected(MIRROR, location)[1] == "/inat/"
        )  # the same URL again: three times at most
        return
    with pytest.raises(OriginBlocked):
        guard.redirected(MIRROR, location)


@pytest.mark.parametrize("url", [url for url in INATURALIST if "://s3." in url])
def test_a_mirror_on_the_same_store_does_not_open_inaturalists_bucket(url: str) -> None:
    origin = split_url(url)
    assert origin is not None
    guard = AllowedHosts([f"{origin[0]}/plants/inat/"])
    with pytest.raises(OriginBlocked):
        guard.redirected(f"{origin[0]}/plants/inat/objects/x.jpg", url)


def test_only_origins_of_the_mirror_are_allowed() -> None:
    guard = AllowedHosts([MIRROR])
    guard.require(HostPort("https", "img.example.org", 443))
    for other in (
        HostPort("http", "img.example.org", 443),
        HostPort("https", "img.example.org", 8443),
        HostPort("https", "static.inaturalist.org", 443),
    ):
        with pytest.raises(OriginBlocked, match="was not sent"):
            guard.require(other)
