"""What is removed, what never is, and that no sync at the same moment loses anything by it."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mirror.catalog.reading import Location
from mirror.config import Settings
from mirror.errors import AccessDenied, Busy, StoreError, UsageError
from mirror.layout import SWEEP_KEY
from mirror.store.base import Headers, IfMatch, Store
from mirror.store.file import FileStore
from mirror.store.sweep import HeldSweep, Sweep
from mirror.store.upload import upload_body
from mirror.sync.run import Observer, sync
from mirror.upkeep.gc import GcOptions, GcReport, gc
from mirror.upkeep.limit import Limit
from mirror.upkeep.verify import VerifyOptions, verify
from tests.chaos.killing import Killing
from tests.chaos.tally import SEED, TIMES, count, kills
from tests.conftest import MakePlace
from tests.photos import blank, fill, photo, url_of
from tests.proxy import SLOW_DOWN, Fault, FaultProxy, Request, ResetAfter, Rule
from tests.servers import READER, WRITER
from tests.servers.process import eventually
from tests.workshop import PLACES, SOON, Workshop, aged, key_of

DAY = 86_400.0
DRY = GcOptions(dry_run=True)


def root_of(shop: Workshop) -> Path:
    return Path(shop.place.url.path)


def pass_days(shop: Workshop, days: float) -> None:
    """Everything in a mirror's folder becomes so much older."""
    aged(root_of(shop), days)


def objects(shop: Workshop) -> set[str]:
    return set(shop.objects())


def files(shop: Workshop) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root_of(shop).rglob("*")
        if path.is_file()
    }


def stocked(shop: Workshop, count: int = 6) -> None:
    fill(shop.cache, {url_of(n): photo(n) for n in range(count)})
    assert shop.sync().exit_status == 0


def keys(*numbers: int) -> set[str]:
    return {key_of(photo(number)) for number in numbers}


def is_whole(shop: Workshop) -> None:
    report = verify(shop.settings(), VerifyOptions(share=1.0))
    assert (report.missing, report.mismatched, report.error) == (0, 0, None)


def test_only_what_no_row_names_and_is_old_goes(local: Workshop) -> None:
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


def test_what_a_row_named_lately_stays_however_old_it_is(local: Workshop) -> None:
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


def test_what_was_named_for_a_moment_only_stays_as_long(local: Workshop) -> None:
    """Named by a row within the grace period, and by none before it nor any more."""
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


def test_a_log_that_was_tidied_away_protects_all_that_rows_ever_named(local: Workshop) -> None:
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
    report = gc(local.settings(), GcOptions(limit=Limit.parse(limit, "--max-delete")))
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
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Limit.parse(text, "--max-delete")


def test_strangers_are_never_touched(local: Workshop) -> None:
    stocked(local)
    local.put({"objects/ab/readme.txt": b"mine", "objects/x": b"mine", "elsewhere/y": b"mine"})
    pass_days(local, 100)
    report = gc(local.settings())
    assert (report.strangers, report.planned, report.deleted) == (2, 0, 0)
    assert len(files(local)) > 9


def test_objects_of_flagged_rows_go_only_when_asked_for(local: Workshop) -> None:
    fill(local.cache, {url_of(n): photo(n) for n in range(6)})
    fill(local.cache, {url_of(100): blank()})
    local.sync(include_flagged=True)
    pass_days(local, 8)
    assert (gc(local.settings()).flagged, len(objects(local))) == (1, 7)
    report = gc(local.settings(), GcOptions(flagged=True))
    assert (report.deleted, len(objects(local))) == (1, 6)
    is_whole(local)


def test_replaced_data_files_of_the_catalog_go_and_it_stays_readable(
    local: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.catalog.table.COMPACT_AFTER", 3)
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


def test_what_killed_writers_left_in_a_folder_goes(local: Workshop) -> None:
    stocked(local)
    left = root_of(local) / "objects" / "ab" / ".mirror-x7f3"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half an image")
    assert gc(local.settings()).uploads == 0
    pass_days(local, 8)
    assert gc(local.settings()).uploads == 1
    assert not left.exists()


def at_once(shop: Workshop) -> Settings:
    """No grace: for places whose clock is not ours to set."""
    return shop.place.settings(
        cache={"dir": str(shop.cache)}, state={"dir": str(shop.state)}, gc={"grace_days": 0.0}
    )


@pytest.mark.parametrize("name", PLACES)
def test_in_every_place_the_same_goes(name: str, make_place: MakePlace, tmp_path: Path) -> None:
    shop = Workshop(make_place(name), tmp_path)
    stocked(shop)
    shop.put({key_of(photo(70)): photo(70), "objects/ab/readme.txt": b"mine"})
    reports: list[GcReport] = []

    def gone() -> bool:
        # The store's clock counts seconds: what was written in this one is not old yet.
        reports.append(gc(at_once(shop)))
        return reports[-1].deleted == 1

    assert eventually(gone, within=30)
    report = reports[-1]
    assert (report.error, report.strangers) == (None, 1)
    assert "grace_days" in report.warnings[0]
    assert objects(shop) == keys(0, 1, 2, 3, 4, 5) | {"objects/ab/readme.txt"}
    is_whole(shop)


@pytest.mark.parametrize("name", ["seaweedfs-obstore", "seaweedfs-aioboto3", "miniflare-obstore"])
def test_uploads_that_were_never_completed_are_ended(
    name: str, make_place: MakePlace, tmp_path: Path
) -> None:
    from mirror.store.control import S3Access

    place = make_place(name)
    shop = Workshop(place, tmp_path)
    stocked(shop)
    client = S3Access(place.url, place.settings().bucket).client()
    key = f"{place.url.path}/{key_of(photo(70))}"
    begun = client.create_multipart_upload(Bucket=place.url.bucket, Key=key)
    client.upload_part(
        Bucket=place.url.bucket, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x"
    )
    assert gc(shop.settings()).uploads in (0, None)

    def ended() -> bool:
        report = gc(at_once(shop))
        assert report.error is None
        return report.uploads in (1, None)

    assert eventually(ended, within=30)
    report = gc(at_once(shop))
    if report.uploads is None:
        assert name.startswith("miniflare")  # it has no such request
    else:
        assert report.uploads == 0


def once(path: str, method: str, fault: Fault) -> Rule:
    """The fault meets the first request of a method for a path that ends so."""
    met: list[Request] = []

    def rule(request: Request) -> Fault | None:
        if request.method != method or not request.path.endswith(path):
            return None
        met.append(request)
        return fault if len(met) == 1 else None

    return rule


@pytest.mark.parametrize("nth", ["its first", "another"])
def test_its_first_word_that_was_written_and_not_answered_is_its_own(
    nth: str, make_place: MakePlace, tmp_path: Path
) -> None:
    shop = Workshop(make_place("moto-obstore"), tmp_path)
    stocked(shop)
    assert shop.place.server is not None
    if nth == "another":
        assert gc(shop.settings()).error is None
    with FaultProxy(shop.place.server.endpoint, once(SWEEP_KEY, "PUT", ResetAfter())) as proxy:
        report = gc(shop.through(proxy), GcOptions(retry=SOON))
    assert report.error is None


def test_a_store_that_is_busy_is_asked_again_for_uploads_that_were_never_completed(
    make_place: MakePlace, tmp_path: Path
) -> None:
    shop = Workshop(make_place("moto-obstore"), tmp_path)
    stocked(shop)
    assert shop.place.server is not None
    met = 0

    def rule(request: Request) -> Fault | None:
        nonlocal met
        asks = "uploads" in request.target
        met += asks
        return SLOW_DOWN if asks and met < 3 else None

    with FaultProxy(shop.place.server.endpoint, rule) as proxy:
        report = gc(shop.through(proxy), GcOptions(retry=SOON))
    assert (report.error, report.uploads, met) == (None, 0, 3)


def test_a_key_that_may_not_delete_is_told_so(
    make_place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Workshop(make_place("seaweedfs-obstore"), tmp_path)
    stocked(shop)
    shop.put({key_of(photo(70)): photo(70)})
    for identity in (WRITER, READER):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", identity.secret_key)

        def refused() -> bool:
            report = gc(at_once(shop))
            return isinstance(report.error, AccessDenied)

        assert eventually(refused, within=30)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", shop.place.server.access_key)  # type: ignore[union-attr]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", shop.place.server.secret_key)  # type: ignore[union-attr]
    assert len(objects(shop)) == 7


# ---- clocks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("years", [-50, -1, 1, 50])
def test_a_wrong_clock_of_this_machine_deletes_nothing_that_is_young(
    local: Workshop, years: int
) -> None:
    stocked(local)
    local.put({key_of(photo(70)): photo(70)})
    pass_days(local, 8)
    local.put({key_of(photo(71)): photo(71)})
    report = gc(local.settings(), now=lambda: time.time() + years * 365 * DAY)
    assert (report.deleted, report.young) == (1, 1)
    assert objects(local) == keys(0, 1, 2, 3, 4, 5, 71)


# ---- together with others -------------------------------------------------------------------


def on(shop: Workshop, story: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        store = shop.place.open()
        try:
            await story(store)
        finally:
            await store.aclose()

    asyncio.run(run())


def orphan(shop: Workshop, number: int, days: float) -> Path:
    shop.put({key_of(photo(number)): photo(number)})
    path = root_of(shop) / key_of(photo(number))
    written = path.stat().st_mtime - days * DAY
    os.utime(path, (written, written))
    return path


def age_of(path: Path) -> timedelta:
    return datetime.now(UTC) - datetime.fromtimestamp(path.stat().st_mtime, UTC)


def adopting(shop: Workshop, number: int) -> Callable[[Store], Coroutine[Any, Any, None]]:
    async def story(store: Store) -> None:
        assert not await upload_body(store, key_of(photo(number)), photo(number), Headers())

    return story


def says(sweep: Sweep, age: timedelta = timedelta(0)) -> Callable[[Workshop], None]:
    def write(shop: Workshop) -> None:
        shop.put({SWEEP_KEY: msgspec.json.encode(sweep)})
        written = time.time() - age.total_seconds()
        os.utime(root_of(shop) / SWEEP_KEY, (written, written))

    return write


DELETING = Sweep(run="1", state="deleting", holder="elsewhere")
IDLE = Sweep(run="1", state="idle", holder="elsewhere")


@pytest.mark.parametrize(
    ("days", "is_renewed"), [(0.0, False), (0.9, False), (1.1, True), (100.0, True), (-1.0, True)]
)
def test_who_adopts_an_old_object_makes_it_young(
    local: Workshop, days: float, is_renewed: bool
) -> None:
    stocked(local)
    path = orphan(local, 70, days)
    inode = path.stat().st_ino
    on(local, adopting(local, 70))
    assert (path.stat().st_ino != inode) == is_renewed
    if is_renewed:
        assert age_of(path) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("write", "adopted"),
    [
        (says(IDLE), True),
        (says(Sweep(run="1", state="planning", holder="x")), True),
        (says(DELETING), False),
        (says(DELETING, timedelta(minutes=50)), False),
        (says(DELETING, timedelta(minutes=70)), True),
    ],
    ids=["idle", "planning", "deleting", "deleting for long", "dead"],
)
def test_an_old_object_is_not_adopted_while_objects_are_removed(
    local: Workshop, write: Callable[[Workshop], None], adopted: bool
) -> None:
    stocked(local)
    orphan(local, 70, 30)
    write(local)
    if adopted:
        on(local, adopting(local, 70))
    else:
        with pytest.raises(StoreError, match="next run"):
            on(local, adopting(local, 70))
        orphan(local, 71, 0)
        on(local, adopting(local, 71))  # a young one needs no care


def test_a_sweep_that_began_and_ended_meanwhile_is_noticed(local: Workshop) -> None:
    stocked(local)
    orphan(local, 70, 30)
    says(IDLE)(local)
    on(local, adopting(local, 70))
    orphan(local, 71, 30)

    class Meanwhile(FileStore):
        async def put(self, key: str, body: bytes, mode: Any, headers: Headers) -> str:
            if isinstance(mode, IfMatch):
                (root_of(local) / SWEEP_KEY).write_bytes(
                    msgspec.json.encode(Sweep(run="2", state="idle", holder="x"))
                )
            return await super().put(key, body, mode, headers)

    with pytest.raises(StoreError, match="next run"):
        asyncio.run(adopting(local, 71)(Meanwhile(local.place.url)))


class Locked(FileStore):
    """A bucket whose lock lets nobody overwrite what is there."""

    async def put(self, key: str, body: bytes, mode: Any, headers: Headers) -> str:
        if isinstance(mode, IfMatch):
            raise AccessDenied(f"PUT {key}: locked")
        return await super().put(key, body, mode, headers)


def test_an_old_object_under_a_lock_is_adopted_as_it_is(local: Workshop) -> None:
    stocked(local)
    path = orphan(local, 70, 30)
    inode = path.stat().st_ino
    asyncio.run(adopting(local, 70)(Locked(local.place.url)))
    assert path.stat().st_ino == inode
    says(DELETING)(local)
    with pytest.raises(StoreError, match="next run"):
        asyncio.run(adopting(local, 70)(Locked(local.place.url)))


def test_damage_under_a_lock_is_the_failure_of_one_file(local: Workshop) -> None:
    stocked(local)
    local.put({key_of(photo(70)): photo(71)})

    async def story() -> None:
        await upload_body(Locked(local.place.url), key_of(photo(70)), photo(70), Headers())

    with pytest.raises(StoreError, match="a lock") as caught:
        asyncio.run(story())
    assert not isinstance(caught.value, AccessDenied)


def test_an_object_that_vanishes_while_it_is_looked_at_is_uploaded(local: Workshop) -> None:
    stocked(local)
    path = orphan(local, 70, 30)

    class Vanishing(FileStore):
        async def head(self, key: str) -> Any:
            if key == key_of(photo(70)):
                path.unlink(missing_ok=True)
            return await super().head(key)

    async def story() -> None:
        store = Vanishing(local.place.url)
        assert await upload_body(store, key_of(photo(70)), photo(70), Headers())

    asyncio.run(story())
    assert path.read_bytes() == photo(70)


def test_a_sync_that_adopts_what_is_planned_to_go_saves_it(local: Workshop) -> None:
    stocked(local)
    orphan(local, 70, 30)
    pass_days(local, 8)
    fill(local.cache, {url_of(70): photo(70)})

    def meanwhile(report: GcReport) -> None:
        assert report.planned == 1
        thread = threading.Thread(target=lambda: reports.append(local.sync()))
        thread.start()
        thread.join()

    reports: list[Any] = []
    report = gc(local.settings(), planned=meanwhile)
    assert (report.spared, report.deleted) == (1, 0)
    assert (reports[0].deduplicated, reports[0].failed) == (1, 0)
    is_whole(local)


def test_a_sync_that_comes_between_the_look_and_the_deletion_names_nothing_that_goes(
    local: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(local)
    orphan(local, 70, 30)
    pass_days(local, 8)
    fill(local.cache, {url_of(70): photo(70), url_of(71): photo(71)})
    reports: list[Any] = []
    real = FileStore.delete

    async def delete(self: FileStore, keys: Any) -> None:
        if not reports:
            await asyncio.to_thread(lambda: reports.append(local.sync()))
        await real(self, keys)

    monkeypatch.setattr(FileStore, "delete", delete)
    report = gc(local.settings())
    assert report.deleted == 1
    (synced,) = reports
    assert (synced.uploaded, synced.failed, synced.exit_status) == (1, 1, 3)
    assert "next run" in synced.failures[0][1]
    is_whole(local)
    assert local.sync().uploaded == 1
    is_whole(local)


def test_a_row_by_what_the_catalog_said_before_names_nothing_that_goes(
    local: Workshop, tmp_path: Path
) -> None:
    """A sync began when a URL still had the content, found it known, and commits after gc."""
    stocked(local)
    pass_days(local, 100)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Workshop(local.place, tmp_path / "elsewhere")
    fill(elsewhere.cache, {url_of(900): photo(0)})
    reports: list[Any] = []

    def all_else() -> None:
        fill(local.cache, {url_of(0): photo(50)})
        local.sync()
        reports.append(gc(local.settings()))

    class Between(Observer):
        """Another machine's run: between its decision and its commit all else happens."""

        def done(self, entry: object, outcome: str) -> None:
            assert outcome == "duplicate"
            thread = threading.Thread(target=all_else)
            thread.start()
            thread.join()

    synced = sync(elsewhere.settings(), observer=Between())
    assert (synced.deduplicated, synced.exit_status) == (1, 0)
    assert reports[0].named_recently == 1
    is_whole(local)


def test_collections_of_two_machines_do_not_meet(local: Workshop, tmp_path: Path) -> None:
    stocked(local)
    orphan(local, 70, 30)
    pass_days(local, 8)
    other = local.place.settings(state={"dir": str(tmp_path / "other")})
    told: list[BaseException] = []

    def meanwhile(_: GcReport) -> None:
        def second() -> None:
            try:
                told.append(gc(other).error)  # type: ignore[arg-type]
            except Busy as error:
                told.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    assert gc(local.settings(), planned=meanwhile).deleted == 1
    assert isinstance(told[0], Busy)
    assert gc(other).error is None


def test_a_collection_that_died_elsewhere_is_taken_over_after_an_hour(local: Workshop) -> None:
    stocked(local)
    orphan(local, 70, 30)
    pass_days(local, 8)
    says(DELETING, timedelta(minutes=50))(local)
    assert isinstance(gc(local.settings()).error, Busy)
    says(DELETING, timedelta(minutes=61))(local)
    assert gc(local.settings()).deleted == 1


def test_one_that_was_taken_over_deletes_nothing_more(local: Workshop) -> None:
    stocked(local)
    orphan(local, 70, 30)
    pass_days(local, 8)

    def meanwhile(_: GcReport) -> None:
        async def take_over(store: Store) -> None:
            later = datetime.now(UTC) + timedelta(hours=2)
            await HeldSweep.begin(store, "another", "elsewhere", later)

        thread = threading.Thread(target=lambda: on(local, take_over))
        thread.start()
        thread.join()

    report = gc(local.settings(), planned=meanwhile)
    assert isinstance(report.error, Busy)
    assert report.deleted == 0
    assert key_of(photo(70)) in objects(local)


def test_a_machine_that_slept_for_days_does_not_commit_what_it_knew(local: Workshop) -> None:
    stocked(local)
    fill(local.cache, {url_of(n): photo(n) for n in range(100, 103)})
    times = iter([time.time()] * 4)

    def now() -> float:
        return next(times, time.time() + 3 * DAY)

    report = sync(local.settings(), now=now)
    assert report.exit_status == 1
    assert "asleep" in str(report.error)
    assert len(local.rows()) == 6
    assert local.sync().deduplicated == 3
    is_whole(local)


@pytest.mark.chaos("together")
def test_syncs_and_collections_at_once_lose_nothing(local: Workshop, tmp_path: Path) -> None:
    """Two caches that change at random, one of them after a collection has begun, time passing."""
    count("together two syncs and a collection, while days pass")
    chance = random.Random(SEED)
    machines = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        machines.append(Workshop(local.place, tmp_path / name))
    deleted = 0
    for round_ in range(6 * TIMES):
        story = f"CHAOS_SEED={SEED}, round {round_}"
        for machine in machines:
            for _ in range(4):
                number = chance.randrange(12)
                fill(machine.cache, {url_of(number): photo(chance.randrange(12))})
        threads = [threading.Thread(target=machine.sync) for machine in machines]
        reports: list[GcReport] = []
        if round_:
            collect = partial(lambda into: into.append(gc(local.settings())), reports)
            threads.append(threading.Thread(target=collect))
        chance.shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for report in reports:
            assert report.error is None, story
            deleted += report.deleted
        checked = verify(local.settings(), VerifyOptions(share=1.0))
        assert (checked.missing, checked.mismatched) == (0, 0), story
        pass_days(local, chance.choice([0, 3, 8, 20]))
    assert deleted


@pytest.mark.chaos("gc")
def test_killed_anywhere_it_is_completed_by_the_next_and_nothing_is_lost(
    local: Workshop,
) -> None:
    stocked(local)
    words = ["--json", "gc", f"--bucket={local.place.url}", f"--state={local.state}"]
    words += ["--max-delete=all"]
    modules = "mirror.upkeep.gc,mirror.store.sweep"

    def orphans() -> None:
        for number in range(70, 78):
            orphan(local, number, 30)

    orphans()
    killing = Killing(modules, words, after=1 / 4)
    assert objects(local) == keys(*range(6))
    for story in killing.rounds(kills(4), random.Random(SEED)):
        orphans()
        killing.run()
        assert keys(*range(6)) <= objects(local), story
        report = gc(local.settings(), GcOptions(limit=Limit.parse("all", "--max-delete")))
        assert report.error is None, story  # at once: it was this machine's own that died
        assert objects(local) == keys(*range(6)), story
        is_whole(local)
