# ruff: noqa: INP001 - for the scripts beside it, not a package
"""Programs measured beside each other: alternately, as processes of their own, round by round.

One run after the other of the same program would measure what the machine did meanwhile; turns
spread that over all of them, and ratios are taken within a round. Wall, CPU and peak memory are the
kernel's figures for the child and what it waited for.
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
    """Seconds of wall and CPU, and bytes of memory at the peak."""

    wall: float
    cpu: float
    peak: int


Runs = dict[str, list[Cost]]  # by a program's name, a run a round


@dataclass(frozen=True)
class Contender:
    """A program of a comparison.

    Attributes:
        name: as the table has it.
        command: its words; it and `environment` are called for where `before` decides them.
        before: makes its place ready, unmeasured.
        check: looks at what it printed and left; raises when that is not right.
        environment: variables in addition to this process's.
        cpus: the processors it may use; None for all.
        own_clock: it says itself what its work took, by `told`: what is compared is the work, and
            neither starting nor looking at what came of it. The peak stays the kernel's.
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
        RuntimeError: it failed; its last words are in the message.
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
    told = json.loads(done.stdout)
    if told["ended"]:
        words = (log.read_text(errors="replace") + printed.read_text(errors="replace"))[-2000:]
        raise RuntimeError(f"{contender.name} ended with {told['ended']}: {words}")
    cost = Cost(told["wall"], told["cpu"], told["peak"])
    with printed.open(errors="replace") as output:
        text = output.read(1 << 20)
    if contender.own_clock:
        told = json.loads(text.splitlines()[-1])
        cost = cost._replace(wall=told["wall"], cpu=told["cpu"])
    contender.check(text)
    return cost


def _neutral_environment() -> dict[str, str]:
    """This process's, without what its user has set for S3, for mirror and for Python."""
    theirs = ("AWS_", "MIRROR_", "PYTHON", "RCLONE_", "S3_")
    return {name: value for name, value in os.environ.items() if not name.startswith(theirs)}


def _asked(value: Any) -> Any:
    return value() if callable(value) else value


def alternately(contenders: Sequence[Contender], rounds: int) -> Runs:
    """`rounds` runs of each, one after the other in turns, after a warm-up of each."""
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
    """What a script does by name, each in a process of its own: `script NAME ARGUMENT`, `telling`."""
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
def telling() -> Iterator[None]:
    """For a program with a clock of its own: says on its last line what the block has cost."""
    began, used = time.perf_counter(), _cpu_seconds()
    yield
    told = {"wall": time.perf_counter() - began, "cpu": _cpu_seconds() - used}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
