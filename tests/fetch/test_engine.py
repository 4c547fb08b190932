"""The engine completes every request, whatever happens to other requests and to the engine."""

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
    """The images of these photos. They are read once, so a fetch cache keeps them."""
    with Fetcher(settings, policy=HURRY) as fetch:
        for number in numbers:
            fetch(url_of(number))
        found = fetch._images.find_all([url_of(number) for number in numbers])
    return [one for one in found if isinstance(one, MirroredImage)]


def request_of(
    found: MirroredImage, wake: Callable[[ImageRequest], object] = lambda _: None
) -> ImageRequest:
    return ImageRequest(found, wake)


def test_a_request_that_comes_while_all_workers_end_is_completed(cached: Settings) -> None:
    """Requests for images that are in the cache by now complete at once, so all workers end together."""
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


def test_closing_completes_requests_that_wait_for_another_process(
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


def test_requests_to_a_closed_or_closing_engine_are_completed(
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


def test_a_reading_reports_a_closed_fetcher_for_each_image(
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


def test_closing_lets_a_write_finish_and_cancels_reads(
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


# --- callers that wait, and callers that are gone ---


def test_a_caller_with_a_closed_loop_does_not_affect_others(folder_mirror: Settings) -> None:
    """With one worker, whose end would stop everything."""
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


def test_a_closed_stream_is_not_woken(folder_mirror: Settings) -> None:
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


def test_a_later_loop_gets_the_image_that_a_cancelled_task_requested(
    folder_mirror: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both loops wait for one request, which the first has started."""
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
def test_images_are_returned_if_the_cache_fails(
    cached: Settings, monkeypatch: pytest.MonkeyPatch, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With one worker, whose end would stop everything."""
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
