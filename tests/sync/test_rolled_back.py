"""A mirror that was restored from a backup, or whose catalog is gone, is filled again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mirror.catalog.delta_table import Catalog
from mirror.catalog.open_mirror import read_index
from mirror.errors import CatalogError
from mirror.layout import log_entry_key, url_md5
from mirror.store.engines.file import FileStore
from mirror.sync.rebuild import rebuild_state
from mirror.sync.run_sync import SyncOptions, sync
from mirror.sync.state import State
from tests.support.mirror_setup import SOON, MirrorSetup
from tests.support.photos import fill, photo, url_of
from tests.sync.test_weigh import dangling

LACKS = "lacks what this state relies on"


def folder_of(setup: MirrorSetup) -> Path:
    return Path(setup.place.url.path)


def backed_up(setup: MirrorSetup) -> Path:
    """A backup of the mirror after three files; the mirror has eight."""
    fill(setup.cache, {url_of(n): photo(n) for n in range(3)})
    setup.sync()
    backup = setup.cache.parent / "backup"
    shutil.copytree(folder_of(setup), backup)
    fill(setup.cache, {url_of(n): photo(n) for n in range(3, 8)})
    assert setup.sync().uploaded == 5
    return backup


def restore(setup: MirrorSetup, backup: Path) -> None:
    shutil.rmtree(folder_of(setup))
    shutil.copytree(backup, folder_of(setup))


def is_whole(setup: MirrorSetup, files: int) -> bool:
    urls = {url_md5(url_of(n)) for n in range(files)}
    return urls <= set(setup.rows()) and not dangling(setup) and len(setup.objects()) >= files


def test_a_mirror_restored_from_a_backup_is_filled_again(folder_setup: MirrorSetup) -> None:
    restore(folder_setup, backed_up(folder_setup))
    report = folder_setup.sync()
    assert (report.new, report.uploaded, report.exit_status) == (8, 5, 0)
    assert LACKS in report.warnings[0]
    assert is_whole(folder_setup, 8)
    report = folder_setup.sync()
    assert (report.unchanged, report.warnings) == (8, [])
    assert sum(report.requests.values()) == 1


def test_another_commit_with_the_number_of_the_remembered_one_is_noticed(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    restore(folder_setup, backed_up(folder_setup))
    (tmp_path / "other").mkdir()
    other = MirrorSetup(folder_setup.place, tmp_path / "other")
    fill(other.cache, {url_of(50): photo(50)})
    other.sync()
    report = folder_setup.sync()
    assert (report.uploaded, LACKS in report.warnings[0]) == (5, True)
    assert is_whole(folder_setup, 8)


def test_a_stale_snapshot_is_not_used_for_an_older_catalog(folder_setup: MirrorSetup) -> None:
    """Another cache of this machine shares the snapshots, and has no state that would notice."""
    restore(folder_setup, backed_up(folder_setup))
    assert len(read_index(folder_setup.settings())[1]) == 3
    aside = folder_setup.cache.parent / "other"
    fill(aside, {url_of(60): photo(5)})
    settings = folder_setup.place.settings(
        cache={"dir": str(aside)}, state={"dir": str(folder_setup.state)}
    )
    assert sync(settings).uploaded == 1
    assert not dangling(folder_setup)


def test_a_snapshot_is_not_used_for_a_catalog_that_went_another_way(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    restore(folder_setup, backed_up(folder_setup))
    (tmp_path / "other").mkdir()
    other = MirrorSetup(folder_setup.place, tmp_path / "other")
    for number in (50, 51):  # now its version is greater than the snapshot's
        fill(other.cache, {url_of(number): photo(number)})
        other.sync()
    assert len(read_index(folder_setup.settings())[1]) == 5


def test_a_snapshot_stays_in_use_after_a_compaction(
    folder_setup: MirrorSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(folder_setup)
    before = read_index(folder_setup.settings())[1]
    monkeypatch.setattr("mirror.catalog.delta_table.COMPACT_AFTER", 2)
    catalog = Catalog(FileStore(folder_setup.place.url), f"{folder_of(folder_setup)}/catalog", dict)
    catalog.data_files()
    assert catalog.compact()
    asked: list[str] = []
    get = FileStore.get

    async def noted(self: FileStore, key: str) -> bytes:
        asked.append(key)
        return await get(self, key)

    monkeypatch.setattr(FileStore, "get", noted)
    after = read_index(folder_setup.settings())[1]
    assert (len(after), after.version) == (8, before.version + 1)
    assert log_entry_key(before.version) in asked


def test_a_lost_catalog_is_not_unchanged(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(6)})
    folder_setup.sync()
    shutil.rmtree(folder_of(folder_setup) / "catalog")
    report = folder_setup.sync()
    assert (report.new, LACKS in report.warnings[0]) == (6, True)
    assert is_whole(folder_setup, 6)


def test_a_state_that_remembers_no_version_notices_a_lost_catalog(
    folder_setup: MirrorSetup,
) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(6)})
    folder_setup.sync()
    state = State(folder_setup.settings().state_dir)
    state.set("catalog_seen", "")
    state.close()
    assert folder_setup.sync().unchanged == 6
    assert sum(folder_setup.sync().requests.values()) == 1
    state = State(folder_setup.settings().state_dir)
    state.set("catalog_seen", "")
    state.close()
    shutil.rmtree(folder_of(folder_setup) / "catalog")
    assert folder_setup.sync().new == 6
    assert is_whole(folder_setup, 6)


def test_a_rebuilt_state_notices_a_rollback(folder_setup: MirrorSetup) -> None:
    backup = backed_up(folder_setup)
    shutil.rmtree(folder_setup.state)
    assert rebuild_state(folder_setup.settings()).known == 8
    restore(folder_setup, backup)
    assert folder_setup.sync().uploaded == 5
    assert is_whole(folder_setup, 8)


def test_a_run_that_is_killed_after_a_commit_notices_a_rollback(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run had no time to identify its last commit, but remembers its mark."""
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)})
    folder_setup.sync()
    backup = folder_setup.cache.parent / "backup"
    shutil.copytree(folder_of(folder_setup), backup)
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3, 8)})

    async def killed(*_: object) -> None:
        raise CatalogError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("mirror.sync.run_sync._SyncRun._remember", killed)
        assert folder_setup.sync().uploaded == 5
    assert folder_setup.sync().unchanged == 8
    with monkeypatch.context() as patch:
        fill(folder_setup.cache, {url_of(8): photo(8)})
        patch.setattr("mirror.sync.run_sync._SyncRun._remember", killed)
        assert folder_setup.sync().uploaded == 1
    restore(folder_setup, backup)
    assert folder_setup.sync().uploaded == 6
    assert is_whole(folder_setup, 9)


def test_a_mirror_that_was_moved_with_its_catalog_is_the_same(folder_setup: MirrorSetup) -> None:
    """The entries have other ETags on another disk, and the same bytes."""
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)})
    folder_setup.sync()
    aside = folder_setup.cache.parent / "aside"
    shutil.copytree(folder_of(folder_setup), aside, copy_function=shutil.copy)
    shutil.rmtree(folder_of(folder_setup))
    aside.rename(folder_of(folder_setup))
    report = folder_setup.sync()
    assert (report.unchanged, report.warnings) == (3, [])
    assert sum(folder_setup.sync().requests.values()) == 1


def test_later_commits_cost_one_more_request_once(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = MirrorSetup(folder_setup.place, tmp_path / "other")
    for number, setup in enumerate((folder_setup, other)):
        fill(setup.cache, {url_of(number): photo(number)})
        setup.sync()
    assert folder_setup.sync().requests["get"] == 1
    report = folder_setup.sync()
    assert (report.requests["get"], sum(report.requests.values())) == (0, 1)


def test_format_json_is_read_once_a_day(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(1): photo(1)})
    start = 1.8e9

    def requests(hours: float) -> dict[str, int]:
        options = SyncOptions(retry=SOON)
        return sync(folder_setup.settings(), options, now=lambda: start + 3600 * hours).requests

    requests(0)
    assert requests(1)["get"] == 0
    assert requests(25)["get"] == 1
    assert requests(26)["get"] == 0
