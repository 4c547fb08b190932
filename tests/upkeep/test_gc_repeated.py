"""A DELETE that failed is repeated only after another look at each object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mirror.errors import AccessDenied, StoreError, Throttled, Unreachable
from mirror.store.engines.file import FileStore
from mirror.upkeep.gc import GcOptions, gc
from tests.support.mirror_setup import SOON, MirrorSetup, key_of
from tests.support.photos import fill, photo, url_of
from tests.upkeep.aged_mirrors import is_whole, keys, objects, orphan, pass_days, stocked

REPEATING = GcOptions(retry=SOON)


@pytest.fixture
def elsewhere(folder_setup: MirrorSetup, tmp_path: Path) -> MirrorSetup:
    """Another machine, which has the content of the orphan 70 that gc would delete."""
    stocked(folder_setup)
    orphan(folder_setup, 70, 30)
    pass_days(folder_setup, 8)
    (tmp_path / "elsewhere").mkdir()
    mirror_setup = MirrorSetup(folder_setup.place, tmp_path / "elsewhere")
    fill(mirror_setup.cache, {url_of(170): photo(70)})
    return mirror_setup


class Deletes:
    """Replaces `FileStore.delete`; keeps the keys of each attempt.

    Args:
        error: the answer to the first attempt.
        works: whether the first attempt deletes anything.
        meanwhile: called before that answer.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        error: StoreError,
        *,
        works: bool,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self.attempts: list[list[str]] = []
        real = FileStore.delete

        async def delete(
            store: FileStore, keys: Sequence[str], etags: Sequence[str] = ()
        ) -> dict[str, StoreError]:
            self.attempts.append(list(keys))
            if len(self.attempts) > 1:
                return await real(store, keys, etags)
            if works:
                await real(store, keys, etags)
            await asyncio.to_thread(meanwhile)
            raise error

        monkeypatch.setattr(FileStore, "delete", delete)


def test_an_object_that_was_written_after_a_lost_answer_stays(
    folder_setup: MirrorSetup, elsewhere: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DELETE works, its answer is lost, and another machine uploads the same content."""

    def upload() -> None:
        report = elsewhere.sync()
        assert (report.uploaded, report.failed) == (1, 0)

    deletes = Deletes(monkeypatch, Throttled("500 after the work"), works=True, meanwhile=upload)
    report = gc(folder_setup.settings(), REPEATING)
    assert (report.deleted, report.spared, report.error) == (0, 1, None)
    assert len(deletes.attempts) == 1
    is_whole(elsewhere)


def test_an_object_that_is_gone_after_a_lost_answer_counts_as_deleted(
    folder_setup: MirrorSetup, elsewhere: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    deletes = Deletes(monkeypatch, Unreachable("reset"), works=True)
    report = gc(folder_setup.settings(), REPEATING)
    assert (report.deleted, report.spared, report.error) == (1, 0, None)
    assert report.bytes == len(photo(70))
    assert len(deletes.attempts) == 1


def test_an_object_that_was_adopted_in_the_pause_before_a_retry_stays(
    folder_setup: MirrorSetup, elsewhere: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine sleeps for three hours in the pause, so the lease has lapsed."""
    monkeypatch.setattr(
        "mirror.store.engines.file._etag", lambda stat: f"{stat.st_ino}-{stat.st_size}"
    )
    seconds = [0.0]

    def sleep() -> None:
        seconds[0] += 3 * 3600
        pass_days(folder_setup, 0.125)
        report = elsewhere.sync()
        assert (report.deduplicated, report.failed) == (1, 0)

    deletes = Deletes(monkeypatch, Throttled("503 SlowDown"), works=False, meanwhile=sleep)
    report = gc(folder_setup.settings(), REPEATING, clock=lambda: seconds[0])
    assert (report.deleted, report.spared, report.error) == (0, 1, None)
    assert len(deletes.attempts) == 1
    is_whole(elsewhere)


def test_only_the_objects_that_failed_are_deleted_again(
    folder_setup: MirrorSetup, elsewhere: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (71, 72):
        orphan(folder_setup, number, 30)
    slow = key_of(photo(71))
    attempts: list[list[str]] = []
    real = FileStore.delete

    async def delete(
        store: FileStore, keys: Sequence[str], etags: Sequence[str] = ()
    ) -> dict[str, StoreError]:
        attempts.append(list(keys))
        if len(attempts) > 2:
            return await real(store, keys, etags)
        others = [at for at, key in enumerate(keys) if key != slow]
        await real(store, [keys[at] for at in others], [etags[at] for at in others])
        return {slow: Throttled("InternalError")}

    monkeypatch.setattr(FileStore, "delete", delete)
    report = gc(folder_setup.settings(), REPEATING)
    assert (report.deleted, report.error) == (3, None)
    assert attempts == [sorted(keys(70, 71, 72)), [slow], [slow]]


@pytest.mark.parametrize(
    ("error", "attempts"), [(Throttled("SlowDown"), SOON.attempts), (AccessDenied("locked"), 1)]
)
def test_an_object_that_cannot_be_deleted_ends_the_run_and_the_others_count(
    folder_setup: MirrorSetup,
    elsewhere: MirrorSetup,
    monkeypatch: pytest.MonkeyPatch,
    error: StoreError,
    attempts: int,
) -> None:
    orphan(folder_setup, 71, 30)
    held, met = key_of(photo(71)), 0
    real = FileStore.delete

    async def delete(
        store: FileStore, keys: Sequence[str], etags: Sequence[str] = ()
    ) -> dict[str, StoreError]:
        nonlocal met
        met += 1
        await real(store, [key for key in keys if key != held])
        return {held: error}

    monkeypatch.setattr(FileStore, "delete", delete)
    report = gc(folder_setup.settings(), REPEATING)
    assert (report.deleted, met) == (1, attempts)
    assert isinstance(report.error, type(error))
    assert objects(folder_setup) == keys(*range(6), 71)
