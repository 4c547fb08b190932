"""Names and answers of strangers cannot control a terminal, nor forge a line of a log."""

from __future__ import annotations

import json

import pytest

from mirror.cli import log, output
from mirror.run.progress_bar import ProgressBar
from mirror.system.display_text import printable

HOSTILE = "a\x1b[2J\x9b31m\r\n\x00\x07\x7f\u2028\u2029\u202e\ud800z"


@pytest.fixture(params=["say", "listing", "table", "grid"])
def written(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> str:
    match request.param:
        case "say":
            log.say(HOSTILE, "warning")
        case "listing":
            log.listing(HOSTILE, [HOSTILE])
        case "table":
            output.table([(HOSTILE, HOSTILE, HOSTILE)])
        case _:
            output.grid([HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]])
    out, err = capsys.readouterr()
    return out or err


def test_each_line_is_printable_and_keeps_the_text(written: str) -> None:
    lines = written.removesuffix("\n").split("\n")
    assert len(lines) <= 2
    assert all(line.isprintable() and printable(HOSTILE) in line for line in lines)


def test_a_line_of_json_escapes_by_itself_and_stays_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.set_style(log.Style("json", "run"))
    try:
        log.listing(HOSTILE, [HOSTILE])
    finally:
        log.set_style(log.Style())
    line = capsys.readouterr().err.removesuffix("\n")
    assert line.isprintable()
    assert json.loads(line)["items"] == [HOSTILE]


def test_the_bar_of_the_library_escapes_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressBar().say(HOSTILE)
    assert printable(HOSTILE) in capsys.readouterr().err
