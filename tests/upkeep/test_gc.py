"""The objects that a collection deletes, and those that it never does."""

from __future__ import annotations

import os
import time

import pytest

from mirror.catalog.open_mirror import Location
from mirror.errors import UsageError
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.gc import GcOptions, gc
from tests.support.mirror_setup import MirrorSetup, key_of
from tests.support.photos import blank, fill, photo, url_of
from tests.upkeep.aged_mirrors import (
    DAY,
    files,
    is_whole,
    keys,
    objects,
    pass_days,
    root_of,
    stocked,
)

DRY = GcOptions(dry_run=True)


def test_only_old_unreferenced_objects_are_deleted(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    folder_setup.put({key_of(photo(70)): photo(70), key_of(photo(71)): photo(71)})
    pass_days(folder_setup, 8)
    folder_setup.put({key_of(photo(80)): photo(80)})
    report = gc(folder_setup.settings())
    assert (report.checked, report.orphaned, report.young) == (9, 3, 1)
    assert (report.planned, report.deleted, report.exit_status) == (2, 2, 0)
    assert report.bytes == report.planned_bytes == len(photo(70)) + len(photo(71))
    assert objects(folder_setup) == keys(0, 1, 2, 3, 4, 5, 80)
    is_whole(folder_setup)
    again = gc(folder_setup.settings())
    assert (again.planned, again.deleted) == (0, 0)


def test_an_object_that_a_row_named_recently_stays_at_any_age(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    pass_days(folder_setup, 100)
    fill(folder_setup.cache, {url_of(0): photo(50)})
    folder_setup.sync()
    report = gc(folder_setup.settings())
    assert (report.named_recently, report.planned, report.deleted) == (1, 0, 0)
    pass_days(folder_setup, 6)
    assert gc(folder_setup.settings()).deleted == 0
    pass_days(folder_setup, 2)
    assert gc(folder_setup.settings()).deleted == 1
    assert objects(folder_setup) == keys(1, 2, 3, 4, 5, 50)
    is_whole(folder_setup)


def test_an_object_that_was_named_only_briefly_stays_as_long(folder_setup: MirrorSetup) -> None:
    """A row named it within the grace period, but no row did before, and none does now."""
    stocked(folder_setup)
    folder_setup.put({key_of(photo(60)): photo(60)})
    pass_days(folder_setup, 100)
    fill(folder_setup.cache, {url_of(0): photo(60)})
    folder_setup.sync()
    pass_days(folder_setup, 3)
    fill(folder_setup.cache, {url_of(0): photo(61)})
    folder_setup.sync()
    for name in keys(60):  # however its age came about
        os.utime(root_of(folder_setup) / name, (0, 0))
    report = gc(folder_setup.settings())
    assert (report.named_recently, report.deleted) == (2, 0)
    pass_days(folder_setup, 8)
    assert gc(folder_setup.settings()).deleted == 2


def test_a_deleted_log_protects_every_object_that_a_row_ever_named(
    folder_setup: MirrorSetup,
) -> None:
    stocked(folder_setup)
    fill(folder_setup.cache, {url_of(0): photo(50)})
    folder_setup.sync()
    folder_setup.put({key_of(photo(70)): photo(70)})
    pass_days(folder_setup, 100)
    log = root_of(folder_setup) / "catalog" / "_delta_log"
    location = Location(folder_setup.settings())
    from deltalake import DeltaTable

    table = DeltaTable(str(root_of(folder_setup) / "catalog"))
    table.create_checkpoint()
    last = max(log.glob("*.json"))
    os.utime(last)  # the only entry that is left, and it is young
    for entry in log.glob("*.json"):
        if entry != last:
            entry.unlink()
    assert location.url == folder_setup.place.url
    report = gc(folder_setup.settings())
    assert (report.named_recently, report.deleted) == (1, 1)
    assert objects(folder_setup) == keys(0, 1, 2, 3, 4, 5, 50)


def test_a_dry_run_shows_the_plan_and_writes_nothing(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    folder_setup.put({key_of(photo(70)): photo(70)})
    pass_days(folder_setup, 8)
    before = files(folder_setup)
    report = gc(folder_setup.settings(), DRY)
    assert (report.planned, report.deleted, report.exit_status) == (1, 0, 0)
    assert [problem.key for problem in report.examples] == [key_of(photo(70))]
    assert files(folder_setup) == before
    assert report.requests["put"] == report.requests["delete"] == 0


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [("3", True), ("2", False), ("34%", True), ("33%", False), ("all", True), ("50%", True)],
)
def test_a_plan_that_deletes_too_much_is_refused(
    folder_setup: MirrorSetup, limit: str, allowed: bool
) -> None:
    stocked(folder_setup)
    folder_setup.put({key_of(photo(n)): photo(n) for n in (70, 71, 72)})
    pass_days(folder_setup, 8)
    report = gc(folder_setup.settings(), GcOptions(limit=ChangeLimit.parse(limit, "--max-delete")))
    assert (report.planned, report.deleted) == (3, 3 if allowed else 0)
    assert report.exit_status == (0 if allowed else 1)
    if not allowed:
        assert "--max-delete 3" in str(report.error)
        assert len(objects(folder_setup)) == 9


def test_a_mirror_whose_catalog_is_gone_is_not_emptied(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    pass_days(folder_setup, 100)
    (root_of(folder_setup) / "catalog").rename(folder_setup.cache.parent / "aside")
    report = gc(folder_setup.settings())
    assert (report.planned, report.deleted, report.exit_status) == (6, 0, 1)
    assert len(objects(folder_setup)) == 6


@pytest.mark.parametrize("text", ["", "-1", "101%", "1.5", "many", "%"])
def test_an_invalid_limit_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        ChangeLimit.parse(text, "--max-delete")


def test_foreign_keys_are_never_touched(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    folder_setup.put(
        {"objects/ab/readme.txt": b"mine", "objects/x": b"mine", "elsewhere/y": b"mine"}
    )
    pass_days(folder_setup, 100)
    report = gc(folder_setup.settings())
    assert (report.strangers, report.planned, report.deleted) == (2, 0, 0)
    assert len(files(folder_setup)) > 9


def test_objects_of_flagged_rows_are_deleted_only_on_request(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(6)})
    fill(folder_setup.cache, {url_of(100): blank()})
    folder_setup.sync(include_flagged=True)
    pass_days(folder_setup, 8)
    assert (gc(folder_setup.settings()).flagged, len(objects(folder_setup))) == (1, 7)
    report = gc(folder_setup.settings(), GcOptions(flagged=True))
    assert (report.deleted, len(objects(folder_setup))) == (1, 6)
    is_whole(folder_setup)


def test_replaced_data_files_are_deleted_and_the_catalog_stays_readable(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.catalog.delta_table.COMPACT_AFTER", 3)
    for number in range(4):
        stocked(folder_setup, number + 3)
    rows = folder_setup.rows()
    parts = list((root_of(folder_setup) / "catalog").glob("*.parquet"))
    assert len(parts) > 2
    assert gc(folder_setup.settings()).catalog_files == 0
    pass_days(folder_setup, 8)
    (root_of(folder_setup) / "catalog" / "part-of-a-commit-that-failed.parquet").write_bytes(b"x")
    report = gc(folder_setup.settings())
    assert 0 < report.catalog_files < len(parts)
    left = list((root_of(folder_setup) / "catalog").glob("*.parquet"))
    assert len(left) == len(parts) + 1 - report.catalog_files
    assert folder_setup.rows() == rows
    is_whole(folder_setup)
    pass_days(folder_setup, 8)
    assert gc(folder_setup.settings()).catalog_files == 1
    assert folder_setup.rows() == rows


def test_files_of_killed_writers_in_a_folder_are_deleted(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    name = ".mirror-0123456789abcdef"
    left = [root_of(folder_setup) / folder / name for folder in ("objects/ab", "catalog", "doctor")]
    others = [
        root_of(folder_setup) / path
        for path in (
            ".mirror-notes.txt",
            f"other-project/{name}",
            "other-project/.mirror-settings",
            "objects/ab/.mirror-settings",
            "objects/ab/.mirror-0123456789abcdef.txt",
        )
    ]
    for path in (*left, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half an image")
    assert gc(folder_setup.settings()).uploads == 0
    pass_days(folder_setup, 8)
    assert gc(folder_setup.settings()).uploads == 3
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("years", [-50, -1, 1, 50])
def test_a_wrong_local_clock_deletes_no_young_object(folder_setup: MirrorSetup, years: int) -> None:
    stocked(folder_setup)
    folder_setup.put({key_of(photo(70)): photo(70)})
    pass_days(folder_setup, 8)
    folder_setup.put({key_of(photo(71)): photo(71)})
    report = gc(folder_setup.settings(), now=lambda: time.time() + years * 365 * DAY)
    assert (report.deleted, report.young) == (1, 1)
    assert objects(folder_setup) == keys(0, 1, 2, 3, 4, 5, 71)
