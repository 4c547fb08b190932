"""A collection that stalls (the machine sleeps, or is stopped by Ctrl-Z) loses its lease.

It must notice that when it goes on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mirror.catalog.gc_lease import read_lease
from mirror.errors import StoreError
from mirror.layout import GC_LEASE_KEY
from mirror.store.base import ObjectInfo
from mirror.store.engines.file import FileStore
from mirror.upkeep.gc import gc
from tests.support.mirror_setup import Workshop, key_of
from tests.support.photos import fill, photo, url_of
from tests.support.progress_hooks import Advances
from tests.upkeep.aged_mirrors import is_whole, keys, objects, orphan, pass_days, stocked

TWO_HOURS = 7_200.0


class Stalled:
    """The clock of a machine that can stall."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def stand_still(self) -> None:
        """Let two hours pass, on this machine and in the mirror."""
        self.seconds += TWO_HOURS
        pass_days(self.shop, TWO_HOURS / 86_400)


@pytest.fixture
def clock(local: Workshop, monkeypatch: pytest.MonkeyPatch) -> Stalled:
    # Ageing a file must not change its ETag.
    monkeypatch.setattr(
        "mirror.store.engines.file._etag", lambda stat: f"{stat.st_ino}-{stat.st_size}"
    )
    return Stalled(local)


@pytest.fixture
def elsewhere(local: Workshop, tmp_path: Path) -> Workshop:
    """Another machine, which has the content of an orphan that gc would delete."""
    stocked(local)
    orphan(local, 70, 30)
    pass_days(local, 8)
    (tmp_path / "elsewhere").mkdir()
    shop = Workshop(local.place, tmp_path / "elsewhere")
    fill(shop.cache, {url_of(170): photo(70)})
    return shop


def adopt(shop: Workshop) -> None:
    synced = shop.sync()
    assert (synced.deduplicated, synced.failed) == (1, 0)


def after_head(
    monkeypatch: pytest.MonkeyPatch,
    what: Callable[[FileStore, str], Coroutine[Any, Any, None]],
) -> None:
    real = FileStore.head

    async def head(self: FileStore, key: str) -> ObjectInfo:
        info = await real(self, key)
        await what(self, key)
        return info

    monkeypatch.setattr(FileStore, "head", head)


@pytest.mark.parametrize("why", ["stopped", "asleep"])
def test_an_object_adopted_between_the_check_and_the_deletion_stays(
    local: Workshop,
    elsewhere: Workshop,
    clock: Stalled,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    stalls = [1]

    async def look(_: FileStore, key: str) -> None:
        if key == key_of(photo(70)) and stalls:
            stalls.pop()
            clock.stand_still()
            await asyncio.to_thread(adopt, elsewhere)

    after_head(monkeypatch, look)
    if why == "stopped":
        report = gc(local.settings(), clock=clock)
    else:  # time.monotonic does not count the hours of a sleep
        real = time.clock_gettime
        monkeypatch.setattr(time, "clock_gettime", lambda number: real(number) + clock())
        report = gc(local.settings())
    assert not stalls
    assert report.deleted == 0
    assert isinstance(report.error, StoreError)
    assert "stood still" in str(report.error)
    is_whole(elsewhere)
    again = gc(local.settings())
    assert (again.planned, again.error) == (0, None)
    is_whole(elsewhere)


def test_the_age_of_a_lease_counts_from_its_sending(
    local: Workshop, elsewhere: Workshop, clock: Stalled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer comes two hours late. Then gc checks the object, and another machine adopts it."""
    words, looks = 0, 0

    async def look(store: FileStore, key: str) -> None:
        nonlocal words, looks
        if key == GC_LEASE_KEY and not looks:
            lease = await read_lease(store)
            if lease is not None and lease.state == "deleting":
                words += 1
                clock.stand_still()
        elif key == key_of(photo(70)) and not looks:
            looks += 1
            await asyncio.to_thread(adopt, elsewhere)

    after_head(monkeypatch, look)
    report = gc(local.settings(), clock=clock)
    assert words
    assert looks
    assert report.deleted == 0
    assert "stood still" in str(report.error)
    is_whole(elsewhere)


def test_a_collection_that_stalls_before_a_check_renews_its_lease_and_goes_on(
    local: Workshop, elsewhere: Workshop, clock: Stalled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.upkeep.gc._BATCH", 1)
    for number in (71, 72):
        orphan(local, number, 30)
    first, *rest = sorted(keys(70, 71, 72))
    adopted, left = rest
    (number,) = (n for n in (70, 71, 72) if key_of(photo(n)) == adopted)
    (elsewhere.cache / next(elsewhere.cache.iterdir()).name).unlink()
    fill(elsewhere.cache, {url_of(170): photo(number)})

    def meanwhile(_objects: int, _bytes: int) -> None:
        if not clock():
            clock.stand_still()
            thread = threading.Thread(target=adopt, args=[elsewhere])
            thread.start()
            thread.join()

    report = gc(local.settings(), clock=clock, progress=Advances(meanwhile))
    assert (report.deleted, report.spared, report.error) == (2, 1, None)
    assert objects(local) & {first, adopted, left} == {adopted}
    is_whole(elsewhere)
