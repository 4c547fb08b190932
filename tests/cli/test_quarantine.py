"""`mirror quarantine` as a user calls it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_bad_input import assert_said, mirror
from tests.support.damaged_caches import files_of, make, put
from tests.support.mirror_setup import MOUNTS
from tests.support.photos import blank, name_of, url_of

__all__ = ["mirror"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    make(tmp_path / "cache")
    return tmp_path / "cache"


def test_json_out_and_back(mirror: Run, cache: Path, tmp_path: Path) -> None:
    before = files_of(cache)
    where = [f"--cache={cache}", "--to=flagged"]
    folder = tmp_path / "work" / "flagged"
    reports = [
        json.loads(mirror("--json", "quarantine", *where, *more).stdout)
        for more in ([], ["--yes"], ["--restore"], ["--restore", "--yes"])
    ]
    keys = ("checked", "moved", "restored", "skipped", "failed", "dry_run")
    assert [tuple(report[key] for key in keys) for report in reports] == [
        (25, 15, 0, 0, 0, True),
        (25, 15, 0, 0, 0, False),
        (15, 0, 15, 0, 0, True),
        (15, 0, 15, 0, 0, False),
    ]
    assert {*reports[0]} == {*keys, "failures", "bytes", "manifest"}
    assert {report["manifest"] for report in reports} == {f"{folder}/manifest.jsonl"}
    assert len({report["bytes"] for report in reports}) == 1
    assert files_of(cache) == before


def test_a_dry_run_shows_what_it_would_do(mirror: Run, cache: Path) -> None:
    done = mirror("quarantine", f"--cache={cache}", "--to=flagged")
    assert done.returncode == 0
    assert "would be moved" in done.stdout
    assert "Add --yes" in done.stdout
    assert name_of(url_of(100)) in done.stdout
    assert len(files_of(cache)) == 26


def test_a_place_that_is_taken_is_said(mirror: Run, cache: Path, tmp_path: Path) -> None:
    taken = name_of(url_of(100))
    folder = tmp_path / "work" / "flagged"
    folder.mkdir()
    (folder / taken).write_text("mine")
    done = mirror("quarantine", f"--cache={cache}", "--to=flagged", "--yes")
    assert done.returncode == 3
    assert f"{taken}: another file is in its place already" in done.stderr
    assert (folder / taken).read_text() == "mine"


def test_bad_usage(mirror: Run, cache: Path) -> None:
    assert mirror("quarantine", f"--cache={cache}").returncode == 2
    inside = mirror("quarantine", f"--cache={cache}", f"--to={cache}/flagged", "--yes")
    assert_said(inside, 2, "is in the cache", "begins with a dot")
    assert_said(mirror("quarantine", f"--cache={cache}", "--to=x", "--restore"), 2, "no manifest")


@pytest.mark.parametrize("more", [[], ["--yes"], ["--restore", "--yes"]])
@pytest.mark.parametrize(
    ("below", "words"), [("", "is the cache"), ("/flagged", "is in the cache")]
)
def test_the_cache_under_another_mount_is_the_cache(
    mirror: Run, cache: Path, tmp_path: Path, below: str, words: str, more: list[str]
) -> None:
    (cache / "flagged").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    before = files_of(cache)
    done = mirror(
        "quarantine", f"--cache={cache}", f"--to={other}{below}", *more, within=bound(cache, other)
    )
    assert_said(done, 2, words)
    assert files_of(cache) == before


def test_a_folder_of_the_cache_under_another_mount_keeps_its_files(
    mirror: Run, cache: Path, tmp_path: Path
) -> None:
    path = put(cache, 700, blank(77), "some").decode()
    other = tmp_path / "flagged" / "some"
    other.mkdir(parents=True)
    done = mirror(
        "--json", "quarantine", f"--cache={cache}", f"--to={other.parent}", "--yes",
        within=bound(cache / "some", other),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert (report["moved"], report["failed"]) == (15, 1)
    assert "one folder" in str(report["failures"])
    assert (cache / path).read_bytes() == blank(77)


def bound(folder: Path, other: Path) -> list[str]:
    """Before a command: it has a folder at another place as well."""
    mount = f"mount --bind '{folder}' '{other}' && exec \"$@\""
    return [*MOUNTS, "sh", "-c", mount, "sh"]


def test_quiet_is_quiet(mirror: Run, cache: Path) -> None:
    done = mirror("-q", "quarantine", f"--cache={cache}", "--to=flagged", "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
