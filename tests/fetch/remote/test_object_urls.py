"""Signed URLs: signed in batches, each used once and soon."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import pytest

from mirror.config.settings import Settings
from mirror.fetch.remote.object_urls import PublicUrls, SignedUrls, request_urls
from mirror.layout import object_key
from tests.conftest import MakePlace
from tests.support.fetch_setup import reached

KEYS = [object_key(bytes([number]) * 16, "jpeg") for number in range(5)]


@pytest.fixture
def settings(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    from tests.conftest import Place

    layer = {"url": "s3://plants/i nat", "endpoint": "https://x.r2.example", "region": "auto"}
    return Place("test", layer).settings()


def test_a_prepared_url_is_used_once(settings: Settings) -> None:
    now = 0.0
    urls = SignedUrls(settings, clock=lambda: now)
    urls.prepare(KEYS)
    assert len(urls._prepared) == 5
    for key in KEYS:
        url = urlsplit(urls.of(key))
        assert url.path == f"/plants/i%20nat/{key}"
        assert parse_qs(url.query)["X-Amz-Expires"] == ["3600"]
    assert not urls._prepared
    assert urls.of(KEYS[0]).startswith(urls.base + KEYS[0])


def test_an_old_prepared_url_is_signed_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    urls = SignedUrls(settings, clock=lambda: now)
    urls.prepare(KEYS)
    signed: list[str] = []

    def sign(keys: Sequence[str], _: object) -> list[str]:
        signed.extend(keys)
        return [f"anew/{key}" for key in keys]

    monkeypatch.setattr(urls._signer, "sign", sign)
    now = 299.0
    assert not urls.of(KEYS[0]).startswith("anew/")
    now = 301.0
    assert urls.of(KEYS[1]) == f"anew/{KEYS[1]}"
    assert signed == [KEYS[1]]


def test_after_sleep_urls_are_signed_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """time.monotonic stands still during sleep; an expired signature would be refused every time."""
    now = 1000.0
    monkeypatch.setattr(time, "clock_gettime", lambda _: now)
    urls = SignedUrls(settings)
    urls.prepare(KEYS)
    monkeypatch.setattr(urls._signer, "sign", lambda keys, _: [f"anew/{key}" for key in keys])
    assert not urls.of(KEYS[0]).startswith("anew/")
    now += 3600.0
    assert urls.of(KEYS[1]) == f"anew/{KEYS[1]}"


def test_unused_prepared_urls_do_not_pile_up(settings: Settings) -> None:
    urls = SignedUrls(settings)
    many = [object_key(number.to_bytes(16, "big"), "jpeg") for number in range(6000)]
    for _ in range(2):
        for begin in range(0, 6000, 500):
            urls.prepare(many[begin : begin + 500])
    for number in range(4):
        urls.prepare([object_key(bytes([number, n]) * 8, "png") for n in range(250)] * 20)
    assert len(urls._prepared) <= 16_384


def test_a_public_url_is_preferred(settings: Settings, make_place: MakePlace) -> None:
    public = request_urls(reached(settings, public_url="https://img.example.org/i"))
    assert isinstance(public, PublicUrls)
    public.prepare(KEYS)
    assert public.of(KEYS[0]) == f"https://img.example.org/i/{KEYS[0]}"
    assert isinstance(request_urls(settings), SignedUrls)
