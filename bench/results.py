# ruff: noqa: INP001 - for the scripts beside it, not a package
"""The measured results in `bench/results.json`. A new measurement replaces that of its workload."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measure import ROOT, Cost, Runs

RESULTS = ROOT / "bench" / "results.json"


@dataclass(frozen=True)
class Part:
    """A workload.

    Attributes:
        name: its name in `make bench BENCH=name`.
        title: the table's caption.
        run: measures it for a number of rounds. Returns the runs by program, ours first.
        packages: packages whose versions are recorded.
    """

    name: str
    title: str
    run: Callable[[int], Runs]
    packages: Sequence[str] = ()


@dataclass
class Result:
    """The measurement of a workload.

    Attributes:
        title: the table's caption.
        runs: by program, ours first. The n-th runs of all programs are one round.
        date: of the last round, in UTC.
        machine: the machine's processor, memory and system.
        versions: of all programs and packages in it.
        load: the load average before the first run.
    """

    title: str
    runs: Runs
    date: str
    machine: dict[str, Any]
    versions: list[str] = field(default_factory=list)
    load: float = 0.0

    @property
    def ours(self) -> str:
        return next(iter(self.runs))

    def median(self, name: str) -> Cost:
        """The median of each figure."""
        walls, cpus, peaks = zip(*self.runs[name], strict=True)
        return Cost(*(statistics.median(each) for each in (walls, cpus, peaks)))

    def ratio(self, measure: str, ours: str, theirs: str) -> float:
        """The median of the rounds' ratios, ours ÷ theirs."""
        pairs = zip(self.runs[ours], self.runs[theirs], strict=True)
        return float(statistics.median(getattr(a, measure) / getattr(b, measure) for a, b in pairs))


def machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def load(path: Path = RESULTS) -> dict[str, Result]:
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    return {name: _result(one) for name, one in found.items()}


def _result(found: Mapping[str, Any]) -> Result:
    runs = {name: [Cost(*cost) for cost in costs] for name, costs in found["runs"].items()}
    return Result(
        found["title"], runs, found["date"], found["machine"], found["versions"], found["load"]
    )


def save(results: Mapping[str, Result], order: Sequence[str], path: Path = RESULTS) -> None:
    """Write all results with every figure of every run, in the order of the workloads."""
    names = [name for name in order if name in results]
    names += sorted(results.keys() - set(names))
    path.write_text(json.dumps({name: _plain(results[name]) for name in names}, indent=1) + "\n")


def _plain(result: Result) -> dict[str, Any]:
    runs = {
        name: [[round(cost.wall, 4), round(cost.cpu, 4), int(cost.peak)] for cost in costs]
        for name, costs in result.runs.items()
    }
    return {
        "title": result.title,
        "date": result.date,
        "machine": result.machine,
        "load": result.load,
        "versions": result.versions,
        "runs": runs,
    }
