"""Verifications in every kind of place: the problems that they find, and how they resume."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mirror.catalog.comparison import pages
from mirror.catalog.objects import KeyRange
from mirror.errors import Busy, Unreachable, UsageError
from mirror.store.base import ObjectInfo
from mirror.store.engines.file import FileStore
from mirror.upkeep.gc import gc
from mirror.upkeep.repair import RepairOptions, repair
from mirror.upkeep.verify import VerifyOptions, VerifyReport, verify
from tests.conftest import MakePlace
from tests.support.chaos_tally import SEED, count, kills
from tests.support.fault_proxy import (
    SLOW_DOWN,
    Fault,
    FaultProxy,
    Request,
)
from tests.support.killing import Killing
from tests.support.mirror_process import started
from tests.support.mirror_setup import SOON, MirrorSetup, key_of
from tests.support.photos import blank, fill, flipped, photo, url_of
from tests.support.progress_hooks import Advances
from tests.upkeep.aged_mirrors import pass_days

FULL = VerifyOptions(share=1.0)


def counts(report: VerifyReport) -> tuple[int, int, int, int]:
    return report.checked, report.missing, report.mismatched, report.orphaned


def stocked(mirror_setup: MirrorSetup, count: int = 12) -> None:
    """Sync this many photographs, two of them under a second URL each, and a blank."""
    fill(mirror_setup.cache, {url_of(n): photo(n) for n in range(count)})
    fill(mirror_setup.cache, {url_of(1000 + n): photo(n) for n in range(2)})
    fill(mirror_setup.cache, {url_of(2000): blank()})
    assert mirror_setup.sync().exit_status == 0


def test_a_complete_mirror_has_no_problems(mirror_setup: MirrorSetup) -> None:
    stocked(mirror_setup)
    report = verify(mirror_setup.settings(), FULL)
    assert counts(report) == (12, 0, 0, 0)
    assert (report.read, report.bytes) == (12, sum(len(photo(n)) for n in range(12)))
    assert (report.exit_status, report.examples) == (0, [])
    assert report.requests["put"] == report.requests["delete"] == report.requests["head"] == 0


def test_a_listing_shows_missing_truncated_and_unreferenced_objects(
    mirror_setup: MirrorSetup,
) -> None:
    stocked(mirror_setup)
    mirror_setup.remove(key_of(photo(0)), key_of(photo(5)))
    mirror_setup.put({key_of(photo(3)): photo(3)[:-10]})
    stranger, unnamed = "objects/3f/readme.txt", key_of(photo(77))
    mirror_setup.put({stranger: b"whose is this?"})
    mirror_setup.put({unnamed: photo(77)})
    report = verify(mirror_setup.settings())
    assert counts(report) == (12, 2, 1, 2)
    assert report.rows_without_object == 3  # photo 0 has two URLs
    assert report.exit_status == 3
    assert {(p.kind, p.key) for p in report.examples} == {
        ("missing", key_of(photo(0))),
        ("missing", key_of(photo(5))),
        ("mismatched", key_of(photo(3))),
        ("orphaned", stranger),
        ("orphaned", unnamed),
    }
    assert report.requests["get"] <= 2  # no object was opened
    assert report.requests["list"] <= 4


def test_a_flipped_bit_is_found_by_reading_and_remembered(mirror_setup: MirrorSetup) -> None:
    stocked(mirror_setup)
    mirror_setup.put({key_of(photo(4)): flipped(photo(4))})
    assert counts(verify(mirror_setup.settings())) == (12, 0, 0, 0)  # as it must: the size is right
    assert counts(verify(mirror_setup.settings(), FULL)) == (12, 0, 1, 0)
    report = verify(mirror_setup.settings())  # reads again what it knows to be damaged
    assert (counts(report), report.exit_status) == ((12, 0, 1, 0), 3)
    mirror_setup.put({key_of(photo(4)): photo(4)})
    report = verify(mirror_setup.settings())
    assert (counts(report), report.exit_status) == ((12, 0, 0, 0), 0)


def test_old_orphans_are_a_problem_and_young_ones_are_not(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    folder_setup.put({key_of(photo(77)): photo(77)})
    assert verify(folder_setup.settings()).exit_status == 0
    path = Path(folder_setup.place.url.path) / key_of(photo(77))
    os.utime(path, (0, datetime.now(UTC).timestamp() - 8 * 86_400))
    report = verify(folder_setup.settings())
    assert (report.orphaned, report.old_orphans, report.exit_status) == (1, 1, 3)


def test_an_object_of_flagged_rows_is_no_orphan(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    folder_setup.sync(include_flagged=True)
    assert verify(folder_setup.settings()).flagged == 0  # nothing new to upload: it was seen
    shutil.rmtree(folder_setup.state)
    folder_setup.sync(include_flagged=True)
    report = verify(folder_setup.settings(), FULL)
    assert (counts(report), report.flagged, report.exit_status) == ((12, 0, 0, 0), 1, 0)


def test_a_sample_is_chosen_by_its_seed(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup, 60)

    def read(seed: int | None) -> list[str]:
        opened: list[str] = []
        real = FileStore.get

        async def spying(store: FileStore, key: str) -> bytes:
            opened.append(key)
            return await real(store, key)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FileStore, "get", spying)
            report = verify(folder_setup.settings(), VerifyOptions(share=0.25, seed=seed))
        names = sorted(name for name in opened if name.endswith(".jpg"))
        assert report.read == len(names)
        return names

    assert 5 <= len(read(1)) <= 30
    assert read(1) == read(1)
    assert read(1) != read(2)
    assert len({tuple(read(None)) for _ in range(4)}) > 1


def test_all_problems_go_to_the_report_file(folder_setup: MirrorSetup, tmp_path: Path) -> None:
    stocked(folder_setup)
    folder_setup.remove(*(key_of(photo(n)) for n in range(12)))
    folder_setup.put({key_of(photo(77)): photo(77)})
    file = tmp_path / "wrong.jsonl"
    verify(folder_setup.settings(), VerifyOptions(report=file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    missing = [line for line in lines if line["problem"] == "missing"]
    assert {line["key"] for line in missing} == {key_of(photo(n)) for n in range(12)}
    assert sum(line["rows"] for line in missing) == 14
    assert [line["key"] for line in lines if line["problem"] == "orphaned"] == [key_of(photo(77))]
    with pytest.raises(UsageError):
        verify(folder_setup.settings(), VerifyOptions(report=tmp_path / "no" / "such" / "file"))


def test_a_missing_data_file_of_the_catalog_is_reported(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    assert verify(folder_setup.settings()).missing == 0
    (part,) = (Path(folder_setup.place.url.path) / "catalog").glob("*.parquet")
    part.unlink()
    report = verify(folder_setup.settings())  # from what this machine has of it
    assert [(p.kind, p.key) for p in report.examples] == [("missing", f"catalog/{part.name}")]
    assert report.exit_status == 3


def test_an_empty_bucket_misses_every_object(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    shutil.rmtree(Path(folder_setup.place.url.path) / "objects")
    assert counts(verify(folder_setup.settings())) == (12, 12, 0, 0)


def test_a_second_verification_on_the_machine_is_refused_as_busy(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    told: list[BaseException] = []

    def second() -> None:
        try:
            verify(folder_setup.settings())
        except Busy as error:
            told.append(error)

    def meanwhile(_objects: int, _bytes: int) -> None:
        if not told:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    assert verify(folder_setup.settings(), progress=Advances(meanwhile)).exit_status == 0
    assert told


def test_the_parts_of_a_listing_make_up_the_listing(mirror_setup: MirrorSetup) -> None:
    keys = [f"objects/{n:02x}/{n:02x}{'0' * 30}.jpg" for n in range(0, 256, 5)]
    keys += ["objects/0", "objects/7f", "objects/80.txt", "objects/zz/x"]
    mirror_setup.put(dict.fromkeys(keys, b"x"))

    async def listed() -> list[list[str]]:
        store = mirror_setup.place.open()
        try:
            found = []
            for number in range(16):
                span = KeyRange(number, 16)
                found.append([info.key async for page in pages(store, span) for info in page])
            return found
        finally:
            await store.aclose()

    parts = asyncio.run(listed())
    assert sorted(key for part in parts for key in part) == sorted(keys)
    assert all(parts)


def test_a_listing_in_parts_finds_the_same_problems(
    mirror_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.catalog.objects._WHOLE_UP_TO", 0)
    stocked(mirror_setup, 40)
    mirror_setup.remove(*(key_of(photo(n)) for n in range(5)))
    mirror_setup.put({key_of(photo(7)): flipped(photo(7))})
    mirror_setup.put({"objects/3f/readme.txt": b"whose is this?"})
    report = verify(mirror_setup.settings(), FULL)
    assert counts(report) == (40, 5, 1, 1)
    assert report.read == 35


def interrupted_after(count: int) -> Advances:
    """Send this process a Ctrl-C once this many objects were read."""
    read = 0

    def advance(_objects: int, nbytes: int) -> None:
        nonlocal read
        read += nbytes > 0
        if nbytes and read == count:
            os.kill(os.getpid(), signal.SIGINT)

    return Advances(advance)


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "in parts"])
def test_an_interrupted_pass_is_resumed_where_it_stopped(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    monkeypatch.setattr("mirror.upkeep.verify._BATCH", 4)
    if parts:
        monkeypatch.setattr("mirror.catalog.objects._WHOLE_UP_TO", 0)
    stocked(folder_setup, 40)
    damaged = {key_of(photo(n)) for n in range(0, 40, 6)}
    for n in range(0, 40, 6):
        folder_setup.put({key_of(photo(n)): flipped(photo(n))})
    settings = folder_setup.settings(concurrency=2)

    first = verify(settings, FULL, progress=interrupted_after(18))
    assert (first.interrupted, first.exit_status) == (True, 130)
    assert 0 < first.mismatched < len(damaged)
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(500, 503)})
    folder_setup.sync()  # the mirror lives on meanwhile

    second = verify(settings, FULL)
    assert second.resumed >= 16
    assert second.read - second.resumed <= 43 - 16
    assert {p.key for p in second.examples if p.kind == "mismatched"} == damaged
    assert (second.mismatched, second.exit_status) == (len(damaged), 3)
    assert verify(settings, FULL).resumed == 0


def test_a_pass_can_be_restarted(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.upkeep.verify._BATCH", 4)
    stocked(folder_setup, 20)
    verify(folder_setup.settings(concurrency=2), FULL, progress=interrupted_after(10))
    report = verify(folder_setup.settings(), replace(FULL, restart=True))
    assert (report.resumed, report.read) == (0, 20)


def test_a_damaged_log_is_replaced(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    verify(folder_setup.settings())
    (file,) = (folder_setup.state / "upkeep").glob("*/*/ledger.sqlite")
    file.write_bytes(b"no database at all" * 100)
    assert counts(verify(folder_setup.settings(), FULL)) == (12, 0, 0, 0)


def test_objects_superseded_during_the_pass_are_no_problem(
    folder_setup: MirrorSetup,
) -> None:
    stocked(folder_setup)
    key = key_of(photo(5))
    done = False

    def meanwhile(_objects: int, nbytes: int) -> None:
        nonlocal done
        if nbytes == 0 and not done:  # the listing: then the URL gets another content, and gc comes
            done = True
            fill(folder_setup.cache, {url_of(5): photo(555)})
            thread = threading.Thread(target=folder_setup.sync)
            thread.start()
            thread.join()
            local_path = Path(folder_setup.place.url.path) / key
            local_path.unlink()

    report = verify(folder_setup.settings(), FULL, progress=Advances(meanwhile))
    assert (report.missing, report.exit_status) == (0, 0)


def test_an_unreadable_object_is_neither_good_nor_damaged(
    make_place: MakePlace, tmp_path: Path
) -> None:
    place = make_place("moto-obstore")
    assert place.server is not None
    mirror_setup = MirrorSetup(place, tmp_path)
    stocked(mirror_setup, 12)
    unlucky = key_of(photo(4))

    def rule(request: Request) -> Fault | None:
        return SLOW_DOWN if request.path.endswith(unlucky) else None

    with FaultProxy(place.server.endpoint, rule) as proxy:
        settings = place.settings(
            bucket={"endpoint": proxy.endpoint}, state={"dir": str(tmp_path / "state")}
        )
        report = verify(settings, replace(FULL, retry=SOON))
        assert (report.failed, report.missing, report.mismatched) == (1, 0, 0)
        assert report.exit_status == 3
        proxy.rule = None
        assert verify(settings).exit_status == 0  # what was not read is read by the next


def test_an_object_unreadable_once_and_then_damaged_is_repaired(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(folder_setup)
    damaged, gone, refused = (key_of(photo(n)) for n in (4, 5, 6))
    real, unlucky = FileStore.get, {damaged, gone, refused}

    async def get(self: FileStore, key: str) -> bytes:
        if key in unlucky:
            raise Unreachable(f"GET {key}: reset")
        return await real(self, key)

    monkeypatch.setattr(FileStore, "get", get)
    full = replace(FULL, retry=SOON)
    assert verify(folder_setup.settings(), full).failed == 3
    unlucky.remove(damaged)
    folder_setup.put({damaged: flipped(photo(4))})
    report = verify(folder_setup.settings(), VerifyOptions(retry=SOON))
    assert (report.mismatched, report.failed) == (1, 2)
    unlucky.add(damaged)  # known to be damaged, whether or not it can be read again
    report = verify(folder_setup.settings(), VerifyOptions(retry=SOON))
    assert (report.mismatched, report.failed) == (1, 2)
    (problem,) = (p for p in report.examples if p.kind == "mismatched")
    assert (problem.key, problem.reason, problem.rows) == (
        damaged, "its bytes are not what the catalog says", 1,
    )  # fmt: skip
    unlucky.clear()
    mended = repair(folder_setup.settings(), RepairOptions(verify=VerifyOptions(retry=SOON)))
    assert (mended.repaired, mended.exit_status) == (1, 0)
    assert folder_setup.objects()[damaged] == photo(4)
    assert verify(folder_setup.settings(), FULL).exit_status == 0


def test_a_store_that_stops_answering_ends_the_run_with_its_findings(
    make_place: MakePlace, tmp_path: Path
) -> None:
    place = make_place("moto-obstore")
    assert place.server is not None
    mirror_setup = MirrorSetup(place, tmp_path)
    stocked(mirror_setup, 60)
    mirror_setup.remove(key_of(photo(0)))

    def rule(request: Request) -> Fault | None:
        return SLOW_DOWN if "/objects/" in request.path and request.operation == "get" else None

    with FaultProxy(place.server.endpoint, rule) as proxy:
        settings = place.settings(
            bucket={"endpoint": proxy.endpoint},
            state={"dir": str(tmp_path / "state")},
            sync={"concurrency": 4},
        )
        report = verify(settings, replace(FULL, retry=replace(SOON, attempts=2)))
    assert report.error is not None
    assert (report.exit_status, report.missing) == (1, 1)
    assert proxy.counts["get"] < 60


@pytest.mark.chaos("verify")
def test_after_a_kill_anywhere_the_next_run_finds_all_problems(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup, 30)
    folder_setup.remove(key_of(photo(0)))
    folder_setup.put({key_of(photo(n)): flipped(photo(n)) for n in range(5, 30, 5)})
    words = [
        "--json",
        "verify",
        "--full",
        f"--bucket={folder_setup.place.url}",
        f"--state={folder_setup.state}",
    ]
    modules = "mirror.upkeep.verify,mirror.upkeep.damage_log,mirror.system.database"

    killing = Killing(modules, words, status=3)
    for story in killing.rounds(kills(4), random.Random(SEED)):
        shutil.rmtree(folder_setup.state / "upkeep")
        killing.run()
        report = verify(folder_setup.settings(), FULL)
        assert counts(report) == (30, 1, 5, 0), story


@pytest.mark.chaos("together")
def test_a_sync_at_the_same_moment_makes_no_object_look_missing(
    make_place: MakePlace, tmp_path: Path
) -> None:
    """Verifications and collections run one after the other while a sync runs."""
    count("together verifications and collections during a sync")
    place = make_place("seaweedfs-obstore")
    assert place.server is not None
    mirror_setup = MirrorSetup(place, tmp_path)
    stocked(mirror_setup)
    fill(mirror_setup.cache, {url_of(n): photo(n) for n in range(100, 400)})
    often = {"concurrency": 4, "commit_rows": 20, "commit_seconds": 0.3}
    looks = 0
    with started(
        place, place.server.endpoint, mirror_setup.cache, mirror_setup.state, often
    ) as command:
        while command.process.poll() is None:
            report = verify(mirror_setup.settings())
            assert (report.missing, report.mismatched, report.error) == (0, 0, None)
            assert (report.old_orphans, report.exit_status) == (0, 0)
            collected = gc(mirror_setup.settings())
            assert (collected.planned, collected.error) == (0, None)
            looks += 1
        assert command.status() == 0
    assert looks
    report = verify(mirror_setup.settings(), FULL)
    assert (counts(report), report.read) == ((312, 0, 0, 0), 312)


def test_a_listing_that_breaks_off_solves_no_problem(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(folder_setup)
    folder_setup.remove(key_of(photo(4)))
    assert verify(folder_setup.settings()).missing == 1

    async def fail(self: FileStore, prefix: str, after: str) -> list[ObjectInfo]:
        raise Unreachable(f"LIST {prefix}: reset")

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "list_page", fail)
        report = verify(folder_setup.settings(), VerifyOptions(retry=SOON))
        assert (report.missing, report.exit_status) == (1, 1)
    folder_setup.put({key_of(photo(4)): photo(4)})
    report = verify(folder_setup.settings())
    assert (report.missing, report.exit_status) == (0, 0)


def test_an_image_that_was_replaced_recently_is_not_due_for_gc(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    pass_days(folder_setup, 60)
    fill(folder_setup.cache, {url_of(5): photo(50)})
    folder_setup.sync()
    report = verify(folder_setup.settings())
    assert (report.orphaned, report.old_orphans, report.exit_status) == (1, 0, 0)
    pass_days(folder_setup, 8)
    report = verify(folder_setup.settings())
    assert (report.orphaned, report.old_orphans, report.exit_status) == (1, 1, 3)
