"""A sync that is killed or stopped at any moment loses nothing that was acknowledged.

How often, and at which moments: tests/support/chaos_tally.py.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.conftest import MakePlace
from tests.servers.process import eventually
from tests.support import invariants
from tests.support.chaos_tally import SEED, TIMES, count, kills
from tests.support.fault_proxy import Delay, Fault, Hold, Request, ResetAfter, Stall
from tests.support.mirror_process import PATIENCE, completed, started
from tests.support.sync_over_proxy import CONCURRENCY, Scene, commits, scene_at, writes_object

# Enough files for all kills: each lets about 25 files through.
FILES_A_KILL = 25 if TIMES == 1 else 60

# Commits are frequent, so that kills fall between objects, catalog commits and state commits.
COMMIT_ROWS = 20
OFTEN = {"concurrency": CONCURRENCY, "commit_rows": COMMIT_ROWS, "commit_seconds": 0.3}
STOPPED = 130


@pytest.fixture(params=["seaweedfs-obstore"])
def scene(request: pytest.FixtureRequest, make_place: MakePlace, tmp_path: Path) -> Iterator[Scene]:
    with scene_at(make_place(request.param), tmp_path) as scene:
        yield scene


@dataclass(frozen=True)
class Moment:
    """When to kill: at the `nth` request, or at the `nth` commit of the catalog, as the proxy sees them.

    `when` is before the request reaches the server; or after the server has answered, but before the
    answer reaches the client; or a number of seconds after the request.
    """

    nth: int
    of: Literal["requests", "commits"]
    when: Literal["before", "answered"] | float

    @classmethod
    def chosen(cls, chance: random.Random) -> Moment:
        if chance.random() < 0.5:
            nth, of = chance.randint(1, 60), "requests"
        else:
            nth, of = chance.randint(1, 2), "commits"
        when = chance.choice(["before", "answered", chance.uniform(0.0, 0.05)])
        return cls(nth, of, when)  # type: ignore[arg-type]


class Killer:
    """A rule of the proxy that kills a process at a moment and delays some uploads.

    So there are always uploads that commits must not wait for, and must not count as done.
    """

    def __init__(
        self, moment: Moment, process: subprocess.Popen[bytes], chance: random.Random
    ) -> None:
        self._moment = moment
        self._process = process
        self._chance = chance
        self._seen = 0

    def __call__(self, request: Request) -> Fault | None:
        self._seen += self._moment.of == "requests" or commits(request)
        if self._seen != self._moment.nth:
            slow = writes_object(request) and self._chance.random() < 0.1
            return Delay(0.3) if slow else None
        self._seen += 1  # once
        if self._moment.when == "before":
            self._process.kill()
        elif self._moment.when == "answered":
            return ResetAfter(self._process.kill)
        else:
            asyncio.get_running_loop().call_later(self._moment.when, self._process.kill)
        return None


@pytest.mark.chaos("sync")
@pytest.mark.parametrize(
    ("scene", "most", "forgetful"),
    [("seaweedfs-obstore", kills(10), False), ("seaweedfs-aioboto3", kills(5, tests=2), True)],
    indirect=["scene"],
    ids=["keeping the state", "losing the state"],
)
def test_a_sync_killed_at_any_moment_loses_nothing_and_completes_later(
    scene: Scene, most: int, forgetful: bool
) -> None:
    scene.fill_cache(most * FILES_A_KILL)
    before = invariants.contents(scene.folder / "cache")
    killed = 0
    for number in range(most):
        chance = random.Random(f"{SEED}, {number}")
        forget = forgetful and chance.random() < 0.5
        moment = Moment.chosen(chance)
        story = f"CHAOS_SEED={SEED}, kill {number}: {moment}"
        with started(*scene.where, OFTEN) as command:
            scene.proxy.rule = Killer(moment, command.process, chance)
            status = command.status()
        scene.proxy.rule = None
        assert status in (0, -signal.SIGKILL), (story, command.log.read_text())
        killed += status != 0
        try:
            scene.check()
        except AssertionError as error:
            raise AssertionError(story) from error
        assert invariants.contents(scene.folder / "cache") == before, story
        if forget:
            shutil.rmtree(scene.folder / "state")

    count("kills", killed)
    assert killed > most // 2, f"CHAOS_SEED={SEED}: it was done too soon to be killed"
    report = completed(*scene.where)
    assert report["failed"] == 0
    scene.nothing_is_left()
    assert invariants.contents(scene.folder / "cache") == before


class Gate:
    """A rule that lets the first `count` of its requests pass, and holds the others."""

    def __init__(self, count: int, fault: Fault, applies=writes_object) -> None:
        self._count = count
        self._fault = fault
        self._applies = applies
        self.passed = self.held = 0

    def __call__(self, request: Request) -> Fault | None:
        if not self._applies(request):
            return None
        if self.passed < self._count:
            self.passed += 1
            return None
        self.held += 1
        return self._fault

    def holds(self, count: int) -> bool:
        """Wait until this many requests are held; returns whether they were."""
        return eventually(lambda: self.held >= count, within=PATIENCE)


@pytest.mark.parametrize(
    ("scene", "number"),
    [("seaweedfs-obstore", signal.SIGTERM), ("seaweedfs-aioboto3", signal.SIGINT)],
    indirect=["scene"],
)
def test_the_first_signal_finishes_what_is_in_flight_and_commits_it(
    scene: Scene, number: signal.Signals
) -> None:
    scene.fill_cache(200)
    release = threading.Event()
    gate = scene.proxy.rule = Gate(30, Hold(release, PATIENCE))

    with started(*scene.where, OFTEN) as command:
        assert gate.holds(1)
        command.send(number)
        command.says("Stopping")
        release.set()
        assert command.status() == STOPPED

    report = command.report
    assert report["interrupted"] is True
    assert report["failed"] == 0
    assert 30 < report["uploaded"] < 200
    mirrored = scene.check()
    # The catalog has exactly the objects that the store has acknowledged.
    assert len(mirrored.objects) == report["uploaded"]
    done = report["uploaded"] + report["deduplicated"] + sum(report["flagged"].values())
    assert len(mirrored.latest) == done

    scene.proxy.rule = None
    scene.proxy.forget()
    report = completed(*scene.where)
    assert report["uploaded"] == 200 - len(mirrored.objects)
    assert not {key.rpartition("/")[2] for key in mirrored.objects} & set(scene.objects_put())
    scene.nothing_is_left()


def test_a_signal_lets_uploads_in_flight_end_and_starts_no_others(scene: Scene) -> None:
    scene.fill_cache(200)
    release = threading.Event()
    gate = scene.proxy.rule = Gate(30, Hold(release, PATIENCE))

    with started(*scene.where, OFTEN) as command:
        assert gate.holds(CONCURRENCY)
        command.send(signal.SIGTERM)
        command.says("Stopping")
        release.set()
        assert command.status() == STOPPED

    assert len(scene.objects_put()) == 30 + CONCURRENCY
    assert command.report["uploaded"] == 30 + CONCURRENCY


def test_the_second_signal_leaves_at_once_and_loses_nothing(scene: Scene) -> None:
    scene.fill_cache(100)
    gate = scene.proxy.rule = Gate(30, Stall(PATIENCE))

    with started(*scene.where, OFTEN) as command:
        assert gate.holds(1)
        command.send(signal.SIGINT)
        command.says("Stopping")
        assert command.process.poll() is None
        command.send(signal.SIGINT)
        assert command.status() == STOPPED

    mirrored = scene.check()
    assert len(mirrored.objects) == 30
    uncatalogued = len(mirrored.objects) - len(
        {row["content_hash"] for row in mirrored.latest.values() if row["verdict"] == "ok"}
    )
    scene.proxy.rule = None
    report = completed(*scene.where)
    # Existing objects are compared and catalogued, not written again.
    assert report["uploaded"] == 100 - len(mirrored.objects)
    assert report["deduplicated"] >= uncatalogued
    scene.nothing_is_left()


def test_a_signal_is_handled_while_the_catalog_waits_for_the_network(scene: Scene) -> None:
    scene.fill_cache(100)
    release = threading.Event()
    # Version 0 is the empty table.
    gate = scene.proxy.rule = Gate(1, Hold(release, PATIENCE), commits)

    with started(*scene.where, OFTEN) as command:
        assert gate.holds(1)
        command.send(signal.SIGTERM)
        command.says("Stopping")
        release.set()
        assert command.status() == STOPPED

    assert command.report["interrupted"] is True
    assert len(scene.check().latest) >= COMMIT_ROWS
    scene.proxy.rule = None
    completed(*scene.where)
    scene.nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_before_anything_began_ends_the_run_cleanly(
    scene: Scene, number: signal.Signals
) -> None:
    scene.fill_cache(5)
    release = threading.Event()
    gate = scene.proxy.rule = Gate(
        0, Hold(release, PATIENCE), lambda request: request.path.endswith("format.json")
    )

    with started(*scene.where, OFTEN) as command:
        assert gate.holds(1)
        command.send(number)
        status = command.status()
        release.set()

    assert status == STOPPED
    assert "Traceback" not in command.log.read_text()
    assert command.report["exit_status"] == STOPPED
    scene.proxy.rule = None
    completed(*scene.where)
    scene.nothing_is_left()
