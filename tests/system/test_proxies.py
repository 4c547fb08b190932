"""Proxies: the rule as a table, and every engine by the same rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.errors import ConfigError
from mirror.store.object_store_options import delta_options
from mirror.store.s3_access import S3Access
from mirror.sync.run_sync import sync
from mirror.system.proxies import proxy_for
from tests.conftest import MakePlace
from tests.support.fault_proxy import FaultProxy
from tests.support.photos import fill, photo, url_of

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://s3.org", {}, None),
        ("https://s3.org", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://s3.org", {"HTTP_PROXY": PROXY}, None),
        ("http://s3.org", {"HTTP_PROXY": "proxy:3128"}, PROXY),
        ("http://s3.org", {"ALL_PROXY": PROXY, "HTTP_PROXY": ""}, PROXY),
        ("http://s3.org", {"HTTP_PROXY": "http://other:1", "http_proxy": PROXY}, PROXY),
    ],
)
def test_the_scheme_chooses_the_proxy(url: str, environ: dict[str, str], proxy: str | None) -> None:
    assert proxy_for(url, environ) == proxy


@pytest.mark.parametrize(
    ("host", "entries", "straight"),
    [
        ("s3.org", "s3.org", True),
        ("s3.org", "S3.ORG", True),
        ("eu.s3.org", "s3.org", True),
        ("eu.s3.org", ".s3.org", True),
        ("eu.s3.org", "*.s3.org", True),
        ("s3.org", "a.example, s3.org", True),
        ("nots3.org", "s3.org", False),
        ("s3.org.evil.example", "s3.org", False),
        ("s3.org", "", False),
        ("s3.org", ",,", False),
        ("s3.org", "*", True),
        ("s3.org:9000", "s3.org:9000", True),
        ("s3.org:9000", "s3.org:9001", False),
        ("s3.org", "s3.org:80", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3:9000", "10.1.2.3", True),
        ("[::1]:9000", "::1", True),
        ("[fd00::1]", "fd00::/8", True),
        ("[::1]:9000", "[::1]:9000", True),
        ("s3.org", "10.0.0.0/8", False),
    ],
)
def test_entries_of_no_proxy(host: str, entries: str, straight: bool) -> None:
    environ = {"HTTP_PROXY": PROXY, "NO_PROXY": entries}
    assert (proxy_for(f"http://{host}", environ) is None) == straight


def test_a_proxy_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="socks5 proxy"):
        proxy_for("https://s3.org", {"ALL_PROXY": "socks5://h:1"})


VARIABLES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.mark.parametrize("entry", ["127.0.0.0/8", "127.0.0.1", "*"])
@pytest.mark.parametrize("name", ["moto-obstore", "moto-aioboto3"])
def test_every_engine_goes_straight_by_the_same_entry(
    name: str,
    entry: str,
    make_place: MakePlace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = make_place(name)
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", entry)
    monkeypatch.delenv("no_proxy", raising=False)
    fill(tmp_path / "cache", {url_of(1): photo(1)})
    folders = {"cache": {"dir": f"{tmp_path}/cache"}, "state": {"dir": f"{tmp_path}/state"}}
    assert sync(place.settings(**folders)).uploaded == 1


@pytest.mark.parametrize("name", ["moto-obstore", "moto-aioboto3"])
def test_every_engine_takes_the_proxy_of_the_environment(
    name: str, make_place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(name)
    endpoint = place.layer["endpoint"]
    place.layer["endpoint"] = endpoint.replace("127.0.0.1", "localhost")
    for variable in (*VARIABLES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    fill(tmp_path / "cache", {url_of(1): photo(1)})
    folders = {"cache": {"dir": f"{tmp_path}/cache"}, "state": {"dir": f"{tmp_path}/state"}}
    with FaultProxy(endpoint) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.endpoint)
        assert sync(place.settings(**folders)).uploaded == 1
        access = S3Access(place.url, place.settings().bucket)
        assert delta_options(access)["proxy_url"] == proxy.endpoint
        access.client().head_bucket(Bucket=place.url.bucket)
        kinds = {"objects", "catalog", "format.json"}
        assert kinds <= {part for _, target in proxy.requests for part in target.split("/")}
