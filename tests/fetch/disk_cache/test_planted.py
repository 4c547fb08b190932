"""A user who may write the fetch cache reaches no file outside it, and makes no fetch wait."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import xxhash

from mirror.fetch import engine
from mirror.fetch.disk_cache.object_cache import FetchCache, WriteRefusal, WriteTicket
from mirror.fetch.disk_cache.url_cache import UrlCache
from mirror.fetch.engine import ImageRequest, _MirrorThread, _read_file
from mirror.fetch.image_lookup import MirroredImage
from tests.support.deadline import seconds_left

DATA = b"image" * 200
HASH = xxhash.xxh3_128_digest(DATA)
NAME = HASH.hex()
SHARD = NAME[:2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    FetchCache(tmp_path / "fetch", 1 << 20, "lru").close()
    with seconds_left(10):
        yield tmp_path / "fetch"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of another user, with files that have a cache's names."""
    made = tmp_path / "victim"
    (made / SHARD).mkdir(parents=True)
    for path in (made / "private", made / SHARD / NAME, made / SHARD / f"{NAME}.part"):
        path.write_bytes(b"private")
        os.utime(path, (1, 1))
    return made


def state(victim: Path) -> dict[str, tuple[bytes, float]]:
    return {
        str(path.relative_to(victim)): (path.read_bytes(), path.stat().st_mtime)
        for path in sorted(victim.rglob("*"))
        if path.is_file()
    }


def plant(what: str, path: Path, victim: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    match what:
        case "link":
            path.symlink_to(victim / "private")
        case "dangling":
            path.symlink_to(victim / "new")
        case "hard link":
            os.link(victim / "private", path)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()


def use(folder: Path) -> bool:
    """Everything that a fetch does with its cache; returns whether the image is kept."""
    cache = FetchCache(folder, 2000, "lru")
    path = cache.path(HASH)
    cache.touch(path)
    cache.recount()
    _read_file(path, len(DATA))
    cache.discard(path)
    begun = cache.begin(HASH, len(DATA))
    if isinstance(begun, WriteTicket):
        cache.keep(begun, DATA)
    kept = cache.has(HASH, len(DATA))
    cache._eviction.remove(1 << 20)
    cache.close()
    return kept


@pytest.mark.parametrize("what", ["link", "dangling", "hard link", "fifo", "folder"])
@pytest.mark.parametrize(
    "name", ["usage", f"objects/{SHARD}/{NAME}", f"objects/{SHARD}/{NAME}.part"]
)
def test_a_planted_file_reaches_no_other(name: str, what: str, folder: Path, victim: Path) -> None:
    plant(what, folder / name, victim)
    before = state(victim)
    use(folder)
    assert state(victim) == before


@pytest.mark.parametrize("name", ["objects", f"objects/{SHARD}"])
def test_a_planted_folder_reaches_no_other(name: str, folder: Path, victim: Path) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(victim if name == "objects" else victim / SHARD)
    before = state(victim)
    assert not use(folder)
    assert state(victim) == before


def test_the_cache_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert use(tmp_path / "link")


def test_no_tier_reads_through_a_link(tmp_path: Path, victim: Path) -> None:
    path = tmp_path / "cache" / f"{NAME}.jpg"
    path.parent.mkdir()
    path.write_bytes(b"private")
    cache = UrlCache(str(path.parent), ["jpg"])
    assert cache.has(HASH, 7)
    path.unlink()
    path.symlink_to(victim / "private")
    assert not cache.has(HASH, 7)
    assert _read_file(str(path), 7) is None


class Lock:
    """A lock through a descriptor that can only read."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def free(self) -> None:
        os.close(self._file)


def test_a_lock_that_is_never_freed_is_tried_ever_more_rarely(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.fetch.disk_cache.usage._LOCK_TIMEOUT", 0.0)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    cache = FetchCache(folder, 1 << 20, "pin")
    tries = 0
    usage = cache._usage
    assert usage is not None
    reserve = usage.reserve

    def counted(size: int, most: int) -> bool:
        nonlocal tries
        tries += 1
        return reserve(size, most)

    monkeypatch.setattr(usage, "reserve", counted)
    # Downloads that were under way when the lock was taken do not wait for it either.
    pending = [cache.begin(xxhash.xxh3_128_digest(b"%d" % n), 9) for n in range(20)]
    lock = Lock(folder / "usage")
    for ticket in pending:
        assert isinstance(ticket, WriteTicket)
        cache.keep(ticket, b"123456789")
    assert tries == 1
    for _ in range(600):
        now += 1.0
        if isinstance(begun := cache.begin(HASH, len(DATA)), WriteTicket):
            cache.keep(begun, DATA)
    assert tries < 20
    lock.free()
    now += 60.0
    begun = cache.begin(HASH, len(DATA))
    assert isinstance(begun, WriteTicket)
    cache.keep(begun, DATA)
    assert cache.has(HASH, len(DATA))
    cache.close()


def test_after_one_wait_in_vain_no_image_waits(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FetchCache(folder, 1 << 20, "pin")
    part = folder / "objects" / SHARD / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.touch()
    lock = Lock(part)
    assert cache.begin(HASH, len(DATA)) is WriteRefusal.BUSY
    thread = _MirrorThread.__new__(_MirrorThread)
    thread._waits = True

    def request(checks: int) -> ImageRequest:
        made = ImageRequest(cast("MirroredImage", SimpleNamespace(key="objects/x")), print)
        made.busy_checks = checks
        return made

    assert thread._may_wait(request(0))
    assert not thread._may_wait(request(engine._MAX_CHECKS))
    assert not thread._may_wait(request(0))
    assert caplog.text.count("keeps objects/x locked") == 1
    lock.free()
    cache.close()
