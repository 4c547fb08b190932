"""`mirror verify`, `repair`, `rebuild-state`, `gc` and `pull` as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirror.cli.main import run
from tests.cli.test_bad_input import assert_said, flags, mirror
from tests.support.mirror_setup import key_of
from tests.support.photos import fill, name_of, photo, url_of

__all__ = ["mirror"]

Run = Callable[..., subprocess.CompletedProcess[str]]

CONTRACT = {"checked", "missing", "mismatched", "orphaned", "repaired", "deleted", "pulled"}
COMMON = CONTRACT | {
    "failed", "rows_without_object", "bytes", "examples", "warnings", "requests", "seconds",
    "dry_run", "interrupted", "exit_status",
}  # fmt: skip


@pytest.fixture
def cache(mirror: Run, tmp_path: Path) -> Path:
    """A cache of six images that was synced to a folder."""
    folder = tmp_path / "cache"
    fill(folder, {url_of(n): photo(n) for n in range(6)})
    assert mirror("-q", "sync", *flags(folder)).returncode == 0
    return folder


def without_cache(cache: Path) -> list[str]:
    return [flag for flag in flags(cache) if not flag.startswith("--cache")]


def bucket(cache: Path) -> Path:
    return cache.parent / "mirror"


def report_of(done: subprocess.CompletedProcess[str], status: int) -> dict[str, Any]:
    assert done.returncode == status, done.stderr
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    assert report.keys() >= COMMON
    assert report["exit_status"] == status
    return report


def test_a_mirrors_life(mirror: Run, cache: Path) -> None:
    """Damage is found, mended, what is lost is given up, what is unnamed goes, the cache is back."""
    where, here = without_cache(cache), flags(cache)
    assert report_of(mirror("verify", *where, "--full", "--json"), 0)["read"] == 6

    (bucket(cache) / key_of(photo(0))).unlink()
    (bucket(cache) / key_of(photo(1))).write_bytes(b"other bytes")
    unnamed = bucket(cache) / key_of(photo(9))
    unnamed.parent.mkdir(exist_ok=True)
    unnamed.write_bytes(photo(9))
    found = report_of(mirror("verify", *where, "--json"), 3)
    assert [found[name] for name in ("checked", "missing", "mismatched", "orphaned")] == [
        6,
        1,
        1,
        1,
    ]

    (cache / name_of(url_of(0))).unlink()
    mended = report_of(mirror("repair", *here, "--json"), 3)
    assert (mended["repaired"], mended["lost"], mended["flagged_rows"]) == (1, 1, 1)
    assert report_of(mirror("verify", *where, "--json"), 0)["missing"] == 0

    written = time.time() - 30 * 86_400
    for path in bucket(cache).rglob("*.jpg"):
        os.utime(path, (written, written))
    planned = report_of(mirror("gc", *where, "--dry-run", "--json"), 0)
    assert (planned["planned"], planned["deleted"]) == (1, 0)
    assert report_of(mirror("gc", *where, "--json"), 0)["deleted"] == 1

    pulled = report_of(mirror("pull", *flags(cache.parent / "back"), *where, "--json"), 0)
    assert (pulled["checked"], pulled["pulled"]) == (5, 5)
    known = report_of(mirror("rebuild-state", *here, "--json"), 0)
    assert (known["checked"], known["known"]) == (5, 5)


@pytest.mark.parametrize("command", ["verify", "repair", "gc", "pull", "rebuild-state"])
def test_a_table_for_people_and_nothing_when_quiet(mirror: Run, cache: Path, command: str) -> None:
    where = flags(cache) if command not in ("verify", "gc") else without_cache(cache)
    done = mirror(command, *where)
    assert done.returncode == 0, done.stderr
    assert "requests" in done.stdout
    assert "took" in done.stdout
    done = mirror("-q", command, *where)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", ["verify", "repair", "gc", "pull", "rebuild-state"])
def test_without_a_mirror(
    clean_environment: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    folder = tmp_path / "cache"
    fill(folder, {url_of(1): photo(1)})
    where = flags(folder) if command not in ("verify", "gc") else without_cache(folder)
    assert run([command, *where]) == 1
    said = capsys.readouterr().err
    assert "There is no mirror" in said
    assert "mirror sync" in said


def test_what_is_wrong_is_named(mirror: Run, cache: Path, tmp_path: Path) -> None:
    (bucket(cache) / key_of(photo(0))).unlink()
    done = mirror("verify", *without_cache(cache), "--report=wrong.jsonl")
    assert done.returncode == 3
    assert key_of(photo(0)) in done.stderr
    assert "mirror repair" in done.stdout
    (line,) = (tmp_path / "work" / "wrong.jsonl").read_text().splitlines()
    assert json.loads(line)["url_md5"] == [name_of(url_of(0))[:32]]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["verify", "--full", "--exists"], 2, "Choose one"),
        (["verify", "--sample=200%"], 2, "write a share"),
        (["verify", "--sample=few"], 2, "write a share"),
        (["verify", "--sample=1"], 2, "all of it is 100%"),  # what a crontab leaves of 1%
        (["gc", "--max-delete=some"], 2, "--max-delete"),
        (["gc", "--grace-days=-1"], 2, "--grace-days"),
        (["repair"], 2, "--from"),
        (["repair", "--from=/no/such/folder"], 1, "/no/such/folder"),
        (["pull", "--cache=x", "--prefix=xyz"], 2, "hexadecimal"),
        (["pull", "--cache=x", "--dataset=nowhere.jsonl"], 2, "nowhere.jsonl"),
        (["pull"], 78, "cache.dir"),
    ],
)
def test_bad_usage(
    clean_environment: None,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    status: int,
    said: str,
) -> None:
    assert run([*words, *without_cache(tmp_path / "cache")]) == status
    assert said in capsys.readouterr().err


def test_a_plan_that_deletes_too_much_is_refused_in_words(mirror: Run, cache: Path) -> None:
    (bucket(cache) / "catalog").rename(cache.parent / "aside")
    for path in bucket(cache).rglob("*.jpg"):
        os.utime(path, (0, 0))
    done = mirror("gc", *without_cache(cache))
    assert_said(done, 1, "--max-delete", "--dry-run")
    assert len(list(bucket(cache).rglob("*.jpg"))) == 6
