"""The fetch cache: its files are whole, foreign files are left alone, and a kill costs nothing."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import xxhash

from mirror.errors import ConfigError
from mirror.fetch.disk_cache.object_cache import (
    MARK,
    Admission,
    FetchCache,
    WriteRefusal,
    WriteTicket,
)
from mirror.fetch.disk_cache.usage import DiskUsage

# Python 3.12 warns about forks in a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

MIB = 1 << 20


def content(seed: int, size: int = 1000) -> tuple[bytes, bytes]:
    """`(hash, bytes)` of some content."""
    data = Random(seed).randbytes(size)
    return xxhash.xxh3_128_digest(data), data


def put(cache: FetchCache, seed: int, size: int = 1000) -> bool:
    """Offer a content to the cache; returns whether it is there then."""
    content_hash, data = content(seed, size)
    begun = cache.begin(content_hash, size)
    if isinstance(begun, WriteTicket):
        cache.keep(begun, data)
    return cache.has(content_hash, size)


def has(cache: FetchCache, seed: int, size: int = 1000) -> bool:
    content_hash, data = content(seed, size)
    if not cache.has(content_hash, size):
        return False
    path = cache.path(content_hash)
    cache.touch(path)
    return Path(path).read_bytes() == data


def used(folder: Path) -> int:
    usage = DiskUsage(folder / "usage", lambda: -1)
    try:
        return usage.used
    finally:
        usage.close()


def really_there(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "objects").rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "fetch"


@pytest.fixture
def cache(folder: Path) -> Iterator[FetchCache]:
    made = FetchCache(folder, MIB, "pin")
    yield made
    made.close()


def test_a_kept_image_is_found_by_its_hash_and_by_another_run(
    cache: FetchCache, folder: Path
) -> None:
    assert put(cache, 1)
    assert has(cache, 1)
    assert not has(cache, 2)
    assert not cache.has(content(1)[0], 999)
    assert FetchCache(folder, MIB, "pin").has(content(1)[0], 1000)
    assert used(folder) == really_there(folder) == 1000
    assert (cache.kept, cache.not_kept) == (1, 0)


def test_a_kept_image_is_not_written_twice(cache: FetchCache) -> None:
    put(cache, 1)
    assert cache.begin(*content_and_size(1)) is WriteRefusal.ALREADY_KEPT


def content_and_size(seed: int) -> tuple[bytes, int]:
    return content(seed)[0], 1000


def test_one_writer_at_a_time_and_the_next_after_a_drop(cache: FetchCache, folder: Path) -> None:
    other = FetchCache(folder, MIB, "pin")
    ticket = cache.begin(*content_and_size(1))
    assert isinstance(ticket, WriteTicket)
    assert other.begin(*content_and_size(1)) is WriteRefusal.BUSY
    assert isinstance(other.begin(*content_and_size(2)), WriteTicket)
    cache.drop(ticket)
    again = other.begin(*content_and_size(1))
    assert isinstance(again, WriteTicket)
    other.keep(again, content(1)[1])
    assert cache.begin(*content_and_size(1)) is WriteRefusal.ALREADY_KEPT
    assert used(folder) == really_there(folder) == 1000


def test_a_full_pinned_cache_keeps_its_images_and_warns_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FetchCache(folder, 3500, "pin")
    with caplog.at_level(logging.WARNING):
        assert [put(cache, seed) for seed in range(6)] == [True, True, True, False, False, False]
    assert [has(cache, seed) for seed in range(3)] == [True, True, True]
    assert (cache.kept, cache.not_kept) == (3, 3)
    assert caplog.text.count("is full") == 1
    assert not cache.has_room
    assert not list(folder.rglob("*.part"))
    cache.close()


def test_a_full_lru_cache_evicts_the_oldest(folder: Path) -> None:
    cache = FetchCache(folder, 100 * 1000, "lru")
    now = time.time()
    for seed in range(100):
        assert put(cache, seed)
        path = cache.path(content(seed)[0])
        os.utime(path, (now - 10_000 + seed, now - 10_000 + seed))
    kept_in_use = [seed for seed in range(10) if has(cache, seed)]  # a hit renews their time
    assert len(kept_in_use) == 10
    for seed in range(100, 140):
        assert put(cache, seed)
        assert really_there(folder) <= 100 * 1000
    left = [seed for seed in range(140) if has(cache, seed)]
    assert len(left) == 100
    assert set(range(10)) <= set(left)
    # Eviction samples, so only nearly all of the evicted files were the oldest.
    assert sum(seed in left for seed in range(10, 50)) <= 10
    assert used(folder) == really_there(folder)
    cache.close()


def test_an_lru_cache_always_has_room(folder: Path) -> None:
    cache = FetchCache(folder, 3500, "lru")
    assert all(put(cache, seed) and cache.has_room for seed in range(6))
    cache.close()


def test_an_image_larger_than_the_cache_evicts_nothing(folder: Path) -> None:
    cache = FetchCache(folder, 3000, "lru")
    put(cache, 1)
    assert not put(cache, 2, size=3001)
    assert has(cache, 1)
    cache.close()


def test_a_file_with_wrong_bytes_is_deleted(cache: FetchCache, folder: Path) -> None:
    put(cache, 1)
    cache.discard(cache.path(content(1)[0]))
    assert not has(cache, 1)
    assert used(folder) == 0
    assert put(cache, 1)


@pytest.mark.parametrize("size", [0, 999, 1001])
def test_a_file_of_the_wrong_size_is_written_again(
    cache: FetchCache, folder: Path, size: int
) -> None:
    put(cache, 1)
    Path(cache.path(content(1)[0])).write_bytes(bytes(size))
    assert put(cache, 1)
    assert has(cache, 1)


# --- the folder belongs to the cache ---


def test_a_folder_with_other_files_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="not the fetch cache's"):
        FetchCache(folder, MIB, "lru")
    assert list(folder.iterdir()) == [folder / "thesis.tex"]


def test_a_file_instead_of_a_folder_is_refused(folder: Path) -> None:
    folder.touch()
    with pytest.raises(ConfigError, match="no folder"):
        FetchCache(folder, MIB, "lru")


def test_an_empty_folder_becomes_the_cache(folder: Path) -> None:
    folder.mkdir()
    FetchCache(folder, MIB, "pin").close()
    assert (folder / MARK).is_file()


def test_only_files_with_our_names_are_deleted(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / ("ab" * 16)).write_bytes(bytes(1000))
    cache = FetchCache(folder, 20_000, "lru")
    for seed in range(20):
        put(cache, seed)
    shard = next((folder / "objects").iterdir())
    strangers = [shard / "notes.txt", shard / ("x" * 32), shard / ("AB" * 16), shard / ("a" * 31)]
    for stranger in strangers:
        stranger.write_bytes(bytes(1000))
        os.utime(stranger, (0, 0))
    (shard / ("cd" * 16)).symlink_to(precious / ("ab" * 16))
    (shard / ("ef" * 16)).mkdir()
    linked = next(
        path for n in range(256) if not (path := folder / "objects" / f"{n:02x}").exists()
    )
    linked.symlink_to(precious)
    for seed in range(100, 200):
        put(cache, seed)
    assert all(stranger.exists() for stranger in strangers)
    assert (precious / ("ab" * 16)).exists()
    assert (shard / ("ef" * 16)).is_dir()
    assert (shard / ("cd" * 16)).is_symlink()
    cache.close()


# --- kills, disks ---


def hold(folder: Path, seed: int, written: bool, ready: int) -> None:
    """Begin to write a content, and wait to be killed."""
    cache = FetchCache(folder, MIB, "pin")
    ticket = cache.begin(*content_and_size(seed))
    assert isinstance(ticket, WriteTicket)
    if written:
        assert cache._reserve(1000)
        os.pwrite(ticket.descriptor, content(seed)[1][:10] + bytes(990), 0)
    os.write(ready, b"!")
    signal.pause()


@pytest.mark.parametrize("written", [False, True])
def test_another_process_takes_over_from_a_killed_writer(
    cache: FetchCache, folder: Path, written: bool
) -> None:
    came, ready = os.pipe()
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=hold, args=(folder, 1, written, ready))
    writer.start()
    assert os.read(came, 1) == b"!"
    assert cache.begin(*content_and_size(1)) is WriteRefusal.BUSY
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert not has(cache, 1)
    assert put(cache, 1)
    assert has(cache, 1)
    assert used(folder) == really_there(folder) == 1000
    os.close(came)
    os.close(ready)


def fork_and_wait(ready: int) -> None:
    """Fork a child that outlives this process, say its number, and wait to be killed."""
    context = multiprocessing.get_context("fork")
    lasting = context.Process(target=signal.pause)
    lasting.start()
    assert lasting.pid is not None
    os.write(ready, lasting.pid.to_bytes(4, "little"))
    signal.pause()


def hold_in_a_parent(folder: Path, seed: int, ready: int) -> None:
    cache = FetchCache(folder, MIB, "pin")
    assert isinstance(cache.begin(*content_and_size(seed)), WriteTicket)
    assert cache._usage is not None
    with cache._usage._locked():
        fork_and_wait(ready)


def test_a_child_of_a_killed_writer_holds_no_lock(cache: FetchCache, folder: Path) -> None:
    """A worker that was forked during a download lives on. Neither image nor usage file is locked."""
    come, ready = os.pipe()
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=hold_in_a_parent, args=(folder, 1, ready))
    writer.start()
    child = int.from_bytes(os.read(come, 4), "little")
    assert cache.begin(*content_and_size(1)) is WriteRefusal.BUSY
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    try:
        assert put(cache, 1)
        assert put(cache, 2)
        assert used(folder) == really_there(folder) == 2000
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(come)
        os.close(ready)


def test_a_forked_child_leaves_its_parents_lock_alone(cache: FetchCache, folder: Path) -> None:
    ticket = cache.begin(*content_and_size(1))
    assert isinstance(ticket, WriteTicket)
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join()
    other = FetchCache(folder, MIB, "pin")
    assert other.begin(*content_and_size(1)) is WriteRefusal.BUSY
    cache.keep(ticket, content(1)[1])
    assert has(cache, 1)
    other.close()


def test_a_count_that_is_too_high_is_corrected(
    folder: Path,
) -> None:
    cache = FetchCache(folder, 5000, "pin")
    put(cache, 1)
    (folder / "objects" / "00").mkdir(exist_ok=True)
    (folder / "objects" / "00" / ("00" * 16 + ".part")).write_bytes(bytes(1000))
    usage = DiskUsage(folder / "usage", lambda: -1)
    assert usage.reserve(3800, 5000)  # by a writer that was killed before it wrote
    usage._write(usage.used, 0.0)  # counted long ago
    usage.close()
    assert not put(cache, 2)
    deadline = time.monotonic() + 10.0
    while not put(cache, 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert has(cache, 2)
    assert used(folder) == really_there(folder) == 2000
    assert not list(folder.rglob("*.part"))
    cache.close()


def test_a_new_process_recounts_if_the_last_count_is_old(folder: Path) -> None:
    cache = FetchCache(folder, 5000, "pin")
    assert all(put(cache, seed) for seed in range(5))
    cache.close()
    for path in (folder / "objects").rglob("*"):
        if path.is_file():
            path.unlink()  # users may, as the mark says
    usage = DiskUsage(folder / "usage", lambda: -1)
    usage._write(usage.used, time.time() - 120.0)
    usage.close()
    cache = FetchCache(folder, 5000, "pin")
    assert not put(cache, 5)
    for thread in threading.enumerate():
        if thread.name == "mirror-fetch-count":
            thread.join()
    assert cache.has_room
    assert all(put(cache, seed) for seed in range(5, 10))
    assert used(folder) == really_there(folder) == 5000
    cache.close()


def test_a_full_cache_stays_full_until_a_recount(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FetchCache(folder, 1500, "pin")
    now = time.monotonic()
    assert [put(cache, 1), put(cache, 2)] == [True, False]
    monkeypatch.setattr(time, "monotonic", lambda: now + 100.0)
    said = [cache.has_room]
    Path(cache.path(content(1)[0])).unlink()
    said.append(cache.has_room)
    cache.recount()
    said.append(cache.has_room)
    assert said == [False, False, True]
    assert put(cache, 2)
    cache.close()


def test_a_damaged_usage_file_is_recounted(folder: Path) -> None:
    cache = FetchCache(folder, MIB, "pin")
    put(cache, 1)
    cache.close()
    for damage in (b"", b"x", bytes(20), bytes(100)):
        (folder / "usage").write_bytes(damage)
        cache = FetchCache(folder, MIB, "pin")
        assert used(folder) == 1000
        cache.close()


def fill_with_a_limit(folder: Path, result: int) -> None:
    """Fill a cache on a disk that takes only small files."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    cache = FetchCache(folder, MIB, "pin")
    told = [put(cache, 1), put(cache, 2, size=10_000), put(cache, 3), cache.not_kept == 2]
    os.write(result, bytes(told))


def test_on_a_full_disk_no_file_is_half_written(folder: Path) -> None:
    come, result = os.pipe()
    child = multiprocessing.get_context("fork").Process(
        target=fill_with_a_limit, args=(folder, result)
    )
    child.start()
    child.join()
    # After a refusal the cache pauses, and does not write again at once.
    assert list(os.read(come, 10)) == [True, False, False, True]
    assert used(folder) == really_there(folder) == 1000
    assert not list(folder.rglob("*.part"))
    os.close(come)
    os.close(result)


def test_a_read_only_cache_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = FetchCache(folder, MIB, "pin")
    put(made, 1)
    made.close()
    really_open = os.open

    def read_only(path: str | Path, flags: int, *rest: int, **options: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return really_open(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    cache = FetchCache(folder, MIB, "pin")
    assert has(cache, 1)
    assert not put(cache, 2)
    assert not cache.has_room
    assert "cannot be written" in caplog.text
    cache.close()


def race(folder: Path, admission: Admission, seeds: list[int], go: str) -> None:
    cache = FetchCache(folder, 50_000, admission)
    while not os.path.exists(go):
        time.sleep(0.001)
    for seed in seeds:
        put(cache, seed)
    cache.close()


@pytest.mark.parametrize("admission", ["pin", "lru"])
def test_processes_together_respect_the_size_of_a_cache(
    folder: Path, tmp_path: Path, admission: Admission
) -> None:
    context = multiprocessing.get_context("fork")
    go = tmp_path / "go"
    workers = []
    for number in range(4):
        seeds = Random(number).sample(range(100), 100)
        workers.append(context.Process(target=race, args=(folder, admission, seeds, str(go))))
        workers[-1].start()
    go.touch()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert used(folder) == really_there(folder)
    assert 45_000 <= used(folder) <= 50_000
    cache = FetchCache(folder, 50_000, admission)
    assert sum(has(cache, seed) for seed in range(100)) == used(folder) // 1000
    cache.close()
