"""Drop-ins for a downloader and for requests: the same bytes, and never a substitute."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror import Fetcher
from mirror.errors import ConfigError, CorruptObject, Flagged, NotMirrored, StoreUnavailable
from mirror.fetch import UrlDownloader, dropin, get
from tests.conftest import MakePlace
from tests.support.fetch_setup import BLANK, HURRY, UNKNOWN, key_of, mirrored
from tests.support.photos import photo, url_of


@pytest.fixture
def mirror(make_place: MakePlace, tmp_path: Path) -> Path:
    """The folder of a mirror that the environment names."""
    settings = mirrored(make_place("file"), tmp_path, [1, 2])
    (tmp_path / "mirror.toml").write_text(
        f'[bucket]\nurl = "{settings.bucket.url}"\n[state]\ndir = "{settings.state.dir}"\n'
    )
    return tmp_path / "mirror"


@pytest.fixture
def fetch(mirror: Path) -> Iterator[Fetcher]:
    from mirror.config.loading import load

    settings = load(config=mirror.parent / "mirror.toml", environ={})
    with Fetcher(settings, policy=HURRY) as made:
        yield made


def test_a_downloader_gives_bytes(fetch: Fetcher) -> None:
    assert UrlDownloader(fetch).download(url_of(1)) == photo(1)


def test_none_is_returned_and_logged_once_for_missing_images_only(
    fetch: Fetcher, caplog: pytest.LogCaptureFixture
) -> None:
    downloader = UrlDownloader(fetch)
    with caplog.at_level(logging.WARNING):
        assert downloader.download(url_of(UNKNOWN)) is None
        assert downloader.download(url_of(BLANK)) is None
        assert downloader.download(url_of(UNKNOWN)) is None
    assert len(caplog.records) == 1
    assert url_of(UNKNOWN) in caplog.text


@pytest.mark.parametrize("damage", ["flipped", "gone", "unreadable"])
def test_a_downloader_raises_other_errors(fetch: Fetcher, mirror: Path, damage: str) -> None:
    path = mirror / key_of(1)
    expected: type[Exception] = CorruptObject
    if damage == "flipped":
        path.write_bytes(photo(2))
    else:
        path.unlink()
        if damage == "unreadable":
            path.symlink_to(path)  # a link to itself, which no file system opens
            expected = StoreUnavailable
    with pytest.raises(expected):
        UrlDownloader(fetch).download(url_of(1))
    with pytest.raises(expected):
        get(url_of(1), fetch=fetch)


def test_get_answers_as_requests_does(fetch: Fetcher) -> None:
    with get(url_of(1), fetch=fetch, timeout=3, stream=True, headers={"User-Agent": "x"}) as answer:
        answer.raise_for_status()
        assert (answer.status_code, answer.ok, bool(answer)) == (200, True, True)
        assert answer.content == photo(1)
        assert b"".join(answer.iter_content(100)) == photo(1)
        assert b"".join(answer.iter_content()) == photo(1)
        assert answer.headers == {"Content-Length": str(len(photo(1)))}
        assert answer.url == url_of(1)


@pytest.mark.parametrize(
    ("number", "status", "error"), [(UNKNOWN, 404, NotMirrored), (BLANK, 410, Flagged)]
)
def test_get_has_no_content_without_an_image(
    fetch: Fetcher, number: int, status: int, error: type[Exception]
) -> None:
    answer = get(url_of(number), fetch=fetch)
    assert (answer.status_code, answer.ok, bool(answer)) == (status, False, False)
    for ask in (answer.raise_for_status, lambda: answer.content, answer.iter_content):
        with pytest.raises(error):
            ask()


def test_without_a_fetcher_the_configuration_says_where_the_mirror_is(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropin, "_shared", [])
    monkeypatch.chdir("/")
    with pytest.raises(ConfigError, match="No bucket"):
        get(url_of(1))
    monkeypatch.chdir(mirror.parent)
    assert get(url_of(1)).content == photo(1)
    assert UrlDownloader().download(url_of(2)) == photo(2)
    assert len(dropin._shared) == 1
    dropin._shared[0].close()
