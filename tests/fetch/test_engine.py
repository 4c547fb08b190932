"""The engine: whatever becomes of others, and of the engine itself, each request is answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mirror import AsyncFetcher, Fetcher
from mirror.config.settings import Settings
from mirror.errors import CorruptObject, StoreUnavailable
from mirror.fetch.disk_cache.object_cache import FetchCache, WriteRefusal, WriteTicket
from mirror.fetch.engine import Engine, ImageRequest
from mirror.fetch.image_lookup import MirroredImage
from mirror.fetch.remote.object_sources import FolderSource
from mirror.fetch.stream import FetchStream
from tests.support.fetch_setup import ALL, HURRY, PHOTOS, fetching, files_of, key_of
from tests.support.photos import photo, url_of


def found_in(settings: Settings, *numbers: int) -> list[MirroredImage]:
    """What the requests of these photos are for; they are read once, and so kept where that is done."""
    with Fetcher(settings, policy=HURRY) as fetch:
        for number in numbers:
            fetch(url_of(number))
        found = fetch._images.find_all([url_of(number) for number in numbers])
    return [one for one in found if isinstance(one, MirroredImage)]


def request_of(
    found: MirroredImage, wake: Callable[[ImageRequest], object] = lambda _: None
) -> ImageRequest:
    return ImageRequest(found, wake)


def test_an_order_that_comes_while_all_workers_end_is_filled(cached: Settings) -> None:
    """Orders for what was kept meanwhile are drained at once, so that all workers end together."""
    (found,) = found_in(cached, 1)
    engine = Engine(cached, offline=False, policy=HURRY)
    came = threading.Event()
    second = request_of(found, lambda _: came.set())
    first = request_of(found, lambda _: engine.request([second]))
    engine.request([first, *(request_of(found) for _ in range(cached.fetch.concurrency))])
    assert came.wait(20)
    assert second.ready
    engine.close()


# --- closing ---


def test_an_order_that_waits_for_another_process_is_answered_when_the_engine_is_closed(
    cached: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = found_in(fetching(cached, cache_dir=None), 1)
    other = FetchCache(tmp_path / "fetch", 1 << 20, "pin")
    assert isinstance(other.begin(found.content_hash, found.size), WriteTicket)
    looked = threading.Event()
    begin = FetchCache.begin

    def told(cache: FetchCache, content_hash: bytes, size: int) -> WriteTicket | WriteRefusal:
        begun = begin(cache, content_hash, size)
        assert begun is WriteRefusal.BUSY
        looked.set()
        return begun

    monkeypatch.setattr(FetchCache, "begin", told)
    engine = Engine(cached, offline=False, policy=HURRY)
    request = request_of(found)
    engine.request([request])
    assert looked.wait(20)
    engine.close()
    assert isinstance(request.result, StoreUnavailable)
    other.close()


def test_what_is_ordered_of_an_engine_that_is_closed_or_closing_is_answered(
    folder_mirror: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = found_in(folder_mirror, 1)
    engine = Engine(folder_mirror, offline=False, policy=HURRY)
    engine.request([request_of(found)])
    assert engine._mirror is not None
    loop = engine._mirror._loop
    late, later = request_of(found), request_of(found)
    close = loop.close

    def closes() -> None:
        engine.request([late])  # by another thread, at the last moment
        close()

    monkeypatch.setattr(loop, "close", closes)
    engine.close()
    engine.request([later])
    for request in (late, later):
        assert isinstance(request.result, StoreUnavailable)


def test_a_reading_goes_on_after_the_fetcher_was_closed_and_says_so_of_each_image(
    folder_mirror: Settings,
) -> None:
    with Fetcher(fetching(folder_mirror, bytes_in_flight="3K"), policy=HURRY) as fetch:
        reading = fetch.many(ALL)
        first = [next(reading) for _ in range(3)]
        fetch.close()
        rest = list(reading)
    assert [url for url, _ in [*first, *rest]] == ALL
    for url, result in rest:
        assert result == PHOTOS[url] or isinstance(result, StoreUnavailable)
    assert isinstance(rest[-1][1], StoreUnavailable)


def test_closing_lets_an_image_be_written_and_gives_up_what_is_still_read(
    cached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, written = found_in(fetching(cached, cache_dir=None), 1, 2)
    engine = Engine(cached, offline=False, policy=HURRY)
    kept = threading.Event()
    get, keep = FolderSource.get, FetchCache.keep

    async def held(folder: FolderSource, key: str, size: int, *, fresh: bool) -> bytes:
        if key == read.key:
            await asyncio.Future()
        return await get(folder, key, size, fresh=fresh)

    def closed_meanwhile(cache: FetchCache, ticket: WriteTicket, data: bytes) -> None:
        assert engine._mirror is not None
        engine._mirror._stop.set()
        keep(cache, ticket, data)
        kept.set()

    monkeypatch.setattr(FolderSource, "get", held)
    monkeypatch.setattr(FetchCache, "keep", closed_meanwhile)
    requests = [request_of(read), request_of(written)]
    engine.request(requests)
    assert kept.wait(20)
    engine.close()
    assert isinstance(requests[0].result, StoreUnavailable)
    assert requests[1].result == photo(2)
    assert [path.read_bytes() for path in files_of(cached)] == [photo(2)]


# --- who waits and is gone ---


def test_a_reader_whose_loop_is_closed_keeps_nobody_from_theirs(folder_mirror: Settings) -> None:
    """One worker, so that it would be its end."""
    first, second = found_in(folder_mirror, 1, 2)
    engine = Engine(fetching(folder_mirror, concurrency=1), offline=False, policy=HURRY)
    came = threading.Event()

    def gone(_: ImageRequest) -> None:
        raise RuntimeError("Event loop is closed")

    requests = [
        request_of(first, gone),
        request_of(first),
        request_of(second, lambda _: came.set()),
    ]
    engine.request(requests)
    assert came.wait(20)
    assert [request.result for request in requests] == [photo(1), photo(1), photo(2)]
    engine.close()


def test_a_reading_that_was_given_up_is_not_woken(folder_mirror: Settings) -> None:
    (found,) = found_in(folder_mirror, 1)
    requested: list[ImageRequest] = []
    woken: list[None] = []

    class Asked(Engine):
        def request(self, requests: Sequence[ImageRequest]) -> None:
            requested.extend(requests)

    engine = Asked(folder_mirror, offline=False, policy=HURRY)
    stream = FetchStream(engine, lambda _: [found], ["url"], 1000, lambda: woken.append(None))
    assert stream.take() == []
    assert stream.awaits()
    stream.close()
    requested[0].complete(photo(1))
    assert not woken


def test_an_image_comes_in_the_next_loop_when_waiting_for_it_was_given_up_in_the_first(
    folder_mirror: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both times it is one request, under way since the first."""
    fetch = AsyncFetcher(folder_mirror, policy=HURRY)
    waits, under_way, release = threading.Event(), threading.Event(), threading.Event()
    awaits, get = FetchStream.awaits, FolderSource.get

    def told(stream: FetchStream) -> bool:
        if awaiting := awaits(stream):
            waits.set()
        return awaiting

    async def held(folder: FolderSource, key: str, size: int, *, fresh: bool) -> bytes:
        under_way.set()
        await asyncio.to_thread(release.wait)
        return await get(folder, key, size, fresh=fresh)

    monkeypatch.setattr(FetchStream, "awaits", told)
    monkeypatch.setattr(FolderSource, "get", held)

    async def once(then: Callable[[asyncio.Task[bytes]], object]) -> bytes:
        waits.clear()
        task = asyncio.create_task(fetch(url_of(1)))
        await asyncio.to_thread(waits.wait)
        await asyncio.to_thread(under_way.wait)
        then(task)
        return await asyncio.wait_for(task, 20)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(once(lambda task: task.cancel()))
    assert asyncio.run(once(lambda _: release.set())) == photo(1)
    asyncio.run(fetch.aclose())


# --- a cache that fails ---


@pytest.mark.parametrize("call", ["begin", "keep", "drop"])
def test_a_fault_of_the_cache_costs_the_keeping_and_not_the_image(
    cached: Settings, monkeypatch: pytest.MonkeyPatch, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One worker, so that it would be its end."""
    found, gone = found_in(fetching(cached, cache_dir=None), 1, 2)
    (Path(cached.bucket_url.path) / key_of(2)).unlink()

    def fails(*_: object) -> None:
        raise RuntimeError("cannot start a thread")

    monkeypatch.setattr(FetchCache, call, fails)
    engine = Engine(fetching(cached, concurrency=1), offline=False, policy=HURRY)
    came = threading.Event()
    requests = [request_of(gone), request_of(found, lambda _: came.set())]
    engine.request(requests)
    assert came.wait(20)
    assert isinstance(requests[0].result, CorruptObject)
    assert requests[1].result == photo(1)
    assert "cannot start a thread" in caplog.text
    engine.close()
