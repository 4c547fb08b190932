"""The origin is never contacted, whatever the mirror answers and the settings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror import Fetcher
from mirror.config.settings import Settings
from mirror.errors import ConfigError, OriginBlocked
from tests.conftest import Place
from tests.fetch.http.scripted_server import Scripted, answer
from tests.support.fault_proxy import Answer, FaultProxy
from tests.support.fetch_setup import ALL, HURRY, PHOTOS, images_only, through
from tests.support.photos import photo, url_of


def test_a_redirect_to_the_origin_is_not_followed(moto_mirror: Settings) -> None:
    """A local server plays iNaturalist and counts connections: there are none."""
    assert moto_mirror.bucket.endpoint
    image = [answer(photo(1))]
    with Scripted(lambda _, __: image) as origin, FaultProxy(moto_mirror.bucket.endpoint) as proxy:
        with Fetcher(through(proxy, moto_mirror), policy=HURRY) as fetch:
            there = f"{origin.url}/photos/1/medium.jpg"
            proxy.rule = images_only(lambda _: Answer(302, {"Location": there}))
            with pytest.raises(OriginBlocked):
                fetch(url_of(1))
            assert all(isinstance(result, OriginBlocked) for _, result in fetch.many(ALL))
            assert fetch.stats().blocked == 21
        assert origin.connections == 0


@pytest.mark.parametrize(
    "place",
    [
        {"url": "s3://inaturalist-open-data"},
        {"url": "s3://inaturalist-open-data/photos", "region": "us-east-1"},
        {"url": "s3://plants", "endpoint": "https://static.inaturalist.org"},
        {"url": "s3://plants", "endpoint": "https://inaturalist-open-data.s3.amazonaws.com"},
        {"url": "s3://inaturalist-open-data", "endpoint": "https://s3.us-east-1.amazonaws.com"},
        {"url": "s3://plants", "public_url": "https://inaturalist-open-data.s3.amazonaws.com/photos"},
        {"url": "file:///tmp/mirror", "public_url": "https://static.inaturalist.org/photos"},
    ],
)  # fmt: skip
def test_inaturalist_is_never_the_mirror(place: dict[str, str], tmp_path: Path) -> None:
    settings = Place("test", place).settings(state={"dir": str(tmp_path)})
    with pytest.raises(ConfigError, match="never reads"):
        Fetcher(settings)


def test_proxies_of_the_environment_are_not_used(
    moto_mirror: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Fetcher(moto_mirror, policy=HURRY) as fetch:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert dict(fetch.many(ALL)) == PHOTOS
