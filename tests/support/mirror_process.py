"""`mirror sync`, or another command, as a separate process that tests can signal and kill."""

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
    """A running `mirror --json`."""

    process: subprocess.Popen[bytes]
    output: Path
    log: Path

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def says(self, words: str) -> None:
        """Wait until the words appear on its standard error."""
        there = eventually(lambda: words in self.log.read_text(), within=PATIENCE)
        assert there, f"it never said {words!r}, but: {self.log.read_text()}"

    def status(self) -> int:
        """Wait for its exit status."""
        return self.process.wait(PATIENCE)

    @property
    def report(self) -> dict[str, Any]:
        """The one object that `--json` printed."""
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
    """Start `mirror` with the environment's credentials, and kill it at the end if it still runs.

    Args:
        place: the place of the mirror.
        endpoint: the endpoint of the server, or of a proxy.
        cache: the cache's folder.
        state: the state's folder.
        sync: settings for the section `sync`.
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
    """Run a command that must end with exit status 0. Returns its report."""
    with started(place, endpoint, cache, state, sync) as command:
        status = command.status()
        assert status == 0, (status, command.log.read_text())
        return command.report


def changed_nothing(report: dict[str, Any]) -> bool:
    """True for a run that had nothing to do: it read, sent and committed nothing."""
    done = ("new", "changed", "vanished", "uploaded", "deduplicated", "failed", "catalog_commits")
    return not any(report[name] for name in done) and report["unchanged"] == report["scanned"] > 0
