"""Fetching from many processes, with every start method and with kills: each image is read once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mirror import Fetcher
from mirror.config.settings import Settings
from mirror.errors import NotFound
from mirror.fetch.engine import RequestPolicy
from mirror.fetch.remote.hedging import HedgePolicy
from tests.conftest import MakePlace
from tests.support.chaos_tally import count
from tests.support.fault_proxy import FaultProxy, Hold, Request
from tests.support.fetch_setup import HURRY, fetching, key_of, mirrored, reached
from tests.support.photos import photo, url_of

# Python 3.12 warns about forks in a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

ALL = [url_of(number) for number in range(20)]
PHOTOS = [photo(number) for number in range(20)]


class Site(NamedTuple):
    """A mirror behind a counting proxy; settings of machines with and without a fetch cache."""

    proxy: FaultProxy
    caching: Settings
    plain: Settings


@pytest.fixture
def site(make_place: MakePlace, tmp_path: Path) -> Iterator[Site]:
    place = make_place("moto-obstore")
    assert place.server is not None
    with FaultProxy(place.server.endpoint) as proxy:
        plain = reached(mirrored(place, tmp_path), endpoint=proxy.endpoint)
        yield Site(proxy, fetching(plain, cache_dir=str(tmp_path / "fetch")), plain)


def objects_read(proxy: FaultProxy) -> Counter[str]:
    """How often each object was requested."""
    return Counter(path.rpartition("/")[2] for _, path in proxy.requests if "/objects/" in path)


def read_all(fetch: Fetcher, ready: Path | None = None, go: Path | None = None) -> None:
    """Wait for `go`, then read everything twice; any wrong byte is an error."""
    if ready is not None and go is not None:
        ready.touch()
        until(go)
    assert [result for _, result in fetch.many(ALL)] == PHOTOS
    assert [fetch(url) for url in ALL] == PHOTOS
    fetch.close()


def until(path: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.002)


def ended(processes: Sequence[multiprocessing.process.BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join(60)
        if process.pid is not None and process.exitcode is None:
            # A hanging child ends and prints its stack: pytest has installed a handler for this.
            os.kill(process.pid, signal.SIGABRT)
            process.join(10)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_fetcher_in_use_works_in_children_and_in_their_parent(site: Site, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    with Fetcher(site.plain, policy=HURRY) as fetch:
        assert [result for _, result in fetch.many(ALL)] == PHOTOS
        reading = fetch.many(ALL * 3)
        first = [
            next(reading) for _ in range(5)
        ]  # its connections are in use while the children start
        children = [context.Process(target=read_all, args=(fetch,)) for _ in range(2)]
        for child in children:
            child.start()
        assert ended(children) == [0, 0]
        assert [data for _, data in [*first, *reading]] == PHOTOS * 3
        assert fetch.stats().images == 80


def test_a_grandchild_reads_too(site: Site) -> None:
    context = multiprocessing.get_context("fork")
    with Fetcher(site.plain, policy=HURRY) as fetch:
        fetch(url_of(1))
        child = context.Process(target=have_a_child_read, args=(fetch, context))
        child.start()
        assert ended([child]) == [0]


def have_a_child_read(fetch: Fetcher, context: Any) -> None:
    read_all(fetch)
    fetch(url_of(2))
    grandchild = context.Process(target=read_all, args=(fetch,))
    grandchild.start()
    assert ended([grandchild]) == [0]


@pytest.mark.parametrize("daemon", [False, True])
def test_a_forked_child_makes_its_own_fetcher(site: Site, daemon: bool) -> None:
    """As a DataLoader worker may do. deltalake and obstore, used in the parent, fail in the child."""
    context = multiprocessing.get_context("fork")
    with Fetcher(site.plain, policy=HURRY) as fetch:
        fetch(url_of(1))
    children = [
        context.Process(target=make_one_and_read, args=(site.plain,), daemon=daemon),
        context.Process(target=make_one_without_a_mirror, args=(site.plain,), daemon=daemon),
    ]
    for child in children:
        child.start()
    assert ended(children) == [0, 0]


def make_one_and_read(settings: Settings) -> None:
    with Fetcher(settings, policy=HURRY) as fetch:
        read_all(fetch)


def make_one_without_a_mirror(settings: Settings) -> None:
    with pytest.raises(NotFound, match="no mirror"):
        Fetcher(reached(settings, url=f"{settings.bucket.url}/nothing-here"), policy=HURRY)


def test_a_fork_while_another_thread_reads_is_no_deadlock(
    make_place: MakePlace, tmp_path: Path
) -> None:
    """Without a proxy, which would live in this process and have its connections forked."""
    settings = mirrored(make_place("moto-obstore"), tmp_path)
    context = multiprocessing.get_context("fork")
    with Fetcher(settings, policy=RequestPolicy()) as fetch:
        stop = threading.Event()

        def read_on() -> None:
            while not stop.is_set():
                fetch.close()
                fetch(url_of(1))

        thread = threading.Thread(target=read_on)
        thread.start()
        try:
            children = [context.Process(target=read_all, args=(fetch,)) for _ in range(6)]
            for child in children:
                child.start()
            assert ended(children) == [0] * 6
        finally:
            stop.set()
            thread.join()


def test_threads_share_a_fetcher(site: Site) -> None:
    with Fetcher(site.plain, policy=HURRY) as fetch:
        wrong: list[object] = []

        def read() -> None:
            try:
                assert [result for _, result in fetch.many(ALL)] == PHOTOS
                assert [fetch(url) for url in ALL] == PHOTOS
            except BaseException as error:  # noqa: BLE001 - any kind
                wrong.append(error)

        threads = [threading.Thread(target=read) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert fetch.stats().images == 6 * 40


@pytest.mark.chaos("together")
def test_eight_processes_read_each_image_once_between_them(site: Site, tmp_path: Path) -> None:
    count("together eight processes that read through one fetch cache")
    context = multiprocessing.get_context("fork")
    go = tmp_path / "go"
    # No hedges: on a busy machine a slow response would cause a second request.
    with Fetcher(site.caching, policy=RequestPolicy(hedge=HedgePolicy(share=0.0))) as fetch:
        site.proxy.forget()
        children = []
        for number in range(8):
            ready = tmp_path / f"ready-{number}"
            children.append(context.Process(target=read_all, args=(fetch, ready, go)))
            children[-1].start()
        for number in range(8):
            until(tmp_path / f"ready-{number}")
        go.touch()
        assert ended(children) == [0] * 8
    times = objects_read(site.proxy)
    assert len(times) == 20
    assert set(times.values()) == {1}


@pytest.mark.chaos("fetch cache")
def test_another_process_takes_over_from_one_that_is_killed_while_it_reads(
    site: Site, tmp_path: Path
) -> None:
    """The first process's request hangs; a second process waits for it, until the first is killed."""
    count("kills")
    release = threading.Event()
    asked = tmp_path / "asked"
    objects = 0

    def rule(request: Request) -> Hold | None:
        nonlocal objects
        if "/objects/" not in request.path:
            return None
        objects += 1
        asked.touch()
        return Hold(release) if objects == 1 else None

    context = multiprocessing.get_context("fork")
    with Fetcher(site.caching, policy=RequestPolicy()) as fetch:
        site.proxy.rule = rule
        first = context.Process(target=fetch, args=(url_of(1),))
        first.start()
        until(asked)
        parts = list((tmp_path / "fetch").rglob("*.part"))
        assert len(parts) == 1
        done = threading.Event()

        def wait_for_it() -> None:
            assert fetch(url_of(1)) == photo(1)
            done.set()

        second = threading.Thread(target=wait_for_it)
        second.start()
        assert not done.wait(0.3)
        assert objects == 1
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        first.join()
        assert done.wait(30)
        second.join()
        release.set()
        assert objects == 2
        assert fetch.stats().kept == 1
    assert not list((tmp_path / "fetch").rglob("*.part"))
    assert key_of(1).partition(".")[0].rpartition("/")[2] in {
        path.name for path in (tmp_path / "fetch" / "objects").rglob("*")
    }
