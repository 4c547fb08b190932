"""How far a warming is, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

from mirror.cli import output
from mirror.cli.log import Log, wants_bar
from mirror.dataset.inputs import Input, total_size
from mirror.fetch.prefetch import PrefetchReport, Progress


@contextmanager
def progress_for(
    verbosity: int, inputs: Sequence[Input], stream: TextIO | None = None
) -> Iterator[Progress]:
    """A bar on a terminal, a line a minute without one, nothing when quiet."""
    stream = sys.stderr if stream is None else stream
    if verbosity < 0:
        yield Progress()
    elif not wants_bar(stream):
        yield LogProgress(Log(stream))
    else:
        with tqdm(
            total=total_size(inputs),
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            file=stream,
        ) as bar:
            yield BarProgress(bar)


def counts(report: PrefetchReport) -> str:
    """How many images are where."""
    text = f"{report.cached:,} here, {report.fetched:,} fetched ({output.size(report.bytes)})"
    lacking = report.lacking + report.no_room
    return f"{text}, {lacking:,} not" if lacking else text


class BarProgress(Progress):
    """Bytes of the datasets, with the images beside them."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def read(self, size: int) -> None:
        self._bar.update(size)

    def done(self, report: PrefetchReport) -> None:
        self._bar.set_postfix_str(counts(report), refresh=False)
        self._bar.update(0)


class LogProgress(Progress):
    def __init__(self, log: Log) -> None:
        self._log = log

    def done(self, report: PrefetchReport) -> None:
        if (seconds := self._log.due()) is not None:
            rate = output.size(report.bytes / seconds)
            self._log.say(f"{report.urls:,} URLs read; {counts(report)}, {rate}/s")
