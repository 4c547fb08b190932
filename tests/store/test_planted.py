"""A user who may write a mirror's folder reaches no file outside it, and makes no reader wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.errors import StoreError
from mirror.layout import BucketUrl
from mirror.store.base import Headers, Overwrite
from mirror.store.engines.file import FileStore
from tests.support.deadline import seconds_left

KEY = "objects/ab/image.jpg"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "mirror").mkdir()
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "image.jpg").write_text("private")
    with seconds_left(5):
        yield tmp_path / "mirror"
    assert [(path.name, path.read_text()) for path in victim.iterdir()] == [
        ("image.jpg", "private")
    ]


def store(root: Path) -> FileStore:
    return FileStore(BucketUrl.parse(f"file://{root}"))


@pytest.mark.parametrize("what", ["link", "fifo", "linked folder"])
def test_what_is_planted_is_not_read(what: str, root: Path) -> None:
    path = root / KEY
    if what == "linked folder":
        path.parent.parent.mkdir()
        path.parent.symlink_to(root.parent / "victim")
    else:
        path.parent.mkdir(parents=True)
        if what == "link":
            path.symlink_to(root.parent / "victim" / "image.jpg")
        else:
            os.mkfifo(path)
    for read in (store(root).get(KEY), store(root).get_range(KEY, 0, 9)):
        with pytest.raises(StoreError):
            asyncio.run(read)


def test_a_linked_folder_is_not_written_to(root: Path) -> None:
    (root / "objects").mkdir()
    (root / "objects/ab").symlink_to(root.parent / "victim")
    with pytest.raises(StoreError):
        asyncio.run(store(root).put("objects/ab/new.jpg", b"new", Overwrite(), Headers()))


def test_an_unfinished_write_goes_through_no_link(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user guesses the temporary name."""
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    (root / "objects/ab").mkdir(parents=True)
    (root / "objects/ab" / f".mirror-{'0' * 16}").symlink_to(root.parent / "victim/image.jpg")
    with pytest.raises(StoreError):
        asyncio.run(store(root).put(KEY, b"new", Overwrite(), Headers()))


def test_the_mirror_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    linked = store(root.parent / "link")
    asyncio.run(linked.put(KEY, b"new", Overwrite(), Headers()))
    assert asyncio.run(linked.get(KEY)) == b"new"
    assert (root / KEY).stat().st_mode & 0o777 == 0o644
