# ruff: noqa: INP001 - for the scripts beside it, not a package
"""Targets for mirror, as ratios within one run on one machine, and the check of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from results import Result


class Bar(NamedTuple):
    """A target: `measure` of `ours` is at most `limit` times that of `theirs`, or at most `limit`.

    Attributes:
        workload: the workload's name.
        ours: the program of mirror.
        measure: wall, cpu (seconds) or peak (bytes).
        theirs: the program to compare with; empty for an absolute limit.
        limit: the largest value that meets the target.
    """

    workload: str
    ours: str
    measure: str
    theirs: str
    limit: float

    def value(self, results: Mapping[str, Result]) -> float | None:
        """The measured value, or None without a measurement."""
        result = results.get(self.workload)
        if result is None or self.ours not in result.runs:
            return None
        if not self.theirs:
            return float(getattr(result.median(self.ours), self.measure))
        if self.theirs not in result.runs:
            return None
        return result.ratio(self.measure, self.ours, self.theirs)


OFF = "mirror sync --inspect off"
BARS = (
    Bar("bulk", OFF, "wall", "s5cmd", 0.8),
    Bar("bulk", OFF, "cpu", "s5cmd", 0.6),
    Bar("bulk", "mirror sync", "wall", "s5cmd", 1.3),
    Bar("bulk-aws", OFF, "wall", "aws-cli", 0.25),
    Bar("no-change", "mirror sync", "wall", "find -printf", 2.0),
    Bar("no-change", "mirror sync", "peak", "", 400e6),
    Bar("rewrite", "mirror rewrite", "wall", "", 5.0),  # 200,000 records a second
    Bar("fetch", "mirror", "wall", "s3torchconnectorclient", 1.0),
    Bar("loader", "MirrorDataset", "wall", "requests", 0.1),
    Bar("loader", "MirrorIterableDataset", "wall", "requests", 0.1),
    Bar("startup", "mirror --version", "wall", "python -c pass", 8.0),
    Bar("startup", "mirror sync --help", "wall", "python -c pass", 8.0),
)
