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
from tests.support.mirror_setup import MirrorSetup, key_of
from tests.support.photos import blank, fill, name_of, photo, url_of
from tests.support.progress_hooks import Advances


def stocked(mirror_setup: MirrorSetup, count: int = 12) -> None:
    fill(mirror_setup.cache, {url_of(n): photo(n) for n in range(count)})
    fill(mirror_setup.cache, {url_of(1000): photo(0), url_of(2000): blank()})
    assert mirror_setup.sync().exit_status == 0


def counts(report: RebuildReport) -> tuple[int, int, int, int]:
    return report.checked, report.read, report.known, report.unknown


def test_a_lost_state_is_rebuilt_and_a_sync_finds_nothing_to_do(mirror_setup: MirrorSetup) -> None:
    stocked(mirror_setup)
    shutil.rmtree(mirror_setup.state)
    report = rebuild_state(mirror_setup.settings())
    assert (counts(report), report.exit_status) == ((14, 14, 14, 0), 0)
    assert report.requests["put"] == report.requests["delete"] == report.requests["head"] == 0
    after = mirror_setup.sync()
    assert (after.unchanged, after.new, after.catalog_commits) == (14, 0, 0)


def change_unseen(file: Path) -> None:
    """Replace a file's content but keep its size, time and inode."""
    stat = file.stat()
    file.write_bytes(photo(50).ljust(stat.st_size, b"\0")[: stat.st_size])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_wrong_state_is_corrected(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    change_unseen(folder_setup.cache / name_of(url_of(3)))
    assert folder_setup.sync().unchanged == 14  # it cannot see it
    report = rebuild_state(folder_setup.settings())
    assert counts(report) == (14, 14, 13, 1)
    assert folder_setup.sync().new == 1


def test_files_that_the_mirror_does_not_know_stay_unknown(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    fill(folder_setup.cache, {url_of(500): photo(500), url_of(0): photo(501), url_of(1): photo(2)})
    (folder_setup.cache / "notes.txt").write_text("ignored")
    report = rebuild_state(folder_setup.settings())
    # A new content; another content of a known URL; a known content under another URL.
    assert (counts(report), report.ignored) == ((15, 15, 12, 3), 1)
    after = folder_setup.sync()
    assert (after.unchanged, after.new, after.uploaded, after.deduplicated) == (12, 3, 2, 1)


def test_a_file_whose_object_is_gone_stays_unknown(mirror_setup: MirrorSetup) -> None:
    stocked(mirror_setup)
    mirror_setup.remove(key_of(photo(0)))
    mirror_setup.put({key_of(photo(5)): photo(5)[:-3]})
    report = rebuild_state(mirror_setup.settings())
    assert (counts(report), report.missing, report.mismatched) == ((14, 14, 11, 3), 1, 1)
    assert report.exit_status == 3


def test_a_damaged_state_is_rebuilt(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    (file,) = folder_setup.state.glob("*/state.sqlite")
    file.write_bytes(b"no database" * 1000)
    assert rebuild_state(folder_setup.settings()).known == 14
    assert folder_setup.sync().unchanged == 14


def test_an_empty_folder_does_not_empty_the_state(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    folder_setup.cache.rename(folder_setup.cache.with_name("unmounted"))
    assert isinstance(rebuild_state(folder_setup.settings()).error, CacheError)
    folder_setup.cache.mkdir()
    report = rebuild_state(folder_setup.settings())
    assert isinstance(report.error, CacheError)
    assert "mounted" in str(report.error)
    folder_setup.cache.rmdir()
    folder_setup.cache.with_name("unmounted").rename(folder_setup.cache)
    assert folder_setup.sync().unchanged == 14


def test_a_sync_at_work_is_not_disturbed(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    with locked(folder_setup.settings().state_dir, "sync"), pytest.raises(Busy):
        rebuild_state(folder_setup.settings())


BEGUN = 1_800_000_000.0
DAY = 86_400.0


@pytest.fixture
def half(folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A rebuilding that was interrupted at `BEGUN`: files that it vouches for, and their contents."""
    monkeypatch.setattr("mirror.sync.rebuild._RECORD_BATCH", 3)
    for name in ("_READERS", "_BATCHES_A_READER"):
        monkeypatch.setattr(f"mirror.cache.prepare.{name}", 1)
    stocked(folder_setup, 200)
    read = 0

    def count(_files: int, _bytes: int) -> None:
        nonlocal read
        read += 1
        if read == 20:
            os.kill(os.getpid(), signal.SIGINT)

    first = rebuild_state(folder_setup.settings(), progress=Advances(count), now=lambda: BEGUN)
    assert (first.interrupted, first.exit_status) == (True, 130)
    (folder,) = folder_setup.state.glob("*/rebuild")
    with closing(State(folder)) as state:
        vouched = {os.fsdecode(path): content for path, _, content in state.acknowledged()}
    assert 18 <= len(vouched) <= 128
    return vouched


def test_an_interrupted_run_is_resumed(folder_setup: MirrorSetup, half: dict[str, bytes]) -> None:
    second = rebuild_state(folder_setup.settings(), now=lambda: BEGUN + DAY - 1)
    assert second.read <= 202 - 18
    assert (second.known, second.exit_status) == (202, 0)
    assert folder_setup.sync().unchanged == 202
    assert not list(folder_setup.state.glob("*/rebuild"))


@pytest.mark.parametrize(("later", "restart"), [(DAY, False), (-1.0, False), (1.0, True)])
def test_files_that_were_read_long_ago_are_read_again(
    folder_setup: MirrorSetup, half: dict[str, bytes], later: float, restart: bool
) -> None:
    for path in sorted(half)[:3]:
        change_unseen(folder_setup.cache / path)
    report = rebuild_state(folder_setup.settings(), restart=restart, now=lambda: BEGUN + later)
    assert counts(report) == (202, 202, 199, 3)
    assert folder_setup.sync().new == 3


def test_files_flagged_as_lost_since_the_interruption_stay_unknown(
    folder_setup: MirrorSetup, half: dict[str, bytes], tmp_path: Path
) -> None:
    twice = {name_of(url_of(0)), name_of(url_of(1000))}
    path = min(half.keys() - twice)
    (folder_setup.cache / path).rename(tmp_path / path)
    folder_setup.remove(object_key(half[path], "jpeg"))
    assert repair(folder_setup.settings()).lost == 1
    (tmp_path / path).rename(folder_setup.cache / path)
    report = rebuild_state(folder_setup.settings(), now=lambda: BEGUN + 60)
    assert counts(report) == (202, 202, 201, 1)
    assert folder_setup.sync().uploaded == 1


def test_files_whose_objects_went_since_the_interruption_stay_unknown(
    folder_setup: MirrorSetup, half: dict[str, bytes]
) -> None:
    some = sorted(half.items())[:4]
    gone = {content for _, content in some}
    folder_setup.remove(*(object_key(content, "jpeg") for content in gone))
    files = [
        path
        for path in folder_setup.cache.iterdir()
        if digest_of(path.read_bytes()).content_hash in gone
    ]
    report = rebuild_state(folder_setup.settings(), now=lambda: BEGUN + 60)
    assert (report.known, report.unknown, report.missing) == (
        202 - len(files),
        len(files),
        len(gone),
    )
    assert folder_setup.sync().unchanged == 202 - len(files)


@pytest.mark.chaos("rebuild-state")
def test_a_rebuild_killed_anywhere_leaves_the_old_state_or_the_new(
    folder_setup: MirrorSetup,
) -> None:
    chance = random.Random(SEED)
    stocked(folder_setup)
    words = [
        "--json",
        "rebuild-state",
        f"--bucket={folder_setup.place.url}",
        f"--state={folder_setup.state}",
    ]
    words += [f"--cache={folder_setup.cache}"]
    modules = "mirror.sync.rebuild,mirror.sync.state,mirror.system.database"

    killing = Killing(modules, words)
    for story in killing.rounds(kills(4), chance):
        killing.run()
        assert folder_setup.sync().unchanged == 14, story
        if chance.random() < 0.5:
            assert rebuild_state(folder_setup.settings()).known == 14, story
            assert folder_setup.sync().unchanged == 14, story
