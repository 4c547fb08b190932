"""`mirror demo` in the environments of those who try it first."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from mirror.cli.main import run
from mirror.demo.run_demo import run_demo
from mirror.run.progress import Progress
from tests.support.http_servers import answering


def mirror(here: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as proxies are looked up once in each."""
    return subprocess.run(
        [sys.executable, "-m", "mirror", *words],
        cwd=here,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("clean_environment")
def test_nothing_of_the_users_is_asked(tmp_path: Path) -> None:
    """Neither a profile, a proxy nor an endpoint, of which the first two may well be broken."""
    asked: list[str] = []
    with answering(403, b"", {}, asked) as theirs:
        done = mirror(
            tmp_path,
            "demo",
            "--images=20",
            AWS_PROFILE="nope",
            AWS_DEFAULT_PROFILE="nope",
            AWS_CONFIG_FILE=str(tmp_path),
            AWS_ENDPOINT_URL=theirs,
            AWS_ENDPOINT_URL_S3=theirs,
            HTTP_PROXY=theirs,
            http_proxy=theirs,
            ALL_PROXY=theirs,
            NO_PROXY="example.org",
        )
    assert done.returncode == 0, done.stderr
    assert asked == []


@pytest.mark.usefixtures("clean_environment")
def test_the_environment_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    before = dict(os.environ)
    assert run(["-q", "demo", f"--dir={tmp_path}/demo", "--images=20"]) == 0
    assert dict(os.environ) == before


@pytest.mark.parametrize("folder", ["/dev/null", "/dev/null/x", "/proc/x"])
def test_a_folder_that_cannot_be_made_is_said(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo", f"--dir={folder}"]) == 2
    said = capsys.readouterr().err
    assert f"{folder} " in said
    assert "--dir" in said


@pytest.mark.usefixtures("clean_environment")
def test_what_comes_next_can_be_typed(tmp_path: Path) -> None:
    """In a folder whose name has what a shell or a URL takes for its own."""
    done = mirror(tmp_path, "demo", "--images=20", "--dir", "d 'demo' #1")
    assert done.returncode == 0, done.stderr
    (line,) = re.findall(r"^ +mirror (sync .*/mirror'?)$", done.stdout, re.MULTILINE)
    synced = mirror(tmp_path, *shlex.split(line))
    assert synced.returncode == 0, synced.stderr
    assert (tmp_path / "d 'demo' #1" / "mirror" / "format.json").is_file()


@pytest.mark.usefixtures("clean_environment")
def test_each_step_is_told_as_soon_as_it_is_done(tmp_path: Path) -> None:
    """The first sync is on the screen before the second one begins."""
    told: list[str] = []

    def watching() -> AbstractContextManager[Progress]:
        told.append("begins")
        return nullcontext(Progress())

    report = run_demo(
        tmp_path / "demo", 20, watching=watching, told=lambda name, _: told.append(name)
    )
    names = ["made", "first", "second", "rewrite", "fetch", "verify"]
    assert told == [word for name in names for word in ("begins", name)]
    assert report.exit_status == 0
