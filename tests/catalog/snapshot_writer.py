"""A process that writes snapshots into a folder; test_snapshots.py runs several, and kills some.

    python -m tests.catalog.snapshot_writer FOLDER FIRST LAST [SIGNAL N]

Writes versions FIRST to LAST, one after another. With SIGNAL (its name) it sends itself that signal
before the N-th line of the index's code that it runs once it holds the folder; with N = 0 it does
not, and prints how many such lines there were.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import mirror.catalog.index
from mirror.catalog.index import Batch, Index

CODE = os.path.dirname(mirror.catalog.index.__file__)


def batch(version: int) -> Batch:
    """The single row that a version adds."""
    key = np.array([version * 0x9E3779B97F4A7C15 % 2**64], "u8")
    return {
        "url_hi": key,
        "url_lo": key,
        "hash_hi": key,
        "hash_lo": key,
        "sha256": np.frombuffer(version.to_bytes(32, "big"), "V32"),
        "size": np.array([version]),
        "width": np.array([version], "i4"),
        "height": np.array([version], "i4"),
        "format": np.zeros(1, "u1"),
        "verdict": np.zeros(1, "u1"),
        "sourced": np.ones(1, bool),
        "seen_at": np.array([version]),
        "first_seen": np.array([version]),
        "near": np.zeros(1, "V35"),
        "photo": key,
    }


def files(version: int) -> frozenset[str]:
    return frozenset(f"part-{number}" for number in range(1, version + 1))


def is_whole(index: Index) -> bool:
    """Whether every row of its version is there, with consistent columns."""
    number_of = {int(batch(at)["url_hi"][0]): at for at in range(1, index.version + 1)}
    expected = sorted(number_of)
    numbers = [number_of[key] for key in expected]
    return (
        all(index.sightings[name].tolist() == expected for name in ("url_hi", "url_lo", "photo"))
        and all(index.sightings[n].tolist() == numbers for n in ("size", "width", "seen_at"))
        and [int.from_bytes(one.tobytes(), "big") for one in index.objects["sha256"]] == numbers
        and index.files == files(index.version)
    )


def write(folder: Path, version: int) -> Index:
    """Build the index of a version from the folder, as `Catalog.refresh` does."""
    known = Index.load(folder)
    if known.version >= version:
        return known
    new = [batch(number) for number in range(known.version + 1, version + 1) if number]
    return known.merged(new, version, files(version), folder)


class Trap:
    """Sends this process a signal before the n-th line of the index's code since one was begun.

    Until the folder holds the beginning of a snapshot, lines are not counted.
    """

    def __init__(self, sent: signal.Signals, at: int, folder: Path) -> None:
        self.lines = 0
        self._sent, self._at, self._folder = sent, at, folder

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(CODE):
            return None
        if event == "line" and (self.lines or any(self._folder.glob(".writing-*"))):
            self.lines += 1
            if self.lines == self._at:
                os.kill(os.getpid(), self._sent)
        return self


def main(folder: Path, first: int, last: int, *how: str) -> None:
    trap = Trap(signal.Signals[how[0]], int(how[1]), folder) if how else None
    sys.settrace(trap)
    for version in range(first, last + 1):
        assert is_whole(write(folder, version))
    sys.settrace(None)
    sys.stdout.write(f"{trap.lines if trap else ''}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
