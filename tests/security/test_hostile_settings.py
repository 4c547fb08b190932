"""Hostile settings: every command refuses them or runs, and never fails with an error of Python.

tests/chaos/test_hostile.py draws configuration files for the loader alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirror.cli.main import COMMANDS, run
from tests.support.photos import fill, photo, url_of

# The arguments of every command that reads mirror.toml. None of them reaches a network.
ARGUMENTS = {
    "init": ["--cache=cache", "--bucket=file:///nowhere/m", "--force", "--no-doctor", "-o", "new.toml"],
    "sync": ["--dry-run", "--dataset=in.jsonl"],
    "rewrite": ["in.jsonl", "-o", "out.jsonl", "--force"],
    "backfill": ["in.jsonl", "--dry-run", "--contact=a@example.org"],
    "verify": [],
    "repair": ["--dry-run"],
    "rebuild-state": [],
    "gc": ["--dry-run"],
    "pull": ["--dry-run"],
    "inspect": [],
    "duplicates": [],
    "quarantine": ["--to=bad"],
    "fetch": [url_of(1)],
    "prefetch": ["in.jsonl"],
    "schedule": ["--cron", "--dry-run"],
    "status": [],
    "doctor": [],
    "config": ["check"],
}  # fmt: skip
SOUND = 'bucket.url = "file:///nowhere/mirror"\n'
FILES = {
    "bytes": b"\x00\xff\xfe",
    "deep lists": b"x = " + b"[" * 3000 + b"]" * 3000,
    "deep keys": b"a." * 1200 + b"b = 1",
    "a long number": b"sync.concurrency = " + b"9" * 5000,
    "a section that is a number": b"bucket = 1",
    "a section that is a list": b"[[bucket]]",
    "a null byte in cache.dir": SOUND.encode() + b'cache.dir = "a\\u0000b"',
    "a null byte in state.dir": SOUND.encode() + b'state.dir = "a\\u0000b"',
    "a null byte in fetch.cache_dir": SOUND.encode() + b'fetch.cache_dir = "a\\u0000b"',
    "a null byte in bucket.url": b'bucket.url = "file:///a\\u0000b"',
    "a long name in state.dir": SOUND.encode() + b'state.dir = "' + b"x" * 300 + b'"',
    "a header in bucket.region": b'bucket.url = "s3://b"\nbucket.region = "a\\r\\nHost: b"\nx = 1',
    "no end of an address": b'bucket.url = "s3://b"\nbucket.endpoint = "https://[::1"',
}


@pytest.fixture
def folder(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "cache", {url_of(1): photo(1)})
    (tmp_path / "in.jsonl").write_text(json.dumps({"image_url": url_of(1)}) + "\n")
    return tmp_path


def test_every_command_has_arguments() -> None:
    assert COMMANDS.keys() - ARGUMENTS.keys() == {"export", "completion", "help", "demo"}, (
        "they read none"
    )


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_hostile_file_is_refused_in_a_sentence(
    folder: Path, text: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mirror.toml").write_bytes(text)
    for name, arguments in ARGUMENTS.items():
        status = run([name, *arguments])
        said = capsys.readouterr().err
        assert status in (1, 78) or name == "init", (name, said)
        assert "a fault of mirror" not in said, (name, said)
        assert "Traceback" not in said, (name, said)


VARIABLES = [
    ("MIRROR_CACHE__DIR", "\udcff\x1b[2J"),
    ("MIRROR_STATE__DIR", "/dev/null/x"),
    ("MIRROR_BUCKET__URL", "file:///\udcff"),
    ("MIRROR_BUCKET__ENDPOINT", "http://[::1"),
    ("MIRROR_A__B__C", "1"),
    ("MIRROR___", "1"),
    ("MIRROR_SYNC__CONCURRENCY", "9" * 5000),
    ("MIRROR_METRICS_FILE", "{x!r}{command.__class__}/a"),
    ("MIRROR_PING", "http://[::1"),
    ("MIRROR_PING", "http://a\r\nHost: b/"),
    ("MIRROR_INSPECT__KNOWN_BAD", "/proc/self/mem"),
    ("AWS_ENDPOINT_URL_S3", "gopher://a"),
    ("COLUMNS", "-1"),
]


@pytest.mark.parametrize(("name", "value"), VARIABLES)
def test_a_hostile_variable_causes_no_error_of_python(
    folder: Path,
    name: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MIRROR_BUCKET__URL", "file:///nowhere/mirror")
    monkeypatch.setenv("MIRROR_CACHE__DIR", "cache")
    monkeypatch.setenv(name, value)
    for command in ("sync", "verify", "status", "fetch", "config"):
        status = run([command, *ARGUMENTS[command]])
        said = capsys.readouterr().err
        assert status in (0, 1, 2, 3, 78), (command, said)
        assert "a fault of mirror" not in said, (command, said)
