"""`mirror export` as a user calls it."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pymongo.collection import Collection

import mirror.dataset.export
from mirror.cli.commands.export import command
from mirror.cli.main import run
from mirror.cli.views.terminal_progress import terminal_progress
from mirror.dataset.formats.documents import STYLES
from mirror.dataset.formats.mongo import BATCH_SIZE, Break
from tests.dataset.formats.mongo_relay import THROUGH_IT, altering
from tests.servers import MongoServer
from tests.servers.mongodb import MONGO_READER, MONGO_STRANGER, MongoUser
from tests.servers.process import eventually, free_ports

WRONG = MongoUser("reader", "wrong@hunter2", ())
PASSWORDS = [
    spelling
    for user in (MONGO_READER, MONGO_STRANGER, WRONG)
    for spelling in (user.password, quote(user.password, safe=""))
]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, and nobody else's user and password."""
    monkeypatch.delenv("MONGODB_USERNAME", raising=False)
    monkeypatch.delenv("MONGODB_PASSWORD", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plants(mongodb: MongoServer) -> Collection[dict[str, Any]]:
    collection = mongodb.fresh_collection()
    collection.insert_many(
        [{"_id": n, "url": f"https://example.org/{n}.jpg", "n": n / 4} for n in range(10)]
    )
    return collection


@pytest.fixture
def url(mongodb: MongoServer, plants: Collection[dict[str, Any]]) -> str:
    return mongodb.url(plants.name)


Said = tuple[int, str, str]
Mirror = Callable[..., Said]


@pytest.fixture
def mirror_(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """Runs a command line without pausing; gives its status, its output and what it said.

    No password is in either, whatever happens.
    """
    at_once = functools.partial(mirror.dataset.export.export, sleep=lambda _: None)
    monkeypatch.setattr("mirror.dataset.export.export", at_once)

    def call(*arguments: str) -> Said:
        status = run(list(arguments))
        out, err = capfd.readouterr()
        for password in PASSWORDS:
            assert password not in out + err
        return status, out, err

    return call


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# --- what it writes and says ---


def test_json(mirror_: Mirror, url: str, work: Path) -> None:
    status, out, err = mirror_("--json", "export", url, "-o", "plants.jsonl")
    report = json.loads(out)
    assert (status, err) == (0, "")
    assert list(report) == [
        "documents", "written", "failed", "failures", "non_finite", "resumed", "output", "seconds",
    ]  # fmt: skip
    assert [report[key] for key in list(report)[:7]] == [10, 10, 0, [], 0, 0, "plants.jsonl"]
    assert len(records(work / "plants.jsonl")) == 10


def test_the_table(mirror_: Mirror, url: str) -> None:
    status, out, err = mirror_("export", url, "-o", "plants.jsonl")
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert rows[:2] == [["documents", "10"], ["written", "10", "plants.jsonl"]]
    assert [row[0] for row in rows] == ["documents", "written", "took"]


def test_quiet_is_quiet(mirror_: Mirror, url: str, work: Path) -> None:
    assert mirror_("-q", "export", url, "-o", "plants.jsonl") == (0, "", "")
    assert len(records(work / "plants.jsonl")) == 10


def test_every_option(mirror_: Mirror, url: str, work: Path) -> None:
    (work / "plants.jsonl").write_text("of yesterday")
    status, out, _ = mirror_(
        "export", url, "--output=plants.jsonl", '--filter={"n": {"$gte": 2}}', "--projection=n",
        "--json-style=canonical", "--batch-size=1", "--force", "--json",
    )  # fmt: skip
    assert (status, json.loads(out)["written"]) == (0, 2)
    assert records(work / "plants.jsonl") == [
        {"_id": {"$numberInt": f"{n}"}, "n": {"$numberDouble": f"{n / 4}"}} for n in (8, 9)
    ]


def test_the_options_are_those_of_the_library() -> None:
    options = {option.name: option for option in command.params}
    assert tuple(getattr(options["json_style"].type, "choices", ())) == STYLES
    assert options["batch_size"].default == BATCH_SIZE


def test_user_and_password_of_the_environment(
    mirror_: Mirror,
    mongodb: MongoServer,
    plants: Collection[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MONGODB_USERNAME", MONGO_READER.name)
    monkeypatch.setenv("MONGODB_PASSWORD", MONGO_READER.password)
    status, *_ = mirror_("export", mongodb.url(plants.name, None, authSource="admin"), "-o", "x")
    assert status == 0


def test_a_scan_that_broke_is_told_of(mirror_: Mirror, mongodb: MongoServer, url: str) -> None:
    with mongodb.failing("getMore", mode={"times": 1}, errorCode=43):
        status, out, err = mirror_("export", url, "-o", "plants.jsonl", "--batch-size=4")
    assert status == 0
    assert err.startswith("mirror: the scan broke after 4 documents (Failing command")
    assert err.count("\n") == 1
    assert ["resumed", "1", "after", "the", "scan", "broke"] in [
        line.split() for line in out.splitlines()
    ]


def test_numbers_that_json_has_not_are_told_of(
    mirror_: Mirror, url: str, plants: Collection[dict[str, Any]]
) -> None:
    plants.update_many({"_id": {"$lt": 3}}, {"$set": {"n": math.nan}})
    _, out, _ = mirror_("export", url, "-o", "plants.jsonl")
    assert "NaN or infinite" in out
    assert "--json-style relaxed keeps them" in out
    _, out, _ = mirror_("--json", "export", url, "-o", "again.jsonl")
    assert json.loads(out)["non_finite"] == 3


def test_documents_that_are_not_valid_are_listed(
    mirror_: Mirror, mongodb: MongoServer, plants: Collection[dict[str, Any]], work: Path
) -> None:
    plants.update_one({"_id": 7}, {"$set": {"name": "spoilt"}})
    with altering(mongodb, b"spoilt", b"sp\xffilt") as server:
        url = server.url(plants.name, MONGO_READER, **THROUGH_IT)
        status, out, err = mirror_("export", url, "-o", "plants.jsonl")
        assert (status, err.splitlines()[0]) == (3, "1 document could not be written:")
        assert "  7: is not valid BSON" in err
        assert "failed" in out
        status, out, _ = mirror_("--json", "export", url, "-o", "again.jsonl")
    report = json.loads(out)
    assert (status, report["documents"], report["written"], report["failed"]) == (3, 10, 9, 1)
    assert [one["_id"] for one in report["failures"]] == ["7"]
    assert [one["_id"] for one in records(work / "plants.jsonl")] == [0, 1, 2, 3, 4, 5, 6, 8, 9]


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("status", "user", "arguments", "words"),
    [
        (1, MONGO_READER, ["{url}x", "-o", "new.jsonl"], "does not exist"),
        (1, MONGO_STRANGER, ["{url}", "-o", "new.jsonl"], "may not be read by this user"),
        (2, MONGO_READER, ["{url}"], "Missing option '-o'"),
        (2, MONGO_READER, ["-o", "new.jsonl"], "Missing argument"),
        (2, MONGO_READER, ["{url}", "{url}", "-o", "new.jsonl"], "one address"),
        (2, MONGO_READER, ["{url}/leaves", "-o", "new.jsonl"], "is not understood"),
        (2, MONGO_READER, ["{url}", "-o", "old.jsonl"], "exists; --force replaces it"),
        (2, MONGO_READER, ["{url}", "-o", "old.jsonl/such.jsonl"], "is not a folder"),
        (2, MONGO_READER, ["{url}", "-o", "new.jsonl", "--filter", "n=1"], "The filter is not"),
        (2, MONGO_READER, ["{url}", "-o", "new.jsonl", "--filter", '{"$n": 1}'], "rejects the"),
        (2, MONGO_READER, ["{url}", "-o", "new.jsonl", "--projection", "a,,b"], "empty name"),
        (2, MONGO_READER, ["{url}", "-o", "new.jsonl", "--json-style", "xml"], "'xml'"),
        (2, MONGO_READER, ["{url}", "-o", "new.jsonl", "--batch-size", "0"], "batch-size"),
        (2, MONGO_READER, ["{url}", "-o", "new.jsonl", "--no-such-option"], "--no-such-option"),
        (78, WRONG, ["{url}", "-o", "new.jsonl"], "rejected the user or the password"),
        (78, None, ["{url}", "-o", "new.jsonl"], "requires a user and a password"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_a_status(
    mirror_: Mirror,
    mongodb: MongoServer,
    plants: Collection[dict[str, Any]],
    work: Path,
    status: int,
    user: MongoUser | None,
    arguments: list[str],
    words: str,
) -> None:
    (work / "old.jsonl").write_text("of yesterday")
    address, question, options = mongodb.url(plants.name, user).partition("?")
    arguments = [
        f"{part.replace('{url}', address)}{question}{options}" if "{url}" in part else part
        for part in arguments
    ]
    found, out, err = mirror_("export", *arguments)
    assert (found, out) == (status, "")
    assert words in err
    assert "Traceback" not in err
    # With tracebacks, too: `mirror_` looks for passwords in them.
    found, out, err = mirror_("-vv", "export", *arguments)
    assert (found, out) == (status, "")
    assert words in err
    assert [path.name for path in work.iterdir()] == ["old.jsonl"]
    assert (work / "old.jsonl").read_text() == "of yesterday"


def test_an_error_as_json(mirror_: Mirror) -> None:
    (port,) = free_ports(1)
    address = f"mongodb://reader:wrong%40hunter2@127.0.0.1:{port}/db/c"
    status, out, err = mirror_(
        "--json", "export", f"{address}?serverSelectionTimeoutMS=10", "-o", "x.jsonl"
    )
    error = json.loads(out)
    assert (status, error["exit_status"]) == (1, 1)
    assert error["error"].startswith(f"mongodb://127.0.0.1:{port}/db/c cannot be reached")
    assert err == f"mirror: {error['error']}\n"


def test_a_user_without_a_password(mirror_: Mirror) -> None:
    status, _, err = mirror_("export", "mongodb://reader@127.0.0.1/db/c", "-o", "x.jsonl")
    assert (status, "MONGODB_PASSWORD" in err) == (78, True)


# --- as a process ---


@pytest.fixture
def half_way(
    mongodb: MongoServer, plants: Collection[dict[str, Any]], url: str, work: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """An export that has written a part and waits for the next batch."""
    plants.update_many({}, {"$set": {"text": "x" * 20_000}})
    with (
        mongodb.failing("getMore", blockConnection=True, blockTimeMS=2000),
        subprocess.Popen(
            [sys.executable, "-m", "mirror", "export", url, "-o", "x.jsonl", "--batch-size=4"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            assert eventually(
                lambda: any(path.stat().st_size for path in work.iterdir()), within=30
            )
            yield process
        finally:
            process.kill()


def test_a_stopped_export_leaves_nothing(half_way: subprocess.Popen[bytes], work: Path) -> None:
    half_way.send_signal(signal.SIGTERM)
    out, err = half_way.communicate(timeout=30)
    assert (half_way.returncode, out) == (130, b"")
    assert b"mirror: Interrupted" in err
    assert list(work.iterdir()) == []


def test_a_killed_export_leaves_no_half_file(half_way: subprocess.Popen[bytes], work: Path) -> None:
    half_way.kill()
    half_way.communicate(timeout=30)
    assert [path.name[:8] for path in work.iterdir()] == [".mirror-"]


def test_a_terminal_shows_a_bar(url: str) -> None:
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(its_end, (24, 100))
    with subprocess.Popen(
        [sys.executable, "-m", "mirror", "export", url, "-o", "x.jsonl"],
        stdout=subprocess.PIPE,
        stderr=its_end,
        text=True,
    ) as process:
        os.close(its_end)
        shown = b""
        with suppress(OSError):  # how Linux says that nobody holds the other end any more
            while part := os.read(terminal, 4096):
                shown += part
        out, _ = process.communicate(timeout=30)
    os.close(terminal)
    assert process.returncode == 0
    assert b"0/10 documents" in shown
    assert out.startswith("documents")


def test_a_break_is_told_at_once_unless_quiet() -> None:
    for verbosity, expected in (
        (-1, ""),
        (0, "mirror: the scan broke after 3 documents (why); it resumes in 0.5 s\n"),
    ):
        stream = io.StringIO()
        with terminal_progress(verbosity, stream) as progress:
            progress.say(str(Break(3, "why", 0.5)))
        assert stream.getvalue() == expected
