# ruff: noqa: INP001 - a script, not a package
"""Measure, keep every figure in bench/results.json, and print tables of medians and ratios.

python bench/run.py                       everything: about an hour on two cores
python bench/run.py bulk rewrite          these workloads; the others' figures stay
python bench/run.py --list                all workloads
python bench/run.py --add --rounds 2 bulk two more rounds for this workload
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence

import peers
import report
from filelock import FileLock
from measure import BENCH, say
from results import Part, Result, load, machine, save, today
from tables import bars, table

FAMILIES = (
    "bulk", "floor", "nochange", "planning", "rewrite", "fetch", "loader", "inspection", "catalog",
    "startup",
)  # fmt: skip


def parts() -> dict[str, Part]:
    """Every workload by its name, in the order of the tables."""
    found = (part for name in FAMILIES for part in importlib.import_module(name).PARTS)
    return {part.name: part for part in found}


def measure(part: Part, rounds: int, known: Result | None) -> Result:
    """Measure a workload, and add its rounds to `known` if given."""
    say(f"{part.name}: {part.title}")
    load_before = round(os.getloadavg()[0], 1)
    runs = part.run(rounds)
    if known is not None and known.runs.keys() == runs.keys():
        runs = {name: known.runs[name] + costs for name, costs in runs.items()}
    versions = [peers.version(name) for name in part.packages]
    return Result(part.title, runs, today(), machine(), versions, load_before)


def main() -> None:
    known = parts()
    parser = argparse.ArgumentParser(description="Measure mirror beside its peers.")
    parser.add_argument(
        "names", nargs="*", metavar="WORKLOAD", help="the workloads to run; all by default"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--add", action="store_true", help="add rounds to the existing ones")
    parser.add_argument("--list", action="store_true", help="list the workloads")
    asked = parser.parse_args()
    if asked.list:
        for part in known.values():
            sys.stdout.write(f"{part.name:<24} {part.title}\n")
        return
    unknown = [name for name in asked.names if name not in known]
    if unknown:
        parser.error(f"no workload is called {', '.join(unknown)}; see --list")
    BENCH.mkdir(exist_ok=True)
    with FileLock(BENCH / "lock", timeout=0):  # do not reuse another run's servers
        measure_all(asked.names or list(known), known, asked)


def measure_all(names: Sequence[str], known: Mapping[str, Part], asked: argparse.Namespace) -> None:
    """Measure these workloads, and save each as soon as it is done."""
    for name in names:
        earlier = load().get(name) if asked.add else None
        result = measure(known[name], asked.rounds, earlier)
        save({**load(), name: result}, list(known))
        sys.stdout.write(f"\n{table(name, result)}\n\n")
        report.write()
    sys.stdout.write(f"{bars(load())}\n")


if __name__ == "__main__":
    main()
