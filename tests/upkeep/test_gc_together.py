"""Collections and syncs at the same moment, and collections that die, lose nothing."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import threading
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from mirror.catalog.gc_lease import HeldLease
from mirror.errors import EXIT_BUSY, Busy
from mirror.layout import GC_LEASE_KEY
from mirror.run.progress import Progress, Stage
from mirror.store.base import Store
from mirror.store.engines.file import FileStore
from mirror.sync.run_sync import sync
from mirror.system.boot_id import boot_id
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.gc import GcOptions, GcReport, gc
from mirror.upkeep.verify import VerifyOptions, verify
from tests.support.chaos_tally import SEED, TIMES, count, kills
from tests.support.killing import Killing
from tests.support.mirror_setup import MirrorSetup, key_of
from tests.support.photos import fill, photo, url_of
from tests.support.progress_hooks import WhenPlanned
from tests.upkeep.aged_mirrors import (
    DAY,
    DELETING,
    is_whole,
    keys,
    objects,
    on,
    orphan,
    pass_days,
    root_of,
    says,
    stocked,
)


def test_a_sync_that_adopts_a_planned_object_saves_it(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    orphan(folder_setup, 70, 30)
    pass_days(folder_setup, 8)
    fill(folder_setup.cache, {url_of(70): photo(70)})

    def meanwhile(stage: Stage) -> None:
        assert stage.items == 1
        thread = threading.Thread(target=lambda: reports.append(folder_setup.sync()))
        thread.start()
        thread.join()

    reports: list[Any] = []
    report = gc(folder_setup.settings(), progress=WhenPlanned(meanwhile))
    assert (report.spared, report.deleted) == (1, 0)
    assert (reports[0].deduplicated, reports[0].failed) == (1, 0)
    is_whole(folder_setup)


def test_a_sync_between_the_check_and_the_deletion_names_no_deleted_object(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(folder_setup)
    orphan(folder_setup, 70, 30)
    pass_days(folder_setup, 8)
    fill(folder_setup.cache, {url_of(70): photo(70), url_of(71): photo(71)})
    reports: list[Any] = []
    real = FileStore.delete

    async def delete(self: FileStore, keys: Any, _etags: Any) -> Any:
        if not reports:
            await asyncio.to_thread(lambda: reports.append(folder_setup.sync()))
        return await real(self, keys)  # without a condition, as most servers do it

    monkeypatch.setattr(FileStore, "delete", delete)
    report = gc(folder_setup.settings())
    assert report.deleted == 1
    (synced,) = reports
    assert (synced.uploaded, synced.failed, synced.exit_status) == (1, 1, 3)
    assert "next run" in synced.failures[0][1]
    is_whole(folder_setup)
    assert folder_setup.sync().uploaded == 1
    is_whole(folder_setup)


def test_a_row_that_rests_on_an_older_catalog_is_left_to_the_next_run(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    """A sync finds a content known while a URL still has it, and would commit after gc."""
    stocked(folder_setup)
    pass_days(folder_setup, 100)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = MirrorSetup(folder_setup.place, tmp_path / "elsewhere")
    fill(elsewhere.cache, {url_of(900): photo(0)})
    reports: list[Any] = []

    def all_else() -> None:
        fill(folder_setup.cache, {url_of(0): photo(50)})
        folder_setup.sync()
        reports.append(gc(folder_setup.settings()))

    class Between(Progress):
        """Runs everything else between another machine's decision and its commit."""

        def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
            assert outcome == "duplicate"
            thread = threading.Thread(target=all_else)
            thread.start()
            thread.join()

    synced = sync(elsewhere.settings(), progress=Between())
    assert (synced.deduplicated, synced.failed) == (0, 0)
    assert any("waited to be committed" in warning for warning in synced.warnings)
    assert reports[0].named_recently == 1
    is_whole(folder_setup)
    again = sync(elsewhere.settings())
    assert (again.new, again.uploaded + again.deduplicated, again.exit_status) == (1, 1, 0)
    is_whole(folder_setup)


def test_two_machines_do_not_collect_at_once(folder_setup: MirrorSetup, tmp_path: Path) -> None:
    stocked(folder_setup)
    orphan(folder_setup, 70, 30)
    pass_days(folder_setup, 8)
    other = folder_setup.place.settings(state={"dir": str(tmp_path / "other")})
    told: list[BaseException] = []

    def meanwhile(_: Stage) -> None:
        def second() -> None:
            try:
                told.append(gc(other).error)  # type: ignore[arg-type]
            except Busy as error:
                told.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    assert gc(folder_setup.settings(), progress=WhenPlanned(meanwhile)).deleted == 1
    assert isinstance(told[0], Busy)
    assert gc(other).error is None


@pytest.mark.parametrize("known", [True, False], ids=["boot id", "no boot id"])
def test_a_copy_of_the_state_folder_does_not_take_over(
    folder_setup: MirrorSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """A machine was cloned together with its state, or a state folder was restored beside it."""
    if not known:
        monkeypatch.setattr("mirror.upkeep.gc.boot_id", lambda: None)
    stocked(folder_setup)
    assert gc(folder_setup.settings()).error is None
    shutil.copytree(folder_setup.state, tmp_path / "copy")
    copy = folder_setup.place.settings(state={"dir": str(tmp_path / "copy")})
    orphan(folder_setup, 70, 30)
    pass_days(folder_setup, 8)
    seen: list[BaseException | None] = []

    def meanwhile(_: Stage) -> None:
        thread = threading.Thread(target=lambda: seen.append(gc(copy).error))
        thread.start()
        thread.join()

    report = gc(folder_setup.settings(), progress=WhenPlanned(meanwhile))
    assert (report.deleted, report.error) == (1, None)
    assert isinstance(seen[0], Busy)


@pytest.mark.parametrize(
    ("written", "same"), [(("boot", "m"), True), (("other", "m"), False), (("boot", "n"), False)]
)
def test_an_id_is_that_of_a_machine_and_its_last_start(
    tmp_path: Path, written: tuple[str, str], same: bool
) -> None:
    files = tmp_path / "boot", tmp_path / "machine"
    for path, text in zip(files, ("boot", "m"), strict=True):
        path.write_text(text)
    before = boot_id(*files)
    for path, text in zip(files, written, strict=True):
        path.write_text(text)
    assert (boot_id(*files) == before) == same
    assert boot_id(tmp_path / "absent", files[1]) is None


def test_a_lease_of_a_dead_collection_is_taken_over_after_an_hour(
    folder_setup: MirrorSetup,
) -> None:
    stocked(folder_setup)
    orphan(folder_setup, 70, 30)
    pass_days(folder_setup, 8)
    says(DELETING, timedelta(minutes=50))(folder_setup)
    assert isinstance(gc(folder_setup.settings()).error, Busy)
    says(DELETING, timedelta(minutes=61))(folder_setup)
    assert gc(folder_setup.settings()).deleted == 1


def test_a_collection_that_lost_its_lease_deletes_nothing_more(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    orphan(folder_setup, 70, 30)
    pass_days(folder_setup, 8)

    def meanwhile(_: Stage) -> None:
        async def take_over(store: Store) -> None:
            lease = root_of(folder_setup) / GC_LEASE_KEY
            os.utime(lease, (time.time() - 7200,) * 2)
            await HeldLease.acquire(store, "another", "elsewhere")

        thread = threading.Thread(target=lambda: on(folder_setup, take_over))
        thread.start()
        thread.join()

    report = gc(folder_setup.settings(), progress=WhenPlanned(meanwhile))
    assert isinstance(report.error, Busy)
    assert report.deleted == 0
    assert key_of(photo(70)) in objects(folder_setup)


def test_a_machine_that_slept_for_days_does_not_commit_what_it_knew(
    folder_setup: MirrorSetup,
) -> None:
    stocked(folder_setup)
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(100, 103)})
    times = iter([time.time()] * 4)

    def now() -> float:
        return next(times, time.time() + 3 * DAY)

    report = sync(folder_setup.settings(), now=now)
    assert report.exit_status == 1
    assert "asleep" in str(report.error)
    assert len(folder_setup.rows()) == 6
    assert folder_setup.sync().deduplicated == 3
    is_whole(folder_setup)


@pytest.mark.chaos("together")
def test_syncs_and_collections_at_once_lose_nothing(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    """Two caches that change at random, and a collection, while days pass."""
    count("together two syncs and a collection, while days pass")
    chance = random.Random(SEED)
    machines = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        machines.append(MirrorSetup(folder_setup.place, tmp_path / name))
    deleted = 0
    # With so few objects more than half of them may be due at once.
    every = GcOptions(limit=ChangeLimit.parse("all", "--max-delete"))
    for round_ in range(6 * TIMES):
        story = f"CHAOS_SEED={SEED}, round {round_}"
        for machine in machines:
            for _ in range(4):
                number = chance.randrange(12)
                fill(machine.cache, {url_of(number): photo(chance.randrange(12))})
        threads = [threading.Thread(target=machine.sync) for machine in machines]
        reports: list[GcReport] = []
        if round_:
            collect = partial(lambda into: into.append(gc(folder_setup.settings(), every)), reports)
            threads.append(threading.Thread(target=collect))
        chance.shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for report in reports:
            assert report.error is None, story
            deleted += report.deleted
        checked = verify(folder_setup.settings(), VerifyOptions(share=1.0))
        assert (checked.missing, checked.mismatched) == (0, 0), story
        pass_days(folder_setup, chance.choice([0, 3, 8, 20]))
    assert deleted


@pytest.mark.chaos("gc")
def test_a_collection_killed_anywhere_is_completed_by_the_next(
    folder_setup: MirrorSetup,
) -> None:
    stocked(folder_setup)
    words = ["--json", "gc", f"--bucket={folder_setup.place.url}", f"--state={folder_setup.state}"]
    words += ["--max-delete=all"]
    modules = "mirror.upkeep.gc,mirror.catalog.gc_lease"

    def orphans() -> None:
        for number in range(70, 78):
            orphan(folder_setup, number, 30)

    orphans()
    killing = Killing(modules, words, after=1 / 4)
    assert objects(folder_setup) == keys(*range(6))
    for story in killing.rounds(kills(4), random.Random(SEED)):
        orphans()
        killing.run()
        assert keys(*range(6)) <= objects(folder_setup), story
        report = gc(
            folder_setup.settings(), GcOptions(limit=ChangeLimit.parse("all", "--max-delete"))
        )
        assert report.error is None, story  # at once: it was this machine's own that died
        assert objects(folder_setup) == keys(*range(6)), story
        is_whole(folder_setup)


def test_runs_do_not_wait_forever_for_a_stopped_holder_of_the_folders_lock(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(folder_setup)
    assert gc(folder_setup.settings()).error is None
    orphan(folder_setup, 70, 30)
    fill(folder_setup.cache, {url_of(170): photo(70)})
    monkeypatch.setattr("mirror.store.engines.file.LOCK_SECONDS", 0.1)
    with FileLock(root_of(folder_setup) / ".mirror-lock"):
        assert gc(folder_setup.settings()).exit_status == EXIT_BUSY
        assert folder_setup.sync().exit_status == EXIT_BUSY
    assert folder_setup.sync().exit_status == 0
