"""Killed rewrites: each file is old or new, never partial, and the next run completes them."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.cli.main import run
from mirror.dataset.inputs import Input
from mirror.dataset.rewrite.rewrite_dataset import rewrite_dataset
from mirror.dataset.rewrite.rewrite_options import RewriteOptions
from mirror.dataset.splits.split import parse_splits
from tests.dataset.rewrite.killed_rewrites import MODULES
from tests.support.chaos_tally import SEED, count, kills
from tests.support.killing import Killing
from tests.support.mirrored_dataset import (
    ABSENT,
    MANY,
    Mirror,
    command_line,
    plants,
    put,
    record,
    work,
)

__all__ = ["plants", "work"]

SPLITS = "train=0.8,val=0.1,test=0.1"


def before(work: Path, out: str) -> dict[str, bytes]:
    """Put a dataset and old outputs into the folder, and return all files by name."""
    put(work / "raw.jsonl", [*(record(n) for n in (*MANY, *ABSENT)), "?"])
    outputs = [out.replace("out", f"out_{name}") for name in ("train", "val", "test")]
    for name in (*outputs, "out.rejected.jsonl"):
        (work / name).write_bytes(b"old " + name.encode())
    return files(work)


def files(work: Path) -> dict[str, bytes]:
    """The files by name, without those being written."""
    return {path.name: path.read_bytes() for path in work.iterdir() if path.name[0] != "."}


@pytest.mark.chaos("rewrite")
def test_killed_anywhere_it_leaves_whole_files_and_the_next_completes_it(
    plants: Mirror, work: Path
) -> None:
    old = before(work, "out.jsonl")
    words = command_line(
        plants, f"{work}/raw.jsonl", f"--output={work}/out.jsonl", f"--split={SPLITS}", "--force"
    )
    killing = Killing(",".join(MODULES), words, status=3)
    new = files(work)
    assert old.keys() == new.keys()
    for story in killing.rounds(kills(4), random.Random(SEED)):
        for name, body in old.items():
            (work / name).write_bytes(body)
        killing.run()
        for name, body in files(work).items():
            assert body in (old[name], new[name]), (story, name)
        assert run(words) == 3, story
        assert files(work) == new, story


@pytest.mark.chaos("rewrite, in forks")
@pytest.mark.parametrize("out", ["out.jsonl", "out.csv.gz"])
def test_killed_at_any_line_it_leaves_each_file_as_it_was_or_as_it_will_be(
    plants: Mirror, work: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = kills(60)
    old = before(work, out)
    place = [str(plants.settings.state.dir), str(plants.settings.bucket.url)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.dataset.rewrite.killed_rewrites", str(rounds), str(work), *place, out, SPLITS],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert killed["killed"] == rounds
    count("kills", rounds)

    monkeypatch.chdir(work)
    lookup = plants.lookup()
    report = rewrite_dataset(
        [Input("raw.jsonl")], Path(out), RewriteOptions(splits=parse_splits(SPLITS), force=True), lookup,
        new_urls=lookup.object_keys,
    )  # fmt: skip
    assert report.written == len(MANY)
    new = files(work)
    killed["found"].pop("hidden")  # what was being written
    assert killed["found"].keys() == old.keys()
    for name, digests in killed["found"].items():
        states = {hashlib.sha256(body[name]).hexdigest() for body in (old, new)}
        assert set(digests) == states, name  # and some were too early, some too late
