"""A command warns once of an address whose requests the network can read and change."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.cli.main import run
from mirror.config.settings import BucketSettings, Settings
from mirror.diagnosis import doctor
from mirror.diagnosis.finding import Finding

WARNING = "begins with http://"


@pytest.mark.parametrize(
    ("url", "endpoint", "public_url", "keys"),
    [
        ("s3://b", "http://10.0.0.5:9000", None, ["bucket.endpoint"]),
        ("s3://b", "HTTP://minio.example.org", None, ["bucket.endpoint"]),
        ("s3://b", "http://[fd00::5]:9000", None, ["bucket.endpoint"]),
        ("s3://b", "http://localhost.example.org", None, ["bucket.endpoint"]),
        ("s3://b", "http://a.org", "http://b.org/c", ["bucket.endpoint", "bucket.public_url"]),
        ("file:///m", "http://10.0.0.5", "http://b.org/c", ["bucket.public_url"]),
        ("s3://b", "https://10.0.0.5:9000", "https://b.org", []),
        ("s3://b", "http://127.0.0.1:9000", "http://localhost:80", []),
        ("s3://b", "http://[::1]:9000", "http://s3.localhost:80", []),
        ("s3://b", None, None, []),
        (None, "http://10.0.0.5:9000", "http://b.org", []),
    ],
)
def test_addresses_of_other_machines_need_encryption(
    url: str | None, endpoint: str | None, public_url: str | None, keys: list[str]
) -> None:
    bucket = BucketSettings(url=url, endpoint=endpoint, public_url=public_url)
    assert Settings(bucket=bucket).unencrypted == keys


COMMANDS = [
    ["config", "check"],
    ["status", "--no-scan"],
    ["sync", "--dry-run"],
    ["verify"],
    ["rebuild-state"],
    ["pull"],
    ["fetch", "https://example.org/a.jpg"],
    ["inspect"],
    ["gc"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_command_warns_once(
    words: list[str],
    tmp_path: Path,
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mirror in a folder with a public address needs no server."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mirror.toml").write_text(
        '[bucket]\nurl = "file:///nowhere/mirror"\npublic_url = "http://img.example.org"\n'
        '[cache]\ndir = "cache"\n[state]\ndir = "state"\n'
    )
    run([*words, "-q"])
    said = capsys.readouterr().err
    assert said.count(WARNING) == 1, said
    assert "bucket.public_url" in said


def test_the_doctor_has_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bucket = BucketSettings(url=f"file://{tmp_path}", public_url="http://img.example.org")
    first = next(doctor.examine(Settings(bucket=bucket)))
    assert isinstance(first, Finding)
    assert (first.name, first.status) == ("encryption", "warn")
    assert "bucket.public_url begins with http://" in first.what
