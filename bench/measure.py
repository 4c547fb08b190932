# ruff: noqa: INP001 - for the scripts beside it, not a package
"""Measures programs in turns, as separate processes, round by round.

Consecutive runs of the same program would also measure other work on the machine. Turns spread that work
over all programs, and ratios are taken within a round. Wall time, CPU time and peak memory are the
kernel's figures for the child and the processes that it waited for.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / ".bench"
LAUNCH = ROOT / "bench" / "launch.py"


class Cost(NamedTuple):
    """Seconds of wall and CPU time, and bytes of peak memory."""

    wall: float
    cpu: float
    peak: int


Runs = dict[str, list[Cost]]  # by program name, one run for each round


@dataclass(frozen=True)
class Contender:
    """A program of a comparison.

    Attributes:
        name: its name in the table.
        command: its arguments. `command` and `environment` may be callables that use `before`'s results.
        before: prepares its place, unmeasured.
        check: checks its output and its files, and raises if they are wrong.
        environment: variables in addition to this process's.
        cpus: the processors that it may use; None for all.
        own_clock: it measures its own work with `printing_cost`. Then start-up and checks do not count. The
            peak is still the kernel's.
    """

    name: str
    command: Sequence[str] | Callable[[], Sequence[str]]
    before: Callable[[], object] = lambda: None
    check: Callable[[str], object] = lambda _: None
    environment: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None
    cpus: frozenset[int] | None = None
    own_clock: bool = False


def measured(contender: Contender) -> Cost:
    """Run a program once.

    Raises:
        RuntimeError: it failed. The message has the end of its output.
    """
    contender.before()
    command, environment = _asked(contender.command), _asked(contender.environment)
    BENCH.mkdir(exist_ok=True)
    log, printed = BENCH / "last.err", BENCH / "last.out"
    cpus = ",".join(map(str, contender.cpus or ()))
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-I", "-S", str(LAUNCH), cpus, str(printed), str(log), *command],
        stdout=subprocess.PIPE,
        env=_neutral_environment() | dict(environment or {}),
        check=True,
    )
    figures = json.loads(done.stdout)
    if figures["ended"]:
        words = (log.read_text(errors="replace") + printed.read_text(errors="replace"))[-2000:]
        raise RuntimeError(f"{contender.name} ended with {figures['ended']}: {words}")
    cost = Cost(figures["wall"], figures["cpu"], figures["peak"])
    with printed.open(errors="replace") as output:
        text = output.read(1 << 20)
    if contender.own_clock:
        figures = json.loads(text.splitlines()[-1])
        cost = cost._replace(wall=figures["wall"], cpu=figures["cpu"])
    contender.check(text)
    return cost


def _neutral_environment() -> dict[str, str]:
    """This process's environment, without the user's settings for S3, mirror and Python."""
    theirs = ("AWS_", "MIRROR_", "PYTHON", "RCLONE_", "S3_")
    return {name: value for name, value in os.environ.items() if not name.startswith(theirs)}


def _asked(value: Any) -> Any:
    return value() if callable(value) else value


def alternately(contenders: Sequence[Contender], rounds: int) -> Runs:
    """Run each program `rounds` times, in turns, after a warm-up of each."""
    runs: Runs = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            cost = measured(contender)
            say(
                f"  {contender.name:<32} {cost.wall:8.2f} s {cost.cpu:8.2f} s CPU "
                f"{cost.peak / 1e6:6.0f} MB{' (warm-up)' * (not number)}"
            )
            if number:
                runs[contender.name].append(cost)
    return runs


def by_name(
    script: str,
    names: Iterable[str],
    argument: str,
    environment: Mapping[str, str] | None = None,
) -> list[Contender]:
    """Contenders that run `script NAME ARGUMENT`, one process each, and use `printing_cost`."""
    return [
        Contender(
            name,
            [sys.executable, script, name, argument],
            environment=environment,
            own_clock=True,
        )
        for name in names
    ]


@contextmanager
def printing_cost() -> Iterator[None]:
    """For a program with its own clock: prints the cost of the block as its last line."""
    started, used = time.perf_counter(), _cpu_seconds()
    yield
    cost = {"wall": time.perf_counter() - started, "cpu": _cpu_seconds() - used}
    sys.stdout.write(json.dumps(cost) + "\n")
    sys.stdout.flush()


def _cpu_seconds() -> float:
    """CPU seconds of this process and of its ended children."""
    uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
