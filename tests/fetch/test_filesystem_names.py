"""`mirror://`: which image a path names, and what the fetcher is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirror.fetch.filesystem import MirrorFileSystem, folder_of
from mirror.sync.run_sync import sync
from tests.fetch.test_filesystem import settings_of
from tests.support.photos import fill, photo, url_of


def test_the_local_cache_is_searched_by_the_url_that_was_asked_for(
    tmp_path: Path,
) -> None:
    """The same content has other URLs, too, which are not cached on this machine."""
    urls = [url_of(1), url_of(2), "http://127.0.0.1/3.jpg"]
    fill(tmp_path / "all", dict.fromkeys(urls, photo(1)))
    sync(settings_of(tmp_path, cache={"dir": str(tmp_path / "all")}))
    for at, url in enumerate(urls):
        fill(tmp_path / f"cache{at}", {url: photo(1)})
        here = settings_of(tmp_path, cache={"dir": str(tmp_path / f"cache{at}")})
        files = MirrorFileSystem(settings=here, offline=True)
        assert files.cat_file(f"mirror://{url}") == photo(1)
        path = url.partition("://")[2]
        assert files.cat([path, path.upper()], on_error="omit") == {path: photo(1)}


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("Urtica dioica", "Urtica dioica"),
        ("a/b", "a%2Fb"),
        ("a_b", "a_b"),
        ("a%2Fb", "a%252Fb"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("../etc", "..%2Fetc"),
        ("a\0b", "a%00b"),
        ("", ""),
    ],
)
def test_a_class_is_one_folder(name: str, folder: str) -> None:
    assert folder_of(name) == folder


def test_classes_with_similar_names_have_different_folders(tmp_path: Path) -> None:
    fill(tmp_path / "cache", {url_of(n): photo(n) for n in (1, 2)})
    settings = settings_of(tmp_path, cache={"dir": str(tmp_path / "cache")})
    sync(settings)
    records = [{"image_url": url_of(n), "species": name} for n, name in ((1, "a/b"), (2, "a_b"))]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))
    files = MirrorFileSystem(
        settings=settings, dataset=tmp_path / "train.jsonl", label_field="species"
    )
    folders = files.ls("", detail=False)
    assert len(folders) == 2
    assert [files.cat_file(files.find(one)[0]) for one in folders] == [photo(1), photo(2)]
