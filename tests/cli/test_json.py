"""`--json`: one object on standard output, however a command ends; and outputs that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mirror.cli.main import run
from tests.support.photos import fill, photo, url_of
from tests.support.terminal import Terminal

ODD = os.fsdecode(b"/nope\xff")
FULL = "Standard output cannot be written (No space left on device)"


def mirror(
    *words: str, to: str = "", environ: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `mirror` in a shell that sends its output where `to` says."""
    python = [sys.executable, "-m", "mirror"]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {to}', "sh", *python, *words],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        # Odd bytes are nobody's in a locale that passes all bytes on.
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"} | (environ or {}),
        cwd=cwd,
        check=False,
        timeout=120,
    )


@pytest.fixture
def flags(clean_environment: None, tmp_path: Path) -> list[str]:
    """Of a mirror that is up to date."""
    fill(tmp_path / "cache", {url_of(n): photo(n) for n in range(2)})
    found = [f"--bucket=file://{tmp_path}/mirror", f"--state={tmp_path}/state"]
    assert run(["-q", "sync", f"--cache={tmp_path}/cache", *found]) == 0
    return found


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--json", "sync", "--bogus"], "--bogus"),
        (["sync", "--bogus", "--json"], "--bogus"),
        (["--json", "bogus"], "bogus"),
        (["--json", "fetch"], "URL"),
        (["sync", "--json", "--prefix", "zz"], "hexadecimal"),
        (["sync", "--prefix", "zz", "--json"], "hexadecimal"),
        (["--json", "verify", "--sample", "200%"], "share"),
        (["--json", "config"], "Missing command"),
        (["--json"], "Missing command"),
        (["--json", "--log-format=json", "bogus"], "bogus"),
        (["--json", f"bog{ODD}us"], "bog"),
    ],
    ids=lambda value: (
        " ".join(value).encode("ascii", "replace").decode() if isinstance(value, list) else ""
    ),
)
def test_a_usage_error_is_an_object_too(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["exit_status"] == 2
    assert says in said["error"]
    assert said.keys() == {"error", "exit_status"}
    assert says in err or "Usage: mirror config" in err


@pytest.mark.parametrize("words", [["sync", "--bogus"], ["fetch", "--bogus", "--", "--json"]])
def test_without_it_standard_output_is_left_alone(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--config", ODD, "sync"], 78),
        (["doctor", "--cache", ODD], 78),
        (["config", "show"], 0),
        (["config", "check"], 0),
        (["fetch", f"https://x.example.org{ODD}"], 3),
        (["sync", "--cache", ODD], 1),
        (["sync", "--dataset", ODD], 2),
    ],
    ids=lambda value: (
        " ".join(value[:2]).encode("ascii", "replace").decode() if isinstance(value, list) else ""
    ),
)
def test_what_is_no_utf_8_is_shown_by_its_code(
    words: list[str], status: int, flags: list[str], tmp_path: Path
) -> None:
    asked = words if words[0] == "config" else [*words, *flags]
    environ = {
        "MIRROR_CACHE__DIR": ODD if words[0] == "config" else str(tmp_path / "cache"),
        "MIRROR_BUCKET__URL": f"file://{tmp_path}/mirror",
    }
    done = mirror("--json", *asked, environ=environ)
    assert "fault of mirror" not in done.stderr
    assert done.returncode == status, done.stderr
    assert r"/nope\\udcff" in done.stdout
    json.loads(done.stdout)
    plain = mirror(*asked, environ=environ)
    assert plain.returncode == status
    assert "Traceback" not in plain.stderr
    assert "fault of mirror" not in plain.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["--json", "status"],
        ["--help"],
        ["--json", "fetch", "https://x.example.org/1"],
        ["inspect", "--csv", "-"],
        ["config", "show"],
        ["fetch", url_of(0), "-o", "-"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["", "unbuffered"])
def test_a_full_disk_under_standard_output_is_one_sentence(
    words: list[str], unbuffered: str, flags: list[str], tmp_path: Path
) -> None:
    here = [] if {"--help", "inspect", "config"} & {*words} else flags
    environ = {"MIRROR_CACHE__DIR": str(tmp_path / "cache"), "PYTHONUNBUFFERED": unbuffered}
    done = mirror(*words, *here, to=">/dev/full", environ=environ)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "not in the mirror" not in line]
    said = [line for line in said if "not fetched" not in line]
    assert len(said) == 1, done.stderr
    assert FULL in said[0]


def test_an_error_of_a_command_keeps_its_status_on_a_full_disk(flags: list[str]) -> None:
    done = mirror("--json", "--config=/nowhere.toml", "sync", *flags, to=">/dev/full")
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "cannot be read" in done.stderr


@pytest.mark.parametrize("to", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("first", [[], ["--json"]], ids=["", "--json"])
def test_an_output_that_is_closed_is_an_output_to_nowhere(
    first: Sequence[str], to: str, flags: list[str], tmp_path: Path
) -> None:
    fill(tmp_path / "cache", {url_of(n): photo(n) for n in range(4)})
    done = mirror(*first, "sync", f"--cache={tmp_path}/cache", *flags, to=to)
    assert done.returncode == 0
    assert all("4 files scanned" in line for line in done.stderr.splitlines())
    if first and to == "2>&-":
        assert json.loads(done.stdout)["uploaded"] == 2


def test_the_reader_of_a_pipe_may_go(flags: list[str]) -> None:
    done = mirror("--json", "status", *flags, to="| true")
    assert done.stderr == ""


@pytest.mark.parametrize(("variable", "coloured"), [("", True), ("1", False)])
def test_doctor_obeys_no_color(
    variable: str, coloured: bool, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", variable)
    terminal: Any = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    run(["doctor", *flags])
    assert "folder" in terminal.getvalue()
    assert ("\x1b[" in terminal.getvalue()) == coloured
