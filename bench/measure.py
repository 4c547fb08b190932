# ruff: noqa: INP001 - for the scripts beside it, not a package
"""Programs measured beside each other: alternately, as processes of their own, medians and ratios.

One run after the other of the same program would measure what the machine did meanwhile; turns
spread that over all of them. Wall, CPU and peak memory are the kernel's figures for the child and
what it waited for.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent / ".bench"
KIB = 1024 if sys.platform == "linux" else 1  # of ru_maxrss; macOS counts bytes


@dataclass(frozen=True)
class Cost:
    """Seconds of wall and CPU, and bytes of memory at the peak."""

    wall: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Contender:
    """A program of a comparison.

    Attributes:
        name: as the table has it.
        command: its words.
        before: makes its place ready, unmeasured.
        check: looks at what it left; raises when that is not right.
        environment: variables in addition to this process's.
        cpus: the processors it may use; None for all.
    """

    name: str
    command: Sequence[str]
    before: Callable[[], object] = lambda: None
    check: Callable[[], object] = lambda: None
    environment: Mapping[str, str] | None = None
    cpus: frozenset[int] | None = None


def measured(contender: Contender) -> Cost:
    """Run a program once.

    Raises:
        RuntimeError: it failed; its last words are in the message.
    """
    contender.before()
    BENCH.mkdir(exist_ok=True)
    log = BENCH / "last.log"
    with log.open("w+b") as output:
        began = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603
            list(contender.command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(contender.environment or {}),
            preexec_fn=_pinning(contender.cpus),  # noqa: PLW1509 - no threads here
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        words = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{contender.name} ended with {process.returncode}: {words}")
    contender.check()
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * KIB)


def _pinning(cpus: frozenset[int] | None) -> Callable[[], None] | None:
    if cpus is None or not hasattr(os, "sched_setaffinity"):
        return None
    return lambda: os.sched_setaffinity(0, cpus)


def alternately(contenders: Sequence[Contender], rounds: int) -> dict[str, Cost]:
    """Medians of `rounds` runs of each, one after the other in turns, after a warm-up of each."""
    runs: dict[str, list[Cost]] = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            cost = measured(contender)
            say(f"  {contender.name:<24} {cost.wall:7.2f} s {'(warm-up)' * (not number)}")
            if number:
                runs[contender.name].append(cost)
    return {
        name: Cost(
            statistics.median(cost.wall for cost in costs),
            statistics.median(cost.cpu for cost in costs),
            round(statistics.median(cost.peak for cost in costs)),
        )
        for name, costs in runs.items()
    }


def table(costs: Mapping[str, Cost], first: str) -> str:
    """Markdown of medians; ratios are ours, `first`, to theirs: below 1 is better."""
    lines = ["| | wall | CPU | peak memory | our wall ÷ theirs |", "|---|---|---|---|---|"]
    for name, cost in costs.items():
        ratio = "" if name == first else f"{costs[first].wall / cost.wall:.2f}"
        lines.append(
            f"| {name} | {cost.wall:.2f} s | {cost.cpu:.2f} s | {cost.peak / 1e6:.0f} MB | {ratio} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """The machine and the day, for a table's caption."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"{datetime.now(UTC):%Y-%m-%d}, load {os.getloadavg()[0]:.1f} before"
    )


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
