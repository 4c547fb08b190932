"""`mirror sync`, or another command, as a process of its own, which can be signalled and killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import Place
from tests.servers.process import eventually

PATIENCE = 60.0
DEFAULTS: Mapping[str, object] = {}

_numbers = itertools.count()


@dataclass(frozen=True)
class Command:
    """One call of `mirror --json` that has been started."""

    process: subprocess.Popen[bytes]
    output: Path
    log: Path

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def says(self, words: str) -> None:
        """Return once the words stand on its standard error."""
        there = eventually(lambda: words in self.log.read_text(), within=PATIENCE)
        assert there, f"it never said {words!r}, but: {self.log.read_text()}"

    def status(self) -> int:
        """Wait for its end."""
        return self.process.wait(PATIENCE)

    @property
    def report(self) -> dict[str, Any]:
        """What `--json` printed: one object and nothing else."""
        text = self.output.read_text()
        assert text, f"it printed nothing, but said: {self.log.read_text()}"
        report = json.loads(text)
        assert isinstance(report, dict)
        return report


@contextlib.contextmanager
def started(
    place: Place,
    endpoint: str,
    cache: Path,
    state: Path,
    sync: Mapping[str, object] = DEFAULTS,
    *,
    arguments: Sequence[str] = ("sync",),
) -> Iterator[Command]:
    """Start `mirror` with the environment's credentials; what is left of it is killed.

    Args:
        place: the mirror's.
        endpoint: where to find the server, which may be a proxy's.
        cache: the cache's folder.
        state: the state's folder.
        sync: settings of the section `sync`.
        arguments: the command and its options.
    """
    settings = {
        "CACHE__DIR": cache,
        "STATE__DIR": state,
        "BUCKET__URL": place.layer["url"],
        "BUCKET__REGION": place.layer["region"],
        "BUCKET__ENGINE": place.layer["engine"],
        "BUCKET__ENDPOINT": endpoint,
        **{f"SYNC__{name.upper()}": value for name, value in sync.items()},
    }
    folder = cache.parent
    number = next(_numbers)
    output, log = folder / f"{number}.out", folder / f"{number}.err"
    with output.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "mirror", "--json", *arguments],
            cwd=folder,
            env={
                **os.environ,
                **{f"MIRROR_{name}": str(value) for name, value in settings.items()},
            },
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        yield Command(process, output, log)
    finally:
        process.kill()
        process.wait()


def completed(
    place: Place, endpoint: str, cache: Path, state: Path, sync: Mapping[str, object] = DEFAULTS
) -> dict[str, Any]:
    """The report of a run that must end with exit status 0."""
    with started(place, endpoint, cache, state, sync) as command:
        status = command.status()
        assert status == 0, (status, command.log.read_text())
        return command.report


def changed_nothing(report: dict[str, Any]) -> bool:
    """A run that found all done: nothing read, sent or committed."""
    done = ("new", "changed", "vanished", "uploaded", "deduplicated", "failed", "catalog_commits")
    return not any(report[name] for name in done) and report["unchanged"] == report["scanned"] > 0
