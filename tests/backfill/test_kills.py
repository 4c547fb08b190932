"""A backfill that is killed at any moment loses nothing, keeps nothing bad and forgets no request.

How often, and at which moments: tests/support/chaos_tally.py.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mirror.content.image import inspect
from tests.backfill.fake_inaturalist import First, Image, INaturalist, Reset, gone, html
from tests.servers.process import eventually
from tests.support.chaos_tally import SEED, count, kills
from tests.support.photos import name_of, photo

PATIENCE = 60.0
# About how many requests each process sends before it is killed.
REQUESTS_A_KILL = 12
PER_SECOND = 40

_numbers = itertools.count()


@dataclass
class KilledBackfill:
    """A server with the real clock, a dataset, a cache, and `mirror backfill` as its own process."""

    folder: Path
    server: INaturalist
    good: dict[str, bytes] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def fill(self, count: int) -> None:
        """Photos, with some answers among them that are not photos."""
        self.cache.mkdir()
        lines = []
        for number in range(count):
            kind = number % 12
            passing = First(1, Reset(photo(number)), Image(photo(number)))
            answer: Any = {
                3: gone(404),
                5: gone(403),
                7: html(),
                9: Image(photo(10**6)),
                11: passing,
            }.get(kind, Image(photo(number)))
            url = self.server.photo(number, answer).replace("static.inaturalist.org", "127.0.0.1")
            if kind in (3, 5, 9):
                self.gone.append(url)
            elif kind == 7:
                self.bad.append(url)
            else:
                self.good[url] = photo(number)
            lines.append(json.dumps({"image_url": url}) + "\n")
        (self.folder / "dataset.jsonl").write_text("".join(lines))
        (self.folder / "mirror.toml").write_text(
            f"""
            cache.dir = "cache"
            state.dir = "state"
            [backfill]
            hosts = ["127.0.0.1"]
            contact = "test@example.org"
            allow_private = true
            per_second = {PER_SECOND}
            per_hour = 1000000
            per_day = 1000000
            concurrency = 2
            stall_seconds = 2
            """
        )

    @contextlib.contextmanager
    def started(self) -> Iterator[subprocess.Popen[bytes]]:
        number = next(_numbers)
        self.out, self.err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        with self.out.open("wb") as stdout, self.err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "mirror", "--json", "backfill", "dataset.jsonl"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def report(self) -> dict[str, Any]:
        text = self.out.read_text()
        assert text, self.err.read_text()
        report: dict[str, Any] = json.loads(text)
        return report

    def check(self) -> None:
        """Check what must hold at any moment."""
        for path in self.cache.iterdir():
            if path.name.endswith((".mirror-part", ".mirror-lock")):
                continue
            assert inspect(path.read_bytes()).verdict == "ok", path
        for url, body in self.good.items():
            path = self.cache / name_of(url)
            assert not path.exists() or path.read_bytes() == body


@pytest.fixture
def killed_backfill(tmp_path: Path, clean_environment: None) -> Iterator[KilledBackfill]:
    with INaturalist(time.monotonic) as server:
        yield KilledBackfill(tmp_path, server)


def killing(process: subprocess.Popen[bytes], nth: int, delay: float) -> Callable[[], float]:
    """A clock for the server that kills the process a moment after its n-th look."""
    looks = itertools.count(1)

    def clock() -> float:
        if next(looks) == nth:
            threading.Timer(delay, process.kill).start() if delay else process.kill()
        return time.monotonic()

    return clock


@pytest.mark.chaos("backfill")
def test_killed_at_any_moment_it_loses_nothing_and_completes_later(
    killed_backfill: KilledBackfill,
) -> None:
    most = kills(10)
    killed_backfill.fill(most * REQUESTS_A_KILL + 40)
    killed = 0
    for number in range(most):
        chance = random.Random(f"{SEED}, {number}")
        nth, delay = (
            chance.randint(1, 3 * REQUESTS_A_KILL),
            chance.choice([0.0, chance.random() / 20]),
        )
        with killed_backfill.started() as process:
            killed_backfill.server.clock = killing(process, nth, delay)
            status = process.wait(PATIENCE)
        story = f"CHAOS_SEED={SEED}, kill {number}: at {nth}, {delay}"
        assert status in (0, 3, -signal.SIGKILL), (story, killed_backfill.err.read_text())
        killed += status == -signal.SIGKILL
        killed_backfill.check()
    count("kills", killed)
    assert killed > most // 2, f"CHAOS_SEED={SEED}: it was done too soon to be killed"

    killed_backfill.server.clock = time.monotonic
    with killed_backfill.started() as process:
        assert process.wait(PATIENCE) in (0, 3)
    report = killed_backfill.report()
    killed_backfill.check()
    assert sorted(os.listdir(killed_backfill.cache)) == sorted(map(name_of, killed_backfill.good))
    # Only answers in HTML are left, and they wait; the last run may have requested some of them.
    assert report["left"] + report["failed"]["not_image"] == len(killed_backfill.bad)
    assert killed_backfill.server.most_requests(1) <= PER_SECOND
    # A kill between an answer and its record causes one more request.
    again = sum(killed_backfill.server.times_asked(url) - 1 for url in killed_backfill.gone)
    assert again <= 2 * killed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(killed_backfill: KilledBackfill, number: signal.Signals) -> None:
    killed_backfill.fill(200)
    with killed_backfill.started() as process:
        assert eventually(lambda: len(killed_backfill.server.hits) > 5, within=PATIENCE)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 130
    report = killed_backfill.report()
    assert report["interrupted"]
    assert report["exit_status"] == 130
    assert 0 < report["downloaded"] < len(killed_backfill.good)
    assert report["left"] > 0
    killed_backfill.check()
    kept = [name for name in os.listdir(killed_backfill.cache) if name.startswith(".")]
    assert kept == []
    assert "Stopping after the requests in flight" in killed_backfill.err.read_text()


def test_a_second_run_is_refused_while_the_first_works(killed_backfill: KilledBackfill) -> None:
    killed_backfill.fill(200)
    with killed_backfill.started():
        assert eventually(lambda: len(killed_backfill.server.hits) > 2, within=PATIENCE)
        with killed_backfill.started() as second:
            assert second.wait(PATIENCE) == 75
        assert "Another run is at work" in killed_backfill.err.read_text()
        assert killed_backfill.report()["exit_status"] == 75
