"""A rebuilt state knows exactly the files that a sync would skip."""

from __future__ import annotations

import os
import random
import shutil
import signal
from contextlib import closing
from pathlib import Path

import pytest

from mirror.content.digest import digest_of
from mirror.errors import Busy, CacheError
from mirror.layout import object_key
from mirror.run.lock import locked
from mirror.sync.rebuild import RebuildReport, rebuild_state
from mirror.sync.state import State
from mirror.upkeep.repair import repair
from tests.support.chaos_tally import SEED, kills
from tests.support.killing import Killing
from tests.support.mirror_setup import Workshop, key_of
from tests.support.photos import blank, fill, name_of, photo, url_of
from tests.support.progress_hooks import Advances


def stocked(shop: Workshop, count: int = 12) -> None:
    fill(shop.cache, {url_of(n): photo(n) for n in range(count)})
    fill(shop.cache, {url_of(1000): photo(0), url_of(2000): blank()})
    assert shop.sync().exit_status == 0


def counts(report: RebuildReport) -> tuple[int, int, int, int]:
    return report.checked, report.read, report.known, report.unknown


def test_a_lost_state_is_rebuilt_and_a_sync_finds_nothing_to_do(shop: Workshop) -> None:
    stocked(shop)
    shutil.rmtree(shop.state)
    report = rebuild_state(shop.settings())
    assert (counts(report), report.exit_status) == ((14, 14, 14, 0), 0)
    assert report.requests["put"] == report.requests["delete"] == report.requests["head"] == 0
    after = shop.sync()
    assert (after.unchanged, after.new, after.catalog_commits) == (14, 0, 0)


def change_unseen(file: Path) -> None:
    """Replace a file's content but keep its size, time and inode."""
    stat = file.stat()
    file.write_bytes(photo(50).ljust(stat.st_size, b"\0")[: stat.st_size])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_wrong_state_is_corrected(local: Workshop) -> None:
    stocked(local)
    change_unseen(local.cache / name_of(url_of(3)))
    assert local.sync().unchanged == 14  # it cannot see it
    report = rebuild_state(local.settings())
    assert counts(report) == (14, 14, 13, 1)
    assert local.sync().new == 1


def test_files_that_the_mirror_does_not_know_stay_unknown(local: Workshop) -> None:
    stocked(local)
    fill(local.cache, {url_of(500): photo(500), url_of(0): photo(501), url_of(1): photo(2)})
    (local.cache / "notes.txt").write_text("ignored")
    report = rebuild_state(local.settings())
    # A new content; another content of a known URL; a known content under another URL.
    assert (counts(report), report.ignored) == ((15, 15, 12, 3), 1)
    after = local.sync()
    assert (after.unchanged, after.new, after.uploaded, after.deduplicated) == (12, 3, 2, 1)


def test_a_file_whose_object_is_gone_stays_unknown(shop: Workshop) -> None:
    stocked(shop)
    shop.remove(key_of(photo(0)))
    shop.put({key_of(photo(5)): photo(5)[:-3]})
    report = rebuild_state(shop.settings())
    assert (counts(report), report.missing, report.mismatched) == ((14, 14, 11, 3), 1, 1)
    assert report.exit_status == 3


def test_a_damaged_state_is_rebuilt(local: Workshop) -> None:
    stocked(local)
    (file,) = local.state.glob("*/state.sqlite")
    file.write_bytes(b"no database" * 1000)
    assert rebuild_state(local.settings()).known == 14
    assert local.sync().unchanged == 14


def test_an_empty_folder_does_not_empty_the_state(local: Workshop) -> None:
    stocked(local)
    local.cache.rename(local.cache.with_name("unmounted"))
    assert isinstance(rebuild_state(local.settings()).error, CacheError)
    local.cache.mkdir()
    report = rebuild_state(local.settings())
    assert isinstance(report.error, CacheError)
    assert "mounted" in str(report.error)
    local.cache.rmdir()
    local.cache.with_name("unmounted").rename(local.cache)
    assert local.sync().unchanged == 14


def test_a_sync_at_work_is_not_disturbed(local: Workshop) -> None:
    stocked(local)
    with locked(local.settings().state_dir), pytest.raises(Busy):
        rebuild_state(local.settings())


BEGUN = 1_800_000_000.0
DAY = 86_400.0


@pytest.fixture
def half(local: Workshop, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A rebuilding that was interrupted at `BEGUN`: files that it vouches for, and their contents."""
    monkeypatch.setattr("mirror.sync.rebuild._RECORD_BATCH", 3)
    for name in ("_READERS", "_BATCHES_A_READER"):
        monkeypatch.setattr(f"mirror.cache.prepare.{name}", 1)
    stocked(local, 200)
    read = 0

    def count(_files: int, _bytes: int) -> None:
        nonlocal read
        read += 1
        if read == 20:
            os.kill(os.getpid(), signal.SIGINT)

    first = rebuild_state(local.settings(), progress=Advances(count), now=lambda: BEGUN)
    assert (first.interrupted, first.exit_status) == (True, 130)
    (folder,) = local.state.glob("*/rebuild")
    with closing(State(folder)) as state:
        vouched = {os.fsdecode(path): content for path, _, content in state.acknowledged()}
    assert 18 <= len(vouched) <= 128
    return vouched


def test_an_interrupted_run_is_resumed(local: Workshop, half: dict[str, bytes]) -> None:
    second = rebuild_state(local.settings(), now=lambda: BEGUN + DAY - 1)
    assert second.read <= 202 - 18
    assert (second.known, second.exit_status) == (202, 0)
    assert local.sync().unchanged == 202
    assert not list(local.state.glob("*/rebuild"))


@pytest.mark.parametrize(("later", "restart"), [(DAY, False), (-1.0, False), (1.0, True)])
def test_files_that_were_read_long_ago_are_read_again(
    local: Workshop, half: dict[str, bytes], later: float, restart: bool
) -> None:
    for path in sorted(half)[:3]:
        change_unseen(local.cache / path)
    report = rebuild_state(local.settings(), restart=restart, now=lambda: BEGUN + later)
    assert counts(report) == (202, 202, 199, 3)
    assert local.sync().new == 3


def test_files_flagged_as_lost_since_the_interruption_stay_unknown(
    local: Workshop, half: dict[str, bytes], tmp_path: Path
) -> None:
    twice = {name_of(url_of(0)), name_of(url_of(1000))}
    path = min(half.keys() - twice)
    (local.cache / path).rename(tmp_path / path)
    local.remove(object_key(half[path], "jpeg"))
    assert repair(local.settings()).lost == 1
    (tmp_path / path).rename(local.cache / path)
    report = rebuild_state(local.settings(), now=lambda: BEGUN + 60)
    assert counts(report) == (202, 202, 201, 1)
    assert local.sync().uploaded == 1


def test_files_whose_objects_went_since_the_interruption_stay_unknown(
    local: Workshop, half: dict[str, bytes]
) -> None:
    some = sorted(half.items())[:4]
    gone = {content for _, content in some}
    local.remove(*(object_key(content, "jpeg") for content in gone))
    files = [
        path for path in local.cache.iterdir() if digest_of(path.read_bytes()).content_hash in gone
    ]
    report = rebuild_state(local.settings(), now=lambda: BEGUN + 60)
    assert (report.known, report.unknown, report.missing) == (
        202 - len(files),
        len(files),
        len(gone),
    )
    assert local.sync().unchanged == 202 - len(files)


@pytest.mark.chaos("rebuild-state")
def test_a_rebuild_killed_anywhere_leaves_the_old_state_or_the_new(local: Workshop) -> None:
    chance = random.Random(SEED)
    stocked(local)
    words = ["--json", "rebuild-state", f"--bucket={local.place.url}", f"--state={local.state}"]
    words += [f"--cache={local.cache}"]
    modules = "mirror.sync.rebuild,mirror.sync.state,mirror.system.database"

    killing = Killing(modules, words)
    for story in killing.rounds(kills(4), chance):
        killing.run()
        assert local.sync().unchanged == 14, story
        if chance.random() < 0.5:
            assert rebuild_state(local.settings()).known == 14, story
            assert local.sync().unchanged == 14, story
