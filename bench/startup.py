# ruff: noqa: INP001 - for the scripts beside it, not a package
"""The cost of starting `mirror`, before any work."""

from __future__ import annotations

import sys

from measure import ROOT, Contender, Runs, alternately
from results import Part

WORDS = {
    "mirror --version": ["-m", "mirror", "--version"],
    "mirror sync --help": ["-m", "mirror", "sync", "--help"],
    "python -c pass": ["-c", "pass"],
}


def run(rounds: int) -> Runs:
    """Run four times the rounds, because each takes a fraction of a second."""
    contenders = [
        Contender(name, [sys.executable, *words], environment={"PYTHONPATH": str(ROOT)})
        for name, words in WORDS.items()
    ]
    return alternately(contenders, 4 * rounds)


PARTS = [Part("startup", "starting", run)]
