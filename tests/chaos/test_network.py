"""Every command over a network that refuses, breaks, stalls, cuts short and repeats, with either engine.

A seed chooses the faults, and one request in eight has one. The result is the same as without faults.
The tests of each command cover faults that do not pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mirror import Fetcher
from mirror.config.settings import Settings
from mirror.sync.rebuild import rebuild_state
from mirror.sync.run_sync import SyncOptions, sync
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.gc import GcOptions, gc
from mirror.upkeep.pull import PullOptions, pull
from mirror.upkeep.repair import RepairOptions, repair
from mirror.upkeep.verify import VerifyOptions, verify
from tests.conftest import MakePlace
from tests.servers.process import eventually
from tests.support import invariants
from tests.support.chaos_tally import seeds
from tests.support.fault_proxy import (
    INTERNAL_ERROR,
    SLOW_DOWN,
    TOO_MANY_REQUESTS,
    Delay,
    DropWrite,
    Fault,
    FaultProxy,
    Repeat,
    Request,
    Reset,
    ResetAfter,
    Stall,
    Truncate,
    seeded,
)
from tests.support.fetch_setup import HURRY, fetching
from tests.support.mirror_setup import SOON, Workshop, key_of
from tests.support.photos import blank, fill, flipped, name_of, photo, url_of

FAULTS: list[Fault] = [
    TOO_MANY_REQUESTS,
    SLOW_DOWN,
    INTERNAL_ERROR,
    replace(INTERNAL_ERROR, after=True),
    Reset(),
    ResetAfter(),
    Repeat(),
    Stall(0.02),
    Truncate(20),
    Delay(0.02),
]
FULL = VerifyOptions(share=1.0, retry=SOON)
IMAGES = {url_of(n): photo(n) for n in range(30)} | {url_of(100 + n): photo(n) for n in range(5)}
FLAGGED = {url_of(200): blank()}


def stocked(shop: Workshop) -> None:
    """A mirror of these images, made without faults."""
    fill(shop.cache, {**IMAGES, **FLAGGED})
    assert shop.sync().exit_status == 0


def syncs(shop: Workshop, settings: Settings) -> None:
    fill(shop.cache, {**IMAGES, **FLAGGED})
    report = sync(settings, SyncOptions(retry=SOON))
    assert (report.error, report.failures, report.exit_status) == (None, [], 0)
    assert sync(settings, SyncOptions(retry=SOON)).unchanged == len(IMAGES) + len(FLAGGED)


def verifies(shop: Workshop, settings: Settings) -> None:
    stocked(shop)
    shop.remove(key_of(photo(0)))
    shop.put({key_of(photo(3)): flipped(photo(3))})
    report = verify(settings, FULL)
    assert (report.error, report.failed) == (None, 0)
    assert (report.checked, report.missing, report.mismatched) == (30, 1, 1)
    shop.put({key_of(photo(n)): photo(n) for n in (0, 3)})


def repairs(shop: Workshop, settings: Settings) -> None:
    stocked(shop)
    shop.remove(*(key_of(photo(n)) for n in range(6)))
    shop.put({key_of(photo(n)): flipped(photo(n)) for n in range(20, 25)})
    report = repair(settings, RepairOptions(verify=FULL))
    assert (report.error, report.failed, report.lost) == (None, 0, 0)
    assert report.repaired + report.healed == 11


def pulls(shop: Workshop, settings: Settings) -> None:
    stocked(shop)
    shop.cache.rename(shop.cache.with_name("lost"))
    report = pull(settings, PullOptions(retry=SOON))
    assert (report.error, report.failed, report.pulled) == (None, 0, len(IMAGES))
    there = {path.name: path.read_bytes() for path in shop.cache.iterdir()}
    assert there == {name_of(url): body for url, body in IMAGES.items()}


def collects(shop: Workshop, settings: Settings) -> None:
    stocked(shop)
    shop.put({key_of(photo(n)): photo(n) for n in range(70, 90)})

    def gone() -> bool:
        # The store's clock counts seconds, so an object of this second is not old yet.
        report = gc(settings, GcOptions(limit=ChangeLimit(share=1.0), retry=SOON))
        assert report.error is None, report.error
        return len(shop.objects()) == 30

    assert eventually(gone, within=30)


def rebuilds(shop: Workshop, settings: Settings) -> None:
    stocked(shop)
    report = rebuild_state(settings, retry=SOON)
    assert (report.error, report.failed, report.known) == (None, 0, 36)


def fetches(shop: Workshop, settings: Settings) -> None:
    stocked(shop)
    cached = fetching(settings, cache_dir=str(shop.cache.parent / "fetch"))
    for _ in range(2):
        with Fetcher(cached, policy=HURRY) as fetch:
            assert dict(fetch.many(IMAGES)) == IMAGES


COMMANDS: dict[str, Callable[[Workshop, Settings], None]] = {
    "sync": syncs,
    "verify": verifies,
    "repair": repairs,
    "pull": pulls,
    "gc": collects,
    "rebuild-state": rebuilds,
    "fetch": fetches,
}


@pytest.mark.chaos("network")
@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("engine", ["obstore", "aioboto3"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_network_costs_time_and_nothing_else(
    command: str, engine: str, seed: int, make_place: MakePlace, tmp_path: Path
) -> None:
    shop = Workshop(make_place(f"moto-{engine}"), tmp_path)
    assert shop.place.server is not None
    rule = seeded(0.12, FAULTS, seed)
    with FaultProxy(shop.place.server.endpoint, rule) as proxy:
        settings = shop.through(proxy, sync={"commit_rows": 10}, gc={"grace_days": 0.0})
        COMMANDS[command](shop, settings)
    invariants.complete(invariants.read(shop.place), IMAGES, FLAGGED)


@pytest.mark.chaos("network")
@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("engine", ["obstore", "aioboto3"])
def test_dropped_writes_are_found_and_repaired(
    engine: str, seed: int, make_place: MakePlace, tmp_path: Path
) -> None:
    shop = Workshop(make_place(f"moto-{engine}"), tmp_path)
    assert shop.place.server is not None
    fill(shop.cache, IMAGES)
    drops = seeded(0.3, [DropWrite()], seed)
    dropped: list[str] = []

    def rule(request: Request) -> Fault | None:
        if request.operation != "put" or "/objects/" not in request.path:
            return None
        fault = drops(request)
        dropped.extend([request.path] if fault else [])
        return fault

    with FaultProxy(shop.place.server.endpoint, rule) as proxy:
        assert sync(shop.through(proxy), SyncOptions(retry=SOON)).exit_status == 0
    assert dropped
    assert verify(shop.settings()).missing == len(dropped)
    report = repair(shop.settings(), RepairOptions(limit=ChangeLimit(share=1.0)))
    assert (report.repaired, report.lost) == (len(dropped), 0)
    invariants.complete(invariants.read(shop.place), IMAGES)
