"""One run at a time writes a cache, and no part file serves two writers."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from mirror.cache.cache_lock import LOCK_NAME, cache_locked
from mirror.cache.cache_writer import CacheWriter, TargetName, cache_name
from mirror.cache.safe_folder import PartFile, SafeFolder
from mirror.errors import Busy, CacheError
from tests.support.photos import photo

NAME = cache_name(bytes(16))
FLOCK = "mirror.cache.cache_lock.flock"
PARTS = [
    f".{os.fsdecode(NAME)}.mirror-part",
    f".{os.fsdecode(NAME)}.0123456789abcdef.mirror-part",
    ".backfill-0123456789abcdef.tmp",
]


def is_busy(root: bytes) -> bool:
    """Whether the cache is locked, as another process sees it."""
    with SafeFolder(root) as tree:
        try:
            with cache_locked(tree, root, "pull") as held:
                assert held
        except Busy as error:
            return os.fsdecode(root) in str(error)
    return False


def test_other_processes_see_the_lock_and_it_leaves_no_file(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    with multiprocessing.get_context("spawn").Pool(1) as pool, SafeFolder(root) as tree:
        with cache_locked(tree, root, "pull"):
            assert pool.apply(is_busy, (root,))
            assert os.listdir(root) == [LOCK_NAME]
        assert not pool.apply(is_busy, (root,))
    assert os.listdir(root) == []


def test_a_lock_file_that_its_holder_deletes_meanwhile_is_not_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first holder ends between the second run's open and its lock."""
    root, real, deleted = os.fsencode(tmp_path), fcntl.flock, [False]

    def flock(file: int, how: int) -> None:
        if not deleted[0]:
            deleted[0] = True
            os.unlink(tmp_path / os.fsdecode(LOCK_NAME))
        real(file, how)

    with monkeypatch.context() as patch, SafeFolder(root) as tree:
        patch.setattr(FLOCK, flock)
        with cache_locked(tree, root, "pull"):
            assert is_busy(root)


def test_part_files_of_killed_runs_are_deleted_under_the_lock_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    for name in (*PARTS, ".other.mirror-part", ".other.tmp"):
        (tmp_path / name).write_bytes(b"half")
    with SafeFolder(os.fsencode(tmp_path)) as tree:
        writer = CacheWriter(tree, os.fsencode(tmp_path))
        with monkeypatch.context() as patch:
            patch.setattr(FLOCK, refuse)
            with writer.alone("pull"):
                assert len(os.listdir(tmp_path)) == 5, "they may be those of a living run"
        with writer.alone("pull"):
            pass
    assert sorted(os.listdir(tmp_path)) == [".other.mirror-part", ".other.tmp"]


def test_two_writers_of_one_name_do_not_share_a_part_file(tmp_path: Path) -> None:
    body = photo(1)
    with (
        SafeFolder(os.fsencode(tmp_path)) as tree,
        PartFile(tree, NAME) as first,
        PartFile(tree, NAME) as second,
    ):
        first.write(body)
        second.write(body[:99])  # the second process is half way
        first.publish(replace=False)
        assert (tmp_path / os.fsdecode(NAME)).read_bytes() == body


@pytest.mark.parametrize("replace", [False, True])
def test_a_part_file_that_another_program_replaced_is_not_published(
    tmp_path: Path, replace: bool
) -> None:
    with SafeFolder(os.fsencode(tmp_path)) as tree:
        writer = CacheWriter(tree, os.fsencode(tmp_path))
        with writer.begin(NAME) as part:
            writer.append(part, photo(1))
            (name,) = os.listdir(tmp_path)
            (tmp_path / name).unlink()
            (tmp_path / name).write_bytes(b"half")
            (result,) = writer.publish(part, [TargetName(NAME, replace)])
    assert (result.outcome, result.reason) == (
        "failed",
        "cannot be written: another program took its temporary name",
    )
    assert os.listdir(tmp_path) == [name], "it belongs to the other program"


def test_a_second_name_is_never_a_link_to_another_programs_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program replaces the published image before its second name is linked to it."""
    second, real = cache_name(b"\1" * 16), os.link

    def link(source: bytes, target: bytes, **folders: Any) -> None:
        if source == NAME:
            (tmp_path / "new").write_bytes(b"another")
            os.replace(tmp_path / "new", tmp_path / os.fsdecode(source))
        real(source, target, **folders)

    monkeypatch.setattr(os, "link", link)
    with SafeFolder(os.fsencode(tmp_path)) as tree:
        writer = CacheWriter(tree, os.fsencode(tmp_path), hardlink=True)
        results = writer.write(photo(1), [TargetName(NAME, False), TargetName(second, False)])
    assert [result.outcome for result in results] == ["written", "written"]
    assert (tmp_path / os.fsdecode(second)).read_bytes() == photo(1)


@pytest.mark.parametrize(
    ("number", "accepted"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)]
)
def test_only_a_file_system_that_cannot_flush_folders_may_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, accepted: bool
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with SafeFolder(os.fsencode(tmp_path)) as tree:
        writer = CacheWriter(tree, os.fsencode(tmp_path))
        monkeypatch.setattr(os, "fsync", refuse)
        if accepted:
            writer.flush()
        else:
            with pytest.raises(CacheError, match="Input/output error"):
                writer.flush()
