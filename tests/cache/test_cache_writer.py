"""The cache writer: images appear complete, never over a good file, never through a link."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mirror.cache.cache_writer import backfill_writer, cache_name
from mirror.cache.prepare import judge_place
from mirror.cache.scan import Entry
from mirror.content.digest import Identity
from mirror.errors import Busy, CacheError
from tests.support.photos import blank, photo

NONE: frozenset[bytes] = frozenset()
NAME = cache_name(bytes(16))


def put(root: Path, body: bytes, path: bytes = NAME) -> bool:
    with backfill_writer(os.fsencode(root)) as writer, writer.draft(path, body) as part:
        return writer.publish_unless_good(part, NONE)


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


def test_a_folder_under_an_images_name_stays(root: Path) -> None:
    (root / os.fsdecode(NAME)).mkdir()
    assert judge_place(os.fsencode(root), NAME, NONE) == "unreadable"
    assert not put(root, photo(1))
    assert os.listdir(root) == [os.fsdecode(NAME)]


def test_a_full_disk_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match="disk .* is full"):
        put(root, photo(1))
    assert os.listdir(root) == []


def test_only_a_file_that_a_backfill_wrote_is_removed(root: Path) -> None:
    def drafted_signature() -> bytes:
        """The signature that a draft has before it is published."""
        with writer.draft(NAME, photo(1)) as part:
            signature = Entry(NAME, Identity.of(part.status())).signature
            assert writer.publish_unless_good(part, NONE)
            return signature

    with backfill_writer(os.fsencode(root)) as writer:
        signature = drafted_signature()
        (root / os.fsdecode(NAME)).write_bytes(photo(2))
        assert not writer.remove(NAME, signature)
        (root / os.fsdecode(NAME)).unlink()
        assert not writer.remove(NAME, signature)
        assert writer.remove(NAME, drafted_signature())
    assert os.listdir(root) == []


def test_a_cache_has_one_backfill_at_a_time(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    with backfill_writer(folder), pytest.raises(Busy), backfill_writer(folder):
        raise AssertionError
    with backfill_writer(folder):
        pass
    assert os.listdir(folder) == []
    with pytest.raises(CacheError, match="mounted"), backfill_writer(folder + b"/nowhere"):
        raise AssertionError
