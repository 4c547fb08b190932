"""The crontab has cron's form, and its commands work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

CRONTAB = Path(__file__).resolve().parents[2] / "config" / "cron" / "mirror"
RANGES = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]


def jobs() -> list[list[str]]:
    lines = [line for line in CRONTAB.read_text().splitlines() if line and line[0] != "#"]
    assert CRONTAB.read_text().endswith("\n"), "cron passes over a last line without an end"
    return [line.split(None, 6) for line in lines if not re.match(r"[A-Z]+=", line)]


def test_every_line_says_when_and_as_whom() -> None:
    for job in jobs():
        for written, (least, most) in zip(job, RANGES, strict=False):
            assert written == "*" or least <= int(written) <= most
        assert job[5] == "mirror"
        assert "%" not in job[6], "cron reads it as the end of a line"


def test_the_crontab_avoids_the_full_hour() -> None:
    assert all(job[0] not in ("0", "30") for job in jobs())


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize(
    ("number", "name", "file"), [(0, "sync", ""), (1, "gc", "-gc"), (2, "verify", "-verify")]
)
def test_the_command_runs_mirror_with_the_environments_secrets(
    tmp_path: Path, number: int, name: str, file: str, status: int
) -> None:
    """Each command gets the key of its own file, and where to report to."""
    (tmp_path / "monitoring").write_text("MIRROR_PING=https://example.org\n")
    for key in ("", "-gc", "-verify"):
        (tmp_path / f"environment{key}").write_text(f"AWS_ACCESS_KEY_ID=key{key}\n")
    stand_in = tmp_path / "mirror"
    stand_in.write_text(f'#!/bin/sh\necho "$AWS_ACCESS_KEY_ID $MIRROR_PING $*"\nexit {status}\n')
    stand_in.chmod(0o755)
    command = jobs()[number][-1].replace("/etc/mirror", shlex.quote(str(tmp_path)))
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        done.stdout == f"key{file} https://example.org --config {tmp_path}/mirror.toml -q {name}\n"
    )
    assert done.returncode == status


def test_its_arguments_are_valid(tmp_path: Path) -> None:
    for *_, command in jobs():
        words = shlex.split(command.rpartition("exec mirror ")[2])
        done = subprocess.run(
            [sys.executable, "-m", "mirror", *words, "--help"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
