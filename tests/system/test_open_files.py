"""The limit of open files: raised as far as it goes, and a sentence where that is too little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.photos import fill, photo, url_of


def limited(soft: int, hard: int, *command: str) -> subprocess.CompletedProcess[str]:
    words = ["prlimit", f"--nofile={soft}:{hard}", *command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("soft", "hard", "flags", "status"),
    [(64, 1024, [], 0), (100, 192, [], 0), (64, 64, [], 78), (64, 100, ["--concurrency", "8"], 78)],
)
def test_a_sync_raises_the_limit_or_says_what_it_needs(
    tmp_path: Path, soft: int, hard: int, flags: list[str], status: int, clean_environment: None
) -> None:
    fill(tmp_path / "cache", {url_of(n): photo(n) for n in range(3)})
    where = [f"--cache={tmp_path}/cache", f"--bucket=file://{tmp_path}/mirror"]
    done = limited(
        soft, hard, sys.executable, "-m", "mirror", "sync", *where, *flags,
        f"--state={tmp_path}/state", "--json",
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    if status:
        assert f"may open {hard} files at once, and needs 192; raise the limit" in done.stderr
        assert not (tmp_path / "mirror").exists()


def test_the_limit_becomes_the_hard_one() -> None:
    code = (
        "import resource; from mirror.system.open_files import raise_limit; raise_limit(8);"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert limited(96, 900, sys.executable, "-c", code).stdout == "900 900\n"
