# ruff: noqa: INP001 - for the scripts beside it, not a package
"""Planning against a state of up to nine million files, without the files.

The listing comes from memory instead of a folder, so the walk costs nothing. The measurement covers all
other work of a run before it opens a file. Each plan is made in a separate process
(`python bench/planning.py WHAT FILES`).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from measure import BENCH, ROOT, Runs, alternately, by_name, printing_cost, say
from results import Part

sys.path.insert(0, str(ROOT))

from mirror.cache.scan import Entry, File, ScanCount
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.content.digest import Identity
from mirror.sync.plan import FileSelection, make_plan
from mirror.sync.state import SeenFile, State

STEPS = (9_000, 90_000, 900_000, 9_000_000)
# One file in this number has changed; 0 for none.
WHAT = {"none changed": 0, "one in a hundred changed": 100}
_A_TRANSACTION = 300_000


def listing(files: int, every: int) -> Iterator[File]:
    """A listing of `files` files. Some have a different time than the state, one in `every`."""
    step = (1 << 128) // files
    for number in range(files):
        moved = every and number % every == 0
        yield b"%032x.jpg" % (number * step), 45_000, 1_700_000_000_000_000_000 + moved, number


def _seen(file: File) -> SeenFile:
    path, *identity = file
    key = bytes.fromhex(path[:32].decode())
    row = Row(key, key, key * 2, identity[0], "jpeg", 500, 375, "ok", "", UNKNOWN_SOURCE, 0)
    return SeenFile(Entry(path, Identity(*identity)), row, None)


def _home(files: int) -> Path:
    return BENCH / "states" / f"{files}"


def prepare(files: int) -> None:
    home = _home(files)
    if (home / "ready").exists():
        return
    say(f"making a state of {files:,} files …")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    state = State(home)
    every_file = listing(files, 0)
    while some := list(islice(every_file, _A_TRANSACTION)):
        state.record(map(_seen, some))
    state.close()
    (home / "ready").touch()


def plan(files: int, every: int) -> None:
    with printing_cost():
        state = State(_home(files))
        made = make_plan(listing(files, every), ScanCount(), state, FileSelection())
        state.close()
    changed = files // every if every else 0
    if (made.scanned, made.changed, made.new, made.vanished) != (files, changed, 0, 0):
        raise RuntimeError(f"{made.changed} of {made.scanned} changed, {made.new} new")


def _part(files: int) -> Part:
    def run(rounds: int) -> Runs:
        prepare(files)
        return alternately(by_name(__file__, WHAT, f"{files}"), rounds)

    short = f"{files // 1_000_000}m" if files >= 1_000_000 else f"{files // 1000}k"
    return Part(f"planning-{short}", f"a plan for {files:,} files, listed from memory", run, ())


PARTS = [_part(files) for files in STEPS]

if __name__ == "__main__":
    plan(int(sys.argv[2]), WHAT[sys.argv[1]])
