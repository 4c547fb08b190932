"""The objects that a collection deletes, and those that it never does."""

from __future__ import annotations

import os
import time

import pytest

from mirror.catalog.open_mirror import Location
from mirror.errors import UsageError
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.gc import GcOptions, gc
from tests.support.mirror_setup import Workshop, key_of
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


def test_only_old_unreferenced_objects_are_deleted(local: Workshop) -> None:
    stocked(local)
    local.put({key_of(photo(70)): photo(70), key_of(photo(71)): photo(71)})
    pass_days(local, 8)
    local.put({key_of(photo(80)): photo(80)})
    report = gc(local.settings())
    assert (report.checked, report.orphaned, report.young) == (9, 3, 1)
    assert (report.planned, report.deleted, report.exit_status) == (2, 2, 0)
    assert report.bytes == report.planned_bytes == len(photo(70)) + len(photo(71))
    assert objects(local) == keys(0, 1, 2, 3, 4, 5, 80)
    is_whole(local)
    again = gc(local.settings())
    assert (again.planned, again.deleted) == (0, 0)


def test_an_object_that_a_row_named_recently_stays_at_any_age(local: Workshop) -> None:
    stocked(local)
    pass_days(local, 100)
    fill(local.cache, {url_of(0): photo(50)})
    local.sync()
    report = gc(local.settings())
    assert (report.named_recently, report.planned, report.deleted) == (1, 0, 0)
    pass_days(local, 6)
    assert gc(local.settings()).deleted == 0
    pass_days(local, 2)
    assert gc(local.settings()).deleted == 1
    assert objects(local) == keys(1, 2, 3, 4, 5, 50)
    is_whole(local)


def test_an_object_that_was_named_only_briefly_stays_as_long(local: Workshop) -> None:
    """A row named it within the grace period, but no row did before, and none does now."""
    stocked(local)
    local.put({key_of(photo(60)): photo(60)})
    pass_days(local, 100)
    fill(local.cache, {url_of(0): photo(60)})
    local.sync()
    pass_days(local, 3)
    fill(local.cache, {url_of(0): photo(61)})
    local.sync()
    for name in keys(60):  # however its age came about
        os.utime(root_of(local) / name, (0, 0))
    report = gc(local.settings())
    assert (report.named_recently, report.deleted) == (2, 0)
    pass_days(local, 8)
    assert gc(local.settings()).deleted == 2


def test_a_deleted_log_protects_every_object_that_a_row_ever_named(local: Workshop) -> None:
    stocked(local)
    fill(local.cache, {url_of(0): photo(50)})
    local.sync()
    local.put({key_of(photo(70)): photo(70)})
    pass_days(local, 100)
    log = root_of(local) / "catalog" / "_delta_log"
    location = Location(local.settings())
    from deltalake import DeltaTable

    table = DeltaTable(str(root_of(local) / "catalog"))
    table.create_checkpoint()
    last = max(log.glob("*.json"))
    os.utime(last)  # the only entry that is left, and it is young
    for entry in log.glob("*.json"):
        if entry != last:
            entry.unlink()
    assert location.url == local.place.url
    report = gc(local.settings())
    assert (report.named_recently, report.deleted) == (1, 1)
    assert objects(local) == keys(0, 1, 2, 3, 4, 5, 50)


def test_a_dry_run_shows_the_plan_and_writes_nothing(local: Workshop) -> None:
    stocked(local)
    local.put({key_of(photo(70)): photo(70)})
    pass_days(local, 8)
    before = files(local)
    report = gc(local.settings(), DRY)
    assert (report.planned, report.deleted, report.exit_status) == (1, 0, 0)
    assert [problem.key for problem in report.examples] == [key_of(photo(70))]
    assert files(local) == before
    assert report.requests["put"] == report.requests["delete"] == 0


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [("3", True), ("2", False), ("34%", True), ("33%", False), ("all", True), ("50%", True)],
)
def test_a_plan_that_deletes_too_much_is_refused(
    local: Workshop, limit: str, allowed: bool
) -> None:
    stocked(local)
    local.put({key_of(photo(n)): photo(n) for n in (70, 71, 72)})
    pass_days(local, 8)
    report = gc(local.settings(), GcOptions(limit=ChangeLimit.parse(limit, "--max-delete")))
    assert (report.planned, report.deleted) == (3, 3 if allowed else 0)
    assert report.exit_status == (0 if allowed else 1)
    if not allowed:
        assert "--max-delete 3" in str(report.error)
        assert len(objects(local)) == 9


def test_a_mirror_whose_catalog_is_gone_is_not_emptied(local: Workshop) -> None:
    stocked(local)
    pass_days(local, 100)
    (root_of(local) / "catalog").rename(local.cache.parent / "aside")
    report = gc(local.settings())
    assert (report.planned, report.deleted, report.exit_status) == (6, 0, 1)
    assert len(objects(local)) == 6


@pytest.mark.parametrize("text", ["", "-1", "101%", "1.5", "many", "%"])
def test_an_invalid_limit_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        ChangeLimit.parse(text, "--max-delete")


def test_foreign_keys_are_never_touched(local: Workshop) -> None:
    stocked(local)
    local.put({"objects/ab/readme.txt": b"mine", "objects/x": b"mine", "elsewhere/y": b"mine"})
    pass_days(local, 100)
    report = gc(local.settings())
    assert (report.strangers, report.planned, report.deleted) == (2, 0, 0)
    assert len(files(local)) > 9


def test_objects_of_flagged_rows_are_deleted_only_on_request(local: Workshop) -> None:
    fill(local.cache, {url_of(n): photo(n) for n in range(6)})
    fill(local.cache, {url_of(100): blank()})
    local.sync(include_flagged=True)
    pass_days(local, 8)
    assert (gc(local.settings()).flagged, len(objects(local))) == (1, 7)
    report = gc(local.settings(), GcOptions(flagged=True))
    assert (report.deleted, len(objects(local))) == (1, 6)
    is_whole(local)


def test_replaced_data_files_are_deleted_and_the_catalog_stays_readable(
    local: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.catalog.delta_table.COMPACT_AFTER", 3)
    for number in range(4):
        stocked(local, number + 3)
    rows = local.rows()
    parts = list((root_of(local) / "catalog").glob("*.parquet"))
    assert len(parts) > 2
    assert gc(local.settings()).catalog_files == 0
    pass_days(local, 8)
    (root_of(local) / "catalog" / "part-of-a-commit-that-failed.parquet").write_bytes(b"x")
    report = gc(local.settings())
    assert 0 < report.catalog_files < len(parts)
    left = list((root_of(local) / "catalog").glob("*.parquet"))
    assert len(left) == len(parts) + 1 - report.catalog_files
    assert local.rows() == rows
    is_whole(local)
    pass_days(local, 8)
    assert gc(local.settings()).catalog_files == 1
    assert local.rows() == rows


def test_files_of_killed_writers_in_a_folder_are_deleted(local: Workshop) -> None:
    stocked(local)
    left = root_of(local) / "objects" / "ab" / ".mirror-x7f3"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half an image")
    assert gc(local.settings()).uploads == 0
    pass_days(local, 8)
    assert gc(local.settings()).uploads == 1
    assert not left.exists()


@pytest.mark.parametrize("years", [-50, -1, 1, 50])
def test_a_wrong_local_clock_deletes_no_young_object(local: Workshop, years: int) -> None:
    stocked(local)
    local.put({key_of(photo(70)): photo(70)})
    pass_days(local, 8)
    local.put({key_of(photo(71)): photo(71)})
    report = gc(local.settings(), now=lambda: time.time() + years * 365 * DAY)
    assert (report.deleted, report.young) == (1, 1)
    assert objects(local) == keys(0, 1, 2, 3, 4, 5, 71)
