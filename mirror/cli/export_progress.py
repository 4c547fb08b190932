"""How far an export is, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

from mirror.cli import output
from mirror.cli.log import Log, wants_bar
from mirror.dataset.export import Observer
from mirror.dataset.mongo import Break


@contextmanager
def observing(verbosity: int, stream: TextIO | None = None) -> Iterator[Observer]:
    """A bar on a terminal, a line a minute without one, nothing when quiet."""
    stream = sys.stderr if stream is None else stream
    if verbosity < 0:
        yield Observer()
    elif wants_bar(stream):
        with tqdm(unit=" documents", file=stream, leave=False, dynamic_ncols=True) as bar:
            yield BarObserver(bar, stream)
    else:
        yield LogObserver(Log(stream))


class BarObserver(Observer):
    def __init__(self, bar: tqdm[Any], stream: TextIO) -> None:
        self._bar = bar
        self._stream = stream

    def counted(self, documents: int | None) -> None:
        self._bar.reset(documents)

    def written(self, documents: int) -> None:
        self._bar.update(documents)

    def broke(self, what: Break) -> None:
        tqdm.write(f"mirror: {what}", file=self._stream)


class LogObserver(Observer):
    def __init__(self, log: Log) -> None:
        self._log = log
        self._total: int | None = None
        self._documents = 0

    def counted(self, documents: int | None) -> None:
        self._total = documents
        self._log.restart()

    def written(self, documents: int) -> None:
        self._documents += documents
        if (seconds := self._log.due()) is None:
            return
        rate = self._documents / seconds
        of = left = ""
        if self._total is not None:
            of = f" of {self._total:,}"
            left = f", {output.duration(max(0, self._total - self._documents) / rate)} left"
        self._log.say(f"{self._documents:,}{of} documents, {rate:,.0f}/s{left}")

    def broke(self, what: Break) -> None:
        self._log.say(f"{what}")
