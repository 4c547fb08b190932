"""The run that holds a lock is named to the one that is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.cache.cache_lock import LOCK_NAME, cache_locked
from mirror.cache.safe_folder import SafeFolder
from mirror.errors import Busy
from mirror.run.lock import locked


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Make a file standard error."""
    kept, new = os.dup(2), os.open(path, os.O_WRONLY | os.O_CREAT)
    os.dup2(new, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(new)


def holder(command: str, log: Path) -> str:
    """The pattern by which a message names this process."""
    where = re.escape(str(log))
    return rf": mirror {command}, process {os.getpid()} on \S+, which logs to {where}; wait"


def test_the_holder_of_a_state_is_named(tmp_path: Path) -> None:
    folder, log = tmp_path / "state", tmp_path / "sync.log"
    with logging_to(log), locked(folder, "sync"):
        for _ in range(2):  # the first refusal does not lose the name
            with pytest.raises(Busy, match=holder("sync", log)):
                locked(folder, "verify").__enter__()
    assert [path.name for path in folder.iterdir() if "holder" in path.name] == []


def test_the_holder_of_a_cache_is_named(tmp_path: Path) -> None:
    root, log = os.fsencode(tmp_path), tmp_path / "pull.log"
    with logging_to(log), SafeFolder(root) as tree, cache_locked(tree, root, "pull"):
        for _ in range(2):
            with pytest.raises(Busy, match=holder("pull", log)):
                cache_locked(tree, root, "backfill").__enter__()


def test_a_name_that_cannot_be_written_does_not_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / "lock.holder").mkdir()
    with locked(tmp_path, "sync"), pytest.raises(Busy, match=r"at work on [^\s:]+; wait"):
        locked(tmp_path, "verify").__enter__()


def test_the_lock_of_a_cache_never_writes_into_another_file(tmp_path: Path) -> None:
    """Another user may have made the lock's name a hard link to a file of ours."""
    cache, mine = tmp_path / "cache", tmp_path / "mine"
    cache.mkdir()
    mine.write_text("precious")
    (cache / os.fsdecode(LOCK_NAME)).hardlink_to(mine)
    root = os.fsencode(cache)
    with SafeFolder(root) as tree, cache_locked(tree, root, "pull"):
        assert mine.read_text() == "precious"
