"""Progress on standard error: a bar on a terminal, a line a minute for cron, nothing when quiet."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TextIO

from mirror.cache.scan import Entry
from mirror.cli import output
from mirror.cli.log import Log, wants_bar
from mirror.sync.plan import Plan
from mirror.sync.report import SyncReport
from mirror.sync.run import Observer


def observer_for(verbosity: int, stream: TextIO | None = None) -> Observer:
    """The observer that fits the terminal, or the lack of one."""
    stream = sys.stderr if stream is None else stream
    if verbosity < 0:
        return Observer()
    return BarObserver(stream) if wants_bar(stream) else LogObserver(Log(stream))


class BarObserver(Observer):
    """A tqdm bar: bytes, rate and time left; files, duplicates and flagged ones beside it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._outcomes: Counter[str] = Counter()
        self._bar: object = None

    def planned(self, plan: Plan, report: SyncReport) -> None:
        from tqdm import tqdm

        if not plan.order or report.dry_run:
            return
        self._files = len(plan.order)
        self._bar = tqdm(
            total=plan.pending_bytes,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            file=self._stream,
            leave=False,
            mininterval=0.2,
        )

    def done(self, entry: object, outcome: str) -> None:
        from tqdm import tqdm

        assert isinstance(entry, Entry)
        self._outcomes[outcome] += 1
        if isinstance(self._bar, tqdm):
            done = self._outcomes.total()
            self._bar.set_description_str(f"{done:,}/{self._files:,} files", refresh=False)
            self._bar.set_postfix_str(
                f"dup {self._outcomes['duplicate']:,} flagged {self._outcomes['flag']:,}"
                + (f" failed {failed:,}" if (failed := self._outcomes["failed"]) else ""),
                refresh=False,
            )
            self._bar.update(entry.identity.size)
            if done == self._files:
                self._bar.close()

    def warned(self, sentence: str) -> None:
        from tqdm import tqdm

        tqdm.write(f"mirror: {sentence}", file=self._stream)


class LogObserver(Observer):
    """A line when a plan stands, one a minute, and warnings as they come."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._outcomes: Counter[str] = Counter()
        self._bytes = 0

    def planned(self, plan: Plan, report: SyncReport) -> None:
        self._files, self._total = len(plan.order), plan.pending_bytes
        self._log.restart()
        if plan.order and not report.dry_run:
            self._log.say(
                f"{plan.scanned:,} files scanned; {self._files:,} to read "
                f"({output.size(self._total)})"
            )

    def done(self, entry: object, outcome: str) -> None:
        assert isinstance(entry, Entry)
        self._outcomes[outcome] += 1
        self._bytes += entry.identity.size
        if (seconds := self._log.due()) is not None:
            rate = self._bytes / seconds
            left = (self._total - self._bytes) / rate if rate else 0.0
            counts = ", ".join(f"{name} {n:,}" for name, n in sorted(self._outcomes.items()))
            self._log.say(
                f"{self._outcomes.total():,}/{self._files:,} files, {output.size(self._bytes)}, "
                f"{output.size(rate)}/s, {output.duration(left)} left ({counts})"
            )

    def warned(self, sentence: str) -> None:
        self._log.say(sentence, "warning")
