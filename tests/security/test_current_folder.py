"""No command executes a file of the current folder, which may be a folder of a stranger's data."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.config.settings import BucketSettings, Settings
from mirror.errors import MirrorError
from mirror.fetch.remote import load_index

ROOT = Path(__file__).resolve().parents[2]
PLANTED = (
    "mirror", "mirror/__init__", "numpy", "msgspec", "pickle", "json", "xxhash", "filelock", "yarl",
    "sitecustomize", "usercustomize",
)  # fmt: skip


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Fill the current folder with modules; returns the names of those that were executed."""
    folder, marks = tmp_path / "data", tmp_path / "marks"
    marks.mkdir()
    for name in PLANTED:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = marks / name.replace("/", ".")
        path.write_text(f"open({str(mark)!r}, 'w').close()\nraise SystemExit(99)\n")
    monkeypatch.chdir(folder)
    return lambda: sorted(path.name for path in marks.iterdir())


def test_the_planted_modules_would_be_executed(executed: Callable[[], list[str]]) -> None:
    subprocess.run([sys.executable, "-m", "mirror"], check=False)
    assert executed() == ["mirror.__init__"]


def test_the_installed_command_does_not(executed: Callable[[], list[str]]) -> None:
    command = Path(sys.executable).with_name("mirror")
    subprocess.run([command, "config", "path"], check=False, capture_output=True)
    ended = subprocess.run([command, "--version"], check=True, capture_output=True)
    assert (bool(ended.stdout), executed()) == (True, [])


@pytest.mark.parametrize("first", [[], [""]], ids=["script", "interactive"])
def test_the_index_of_a_forked_worker_does_not(
    first: list[str],
    executed: Callable[[], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A notebook's module path begins with "", the current folder."""
    monkeypatch.setattr(load_index, "is_forked", lambda: True)
    monkeypatch.setattr(sys, "path", [*first, *filter(None, sys.path)])
    settings = Settings(bucket=BucketSettings(url=f"file://{tmp_path}/nothing"))
    with pytest.raises(MirrorError, match="There is no mirror"):
        load_index.load_index(settings, offline=False)
    assert executed() == []


def test_no_other_code_starts_an_interpreter() -> None:
    starts = re.compile(
        r"sys\.executable|\bpython3?\b[\"' ,]+-[mc]\b|ProcessPoolExecutor|os\.exec|runpy"
    )
    found = [
        str(path.relative_to(ROOT))
        for folder in ("mirror", "examples", "config")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and starts.search(path.read_text(errors="replace"))
    ]
    # The first one passes -P; the second only says how to write a page of the documentation.
    assert found == [
        "mirror/cli/commands/schedule.py",
        "mirror/cli/reference.py",
        "mirror/fetch/remote/load_index.py",
    ]
