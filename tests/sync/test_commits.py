"""What becomes of a run whose commits fail, stall, or meet what nobody foresaw."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mirror.errors import CatalogError
from mirror.layout import url_md5
from mirror.sync.commit import Committer
from mirror.sync.run import sync
from tests.photos import fill, photo, url_of
from tests.workshop import Workshop, aged, key_of


def test_an_object_that_cannot_be_adopted_is_one_file_that_failed(local: Workshop) -> None:
    """Whose gc.json it is nobody knows: an old object may be about to be removed."""
    fill(local.cache, {url_of(n): photo(n) for n in range(30)})
    local.put({key_of(photo(7)): photo(7), "gc.json": b"of a later version"})
    aged(Path(local.place.url.path), days=3)
    report = sync(local.settings(concurrency=2))
    assert (report.error, report.exit_status) == (None, 3)
    assert (report.uploaded, report.failed) == (29, 1)
    assert "gc.json is not understood" in report.failures[0][1]
    assert set(local.rows()) == {url_md5(url_of(n)) for n in range(30) if n != 7}


def test_an_index_that_finds_no_room_ends_the_run_in_a_sentence_and_all_is_committed(
    local: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh, asked = Committer.refresh, 0

    async def fails(self: Committer) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        await refresh(self)

    fill(local.cache, {url_of(n): photo(n) for n in range(100)})
    with monkeypatch.context() as patch:
        patch.setattr("mirror.sync.transfer._REFRESH_AFTER", 10)
        patch.setattr(Committer, "refresh", fails)
        report = sync(local.settings(commit_rows=10))
    assert isinstance(report.error, CatalogError)
    assert "No space left on device" in str(report.error)
    assert "make room" in str(report.error)
    assert len(local.rows()) == len(local.objects()) == report.uploaded
    assert local.sync().uploaded == 100 - report.uploaded


@pytest.mark.timeout(60)
def test_what_nobody_foresaw_in_a_commit_ends_the_run_and_is_raised(
    local: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: Committer) -> None:
        raise ZeroDivisionError

    fill(local.cache, {url_of(n): photo(n) for n in range(300)})
    with monkeypatch.context() as patch:
        patch.setattr("mirror.sync.transfer.BATCH_FILES", 2)
        patch.setattr("mirror.sync.transfer._WINDOW_BYTES", 1)
        patch.setattr(Committer, "commit", fails)
        with pytest.raises(ZeroDivisionError):
            sync(local.settings(commit_rows=5, concurrency=1))
    assert 5 <= len(local.objects()) < 300, "it went on as if nothing had been"
    assert local.sync().failed == 0
    assert set(local.rows()) == {url_md5(url_of(n)) for n in range(300)}
