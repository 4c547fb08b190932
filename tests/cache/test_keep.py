"""Into the cache: whole or not at all, never in place of a good file, never through a link."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mirror.backfill.keep import draft, holding, place, place_of, standing, take_out
from mirror.errors import Busy, CacheError
from tests.support.photos import blank, photo

NONE: frozenset[bytes] = frozenset()
NAME = place_of(bytes(16))


def put(root: Path, body: bytes, path: bytes = NAME) -> bool:
    folder = os.fsencode(root)
    return place(folder, draft(folder, path, body), NONE)


@pytest.fixture(params=[True, False], ids=["hard links", "no hard links"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not request.param:
        monkeypatch.setattr(os, "link", refuse)
    return tmp_path


def test_an_image_appears_under_the_md5_of_its_url(root: Path) -> None:
    assert put(root, photo(1))
    assert os.listdir(root) == ["0" * 32 + ".jpg"]
    assert (root / os.fsdecode(NAME)).read_bytes() == photo(1)


@pytest.mark.parametrize(
    ("there", "after"),
    [(photo(2), photo(2)), (blank(), photo(1)), (b"", photo(1)), (photo(2)[:-99], photo(1))],
)
def test_a_good_file_stays_and_a_bad_one_is_replaced(
    root: Path, there: bytes, after: bytes
) -> None:
    (root / os.fsdecode(NAME)).write_bytes(there)
    assert put(root, photo(1)) == (after == photo(1))
    assert os.listdir(root) == [os.fsdecode(NAME)]
    assert (root / os.fsdecode(NAME)).read_bytes() == after


def test_a_link_is_not_written_through(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "precious"
    elsewhere.write_bytes(b"precious")
    (root / os.fsdecode(NAME)).symlink_to(elsewhere)
    assert not put(root, photo(1))
    assert elsewhere.read_bytes() == b"precious"


def test_a_folder_at_its_place_stays(root: Path) -> None:
    (root / os.fsdecode(NAME)).mkdir()
    assert standing(os.fsencode(root), NAME, NONE) == "unreadable"
    assert not put(root, photo(1))
    assert os.listdir(root) == [os.fsdecode(NAME)]


def test_a_full_disk_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match="No space left"):
        put(root, photo(1))
    assert os.listdir(root) == []


def test_only_what_it_put_there_is_taken_out(root: Path) -> None:
    folder = os.fsencode(root)
    made = draft(folder, NAME, photo(1))
    signature = made.entry.signature
    assert place(folder, made, NONE)
    (root / os.fsdecode(NAME)).write_bytes(photo(2))
    assert not take_out(folder, NAME, signature)
    (root / os.fsdecode(NAME)).unlink()
    assert not take_out(folder, NAME, signature)
    again = draft(folder, NAME, photo(1))
    assert place(folder, again, NONE)
    assert take_out(folder, NAME, again.entry.signature)
    assert os.listdir(root) == []


def test_a_cache_is_held_by_one(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    with holding(folder), pytest.raises(Busy), holding(folder):
        raise AssertionError
    with holding(folder):
        assert os.listdir(folder) == []
    with pytest.raises(CacheError, match="mounted"), holding(folder + b"/nowhere"):
        raise AssertionError
