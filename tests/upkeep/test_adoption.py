"""A writer that adopts an unreferenced object makes it young, or leaves it while gc deletes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from mirror.catalog.gc_lease import GcLease
from mirror.catalog.upload import upload_body
from mirror.errors import AccessDenied, Busy, StoreError
from mirror.layout import GC_LEASE_KEY
from mirror.store.base import Headers, IfMatch
from mirror.store.engines.file import FileStore
from mirror.upkeep.gc import gc
from tests.support.mirror_setup import MirrorSetup, aged, key_of
from tests.support.photos import fill, photo, url_of
from tests.upkeep.aged_mirrors import (
    DAY,
    DELETING,
    IDLE,
    adopting,
    age_of,
    on,
    orphan,
    root_of,
    says,
    stocked,
)


@pytest.mark.parametrize(
    ("days", "is_renewed"), [(0.0, False), (0.9, False), (1.1, True), (100.0, True), (-1.0, True)]
)
def test_adopting_an_old_object_makes_it_young(
    folder_setup: MirrorSetup, days: float, is_renewed: bool
) -> None:
    stocked(folder_setup)
    path = orphan(folder_setup, 70, days)
    inode = path.stat().st_ino
    on(folder_setup, adopting(folder_setup, 70))
    assert (path.stat().st_ino != inode) == is_renewed
    if is_renewed:
        assert age_of(path) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("write", "adopted"),
    [
        (says(IDLE), True),
        (says(GcLease(run="1", state="planning", holder="x")), True),
        (says(DELETING), False),
        (says(DELETING, timedelta(minutes=50)), False),
        (says(DELETING, timedelta(minutes=70)), True),
    ],
    ids=["idle", "planning", "deleting", "deleting for long", "dead"],
)
def test_an_old_object_is_not_adopted_while_gc_deletes(
    folder_setup: MirrorSetup, write: Callable[[MirrorSetup], None], adopted: bool
) -> None:
    stocked(folder_setup)
    orphan(folder_setup, 70, 30)
    write(folder_setup)
    if adopted:
        on(folder_setup, adopting(folder_setup, 70))
    else:
        with pytest.raises(StoreError, match="next run"):
            on(folder_setup, adopting(folder_setup, 70))
        orphan(folder_setup, 71, 0)
        on(folder_setup, adopting(folder_setup, 71))  # a young one needs no care


def test_a_collection_that_began_and_ended_meanwhile_is_noticed(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    orphan(folder_setup, 70, 30)
    says(IDLE)(folder_setup)
    on(folder_setup, adopting(folder_setup, 70))
    orphan(folder_setup, 71, 30)

    class Meanwhile(FileStore):
        async def put(self, key: str, body: bytes, mode: Any, headers: Headers) -> str:
            if isinstance(mode, IfMatch):
                (root_of(folder_setup) / GC_LEASE_KEY).write_bytes(
                    msgspec.json.encode(GcLease(run="2", state="idle", holder="x"))
                )
            return await super().put(key, body, mode, headers)

    with pytest.raises(StoreError, match="next run"):
        asyncio.run(adopting(folder_setup, 71)(Meanwhile(folder_setup.place.url)))


class Locked(FileStore):
    """A bucket whose lock forbids overwriting objects."""

    async def put(self, key: str, body: bytes, mode: Any, headers: Headers) -> str:
        if isinstance(mode, IfMatch):
            raise AccessDenied(f"PUT {key}: locked")
        return await super().put(key, body, mode, headers)


@pytest.mark.parametrize("write", [says(IDLE), says(DELETING)], ids=["idle", "deleting"])
def test_an_old_object_that_may_not_be_overwritten_is_not_adopted(
    folder_setup: MirrorSetup, write: Callable[[MirrorSetup], None]
) -> None:
    """The key of gc may delete it all the same, where a policy and no lock forbids the overwrite."""
    stocked(folder_setup)
    orphan(folder_setup, 70, 30)
    write(folder_setup)
    with pytest.raises(StoreError, match=r"s3:PutObject without .* next run") as caught:
        asyncio.run(adopting(folder_setup, 70)(Locked(folder_setup.place.url)))
    assert not isinstance(caught.value, AccessDenied)
    orphan(folder_setup, 71, 0)
    asyncio.run(adopting(folder_setup, 71)(Locked(folder_setup.place.url)))


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in parts"])
def test_an_old_damaged_object_is_not_replaced_while_gc_deletes(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch, in_parts: bool
) -> None:
    if in_parts:
        monkeypatch.setattr("mirror.cache.prepare.WHOLE_UP_TO", 1 << 10)
    stocked(folder_setup)
    path = orphan(folder_setup, 70, 30)
    path.write_bytes(photo(70)[:-40])
    aged(path.parent, days=30)
    says(DELETING)(folder_setup)
    fill(folder_setup.cache, {url_of(170): photo(70)})
    report = folder_setup.sync()
    assert (report.uploaded, report.failed, report.exit_status) == (0, 1, 3)
    assert "next run" in report.failures[0][1]
    says(IDLE)(folder_setup)
    assert folder_setup.sync().failed == 0


@pytest.mark.parametrize(("days_slow", "is_adopted"), [(0.0, False), (2.5, True)])
def test_the_age_of_an_object_goes_by_the_clock_of_the_store(
    folder_setup: MirrorSetup, days_slow: float, is_adopted: bool
) -> None:
    stocked(folder_setup)
    orphan(folder_setup, 70, 3)
    says(DELETING)(folder_setup)

    class Elsewhere(FileStore):
        async def now(self) -> datetime:
            return await super().now() - timedelta(days=days_slow)

    with nullcontext() if is_adopted else pytest.raises(StoreError, match="next run"):
        asyncio.run(adopting(folder_setup, 70)(Elsewhere(folder_setup.place.url)))


def test_a_folder_is_asked_for_the_time_and_not_this_machine(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(folder_setup)
    before = sorted(root_of(folder_setup).iterdir())
    true = time.time()
    monkeypatch.setattr(time, "time", lambda: true - 2.5 * DAY)
    now = asyncio.run(FileStore(folder_setup.place.url).now())
    assert abs(now.timestamp() - true) < 60
    assert sorted(root_of(folder_setup).iterdir()) == before


def test_a_fast_clock_takes_over_no_live_lease(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(folder_setup)
    says(DELETING)(folder_setup)
    report = gc(folder_setup.settings(), now=lambda: time.time() + DAY)
    assert isinstance(report.error, Busy)


def test_damage_under_a_bucket_lock_fails_one_file_only(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    folder_setup.put({key_of(photo(70)): photo(71)})

    async def story() -> None:
        await upload_body(Locked(folder_setup.place.url), key_of(photo(70)), photo(70), Headers())

    with pytest.raises(StoreError, match="bucket's lock") as caught:
        asyncio.run(story())
    assert not isinstance(caught.value, AccessDenied)


def test_an_object_that_vanishes_during_the_check_is_uploaded(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    path = orphan(folder_setup, 70, 30)

    class Vanishing(FileStore):
        async def head(self, key: str) -> Any:
            if key == key_of(photo(70)):
                path.unlink(missing_ok=True)
            return await super().head(key)

    async def story() -> None:
        store = Vanishing(folder_setup.place.url)
        assert await upload_body(store, key_of(photo(70)), photo(70), Headers())

    asyncio.run(story())
    assert path.read_bytes() == photo(70)
