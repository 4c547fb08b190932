"""A sync through a network that refuses, breaks and corrupts: slower perhaps, but correct."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mirror.errors import AccessDenied, BadCredentials, StoreError
from mirror.store.s3_access import Credentials, S3Access
from mirror.sync.sync_report import SyncReport
from tests.conftest import MakePlace
from tests.support import invariants
from tests.support.fault_proxy import (
    ACCESS_DENIED,
    INTERNAL_ERROR,
    SLOW_DOWN,
    Fault,
    Request,
    Reset,
    ResetAfter,
    Rule,
    Truncate,
)
from tests.support.photos import photo
from tests.support.sync_over_proxy import (
    CONCURRENCY,
    ProxiedSetup,
    commits,
    proxied_setup_at,
    writes_object,
)


@pytest.fixture(params=["moto-obstore", "moto-aioboto3"])
def proxied_setup(
    request: pytest.FixtureRequest, make_place: MakePlace, tmp_path: Path
) -> Iterator[ProxiedSetup]:
    with proxied_setup_at(make_place(request.param), tmp_path) as proxied_setup:
        yield proxied_setup


def went_well(report: SyncReport, story: str = "") -> None:
    assert report.error is None, f"{report.error} {story}"
    assert (report.failures, report.exit_status) == ([], 0), story


def once_each(applies: Callable[[Request], bool], fault: Fault) -> Rule:
    """Apply the fault to the first request for each path."""
    met: Counter[str] = Counter()

    def rule(request: Request) -> Fault | None:
        if not applies(request):
            return None
        met[request.path] += 1
        return fault if met[request.path] == 1 else None

    return rule


def at(nth: int, applies: Callable[[Request], bool], fault: Fault) -> Rule:
    """Apply the fault to the `nth` matching request only."""
    met = 0

    def rule(request: Request) -> Fault | None:
        nonlocal met
        met += applies(request)
        return fault if met == nth and applies(request) else None

    return rule


def after(count: int, applies: Callable[[Request], bool], fault: Fault) -> Rule:
    """Apply the fault to every matching request except the first `count`."""
    met = 0

    def rule(request: Request) -> Fault | None:
        nonlocal met
        met += applies(request)
        return fault if met > count and applies(request) else None

    return rule


@pytest.mark.chaos("network")
def test_an_upload_whose_answer_is_lost_leaves_one_object_and_one_row(
    proxied_setup: ProxiedSetup,
) -> None:
    proxied_setup.fill_cache(10)

    report = proxied_setup.sync(once_each(writes_object, ResetAfter()))

    went_well(report)
    assert report.uploaded + report.deduplicated == 12
    puts = Counter(path for method, path in proxied_setup.proxy.requests if "/objects/" in path)
    assert set(puts.values()) == {4}  # written, refused, looked at, read back
    proxied_setup.is_complete()


@pytest.mark.chaos("network")
@pytest.mark.parametrize("proxied_setup", ["moto-obstore"], indirect=True)
@pytest.mark.parametrize("nth", [1, 2], ids=["creating the table", "committing rows"])
@pytest.mark.parametrize(
    "fault",
    [Reset(), ResetAfter(), INTERNAL_ERROR, replace(INTERNAL_ERROR, after=True)],
    ids=["broken", "written and broken", "refused", "written and refused"],
)
def test_a_commit_that_fails_is_retried(
    proxied_setup: ProxiedSetup, fault: Fault, nth: int
) -> None:
    proxied_setup.fill_cache(30)

    report = proxied_setup.sync(at(nth, commits, fault), commit_rows=15)

    went_well(report)
    rows = invariants.read(proxied_setup.place).rows
    # The same row may be there twice, which means the same as once; there is no other row.
    assert len({tuple(row.values()) for row in rows}) == 38
    proxied_setup.is_complete()
    assert proxied_setup.sync().unchanged == 38


def test_a_store_that_stops_answering_ends_the_run_and_keeps_what_it_acknowledged(
    proxied_setup: ProxiedSetup,
) -> None:
    proxied_setup.fill_cache(80)

    report = proxied_setup.sync(after(10, writes_object, SLOW_DOWN))

    assert report.exit_status == 1
    assert report.error is not None
    assert "SlowDown" in str(report.error)
    assert "run again" in str(report.error)
    assert "\n" not in str(report.error)
    assert report.uploaded == 10
    # The run gave up before every file had all of its attempts.
    assert report.failed < 80
    assert len(proxied_setup.check().latest) == 10 + report.deduplicated + report.flagged_total

    report = proxied_setup.sync()
    assert (report.exit_status, report.uploaded) == (0, 70)
    proxied_setup.is_complete()


@pytest.mark.parametrize("proxied_setup", ["moto-obstore"], indirect=True)
def test_files_that_the_store_refuses_are_listed_and_the_rest_is_done(
    proxied_setup: ProxiedSetup,
) -> None:
    proxied_setup.fill_cache(40)
    unlucky = tuple(
        key
        for key in (invariants.key_of(photo(number)) for number in range(40))
        if key < "objects/2"
    )

    def rule(request: Request) -> Fault | None:
        return SLOW_DOWN if writes_object(request) and request.path.endswith(unlucky) else None

    report = proxied_setup.sync(rule)

    assert (report.exit_status, report.error) == (3, None)
    assert 0 < len(unlucky) <= report.failed == len(report.failures)
    assert report.uploaded == 40 - len(unlucky)
    assert all("slow down" in reason for _, reason in report.failures)

    assert proxied_setup.sync().uploaded == len(unlucky)
    proxied_setup.is_complete()


def test_a_key_that_may_not_write_ends_the_run_at_its_first_request(
    proxied_setup: ProxiedSetup,
) -> None:
    proxied_setup.fill_cache(80)

    with pytest.raises(AccessDenied):
        proxied_setup.sync(after(0, lambda request: request.operation == "put", ACCESS_DENIED))

    assert proxied_setup.proxy.counts["put"] == 1
    assert proxied_setup.sync().exit_status == 0
    proxied_setup.is_complete()


def test_a_key_that_may_not_write_objects_ends_the_run_early(proxied_setup: ProxiedSetup) -> None:
    proxied_setup.fill_cache(120)

    report = proxied_setup.sync(after(0, writes_object, ACCESS_DENIED))

    assert isinstance(report.error, AccessDenied)
    assert report.exit_status == 1
    assert report.uploaded == 0
    refused = sum(
        "/objects/" in path for method, path in proxied_setup.proxy.requests if method == "PUT"
    )
    assert refused <= 2 * CONCURRENCY

    assert proxied_setup.sync().exit_status == 0
    proxied_setup.is_complete()


@pytest.mark.parametrize("proxied_setup", ["moto-obstore"], indirect=True)
def test_a_catalog_that_may_not_be_written_ends_the_run_and_costs_no_second_upload(
    proxied_setup: ProxiedSetup,
) -> None:
    proxied_setup.fill_cache(60)

    # The key may create the empty table, but not commit rows.
    report = proxied_setup.sync(after(1, commits, ACCESS_DENIED), commit_rows=10)

    assert isinstance(report.error, AccessDenied)
    assert "403" in str(report.error)  # what a person can act on
    assert report.exit_status == 1
    stranded = invariants.read(proxied_setup.place)
    assert (len(stranded.objects), stranded.rows) == (report.uploaded, [])

    again = proxied_setup.sync()
    assert again.exit_status == 0
    assert again.uploaded == 60 - report.uploaded
    proxied_setup.is_complete()


@pytest.mark.parametrize("proxied_setup", ["moto-obstore"], indirect=True)
@pytest.mark.parametrize("fault", [Reset(), ACCESS_DENIED], ids=["broken", "refused"])
def test_a_failed_compaction_does_not_fail_the_run(
    proxied_setup: ProxiedSetup, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr("mirror.catalog.delta_table.COMPACT_AFTER", 2)
    proxied_setup.fill_cache(60)
    # Appends write snappy, compactions zstd.
    compacts = after(0, lambda request: request.path.endswith(".zstd.parquet"), fault)

    report = proxied_setup.sync(compacts, commit_rows=5)

    assert any(path.endswith(".zstd.parquet") for _, path in proxied_setup.proxy.requests)
    went_well(report)
    assert report.catalog_commits >= 2
    proxied_setup.is_complete()


def reads_catalog(request: Request) -> bool:
    return request.operation == "get" and "/catalog/" in request.path


@pytest.mark.parametrize("proxied_setup", ["moto-obstore"], indirect=True)
@pytest.mark.parametrize("fault", [ACCESS_DENIED, SLOW_DOWN], ids=["refused", "busy"])
def test_a_catalog_that_becomes_unreadable_ends_the_run_and_all_is_committed(
    proxied_setup: ProxiedSetup, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr("mirror.sync.transfer._REFRESH_AFTER", 10)
    proxied_setup.fill_cache(200)

    refused = after(0, lambda it: reads_catalog(it) and it.path.endswith(".parquet"), fault)
    report = proxied_setup.sync(refused, commit_rows=10)

    assert isinstance(report.error, StoreError)
    assert report.exit_status == 1
    mirrored = proxied_setup.check()
    assert len(mirrored.objects) == report.uploaded
    done = report.uploaded + report.deduplicated + report.flagged_total
    assert len(mirrored.latest) == done
    assert proxied_setup.sync().uploaded == 200 - report.uploaded
    proxied_setup.is_complete()


@pytest.mark.parametrize("proxied_setup", ["moto-obstore"], indirect=True)
@pytest.mark.parametrize("asked", [30, 100])
def test_credentials_that_expire_end_the_run_at_the_next_requests(
    proxied_setup: ProxiedSetup, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    proxied_setup.fill_cache(200)
    given, times = S3Access.credentials, 0

    def expiring(self: S3Access) -> Credentials:
        nonlocal times
        times += 1
        if times > asked:
            raise BadCredentials("The AWS credential chain failed: the token has expired")
        return given(self)

    with monkeypatch.context() as patch:
        patch.setattr(S3Access, "credentials", expiring)
        patch.setattr("mirror.store.engines.obstore._CREDENTIAL_LIFE", timedelta(seconds=-1))
        report = proxied_setup.sync(commit_rows=10)

    assert isinstance(report.error, BadCredentials)
    assert "the token has expired" in str(report.error)
    assert "External" not in str(report.error)  # the words of a library
    assert report.exit_status == 78
    assert 0 < report.uploaded < asked
    assert report.failed <= 2 * CONCURRENCY
    proxied_setup.check()
    assert proxied_setup.sync().uploaded == 200 - report.uploaded
    proxied_setup.is_complete()


@pytest.mark.chaos("network")
@pytest.mark.parametrize("proxied_setup", ["moto-obstore"], indirect=True)
def test_a_truncated_catalog_file_is_read_again(proxied_setup: ProxiedSetup) -> None:
    proxied_setup.fill_cache(20)
    assert proxied_setup.sync(commit_rows=5).exit_status == 0
    shutil.rmtree(proxied_setup.folder / "state")
    proxied_setup.proxy.forget()

    report = proxied_setup.sync(once_each(reads_catalog, Truncate(20)))

    went_well(report)
    assert (report.uploaded, report.deduplicated) == (0, 24)
    assert proxied_setup.proxy.counts["put"] == 1  # of format.json, to see that it is refused
    proxied_setup.is_complete()
