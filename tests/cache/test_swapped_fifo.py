"""A FIFO that takes a listed file's place makes no reader of the cache wait for a writer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirror.cache.prepare import Unprepared, judge_place, prepare
from mirror.cache.safe_folder import ReadIdentity, SafeFolder, move
from mirror.cache.scan import Entry
from mirror.catalog.upload import _read_part
from mirror.content import digest
from mirror.content.digest import Identity, digest_of
from mirror.fetch.engine import _read_file
from mirror.inspection import quarantine_manifest
from mirror.system.files import open_regular
from tests.support.deadline import seconds_left
from tests.support.photos import photo

NAME = b"0" * 32 + b".jpg"
READERS: list[Callable[[bytes], object]] = [
    lambda path: digest.read(path, keep_up_to=1 << 20),
    lambda path: _read_part(path, 0, 9),
    open_regular,
]


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "cache" / os.fsdecode(NAME)
    path.parent.mkdir()
    os.mkfifo(path)
    with seconds_left(5):
        yield path


@pytest.mark.parametrize("read", READERS, ids=["digest", "part", "open"])
def test_reading_a_fifo_fails_at_once(fifo: Path, read: Callable[[bytes], object]) -> None:
    with pytest.raises(OSError, match="is not a regular file"):
        read(os.fsencode(fifo))


def test_a_fifo_is_listed_as_unreadable(fifo: Path) -> None:
    root = os.fsencode(fifo.parent)
    found = prepare(root, Entry(NAME, Identity.of(fifo.stat())), "decode")
    assert isinstance(found, Unprepared)
    assert found.reason == "cannot be read: is not a regular file"
    assert judge_place(root, NAME, frozenset()) == "unreadable"


def test_a_fetch_goes_on_to_the_next_tier(fifo: Path) -> None:
    assert _read_file(os.fsencode(fifo), 99) is None


def test_a_copy_out_of_the_cache_fails_at_once(
    fifo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The FIFO takes the file's place after the last look at it, where no link can be made."""
    status = fifo.stat()
    expected = ReadIdentity(
        digest_of(photo(1))._replace(size=0), status.st_dev, status.st_ino, status.st_mtime_ns
    )

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "no links")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "to").mkdir()
    with (
        SafeFolder(os.fsencode(fifo.parent)) as source,
        SafeFolder(os.fsencode(tmp_path / "to")) as target,
        pytest.raises(OSError, match="is not a regular file"),
    ):
        move(source, target, NAME, expected)
    assert os.listdir(tmp_path / "to") == []


def test_a_manifest_that_is_a_fifo_fails_at_once(fifo: Path) -> None:
    os.rename(fifo, fifo.with_name(quarantine_manifest.NAME))
    with pytest.raises(OSError, match="is not a regular file"):
        list(quarantine_manifest.read(fifo.parent))


def test_an_open_file_blocks_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    file, status = open_regular(tmp_path / "a")
    assert (os.get_blocking(file), os.read(file, 9), status.st_size) == (True, b"a", 1)
    os.close(file)
