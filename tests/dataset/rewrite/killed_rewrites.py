"""Rewrites a dataset many times, and kills each run at another line of the code that writes.

    python -m tests.dataset.rewrite.killed_rewrites MOMENTS FOLDER STATE BUCKET OUTPUT SPLITS

Before each run the folder has the files that it had at first; `raw.jsonl` is the dataset. Prints
JSON: how many runs were killed, and for each file's name digests of all contents that it was found
with (null: not there). Runs are forked from one process that has read the mirror.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path

from mirror.catalog.lookup import UrlLookup
from mirror.catalog.open_mirror import read_index
from mirror.config.loading import Layer, merge
from mirror.dataset.inputs import Input
from mirror.dataset.rewrite.rewrite_dataset import rewrite_dataset
from mirror.dataset.rewrite.rewrite_options import RewriteOptions
from mirror.dataset.splits.split import parse_splits
from tests.support import die_at_line

# The modules that write; a run may be killed at any of their lines.
MODULES = (
    "mirror.system.files",
    "mirror.dataset.chunks",
    "mirror.dataset.compression",
    "mirror.dataset.spool",
    "mirror.dataset.formats.writers",
    "mirror.dataset.rewrite.emit",
    "mirror.dataset.rewrite.rejected_file",
    "mirror.dataset.rewrite.rewrite_dataset",
)


class Rewriting:
    """The repeated rewrite, with the signature of `mirror.cli.main.run`."""

    def __init__(self, state: str, bucket: str, out: Path, splits: str) -> None:
        settings = merge([Layer("test", {"bucket": {"url": bucket}, "state": {"dir": state}})])
        self._resolver = UrlLookup(read_index(settings)[1])
        self._out = out
        self._options = RewriteOptions(splits=parse_splits(splits), force=True)

    def __call__(self, _: list[str]) -> int:
        report = rewrite_dataset(
            [Input("raw.jsonl")],
            self._out,
            self._options,
            self._resolver,
            new_urls=self._resolver.object_keys,
        )
        return report.exit_status


def main(moments: int, folder: Path) -> None:
    before = _bodies(folder)
    found: defaultdict[str, set[str | None]] = defaultdict(set)
    killed = 0
    for at in _moments(moments, _lines()):
        for name in _bodies(folder):
            (folder / name).unlink()
        for name, body in before.items():
            (folder / name).write_bytes(body)
        killed += os.waitstatus_to_exitcode(_forked(at)) == -signal.SIGKILL
        after = _bodies(folder)
        for name in {*before, *after}:
            found[_shown(name)].add(_digest(after[name]) if name in after else None)
    contents = {name: sorted(digests, key=str) for name, digests in found.items()}
    print(json.dumps({"killed": killed, "found": contents}))


def _lines() -> int:
    """How many lines an uninterrupted run executes."""
    source, sink = os.pipe()
    _forked(0, sink)
    os.close(sink)
    with os.fdopen(source) as output:
        return int(output.read().split()[-1])


def _moments(number: int, lines: int) -> list[int]:
    return sorted({1 + at * (lines - 1) // (number - 1) for at in range(number)})


def _forked(at: int, errors: int | None = None) -> int:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY) if errors is None else errors, 2)
        status = die_at_line.main(at, {sys.modules[name].__file__ for name in MODULES}, [])
        sys.stderr.flush()
        os._exit(status)
    return os.waitpid(child, 0)[1]


def _bodies(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _shown(name: str) -> str:
    return "hidden" if name.startswith(".mirror-") else name


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


if __name__ == "__main__":
    number, where, state, bucket, out, splits = sys.argv[1:]
    assert Path(where).is_absolute()
    vars(die_at_line)["run"] = Rewriting(state, bucket, Path(out), splits)
    os.chdir(where)
    main(int(number), Path(where))
