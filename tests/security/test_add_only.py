"""A writer's key that may add and not overwrite is enough for a sync.

No test server knows the condition s3:if-none-match. So a proxy refuses what the policy of terraform/s3
denies to the writer.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mirror.sync.run_sync import SyncOptions, sync
from mirror.sync.sync_report import SyncReport
from tests.conftest import MakePlace
from tests.support.fault_proxy import ACCESS_DENIED, Fault, FaultProxy, Request, Rule
from tests.support.mirror_setup import MirrorSetup, key_of
from tests.support.photos import fill, photo, url_of

# As resources of a policy, in any bucket below any prefix.
ADD_ONLY = ("*/objects/*", "*/catalog/_delta_log/*.json")
_PATTERN = re.compile("|".join(re.escape(text).replace(r"\*", ".*") for text in ADD_ONLY))


def add_only(request: Request) -> Fault | None:
    """Refuse a creation without If-None-Match. A part, or the beginning of parts, is no creation."""
    query = parse_qs(urlsplit(request.target).query, keep_blank_values=True)
    creates = (request.method == "PUT" and "partNumber" not in query) or (
        request.method == "POST" and "uploadId" in query
    )
    denied = creates and _PATTERN.fullmatch(request.path) and "if-none-match" not in request.headers
    return ACCESS_DENIED if denied else None


@pytest.fixture
def setup(make_place: MakePlace, tmp_path: Path) -> MirrorSetup:
    return MirrorSetup(make_place("moto-obstore"), tmp_path)


def synced(setup: MirrorSetup, rule: Rule | None = add_only) -> SyncReport:
    assert setup.place.server is not None
    with FaultProxy(setup.place.server.endpoint, rule) as proxy:
        return sync(setup.through(proxy), SyncOptions())


def test_a_writer_that_may_only_add_can_sync(
    setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compaction of the catalog, whose checkpoint is replaced by design."""
    monkeypatch.setattr("mirror.catalog.delta_table.COMPACT_AFTER", 1)
    for number in range(2):
        fill(setup.cache, {url_of(number): photo(number)})
        report = synced(setup)
        assert (report.error, report.failures, report.uploaded) == (None, [], 1)
    assert setup.objects() == {key_of(photo(n)): photo(n) for n in range(2)}
    assert len(setup.rows()) == 2


def test_one_object_that_may_not_be_overwritten_fails_one_file(setup: MirrorSetup) -> None:
    fill(setup.cache, {url_of(n): photo(n) for n in range(3)})
    setup.put({key_of(photo(1)): b"damaged"})
    report = synced(setup)
    assert (report.error, report.uploaded, report.failed, report.exit_status) == (None, 2, 1, 3)
    assert "without a condition on s3:if-none-match" in str(report.failures)


def test_a_file_that_is_sent_in_parts_needs_the_right_to_overwrite(
    setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of an upload in parts has no condition, because not every server knows one."""
    small, large = photo(1), photo(2) + bytes(1 << 18)
    monkeypatch.setattr("mirror.cache.prepare.WHOLE_UP_TO", 1 << 17)
    fill(setup.cache, {url_of(1): small, url_of(2): large})
    report = synced(setup)
    assert (report.error, report.uploaded, report.failed, report.exit_status) == (None, 1, 1, 3)
    assert "is sent in parts" in str(report.failures)
    assert synced(setup, None).uploaded == 1, "with the right"
