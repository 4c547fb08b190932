"""Unnamed files that the processes of a training share."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mirror.errors import StateError
from mirror.fetch.shared_memory import SharedFile, SharedPosition


def add(file: SharedFile, place: SharedPosition, number: int) -> None:
    for _ in range(200):
        file.append(bytes([number]) * 50)
    place.set(number, 2, 3)


@pytest.mark.parametrize("way", ["fork", "forkserver"])
def test_appends_of_several_processes_are_neither_mixed_nor_lost(way: str) -> None:
    context: Any = multiprocessing.get_context(way)
    if way == "forkserver":
        context.set_forkserver_preload(["tests.fetch.test_shared_memory"])
    file, place = SharedFile(), SharedPosition.at(seed=9)
    processes = [context.Process(target=add, args=(file, place, n)) for n in (1, 2, 3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    pieces = file.mapped(np.uint8).reshape(600, 50)
    assert all(len(set(piece)) == 1 for piece in pieces.tolist())
    assert np.bincount(pieces[:, 0]).tolist() == [0, 200, 200, 200]
    assert (place.epoch, place.begin) == (2, 3)
    assert place.seed in (1, 2, 3)


def test_a_pickle_outside_of_workers_is_a_copy() -> None:
    file = SharedFile()
    file.append(b"one")
    copy = pickle.loads(pickle.dumps(file))
    copy.append(b"two")
    assert copy.read(0, 100) == b"onetwo"
    assert file.read(0, 100) == b"one"


def test_the_file_has_no_name_that_a_killed_process_would_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = SharedFile()
    file.append(b"x" * 1000)
    assert list(tmp_path.iterdir()) == []
    assert file.size == 1000


def test_an_empty_file_maps_to_an_empty_array() -> None:
    assert SharedFile().mapped(np.int64).tolist() == []


def test_a_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = SharedFile()
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StateError, match="No space left on device.*TMPDIR"):
        file.append(b"x")


def test_all_workers_of_an_iteration_begin_at_the_same_position() -> None:
    """The main process may set the next position before the last worker asks."""
    place = SharedPosition.at(seed=4)
    place.set(4, 1, 30)
    assert place.of_iteration(7, 1) == (4, 1, 30)
    place.set(4, 1, 40)
    late = SharedPosition(place._file)
    assert late.of_iteration(7, 1) == (4, 1, 30)
    assert late.of_iteration(7, 2) == (4, 1, 40)
    assert place.of_iteration(8, 2) == (4, 1, 40)
    assert (place.seed, place.epoch) == (4, 1)
