"""Which URLs and addresses may be requested; no dataset and no redirect gets around it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from mirror.backfill.download import CheckedResolver
from mirror.backfill.url_policy import Refusal, UrlPolicy, source_of
from mirror.config.settings import BackfillSettings
from mirror.errors import ConfigError

HOSTS = BackfillSettings().hosts
RULES = UrlPolicy((*HOSTS, "img.example.org:8080", "8.8.8.8", "127.0.0.1", "[::1]"))

ALLOWED = [
    "https://static.inaturalist.org/photos/1/medium.jpg?1545",
    "http://static.inaturalist.org/photos/1/medium.jpg",
    "HTTPS://STATIC.iNaturalist.org/photos/1/medium.jpg",
    "https://static.inaturalist.org./photos/1/medium.jpg",
    "https://static.inaturalist.org:443/photos/1/medium.jpg",
    "https://inaturalist-open-data.s3.amazonaws.com/photos/1/medium.jpg",
    " https://static.inaturalist.org/photos/1/medium.jpg\n",
    "http://img.example.org:8080/x",
    "http://8.8.8.8/x",
]
REFUSED = [
    ("", "no address"),
    ("photos/1", "no address"),
    ("//static.inaturalist.org/x", "no address"),
    ("https://", "no address"),
    ("https://[", "no address"),
    ("ftp://static.inaturalist.org/x", "ftp"),
    ("file:///etc/passwd", "file"),
    ("data:image/png;base64,xxxx", "data"),
    ("https://user@static.inaturalist.org/x", "password"),
    ("https://user:pass@static.inaturalist.org/x", "password"),
    ("https://static.inaturalist.org@example.org/x", "password"),
    ("https://static.inaturalist.org:443@example.org/x", "password"),
    ("https://example.org/static.inaturalist.org", "example.org"),
    ("https://static.inaturalist.org.example.org/x", "not on the list"),
    ("https://xstatic.inaturalist.org/x", "not on the list"),
    ("https://static.inaturalist.org:8080/x", "port 8080"),
    ("https://static.inaturalist.org:80/x", "port 80"),
    ("https://img.example.org/x", "port 443"),
    ("http://127.0.0.1/x", "not public"),
    ("http://[::1]/x", "not public"),
    ("http://127.1/x", "not on the list"),
    ("http://0x7f000001/x", "not on the list"),
    ("http://2130706433/x", "not on the list"),
    ("http://localhost/x", "not on the list"),
    ("http://[::ffff:127.0.0.1]/x", "not on the list"),
]


@pytest.mark.parametrize("text", ALLOWED)
def test_listed_hosts_may_be_requested(text: str) -> None:
    assert isinstance(RULES.judge(text), URL)


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_other_urls_are_refused(text: str, reason: str) -> None:
    judged = RULES.judge(text)
    assert isinstance(judged, Refusal)
    assert reason in judged.reason


@given(st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    for url in (text, f"https://{text}", f"https://static.inaturalist.org{text}"):
        judged = RULES.judge(url)
        if isinstance(judged, URL):
            assert (judged.host or "").rstrip(".") in {
                *HOSTS, "img.example.org", "8.8.8.8"
            }  # fmt: skip
            assert judged.scheme in ("http", "https")


# Every kind of address that is not public, and some that hide one.
INSIDE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "0.0.0.0", "192.0.0.1", "192.0.2.1", "198.18.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "2001:db8::1", "100::1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1",
]  # fmt: skip
NEVER = [
    "224.0.0.1", "239.255.255.255", "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
    "2002:7f00:1::", "2002:808:808::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "", "nonsense",
]  # fmt: skip
OUTSIDE = ["8.8.8.8", "151.101.1.1", "2606:4700::1111", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", [*INSIDE, *NEVER])
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert UrlPolicy(HOSTS).refused_address(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_public_addresses_are_accepted(address: str) -> None:
    assert UrlPolicy(HOSTS).refused_address(address) is None


def test_tests_may_use_private_addresses_but_no_disguised_ones() -> None:
    rules = UrlPolicy(HOSTS, allow_private=True)
    assert not any(rules.refused_address(address) for address in (*INSIDE, *OUTSIDE))
    assert all(rules.refused_address(address) for address in NEVER)


@given(st.ip_addresses())
def test_what_python_calls_private_is_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if not address.is_global:
        assert UrlPolicy(HOSTS).refused_address(str(address))


class Told(AbstractResolver):
    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0)
            for one in self.addresses
        ]

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    "addresses", [("10.0.0.1",), ("8.8.8.8", "127.0.0.1"), ("::ffff:8.8.8.8",)]
)
def test_a_name_that_leads_inside_is_not_connected_to(addresses: tuple[str, ...]) -> None:
    resolver = CheckedResolver(UrlPolicy(HOSTS), Told(*addresses))
    with pytest.raises(OSError, match="address"):
        asyncio.run(resolver.resolve("static.inaturalist.org", 443))


def test_a_name_that_leads_outside_is_connected_to() -> None:
    inner = Told("8.8.8.8", "2606:4700::1111")
    resolver = CheckedResolver(UrlPolicy(HOSTS), inner)
    found = asyncio.run(resolver.resolve("static.inaturalist.org", 443))
    assert [one["host"] for one in found] == ["8.8.8.8", "2606:4700::1111"]
    asyncio.run(resolver.close())
    assert inner.closed


@pytest.mark.parametrize(
    "host", ["", "https://example.org", "a b", "example.org/x", "a:b", "user@x"]
)
def test_a_setting_that_is_not_a_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=r"backfill\.hosts"):
        UrlPolicy((host,))


def test_inaturalists_hosts_are_one_source() -> None:
    assert {source_of(URL(f"https://{host}/x")) for host in HOSTS} == {"inaturalist"}
    assert source_of(URL("https://IMG.example.org.:8080/x")) == "img.example.org"
