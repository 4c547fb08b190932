"""Several machines sync into one mirror at once: the result is the union, and no work is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import MakePlace, Place
from tests.servers.process import eventually
from tests.support import chaos_tally, invariants
from tests.support.fault_proxy import Fault, FaultProxy, Hold, Request
from tests.support.mirror_process import PATIENCE, Command, changed_nothing, completed, started
from tests.support.photos import blank, fill, photo, url_of

BUSY = 75

# Many small commits, so that writers conflict in the catalog.
OFTEN = {"concurrency": 8, "commit_rows": 15, "commit_seconds": 0.2}


@pytest.fixture(params=["seaweedfs-obstore", "seaweedfs-aioboto3", "miniflare-obstore"])
def shared(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    return make_place(request.param)


@pytest.fixture
def proxy(shared: Place) -> Iterator[FaultProxy]:
    assert shared.server is not None
    with FaultProxy(shared.server.endpoint) as proxy:
        yield proxy


class Together:
    """A rule that holds requests of one kind until `count` of them have come, for a common start."""

    def __init__(self, count: int, ends_with: str) -> None:
        self._count = count
        self._ends_with = ends_with
        self._seen = 0
        self.met = threading.Event()

    def __call__(self, request: Request) -> Fault | None:
        if self.met.is_set() or not request.path.endswith(self._ends_with):
            return None
        self._seen += 1
        if self._seen == self._count:
            self.met.set()
        return Hold(self.met, PATIENCE)


def machine(folder: Path, images: dict[str, bytes]) -> tuple[Path, Path]:
    """A machine's cache and state."""
    fill(folder / "cache", images)
    return folder / "cache", folder / "state"


def run_all(
    place: Place, endpoint: str, machines: Sequence[tuple[Path, Path]], sync: Mapping[str, object]
) -> list[Command]:
    """Run all machines at once; returns their commands, which have ended."""
    with contextlib.ExitStack() as stack:
        commands = [
            stack.enter_context(started(place, endpoint, cache, state, sync))
            for cache, state in machines
        ]
        statuses = [command.status() for command in commands]
        assert statuses == [0] * len(machines), [command.log.read_text() for command in commands]
    return commands


@pytest.mark.chaos("together")
@pytest.mark.parametrize(
    ("shared", "count"),
    [
        ("seaweedfs-obstore", 2),
        ("seaweedfs-obstore", 4),
        ("seaweedfs-aioboto3", 2),
        ("miniflare-obstore", 2),
    ],
    indirect=["shared"],
)
def test_machines_with_overlapping_caches_produce_the_union(
    shared: Place, proxy: FaultProxy, tmp_path: Path, count: int
) -> None:
    chaos_tally.count(f"together {count} machines that sync overlapping caches, by {shared.name}")
    # Each has a hundred images, half of them shared with its neighbour, and the same blank image.
    caches = [
        {url_of(number): photo(number) for number in range(50 * n, 50 * n + 100)}
        for n in range(count)
    ]
    blank_one = {url_of(9999): blank(64)}
    machines = [
        machine(tmp_path / str(n), {**images, **blank_one}) for n, images in enumerate(caches)
    ]
    start = proxy.rule = Together(count, "/format.json")

    reports = [command.report for command in run_all(shared, proxy.endpoint, machines, OFTEN)]

    assert start.met.is_set()
    union = {url: body for images in caches for url, body in images.items()}
    mirrored = invariants.read(shared)
    invariants.complete(mirrored, union, blank_one)
    assert sum(report["uploaded"] for report in reports) == len(union)
    assert sum(report["failed"] for report in reports) == 0
    for cache, state in machines:
        assert changed_nothing(completed(shared, proxy.endpoint, cache, state))
    assert len(invariants.read(shared).rows) == len(mirrored.rows)


@pytest.mark.parametrize("shared", ["seaweedfs-obstore", "miniflare-obstore"], indirect=True)
def test_machines_that_create_the_mirror_at_once_create_one(
    shared: Place, proxy: FaultProxy, tmp_path: Path
) -> None:
    images = {url_of(number): photo(number) for number in range(5)}
    machines = [machine(tmp_path / str(n), images) for n in range(2)]
    start = proxy.rule = Together(2, "/_delta_log/00000000000000000000.json")

    run_all(shared, proxy.endpoint, machines, OFTEN)

    assert start.met.is_set()
    invariants.complete(invariants.read(shared), images)


@pytest.mark.parametrize("shared", ["seaweedfs-obstore"], indirect=True)
def test_the_second_machine_to_create_the_catalog_does_not_disturb_the_first(
    shared: Place, proxy: FaultProxy, tmp_path: Path
) -> None:
    images = {url_of(number): photo(number) for number in range(10)}
    cache, state = machine(tmp_path / "first", dict(list(images.items())[:5]))
    other_cache, other_state = machine(tmp_path / "second", dict(list(images.items())[5:]))
    both_create, created, second_is_past = threading.Event(), threading.Event(), threading.Event()

    def first_rule(request: Request) -> Fault | None:
        if request.operation == "put" and request.path.endswith("/00000000000000000000.json"):
            return Hold(both_create, PATIENCE)
        if request.operation == "put" and request.path.endswith("/00000000000000000001.json"):
            created.set()
            return Hold(second_is_past, PATIENCE)
        return None

    def second_rule(request: Request) -> Fault | None:
        if request.operation == "put" and "/catalog/part-" in request.path:
            second_is_past.set()  # with rows of its own at the latest, it has done with creating
        if request.operation == "put" and request.path.endswith("/00000000000000000000.json"):
            both_create.set()
            return Hold(created, PATIENCE)
        return None

    assert shared.server is not None
    with FaultProxy(shared.server.endpoint, second_rule) as other:
        proxy.rule = first_rule
        with (
            started(shared, proxy.endpoint, cache, state) as first,
            started(shared, other.endpoint, other_cache, other_state) as second,
        ):
            assert (first.status(), second.status()) == (0, 0), (
                first.log.read_text() + second.log.read_text()
            )
    assert second_is_past.is_set()
    invariants.complete(invariants.read(shared), images)


@pytest.mark.parametrize("shared", ["seaweedfs-obstore"], indirect=True)
def test_a_second_run_on_the_same_state_is_refused_as_busy(
    shared: Place, proxy: FaultProxy, tmp_path: Path
) -> None:
    images = {url_of(number): photo(number) for number in range(5)}
    cache, state = machine(tmp_path / "one", images)
    release, waiting = threading.Event(), threading.Event()

    def hold_the_first(request: Request) -> Fault | None:
        waiting.set()
        return Hold(release, PATIENCE)

    proxy.rule = hold_the_first
    with started(shared, proxy.endpoint, cache, state) as first:
        assert eventually(waiting.is_set, within=PATIENCE)
        with started(shared, proxy.endpoint, cache, state) as second:
            assert second.status() == BUSY
        assert second.report["exit_status"] == BUSY
        assert first.process.poll() is None
        release.set()
        assert first.status() == 0
    assert first.report["uploaded"] == 5
    invariants.complete(invariants.read(shared), images)
