"""A state whose damage only a later step finds is set aside too, and replaced."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mirror.catalog.row import RowSource
from mirror.errors import StateDamaged
from mirror.layout import url_md5
from mirror.sync.run_sync import sync
from mirror.sync.state import FILE_NAME, SeenFile, State
from mirror.sync.sync_report import SyncReport
from tests.support.mirror_setup import Workshop
from tests.support.photos import fill, name_of, photo, url_of
from tests.sync.test_sync import DatasetSources

FILES = 400


@pytest.fixture
def damaged(local: Workshop) -> Workshop:
    """All is synced, and one page is damaged on which `url_of(7)` stands: planning does not read it."""
    fill(local.cache, {url_of(n): photo(n) for n in range(FILES)})
    local.sync()
    (path,) = local.state.glob(f"*/{FILE_NAME}")
    database = sqlite3.connect(path)
    size = database.execute("PRAGMA page_size").fetchone()[0]
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    body = bytearray(path.read_bytes())
    pages = [slice(at, at + size) for at in range(0, len(body), size)]
    (page,) = (
        page
        for page in pages
        if name_of(url_of(7)).encode() in body[page] and b"jpeg" in body[page]
    )
    body[page] = b"\xff" * size
    path.write_bytes(body)
    return local


def began_anew(shop: Workshop, report: SyncReport) -> None:
    """The state was set aside, and the run started from the beginning."""
    assert (report.error, report.failures, report.exit_status) == (None, [], 0)
    (warning,) = report.warnings
    assert "is damaged" in warning
    assert "moved to" in warning
    assert list(shop.state.glob(f"*/{FILE_NAME}.damaged-*"))
    assert report.new == report.scanned == len(list(shop.cache.iterdir()))
    assert (report.changed, report.unchanged, report.vanished) == (0, 0, 0)
    assert report.uploaded + report.deduplicated == report.new
    again = shop.sync()
    assert (again.unchanged, again.warnings) == (report.scanned, [])


def test_damage_where_a_vanished_file_is_recorded(damaged: Workshop) -> None:
    (damaged.cache / name_of(url_of(7))).unlink()
    report = damaged.sync()
    assert report.uploaded == 0
    began_anew(damaged, report)
    assert len(damaged.rows()) == FILES


def test_damage_where_sources_are_recorded(damaged: Workshop) -> None:
    told = DatasetSources({url_of(n): RowSource(url_of(n), "CC0") for n in range(FILES)})
    began_anew(damaged, damaged.sync(told))
    assert {row["license"] for row in damaged.rows().values()} == {"CC0"}


def record_failing(nth: Callable[[int], bool]) -> Callable[[State, Iterable[SeenFile]], None]:
    record, times = State.record, 0

    def fails(self: State, files: Iterable[SeenFile]) -> None:
        nonlocal times
        times += 1
        if nth(times):
            raise StateDamaged("The state is damaged.")
        record(self, files)

    return fails


@pytest.mark.parametrize("bad", [1, 3])
def test_damage_where_files_are_recorded(
    local: Workshop, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    fill(local.cache, {url_of(n): photo(n) for n in range(60)})
    with monkeypatch.context() as patch:
        patch.setattr(State, "record", record_failing(lambda time: time == bad))
        report = sync(local.settings(commit_rows=10))
    # The first attempt's uploads are not repeated, and the report counts the requests of both.
    assert report.requests["put"] >= len(local.objects()) == 60
    began_anew(local, report)
    assert set(local.rows()) == {url_md5(url_of(n)) for n in range(60)}


def test_a_disk_that_damages_every_state_ends_the_run(
    local: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(local.cache, {url_of(n): photo(n) for n in range(3)})
    monkeypatch.setattr(State, "record", record_failing(lambda time: True))
    report = local.sync()
    assert isinstance(report.error, StateDamaged)
    assert report.exit_status == 1
    assert len(report.warnings) == 1


def test_a_dry_run_says_what_to_do(damaged: Workshop) -> None:
    (path,) = damaged.state.glob(f"*/{FILE_NAME}")
    Path(path).write_bytes(b"no database" * 1000)
    with pytest.raises(StateDamaged, match="move it away, and the next run reads the cache again"):
        damaged.sync(dry_run=True)
