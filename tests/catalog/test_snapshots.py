"""Several processes share one folder of snapshots: no work is lost, and readers always succeed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mirror.catalog.index import Index, snapshot_files
from tests.catalog.snapshot_writer import batch, files, is_whole, write
from tests.support.chaos_tally import count, kills
from tests.support.mirror_setup import full_disk

PATIENCE = 60.0


@contextlib.contextmanager
def writer(
    folder: Path, *arguments: object, before: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A process that writes snapshots; it is killed if it has not ended."""
    python = [sys.executable, "-m", "tests.catalog.snapshot_writer", folder, *arguments]
    process = subprocess.Popen([*before, *map(str, python)], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def output(process: subprocess.Popen[str]) -> str:
    """Its output, once it has succeeded."""
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return printed


def names(folder: Path) -> list[str]:
    return sorted(name.partition("-")[0] for name in os.listdir(folder) if name != ".lock")


def test_concurrent_writers_never_leave_a_reader_without_a_snapshot(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(writer(tmp_path, 2, 40)) for _ in range(3)]
        versions = [1]
        while any(process.poll() is None for process in writers):
            index = Index.load(tmp_path)
            assert is_whole(index)
            versions.append(index.version)
        for process in writers:
            output(process)
    assert versions == sorted(versions)
    assert len(set(versions)) > 5  # it did read between the writes
    assert Index.load(tmp_path).version == 40
    assert names(tmp_path) == ["v40"]


@pytest.mark.chaos("catalog")
def test_a_writer_killed_at_any_moment_damages_nothing(tmp_path: Path) -> None:
    write(tmp_path / "counted", 1)
    with writer(tmp_path / "counted", 2, 2, "SIGKILL", 0) as process:
        lines = int(output(process))
    most = kills(16)
    left_behind = set()
    for moment in [1 + at * (lines - 1) // (most - 1) for at in range(most)]:
        folder = tmp_path / f"{moment}"
        write(folder, 1)
        with writer(folder, 2, 2, "SIGKILL", moment) as process:
            assert process.wait(PATIENCE) == -signal.SIGKILL
        count("kills")
        left_behind.add(tuple(names(folder)))
        index = Index.load(folder)
        assert index.version in (1, 2)
        assert is_whole(index)
        assert is_whole(write(folder, 3))
        assert names(folder) == ["v3"]
    assert (".writing", "v1") in left_behind


def test_another_writer_is_awaited_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1)
    with writer(tmp_path, 2, 2, "SIGSTOP", 100) as process:
        os.waitpid(process.pid, os.WUNTRACED)
        assert names(tmp_path) == [".writing", "v1"]
        with monkeypatch.context() as impatient:
            impatient.setattr(snapshot_files, "LOCK_SECONDS", 0.0)
            mine = write(tmp_path, 3)
        assert (mine.version, mine.path) == (3, None)
        assert is_whole(mine)
        # The other process's files are left alone, and it completes them.
        assert names(tmp_path) == [".writing", "v1"]
        process.send_signal(signal.SIGCONT)
        output(process)
    assert names(tmp_path) == ["v2"]
    assert is_whole(Index.load(tmp_path))
    assert write(tmp_path, 3).path is not None


def test_a_snapshot_that_another_process_wrote_is_used(tmp_path: Path) -> None:
    known = write(tmp_path, 1)
    theirs = write(tmp_path, 3)
    mine = known.merged([batch(2), batch(3)], 3, files(3), tmp_path)
    older = known.merged([batch(2)], 2, files(2), tmp_path)
    assert mine.path == older.path == theirs.path
    assert older.version == 3


def test_a_snapshot_of_another_process_that_lacks_rows_is_not_used(tmp_path: Path) -> None:
    known = write(tmp_path, 1)
    write(tmp_path, 3)
    mine = known.merged([batch(2)], 2, files(1) | {"compacted"}, tmp_path)
    assert (mine.version, len(mine)) == (2, 2)
    assert names(tmp_path) == ["v2"]


def in_the_way(folder: Path) -> None:
    folder.parent.write_text("a file where a folder belongs")


def no_lock(folder: Path) -> None:
    (folder / ".lock").mkdir(parents=True)


@pytest.mark.parametrize("spoil", [in_the_way, no_lock])
def test_an_index_that_cannot_be_written_stays_in_memory(spoil, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "index"
    spoil(folder)
    index = write(folder, 2)
    assert is_whole(index)
    assert index.path is None
    assert is_whole(index.merged([batch(3)], 3, files(3), folder))


def test_on_a_full_disk_the_index_stays_in_memory(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with writer(tmp_path, 2, 2, before=full_disk(0)) as process:
        output(process)
    assert names(tmp_path) == ["v1"]
    assert is_whole(Index.load(tmp_path))
