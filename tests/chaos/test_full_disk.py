"""A full disk (a tmpfs) causes one sentence and whole files, and the next run completes the work.

tests/cli/test_bad_input.py has the state of a sync on a full disk, and
tests/dataset/rewrite/test_rewrite_files.py the output of `rewrite`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mirror_setup import MOUNTS, Workshop
from tests.support.photos import fill, name_of, photo, url_of

IMAGES = {url_of(n): photo(n, 128) for n in range(60)}
# A private mount for the command. Its files are copied out, because the mount ends with it.
WITHIN = 'mount -t tmpfs -o size=128k tmpfs "$1" && cd / && shift 2 && "$@"; status=$?; '
WITHIN += 'cp -r "$FULL/." "$COPY"; exit $status'


def on_a_small_disk(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `mirror` with 128 kB of space in a folder. Its files are copied to `copy` beside it."""
    folder.mkdir()
    copy = folder.with_name("copy")
    copy.mkdir()
    command = [*MOUNTS, "sh", "-c", WITHIN, "sh", str(folder), "--"]
    return subprocess.run(
        ["env", f"FULL={folder}", f"COPY={copy}", *command, sys.executable, "-m", "mirror", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


@pytest.mark.chaos("full disk")
def test_a_pull_ends_in_a_sentence_and_the_next_completes_it(
    local: Workshop, tmp_path: Path
) -> None:
    fill(local.cache, IMAGES)
    assert local.sync().exit_status == 0
    words = ["--json", "pull", f"--bucket={local.place.url}", f"--state={local.state}"]
    done = on_a_small_disk(tmp_path / "restored", [*words, f"--cache={tmp_path / 'restored'}"])
    assert done.returncode == 1, done.stderr
    assert "is full" in done.stderr
    assert "Traceback" not in done.stderr
    bodies = {name_of(url): body for url, body in IMAGES.items()}
    left = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert 0 < len(left) < len(bodies)
    assert left.items() <= bodies.items()
    again = subprocess.run(
        [sys.executable, "-m", "mirror", *words, f"--cache={tmp_path / 'copy'}"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(again.stdout)["pulled"] == len(bodies) - len(left)


@pytest.mark.chaos("full disk")
def test_a_fetch_cache_gives_every_image_and_keeps_what_fits(
    local: Workshop, tmp_path: Path
) -> None:
    fill(local.cache, IMAGES)
    assert local.sync().exit_status == 0
    dataset = tmp_path / "dataset.jsonl"
    dataset.write_text("".join(json.dumps({"image_url": url}) + "\n" for url in IMAGES))
    words = ["--json", "prefetch", str(dataset), f"--bucket={local.place.url}"]
    words += [f"--state={local.state}", f"--fetch-cache={tmp_path / 'fetch'}"]
    done = on_a_small_disk(tmp_path / "fetch", words)
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert report["failed"] == 0, report
    assert 0 < report["no_room"] < len(IMAGES), report
    kept = [path for path in (tmp_path / "copy").glob("objects/*/*") if path.suffix != ".part"]
    assert (
        sorted(path.read_bytes() for path in kept if path.read_bytes() not in IMAGES.values()) == []
    )
    assert len(kept) == len(IMAGES) - report["no_room"]
