"""How the progress of a run looks on standard error: one view for every command."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mirror.cli.log import Style, set_style
from mirror.cli.views.terminal_progress import SECONDS_BETWEEN_LINES, terminal_progress
from mirror.run.progress import Progress, Stage
from tests.support.terminal import Terminal


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


def work(progress: Progress, watch: Watch | None = None) -> None:
    progress.started()
    progress.say("before it begins", "warning")
    progress.begin(Stage("things", 100, sentence="100 to do"))
    if watch is not None:
        watch.now += 10
    progress.advance(40, outcome="duplicate")
    progress.wait(3600, "the hour")
    progress.say("meanwhile")


def test_a_terminal_has_a_bar_which_is_gone_at_the_end() -> None:
    terminal, watch = Terminal(), Watch()
    with terminal_progress(0, terminal, watch) as progress:
        work(progress, watch)
    *shown, end = terminal.getvalue().split("\r")
    assert shown[0] == "mirror: before it begins\n"
    assert "0/100 things" in shown[1]
    assert any(
        "waiting 1 h 0 min: the hour, 40/100 things, 40%, 15.0 s left, 4 things/s" in text
        for text in shown
    )
    assert any(
        "| 40/100 things, 40%, 15.0 s left, 4 things/s, duplicate 40" in text for text in shown
    )
    assert "mirror: meanwhile\n" in shown
    assert "to do" not in terminal.getvalue()
    assert end == ""


def test_bytes_are_shown_in_decimal_units() -> None:
    terminal = Terminal()
    with terminal_progress(0, terminal) as progress:
        progress.begin(Stage("files", 3, 5_000_000))
    assert "0/3 files, 0% of 5.0 MB" in terminal.getvalue()


def test_each_stage_has_a_bar_of_its_own() -> None:
    terminal, watch = Terminal(), Watch()
    with terminal_progress(0, terminal, watch) as progress:
        progress.begin(Stage("things"))
        watch.now += 1
        progress.advance(70)
        progress.begin(Stage("things", 100))
    assert "70 things" in terminal.getvalue()
    assert "0/100 things" in terminal.getvalue()
    assert "70/100" not in terminal.getvalue()


@pytest.mark.parametrize("columns", [30, 60, 80, 120])
def test_a_narrow_terminal_gets_fewer_figures_and_each_whole(columns: int) -> None:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    os.set_blocking(ours, False)
    watch = Watch()
    with open(its, "w") as terminal:
        with terminal_progress(0, terminal, watch) as progress:
            progress.begin(Stage("files", 340_749, 490_000_000_000))
            watch.now += 7200
            progress.advance(136_000, 196_000_000_000, "uploaded")
        shown = b""
        with suppress(BlockingIOError):
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    lines = shown.decode().replace("\n", "\r").split("\r")
    assert max(map(len, lines)) <= columns
    (line,) = (line for line in lines if "136,000/340,749 files" in line)
    figures = "136,000/340,749 files, 40% of 490.0 GB, 3 h 0 min left, 27.2 MB/s, uploaded 136,000"
    text = line.rpartition("| ")[2].rstrip()
    assert figures.startswith(text)
    assert figures[len(text) :][:1] in ("", ",")
    assert ("left" in text) == (columns >= 60)
    assert ("uploaded 136,000" in text) == (columns >= 120)


def test_elsewhere_there_are_lines() -> None:
    stream = io.StringIO()
    with terminal_progress(0, stream) as progress:
        work(progress)
    assert stream.getvalue().splitlines() == [
        "mirror: before it begins",
        "mirror: 100 to do",
        "mirror: waiting 1 h 0 min: the hour",
        "mirror: meanwhile",
    ]


@pytest.mark.usefixtures("json_style")
def test_a_program_that_reads_along_gets_lines_from_a_terminal_too() -> None:
    terminal = Terminal()
    with terminal_progress(0, terminal) as progress:
        work(progress)
    assert "\r" not in terminal.getvalue()
    assert terminal.getvalue().count('"run_id": "r1"') == 4


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_quiet_says_what_is_wrong_and_nothing_else(stream: io.StringIO) -> None:
    started: list[bool] = []
    with terminal_progress(-1, stream, started=lambda: started.append(True)) as progress:
        work(progress)
        progress.say("it went wrong", "error")
    assert stream.getvalue() == "mirror: before it begins\nmirror: it went wrong\n"
    assert started == [True]


def test_what_is_counted_is_said_with_its_rate() -> None:
    stream, watch = io.StringIO(), Watch()
    with terminal_progress(0, stream, watch) as progress:
        progress.begin(Stage("objects"))
        watch.now += SECONDS_BETWEEN_LINES
        progress.advance(1200)
        watch.now += SECONDS_BETWEEN_LINES
        progress.advance(1200, 12_000_000)
    assert stream.getvalue().splitlines() == [
        "mirror: 1,200 objects, 20 objects/s",
        "mirror: 2,400 objects, 12.0 MB, 100.0 kB/s, 20 objects/s",
    ]


def test_the_lines_of_a_sync() -> None:
    stream, watch = io.StringIO(), Watch()
    with terminal_progress(0, stream, watch) as progress:
        watch.now += 100  # of scanning: no part of the work that is timed
        progress.begin(Stage("files", 4, 80_000, sentence="4 files scanned; 4 to read (0.1 MB)"))
        for outcome in ("upload", "duplicate", "flag", "failed"):
            watch.now += SECONDS_BETWEEN_LINES / 2
            progress.advance(1, 20_000, outcome)
        progress.say("careful", "warning")
    assert stream.getvalue().splitlines() == [
        "mirror: 4 files scanned; 4 to read (0.1 MB)",
        "mirror: 2/4 files, 50% of 80.0 kB, 1 min 0 s left, 667 B/s (duplicate 1, upload 1)",
        (
            "mirror: 4/4 files, 100% of 80.0 kB, 0 ms left, 667 B/s "
            "(duplicate 1, failed 1, flag 1, upload 1)"
        ),
        "mirror: careful",
    ]


def test_the_lines_of_a_backfill() -> None:
    stream, watch = io.StringIO(), Watch()
    with terminal_progress(0, stream, watch) as progress:
        progress.begin(Stage("records read"))
        watch.now += SECONDS_BETWEEN_LINES
        progress.advance(1000)
        progress.begin(Stage("images", 4, seconds=400))
        for items, nbytes, outcome in ((1, 1000, "had"), (0, 0, "throttled")):
            watch.now += SECONDS_BETWEEN_LINES / 2
            progress.advance(items, nbytes, outcome)
            for seconds in (5, 300, 290):
                progress.wait(seconds, "the hour")
        progress.say("left \x1b alone", "warning")
    assert stream.getvalue().splitlines() == [
        "mirror: 1,000 records read, 17 records/s",
        "mirror: waiting 5 min 0 s: the hour",
        "mirror: 1/4 images, 25%, 5 min 0 s left, 1.0 kB (had 1, throttled 1)",
        "mirror: waiting 5 min 0 s: the hour",
        "mirror: left \\x1b alone",
    ]


def test_a_dataset_is_measured_in_bytes_and_its_records_are_counted() -> None:
    for nbytes, share in ((2000, ", 50% of 2.0 kB"), (None, "")):
        stream, watch = io.StringIO(), Watch()
        with terminal_progress(0, stream, watch) as progress:
            progress.begin(Stage("records read", nbytes=nbytes))
            watch.now += SECONDS_BETWEEN_LINES
            progress.advance(nbytes=0 if nbytes is None else 1000)
            progress.advance(120_000)
            watch.now += SECONDS_BETWEEN_LINES
            progress.advance(120_000)
        left = "" if nbytes is None else ", 2 min 0 s left"
        assert stream.getvalue().splitlines()[-1] == (
            f"mirror: 240,000 records read{share}{left}, 2,000 records/s"
        )


@pytest.mark.parametrize(
    ("total", "line"),
    [
        (None, "mirror: 600 documents, 10 documents/s\n"),
        (9000, "mirror: 600/9,000 documents, 7%, 14 min 0 s left, 10 documents/s\n"),
        (500, "mirror: 600/500 documents, 100%, 0 ms left, 10 documents/s\n"),  # it was an estimate
    ],
)
def test_a_line_where_the_end_is_not_known(total: int | None, line: str) -> None:
    stream, watch = io.StringIO(), Watch()
    with terminal_progress(0, stream, watch) as progress:
        progress.begin(Stage("documents", total))
        watch.now += SECONDS_BETWEEN_LINES
        progress.advance(600)
    assert stream.getvalue() == line
