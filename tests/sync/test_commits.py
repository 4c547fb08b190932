"""Runs whose commits fail, stall, or raise an unexpected exception."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from mirror.catalog.delta_table import Catalog
from mirror.catalog.row import Row
from mirror.errors import CatalogError, StateError
from mirror.layout import url_md5
from mirror.run.progress import Progress
from mirror.sync.commit import Committer
from mirror.sync.run_sync import sync
from mirror.sync.state import SeenFile, State
from mirror.sync.transfer import Transfer
from tests.support.mirror_setup import MirrorSetup, aged, key_of
from tests.support.photos import fill, photo, url_of


def test_an_object_that_cannot_be_adopted_is_one_file_that_failed(
    folder_setup: MirrorSetup,
) -> None:
    """gc.json cannot be understood, so gc may be about to delete an old object."""
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(30)})
    folder_setup.put({key_of(photo(7)): photo(7), "gc.json": b"of a later version"})
    aged(Path(folder_setup.place.url.path), days=3)
    report = sync(folder_setup.settings(concurrency=2))
    assert (report.error, report.exit_status) == (None, 3)
    assert (report.uploaded, report.failed) == (29, 1)
    assert "gc.json is not understood" in report.failures[0][1]
    assert set(folder_setup.rows()) == {url_md5(url_of(n)) for n in range(30) if n != 7}


def test_objects_are_on_the_disk_before_rows_and_rows_before_the_state(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order holds through a loss of power, too."""
    seen: list[tuple[int, int, int]] = []
    folder = Path(folder_setup.place.url.path)
    recorded = 0
    record = State.record

    def settle(settled: Path) -> None:
        assert settled == folder
        entries = list((folder / "catalog" / "_delta_log").glob("*.json"))
        seen.append((len(folder_setup.objects()), len(entries), recorded))

    def counted(self: State, files: Sequence[SeenFile]) -> None:
        nonlocal recorded
        recorded += len(files)
        record(self, files)

    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(4)})
    monkeypatch.setattr("mirror.catalog.open_mirror.settle", settle)
    monkeypatch.setattr(State, "record", counted)
    folder_setup.sync()
    assert seen == [(4, 1, 0), (4, 2, 0)]
    assert recorded == 4


def test_a_disk_that_loses_writes_ends_the_run_and_nothing_relies_on_them(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system reports a lost write only once; a second fsync would succeed."""
    asked = 0

    def fails_once(_: Path) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise OSError(errno.EIO, "Input/output error")

    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(40)})
    with monkeypatch.context() as patch:
        patch.setattr("mirror.catalog.open_mirror.settle", fails_once)
        report = sync(folder_setup.settings(commit_rows=10, concurrency=2))
    assert isinstance(report.error, CatalogError)
    assert "Input/output error" in str(report.error)
    assert (asked, report.catalog_commits) == (1, 0)
    report = folder_setup.sync()
    assert (report.unchanged, report.error) == (0, None)
    assert len(folder_setup.rows()) == 40


def test_an_index_without_disk_space_ends_the_run_and_all_is_committed(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh, asked = Committer.refresh, 0

    async def fails(self: Committer) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        await refresh(self)

    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(100)})
    with monkeypatch.context() as patch:
        patch.setattr("mirror.sync.transfer._REFRESH_AFTER", 10)
        patch.setattr(Committer, "refresh", fails)
        report = sync(folder_setup.settings(commit_rows=10))
    assert isinstance(report.error, CatalogError)
    assert "No space left on device" in str(report.error)
    assert "make room" in str(report.error)
    assert len(folder_setup.rows()) == len(folder_setup.objects()) == report.uploaded
    assert folder_setup.sync().uploaded == 100 - report.uploaded


@pytest.mark.timeout(60)
def test_an_unexpected_exception_in_a_commit_ends_the_run_and_is_raised(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: Committer) -> None:
        raise ZeroDivisionError

    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(300)})
    with monkeypatch.context() as patch:
        patch.setattr("mirror.sync.transfer.BATCH_FILES", 2)
        patch.setattr("mirror.sync.transfer.WINDOW_BYTES", 1)
        patch.setattr(Committer, "commit", fails)
        with pytest.raises(ZeroDivisionError):
            sync(folder_setup.settings(commit_rows=5, concurrency=1))
    assert 5 <= len(folder_setup.objects()) < 300, "it went on as if nothing had been"
    assert folder_setup.sync().failed == 0
    assert set(folder_setup.rows()) == {url_md5(url_of(n)) for n in range(300)}


class Stalling(Progress):
    """The first commit lasts until nothing moves any more: all feeders wait, or all files are done.

    Files with a known content are not uploaded. They are done as soon as they are read, and their
    feeders wait only for commits.
    """

    def __init__(self, files: int, ending: Callable[[], object]) -> None:
        self._files = files
        self._ending = ending
        self._still = threading.Event()
        self._done = self.done_meanwhile = 0
        self._at_the_door = 0
        self._first = True
        self._looks: list[asyncio.Task[None]] = []
        self._enter, self._append = Transfer._enter_window, Catalog.append_after

    def patched(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr("mirror.sync.transfer.BATCH_FILES", 4)
        patch.setattr(
            "mirror.sync.transfer._STARVED_BATCHES", 1_000_000
        )  # one reader, and its two feeders

        async def enter(transfer: Transfer, files: int, size: int) -> None:
            self._at_the_door += 1
            self._looks.append(asyncio.create_task(self._look()))
            await self._enter(transfer, files, size)
            self._at_the_door -= 1

        def append(catalog: Catalog, version: int, rows: Sequence[Row], mark: str) -> int | None:
            if self._first:
                self._first = False
                before = self._done
                assert self._still.wait(30)
                self.done_meanwhile = self._done - before
                self._ending()
            return self._append(catalog, version, rows, mark)

        patch.setattr(Transfer, "_enter_window", enter)
        patch.setattr(Catalog, "append_after", append)

    async def _look(self) -> None:
        """A feeder that may enter does so within a few turns of the loop."""
        for _ in range(20):
            await asyncio.sleep(0)
            if self._at_the_door < 2:
                return
        self._still.set()

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        self._done += 1
        if self._done == self._files:
            self._still.set()


def failing(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (lambda: None, None),
        (failing(CatalogError("refused")), CatalogError),
        (failing(StateError("full")), StateError),
        (failing(ZeroDivisionError()), ZeroDivisionError),
        (lambda: os.kill(os.getpid(), signal.SIGINT), None),
    ],
    ids=["done", "refused", "full", "unforeseen", "interrupted"],
)
def test_a_commit_that_stalls_holds_back_the_feeding(
    folder_setup: MirrorSetup,
    monkeypatch: pytest.MonkeyPatch,
    ending: Callable[[], object],
    told: type[BaseException] | None,
) -> None:
    fill(folder_setup.cache, {url_of(0): photo(0)})
    folder_setup.sync(inspect="off")
    fill(folder_setup.cache, {url_of(n): photo(0) for n in range(1, 401)})
    stalling = Stalling(400, ending)
    with monkeypatch.context() as patch:
        stalling.patched(patch)
        settings = folder_setup.settings(commit_rows=10, concurrency=4, inspect="off")
        with suppress(ZeroDivisionError):
            report = sync(settings, progress=stalling)
            assert told is None or isinstance(report.error, told)
    assert stalling.done_meanwhile <= 2 * 10 + 2 * 4
    assert folder_setup.sync(inspect="off").failed == 0
    assert set(folder_setup.rows()) == {url_md5(url_of(n)) for n in range(401)}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("contents", [60, 1], ids=["uploads", "duplicates"])
def test_a_commit_for_each_file_does_not_block_the_feeding_for_ever(
    folder_setup: MirrorSetup, contents: int
) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n % contents) for n in range(60)})
    report = sync(folder_setup.settings(commit_rows=1, concurrency=2, inspect="off"))
    assert (report.uploaded, report.failed) == (contents, 0)
    assert set(folder_setup.rows()) == {url_md5(url_of(n)) for n in range(60)}
