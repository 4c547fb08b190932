"""What is said of a run's progress: one frame for every command."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.backfill.download_plan import DownloadPlan
from mirror.backfill.estimate import DurationEstimate
from mirror.cache.scan import ScanCount, walk
from mirror.cli.log import Style, set_style
from mirror.cli.progress import EVERY_SECONDS, Meter, counting, metering
from mirror.cli.views.backfill_view import BackfillProgress
from mirror.cli.views.sync_view import SyncProgress
from mirror.sync.plan import FileSelection, make_plan
from mirror.sync.state import State
from mirror.sync.sync_report import SyncReport
from tests.support.photos import fill, photo, url_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Watch:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def json_style() -> Iterator[None]:
    set_style(Style("json", "r1"))
    yield
    set_style(Style())


def work(meter: Meter) -> None:
    meter.say("before it begins", "warning")
    meter.begin(100, "100 to do")
    meter.moved(40, lambda _: "a line", lambda: ("before", "behind"))
    meter.waits("for the hour", "waiting for the hour")
    meter.say("meanwhile")


def test_a_terminal_has_a_bar_which_is_gone_at_the_end() -> None:
    terminal = Terminal()
    with metering(0, "things", terminal) as meter:
        work(meter)
    *shown, end = terminal.getvalue().split("\r")
    assert shown[0] == "mirror: before it begins\n"
    assert "0/100 [" in shown[1]
    assert any(text.startswith("for the hour:  40%") and "behind" in text for text in shown)
    assert "mirror: meanwhile\n" in shown
    assert "to do" not in terminal.getvalue()
    assert end == ""


def test_bytes_are_shown_in_decimal_units() -> None:
    terminal = Terminal()
    with metering(0, "B", terminal) as meter:
        meter.begin(5_000_000)
    assert "0.00/5.00M [" in terminal.getvalue()


def test_each_part_of_the_work_has_a_bar_of_its_own() -> None:
    terminal = Terminal()
    with metering(0, "things", terminal) as meter:
        meter.begin()
        meter.moved(70)
        meter.begin(100)
    assert "0/100 [" in terminal.getvalue()
    assert "70/100 [" not in terminal.getvalue()


def test_elsewhere_there_are_lines() -> None:
    stream = io.StringIO()
    with metering(0, "things", stream) as meter:
        work(meter)
    assert stream.getvalue().splitlines() == [
        "mirror: before it begins",
        "mirror: 100 to do",
        "mirror: waiting for the hour",
        "mirror: meanwhile",
    ]


@pytest.mark.usefixtures("json_style")
def test_a_program_that_reads_along_gets_lines_from_a_terminal_too() -> None:
    terminal = Terminal()
    with metering(0, "things", terminal) as meter:
        work(meter)
    assert "\r" not in terminal.getvalue()
    assert terminal.getvalue().count('"run_id": "r1"') == 4


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_quiet_says_what_is_wrong_and_nothing_else(stream: io.StringIO) -> None:
    with metering(-1, "things", stream) as meter:
        work(meter)
        meter.say("it went wrong", "error")
    with counting(-1, "things", stream) as count:
        count(1, 1)
    assert stream.getvalue() == "mirror: before it begins\nmirror: it went wrong\n"


def test_what_is_counted_is_said_with_its_rate() -> None:
    stream, watch = io.StringIO(), Watch()
    with counting(0, "objects", stream, watch) as count:
        watch.now += EVERY_SECONDS
        count(1200, 0)
        watch.now += EVERY_SECONDS
        count(1200, 12_000_000)
    assert stream.getvalue().splitlines() == [
        "mirror: 1,200 objects, 20 objects/s",
        "mirror: 2,400 objects, 12.0 MB, 100.0 kB/s, 20 objects/s",
    ]


def test_the_lines_of_a_sync(tmp_path: Path) -> None:
    fill(tmp_path / "cache", {url_of(n): photo(n) for n in range(4)})
    count = ScanCount()
    found = walk(os.fsencode(tmp_path / "cache"), ("jpg",), count)
    (tmp_path / "state").mkdir()
    with closing(State(tmp_path / "state")) as state:
        plan = make_plan(found, count, state, FileSelection())
    stream, watch = io.StringIO(), Watch()
    with metering(0, "B", stream, watch) as meter:
        observer = SyncProgress(meter)
        watch.now += 100  # of scanning: no part of the work that is timed
        observer.planned(plan, SyncReport("r1"))
        for at, outcome in zip(plan.order, ("put", "duplicate", "flag", "failed"), strict=True):
            watch.now += EVERY_SECONDS / 2
            observer.done(plan.pending[at], outcome)
        observer.warned("careful")
    said = stream.getvalue().splitlines()
    assert [line.split(",")[0].split(" (")[0] for line in said] == [
        "mirror: 4 files scanned; 4 to read",
        "mirror: 2/4 files",
        "mirror: 4/4 files",
        "mirror: careful",
    ]
    assert said[1].endswith(" left (duplicate 1, put 1)")
    assert said[2].endswith(", 0 ms left (duplicate 1, failed 1, flag 1, put 1)")


def test_the_lines_of_a_backfill() -> None:
    stream, watch = io.StringIO(), Watch()
    with metering(0, "images", stream, watch) as meter:
        observer = BackfillProgress(meter)
        watch.now += EVERY_SECONDS
        observer.read(1000)
        watch.now += EVERY_SECONDS
        observer.judged(50)
        observer.planned(
            DownloadPlan(mirrored=10, wanted=4, queued={"host": 4}),
            DurationEstimate(400.0, "4 images are 400 s."),
        )
        for kind, nbytes in (("had", 1000), ("throttled", 0)):
            watch.now += EVERY_SECONDS / 2
            observer.ended("url", kind, nbytes)
            for seconds in (5, 300, 290):
                observer.waiting(seconds, "the hour")
        observer.warned("left \x1b alone")
    assert stream.getvalue().splitlines() == [
        "mirror: 1,000 records read",
        "mirror: 50 files of the cache looked at",
        "mirror: 10 images are there already. To be fetched: 4 images are 400 s.",
        "mirror: waiting 5 minutes: the hour",
        "mirror: 1/4, 1.0 kB, 5 minutes left (had 1, throttled 1)",
        "mirror: waiting 5 minutes: the hour",
        "mirror: left \\x1b alone",
    ]
