"""The number of bytes in a fetch cache, when its file is closed or cannot be written."""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import xxhash

from mirror import Fetcher
from mirror.config.settings import Settings
from mirror.fetch.disk_cache.object_cache import Admission, FetchCache, WriteTicket
from mirror.fetch.disk_cache.usage import DiskUsage
from mirror.fetch.image_lookup import MirroredImage
from tests.support.fetch_setup import ALL, HURRY, PHOTOS


def test_a_recount_that_ends_after_close_writes_to_no_other_file(tmp_path: Path) -> None:
    """The system gives the descriptor of a closed file to the next one that is opened."""
    other = tmp_path / "checkpoint"
    other.write_bytes(b"weights" * 10)
    counting = False

    def count() -> int:
        if counting:
            usage.close()
            if (opened := os.open(other, os.O_RDWR)) != number:
                os.dup2(opened, number)
                os.close(opened)
        return 5

    usage = DiskUsage(tmp_path / "usage", count)
    number = usage._file
    counting = True
    with suppress(OSError):
        usage.recount()
    os.close(number)
    assert other.read_bytes() == b"weights" * 10


def test_a_closed_usage_file_raises(tmp_path: Path) -> None:
    usage = DiskUsage(tmp_path / "usage", lambda: 5)
    usage.close()
    for ask in (lambda: usage.used, lambda: usage.reserve(1, 10), lambda: usage.release(1)):
        with pytest.raises(OSError) as error:
            ask()
        assert error.value.errno == errno.EBADF


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock as another process does: a stopped one, or one that counts the files."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.fetch.disk_cache.usage._LOCK_TIMEOUT", 0.02)


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize("damage", [b"", b"x", bytes(20)])
def test_without_the_lock_no_number_is_written(tmp_path: Path, damage: bytes) -> None:
    """The holder may be counting: a second count could overwrite what is reserved after the first."""
    path = tmp_path / "usage"
    path.write_bytes(damage)
    with locked(path):
        usage = DiskUsage(path, lambda: 5)
        with pytest.raises(TimeoutError):
            _ = usage.used
        assert path.read_bytes() == damage
    assert usage.used == 5
    with locked(path):
        assert usage.used == 5
    usage.close()


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize("admission", ["pin", "lru"])
def test_a_busy_cache_is_not_a_full_one(
    tmp_path: Path,
    admission: Admission,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It evicts nothing, still has room, and keeps images as soon as the lock is free."""
    folder = tmp_path / "fetch"
    cache = FetchCache(folder, 10_000, admission)
    data = [bytes([seed]) * 1000 for seed in range(3)]

    def put(seed: int) -> bool:
        content_hash = xxhash.xxh3_128_digest(data[seed])
        ticket = cache.begin(content_hash, 1000)
        if isinstance(ticket, WriteTicket):
            cache.keep(ticket, data[seed])
        return cache.has(content_hash, 1000)

    assert put(0)
    with locked(folder / "usage"):
        assert not put(1)
        assert cache.has_room
    assert cache.has(xxhash.xxh3_128_digest(data[0]), 1000)
    assert "busy" in caplog.text
    assert "full" not in caplog.text
    later = time.monotonic() + 2.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert put(1)
    assert put(2)
    assert cache.not_kept == 1
    cache.close()


def refusing(number: int) -> Callable[..., int]:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("left", [b"", b"of a writer that was killed"])
def test_images_are_returned_if_the_usage_file_cannot_be_written(
    cached: Settings, monkeypatch: pytest.MonkeyPatch, number: int, left: bytes
) -> None:
    """On a copy-on-write file system, a full disk refuses even these twenty bytes."""
    with Fetcher(cached, policy=HURRY) as fetch:
        assert dict(fetch.many(ALL[:10])) == {url: PHOTOS[url] for url in ALL[:10]}
        assert cached.fetch.cache_dir
        for url in ALL[10:]:
            found = fetch._images.find(url)
            assert isinstance(found, MirroredImage)
            digits = found.content_hash.hex()
            part = Path(cached.fetch.cache_dir, "objects", digits[:2], f"{digits}.part")
            part.parent.mkdir(exist_ok=True)
            if left:
                part.write_bytes(left)
        monkeypatch.setattr(os, "pwrite", refusing(number))
        assert dict(in_time(fetch, ALL)) == PHOTOS
        stats = fetch.stats()
        assert (stats.fetch_cache, stats.mirror, stats.kept, stats.not_kept) == (10, 20, 10, 10)
        assert not fetch._open_engine().has_room


@pytest.mark.parametrize("call", ["fstat", "unlink"])
def test_images_are_returned_if_a_part_file_cannot_be_read_or_deleted(
    cached: Settings, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with Fetcher(cached, policy=HURRY) as fetch:
        fetch.cached(ALL)
        monkeypatch.setattr(os, "pwrite", refusing(errno.ENOSPC))
        real = getattr(os, call)

        def refuse_parts(file: int | str, **options: object) -> object:
            path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else file
            if path.endswith(".part"):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return real(file, **options)

        monkeypatch.setattr(os, call, refuse_parts)
        assert dict(in_time(fetch, ALL)) == PHOTOS
        monkeypatch.undo()
        assert fetch.stats().not_kept == 20
        assert cached.fetch.cache_dir
        other = FetchCache(Path(cached.fetch.cache_dir), 1 << 20, "pin")
        for found in fetch._images.find_all(ALL):
            assert isinstance(found, MirroredImage)
            # Its lock was released.
            ticket = other.begin(found.content_hash, found.size)
            assert isinstance(ticket, WriteTicket)
            other.drop(ticket)
        other.close()


def in_time(fetch: Fetcher, urls: list[str]) -> list[tuple[str, object]]:
    """Fetch on another thread, so that waiting forever is an error here."""
    came: queue.SimpleQueue[list[tuple[str, object]] | Exception] = queue.SimpleQueue()

    def read() -> None:
        try:
            came.put(list(fetch.many(urls)))
        except Exception as error:  # noqa: BLE001 - any kind
            came.put(error)

    threading.Thread(target=read, daemon=True).start()
    results = came.get(timeout=20)
    assert isinstance(results, list), results
    return results
