"""The requests that the catalog costs, counted by a proxy between it and the server.

deltalake sends its requests itself, so a run's report does not count them. These tests check the
constants of `mirror.catalog.delta_table`, on which estimates and documents rely.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from mirror.catalog.delta_table import COMMIT_LISTS, COMMIT_PUTS, Catalog
from mirror.catalog.index import Index
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.layout import CATALOG
from mirror.store import open_store
from mirror.store.object_store_options import delta_options
from mirror.store.s3_access import S3Access
from mirror.sync.run_sync import SyncOptions, sync
from tests.conftest import MakePlace, Place
from tests.support.fault_proxy import FaultProxy
from tests.support.photos import fill, photo, url_of

MOST_OF_A_NO_CHANGE_RUN = 3
# The new log entry, twice.
APPEND_GETS = 2


class Counted(NamedTuple):
    place: Place
    proxy: FaultProxy


@pytest.fixture
def counted(make_place: MakePlace) -> Iterator[Counted]:
    place = make_place("moto-obstore")
    assert place.server is not None
    with FaultProxy(place.server.endpoint) as proxy:
        yield Counted(place, proxy)


def catalog_of(counted: Counted) -> Catalog:
    """A catalog that has not been opened yet."""
    place, proxy = counted
    settings = place.settings(bucket={"endpoint": proxy.endpoint})
    access = S3Access(place.url, settings.bucket)
    store = open_store(place.url, access, settings.bucket, concurrency=4)
    return Catalog(store, f"{place.url}/{CATALOG}", partial(delta_options, access))


def row(number: int) -> Row:
    key = number.to_bytes(16, "big")
    sha256 = hashlib.sha256(key).digest()
    return Row(key, key, sha256, 100, "jpeg", 10, 10, "ok", "", UNKNOWN_SOURCE, 1_000_000 + number)


def spent(proxy: FaultProxy) -> dict[str, int]:
    """Requests since the last call."""
    counts = dict(proxy.counts)
    proxy.forget()
    return counts


@pytest.mark.parametrize("only_after", [False, True], ids=["wherever", "after a version"])
@pytest.mark.parametrize("commits_before", [1, 21])
def test_an_append_costs_the_same_however_many_came_before(
    counted: Counted, commits_before: int, only_after: bool
) -> None:
    catalog = catalog_of(counted)
    for number in range(commits_before):
        catalog.append([row(number)])
    counted.proxy.forget()

    if only_after:
        version = catalog.append_after(commits_before, [row(1000)])
    else:
        version = catalog.append([row(1000)])

    assert version == commits_before + 1  # version 0 is the empty table
    assert spent(counted.proxy) == {"put": COMMIT_PUTS, "list": COMMIT_LISTS, "get": APPEND_GETS}


def test_the_first_append_of_a_run_also_pays_for_opening_the_table(counted: Counted) -> None:
    catalog_of(counted).append([row(1)])
    counted.proxy.forget()

    catalog_of(counted).append([row(2)])

    # Opening reads the checkpoint's marker, a listing, and each log entry twice.
    assert spent(counted.proxy) == {
        "put": COMMIT_PUTS,
        "list": COMMIT_LISTS + 1,
        "get": APPEND_GETS + 1 + 2 * 2,
    }


def test_a_refresh_of_the_index_reads_new_files_only(counted: Counted) -> None:
    catalog = catalog_of(counted)
    for number in range(5):
        catalog.append([row(number)])
    index = asyncio.run(catalog.refresh(Index.empty()))
    counted.proxy.forget()

    catalog.append([row(5)])
    spent(counted.proxy)
    newer = asyncio.run(catalog.refresh(index))

    assert len(newer) == 6
    # A listing of the log, the checkpoint's marker, and the one new file.
    assert spent(counted.proxy) == {"list": 1, "get": 2}


@pytest.mark.parametrize("commit_rows", [2, 20_000])
def test_the_estimate_of_a_dry_run_is_an_upper_bound(
    counted: Counted, tmp_path: Path, commit_rows: int
) -> None:
    place, proxy = counted
    fill(tmp_path / "cache", {url_of(number): photo(number) for number in range(10)})
    settings = place.settings(
        cache={"dir": str(tmp_path / "cache")},
        state={"dir": str(tmp_path / "state")},
        bucket={"endpoint": proxy.endpoint},
        sync={"commit_rows": commit_rows},
    )
    estimate = sync(settings, SyncOptions(dry_run=True)).estimate
    assert estimate is not None
    assert not proxy.requests  # the plan is made without asking anyone

    assert sync(settings).exit_status == 0

    counts = spent(proxy)
    assert counts["put"] <= estimate.puts
    assert sum(counts.values()) <= estimate.requests


def test_a_sync_without_changes_sends_almost_nothing(counted: Counted, tmp_path: Path) -> None:
    place, proxy = counted
    fill(tmp_path / "cache", {url_of(number): photo(number) for number in range(5)})
    settings = place.settings(
        cache={"dir": str(tmp_path / "cache")},
        state={"dir": str(tmp_path / "state")},
        bucket={"endpoint": proxy.endpoint},
    )
    assert sync(settings).uploaded == 5
    assert spent(proxy)["put"] > 5

    report = sync(settings)

    assert (report.unchanged, report.exit_status) == (5, 0)
    counts = spent(proxy)
    assert set(counts) == {"list"}
    assert counts["list"] <= MOST_OF_A_NO_CHANGE_RUN
