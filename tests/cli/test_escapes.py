"""Names and answers of strangers cannot control a terminal, nor forge a line of a log."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from mirror import cli
from mirror.cli import log, output
from mirror.cli.main import run
from mirror.cli.views.terminal_progress import _Bar
from mirror.run.progress import Stage
from mirror.run.progress_bar import ProgressBar
from mirror.system.display_text import printable
from tests.support.photos import blank, fill, name_of, photo, url_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


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


def test_the_terminals_bar_escapes_its_text() -> None:
    bar = _Bar(Terminal(), lambda: None, lambda: 0.0)
    bar.begin(Stage("files"))
    bar.wait(5.0, HOSTILE)
    assert printable(HOSTILE) in bar._look(1.0)["desc"]


# --- the rule ---

# What writes to standard output or standard error by itself: data for programs, and the writers.
WRITERS = {"log.py", "output.py", "session.py", "reference.py", "completion.py"}


def test_the_command_line_writes_to_people_in_one_place() -> None:
    folder = Path(cli.__file__).parent
    found = {
        f"{path.relative_to(folder)}: {line.strip()}"
        for path in folder.rglob("*.py")
        if path.name not in WRITERS
        for line in path.read_text().splitlines()
        if re.search(r"\bclick\.s?echo\(|\bprint\(|print_exc\(|std(out|err)\.write\(", line)
    }
    assert found == {
        "views/demo_view.py: click.secho(text, bold=True)",  # titles of its own
        "views/terminal_progress.py: print(_line(sentence, level), file=self._stream, flush=True)",
    }


# --- whole commands ---

NAME = "a\x1b[2Jb\nmirror: forged\r\x9b31mz"


@pytest.fixture
def hostile(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, a mirror and a dataset whose folders, URLs, classes and fields control a terminal."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cache" / NAME
    fill(folder, {url_of(0): photo(0), url_of(1): blank(), url_of(2): b"<html>"})
    (folder / name_of(url_of(3))).symlink_to("nowhere")
    too_deep = folder / name_of(url_of(4)).removesuffix(".jpg")
    too_deep.mkdir()
    records = [
        {"image_url": url, "species": NAME, "license": NAME}
        for url in (url_of(0), url_of(1), f"https://example.org/{NAME}", NAME)
    ]
    lines = [json.dumps(record) + "\n" for record in [*records, {NAME: 1}]]
    (tmp_path / "raw.jsonl").write_text("".join(lines) + NAME + "\n")
    return tmp_path


WHERE = ["--bucket", "file:mirror", "--state", "state"]
COMMANDS: list[list[str]] = [
    ["sync", "--cache", "cache", "--include-flagged"],
    ["sync", "--cache", "cache"],
    ["inspect", "cache", "--sheet", f"sheet {NAME}.html"],
    ["quarantine", "--cache", "cache", "--to", f"aside {NAME}"],
    ["rewrite", "raw.jsonl", "-o", f"new {NAME}.jsonl", "--split", "train=0.5,val=0.5",
     "--stratify-by", "species", "--license", "cc-by"],
    ["rewrite", "raw.jsonl", "-o", "new.jsonl", "--url-field", NAME],
    ["backfill", "raw.jsonl", "--cache", "cache", "--dry-run", "--contact", NAME],
    ["verify", "--report", f"problems {NAME}.jsonl"],
    ["repair", "--from", f"from {NAME}"],
    ["pull", "--cache", f"new {NAME}"],
    ["fetch", NAME, "-o", f"out {NAME}"],
    ["prefetch", "raw.jsonl", "--fetch-cache", f"fetched {NAME}"],
    ["status", "--cache", "cache"],
    ["doctor", "--cache", f"no {NAME}"],
    ["config", "check"],
    ["--config", f"no {NAME}.toml", "config", "show"],
    [NAME],
    ["sync", f"--{NAME}"],
]  # fmt: skip


@pytest.mark.parametrize("json_lines", [False, True])
def test_no_command_lets_a_name_control_the_terminal(
    hostile: Path, capsys: pytest.CaptureFixture[str], json_lines: bool
) -> None:
    where = [part.replace("file:mirror", f"file://{hostile}/mirror") for part in WHERE]
    names_seen = 0
    for command in COMMANDS:
        takes_a_place = command[0] in {
            "sync", "rewrite", "backfill", "verify", "repair", "pull", "fetch", "prefetch", "status",
            "doctor",
        }  # fmt: skip
        options = where if takes_a_place else []
        log_format = ["--log-format", "json"] if json_lines and takes_a_place else []
        assert run([*command, *options, *log_format]) in range(131)
        out, err = capsys.readouterr()
        names_seen += "forged" in out + err
        for line in (out + err).split("\n"):
            assert line.isprintable(), (command, line)
            assert not line.startswith("mirror: forged"), command
    assert names_seen >= 8, "the names were not shown, so nothing was tried"
