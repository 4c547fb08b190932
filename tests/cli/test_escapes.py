"""Names and answers of strangers cannot control a terminal, nor forge a line of a log."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from socketserver import StreamRequestHandler

import pytest

from mirror import cli
from mirror.cli import log, output
from mirror.cli.main import run
from mirror.cli.session import Session
from mirror.cli.views.terminal_progress import _Bar
from mirror.fetch.dropin import UrlDownloader
from mirror.run.progress import Stage
from mirror.run.progress_bar import ProgressBar
from mirror.system.display_text import printable
from mirror.testing import FakeFetcher
from tests.operations.test_systemd import MAIL, said_of_a_failure
from tests.support.http_servers import answering, serving
from tests.support.photos import blank, fill, name_of, photo, url_of
from tests.support.terminal import Terminal

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

WRITES = re.compile(
    r"print|pprint|click\.(s?echo|echo_via_pager|prompt|confirm)|tqdm\.write"
    r"|(error|click\.\w+\(.*\))\.show"
    r"|traceback\.print_\w+|sys\.std(out|err)\.(buffer\.)?write(lines)?"
)
# Who writes by itself, and why that is safe.
WRITERS = {
    "log.py": {"print"},  # escapes
    "output.py": {"click.echo"},  # escapes
    # Into a text, which is escaped.
    "main.py": {"click.UsageError('', getattr(error, 'ctx', None)).show"},
    "views/terminal_progress.py": {"print", "tqdm.write"},  # lines of log.py
    "views/demo_view.py": {"click.secho"},  # titles of its own
    "commands/init.py": {"click.prompt"},  # questions of its own
    "commands/schedule.py": {"click.confirm"},  # a question of its own
    "session.py": {"sys.stdout.write"},  # JSON
    "commands/fetch.py": {"sys.stdout.buffer.write"},  # an image, for -o -
    "commands/completion.py": {"click.echo"},  # a script
    "reference.py": {"sys.stdout.write"},  # docs/cli.md
}


def test_the_command_line_writes_to_people_in_one_place() -> None:
    folder = Path(cli.__file__).parent
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if WRITES.fullmatch(called):
                found.setdefault(str(path.relative_to(folder)), set()).add(called)
            if isinstance(node, ast.ImportFrom):  # it would hide what is called
                assert node.module not in {"click", "sys", "traceback"}, path
    assert found == WRITERS


# --- whole commands ---

# A name of a file can have all of it, as can an argument.
NAME = "a\x1b[2Jb\nmirror: forged\r\x9b31m\x07\x7f\u2028\u2029\u202e\udc9bz"
# A field of a record can have a null byte, and no half of a surrogate pair.
FIELD = NAME.replace("\udc9b", "\0")


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
        {"image_url": url, "species": FIELD, "license": FIELD}
        for url in (url_of(0), url_of(1), f"https://example.org/{FIELD}", FIELD)
    ]
    lines = [json.dumps(record) + "\n" for record in [*records, {FIELD: 1}, {"image_url": NAME}]]
    odd = NAME.encode("utf-8", "surrogateescape")
    (tmp_path / "raw.jsonl").write_bytes("".join(lines).encode() + odd + b"\n")
    (tmp_path / "train.yaml").write_bytes("data: raw.jsonl  # \u202e\n".encode())
    return tmp_path


def assert_harmless(text: str, command: object) -> None:
    for line in text.split("\n"):
        assert line.isprintable(), (command, line)
        assert not line.lstrip().startswith("mirror: forged"), (command, line)


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
    ["help", NAME],
    ["completion", NAME],
    ["sync", f"--{NAME}"],
    ["sync", "--cache", "cache", "--ping", NAME],
    ["config", "check", NAME],  # too many arguments
    ["status", "--region", NAME],
    ["status", "--endpoint", f"http://{NAME}"],
    ["gc", "--grace-days", NAME],
    ["rebuild-state", "--cache", f"no {NAME}"],
    ["init", "--cache", f"no {NAME}", "--output", f"{NAME}.toml", "--no-doctor"],
    ["export", f"mongodb://{NAME}", "-o", "out.jsonl"],
]  # fmt: skip


@pytest.mark.parametrize("how", [[], ["-vv"], ["--log-format", "json"], ["--json"]], ids=" ".join)
def test_no_command_lets_a_name_control_the_terminal(
    hostile: Path, capsys: pytest.CaptureFixture[str], how: list[str]
) -> None:
    where = [part.replace("file:mirror", f"file://{hostile}/mirror") for part in WHERE]
    shown = 0
    for command in COMMANDS:
        takes_a_place = command[0] in {
            "sync", "rewrite", "backfill", "verify", "repair", "pull", "fetch", "prefetch", "status",
            "doctor", "gc", "rebuild-state",
        }  # fmt: skip
        options = where if takes_a_place else []
        assert run([*how, *command, *options]) in range(131)
        out, err = capsys.readouterr()
        shown += "forged" in out + err
        assert_harmless(out + err, command)
        if "--json" in how and out:
            json.loads(out)
    assert shown >= 14, "the names were not shown, so nothing was tried"


def test_the_difference_of_a_configuration_is_escaped_line_by_line(
    hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--bucket", f"file://{hostile}/mirror", "--state", "state"]
    run(["sync", "--cache", "cache", *where])
    capsys.readouterr()
    assert run(["rewrite", "raw.jsonl", "-o", "new.jsonl", "--update-config", "train.yaml",
                "--set", "data={out}", *where]) == 3  # fmt: skip
    out, err = capsys.readouterr()
    assert_harmless(out + err, "rewrite")
    assert "\n-data: raw.jsonl  # \\u202e\n+data: new.jsonl" in out


def test_a_traceback_keeps_the_message_of_an_error_on_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(NAME) from ValueError(HOSTILE)

    monkeypatch.setattr(Session, "settings", broken)
    assert run(["-vv", "status"]) == 1
    err = capsys.readouterr().err
    assert_harmless(err, "status")
    assert f"ValueError: {printable(HOSTILE)}\n\nThe above exception was" in err
    assert err.count(f"\nRuntimeError: {printable(NAME)}\n") == 1


# --- what servers answer ---


class OddMonitor(StreamRequestHandler):
    """Answers with a status line that is none."""

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"\x1b[2J\x9b31m\x07\xe2\x80\xae mirror: forged\r\n\r\n")


def test_the_status_line_of_a_monitor_is_escaped(
    hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(OddMonitor) as url:
        run(["sync", "--cache", "cache", "--bucket", f"file://{hostile}/mirror", "--ping", url])
    err = capsys.readouterr().err
    assert_harmless(err, "sync")
    assert "did not hear of this run: \\x1b[2J\\x9b31m\\x07" in err


XML = "<Error><Code>\x9b31m\x7f\u2028\u202e\nmirror: forged</Code></Error>"


@pytest.mark.parametrize(
    ("region", "body"), [("\x1b[2J\x9b31m", ""), ("r", XML)], ids=["region", "code"]
)
def test_the_answer_of_a_store_is_escaped(
    hostile: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    region: str,
    body: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    headers = {"x-amz-bucket-region": region, "Content-Type": "application/xml"}
    with answering(400, body.encode(), headers) as url:
        place = ["--bucket", "s3://b/p", "--endpoint", url, "--region", "r", "--state", "state"]
        assert run(["doctor", *place]) != 0
    out, err = capsys.readouterr()
    assert_harmless(out + err, "doctor")
    assert r"\x9b31m" in out + err


def test_no_name_forges_a_line_in_the_mail_about_a_failure(
    hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--bucket", f"file://{hostile}/mirror"]
    for command in (["sync", "--cache", "cache"], ["fetch", NAME], ["--config", NAME, "sync"]):
        run([*command, *place, "--state", "state"])
    logged = capsys.readouterr().err
    mailed = said_of_a_failure(hostile, LOG=logged, **MAIL).stdout.split("smtp://localhost\n")[1]
    assert mailed.count("forged") >= 3
    assert_harmless(mailed, "on-failure")


# --- logs of the library ---


def test_the_librarys_log_is_escaped(caplog: pytest.LogCaptureFixture) -> None:
    assert UrlDownloader(FakeFetcher({})).download(NAME) is None
    assert "forged" in caplog.messages[0]
    assert_harmless(caplog.messages[0], "download")
