"""How a backfill looks: its progress on standard error, its table."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from mirror.cache.inspection import printable
from mirror.cli import output
from mirror.cli.log import Log, line, say, wants_bar
from mirror.cli.session import Session
from mirror.origin.estimate import Estimate, spell
from mirror.origin.report import BackfillReport
from mirror.origin.run import Observer
from mirror.origin.wanted import Plan

_WORDS = {
    "gone": "deleted, private or withdrawn at the source",
    "placeholder": "another picture in their place",
    "not_image": "no image came",
    "too_large": "larger than backfill.max_size",
    "not_allowed": "at hosts that may not be asked",
    "server_error": "the source failed",
    "network": "the connection failed",
}
# A wait worth a word.
_LONG_WAIT = 120.0


@contextmanager
def observing(verbosity: int, stream: TextIO | None = None) -> Iterator[Observer]:
    """A bar on a terminal, a line a minute without one, nothing when quiet."""
    stream = sys.stderr if stream is None else stream
    if verbosity < 0:
        yield Observer()
    elif wants_bar(stream):
        from tqdm import tqdm

        with tqdm(unit=" images", file=stream, leave=False, dynamic_ncols=True) as bar:
            yield BarObserver(bar, stream)
    else:
        yield LogObserver(Log(stream))


def _said_first(plan: Plan, estimate: Estimate | None) -> str:
    if estimate is None:
        return f"{plan.already:,} images are there already; nothing is to be fetched."
    return f"{plan.already:,} images are there already. To be fetched: {estimate.arithmetic}"


class LogObserver(Observer):
    """Sentences: the plan with its arithmetic, then how far it is once a minute."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._outcomes: Counter[str] = Counter()
        self._bytes = self._records = self._files = 0
        self._estimate: Estimate | None = None
        self._told_wait = ""

    def read(self, records: int) -> None:
        self._records += records
        if self._log.due() is not None:
            self._log.say(f"{self._records:,} records read")

    def judged(self, files: int) -> None:
        self._files += files
        if self._log.due() is not None:
            self._log.say(f"{self._files:,} files of the cache looked at")

    def planned(self, plan: Plan, estimate: Estimate | None) -> None:
        self._log.restart()
        self._to_ask = plan.to_ask
        self._estimate = estimate
        self._log.say(_said_first(plan, estimate))

    def ended(self, url: str, kind: str, nbytes: int) -> None:
        self._outcomes[kind] += 1
        self._bytes += nbytes
        self._told_wait = ""
        if self._log.due() is not None:
            counts = ", ".join(f"{name} {n:,}" for name, n in sorted(self._outcomes.items()))
            done = self._outcomes.total() - self._outcomes["throttled"]
            left = ""
            if self._estimate is not None and self._to_ask:
                share = max(0, self._to_ask - done) / self._to_ask
                left = f", {spell(self._estimate.seconds * share)} left"
            self._log.say(f"{done:,}/{self._to_ask:,}, {output.size(self._bytes)}{left} ({counts})")

    def waiting(self, seconds: float, reason: str) -> None:
        if seconds >= _LONG_WAIT and reason != self._told_wait:
            self._told_wait = reason
            self._log.say(f"waiting {spell(seconds)}: {reason}")

    def warned(self, sentence: str) -> None:
        self._log.say(printable(sentence), "warning")


class BarObserver(Observer):
    """A bar of images; what came of them, and what is waited for, beside it."""

    def __init__(self, bar: Any, stream: TextIO) -> None:
        self._bar = bar
        self._stream = stream
        self._outcomes: Counter[str] = Counter()

    def read(self, records: int) -> None:
        self._bar.set_description_str("reading the dataset", refresh=False)
        self._bar.update(records)

    def judged(self, files: int) -> None:
        self._bar.set_description_str("looking at the cache", refresh=False)
        self._bar.update(files)

    def planned(self, plan: Plan, estimate: Estimate | None) -> None:
        self._bar.reset(plan.to_ask)
        self._bar.set_description_str("", refresh=False)
        self.warned(_said_first(plan, estimate))

    def ended(self, url: str, kind: str, nbytes: int) -> None:
        self._outcomes[kind] += 1
        counts = " ".join(f"{name} {n:,}" for name, n in sorted(self._outcomes.items()))
        self._bar.set_postfix_str(counts, refresh=False)
        self._bar.update(kind != "throttled")

    def waiting(self, seconds: float, reason: str) -> None:
        self._bar.set_description_str(f"{spell(seconds)}: {reason}")

    def warned(self, sentence: str) -> None:
        self._bar.write(line(printable(sentence), "warning"), file=self._stream)


def show(session: Session, report: BackfillReport) -> None:
    """The report on standard output: one JSON object, or a table."""
    asked_for = report.failed_total - report.plan.not_allowed
    output.listing(
        f"{output.plural(asked_for, 'image')} could not be had:" if asked_for else "",
        [printable(f"{url}: {kind}, {why}".rstrip(", ")) for url, kind, why in report.failures],
    )
    if report.error is not None:
        say(str(report.error), "error")
    if session.concluded(report.as_json()):
        return
    output.table(_rows(report))
    if report.dry_run:
        if report.estimate is not None:
            click.echo(report.estimate.arithmetic)
        click.echo("Dry run: nobody was asked, and nothing was kept.")
        return
    if report.stopped:
        click.echo(f"It ended because {report.stopped}.")
    if report.left_estimate is not None:
        click.echo(f"Left: {report.left_estimate.arithmetic}")


def _rows(report: BackfillReport) -> Iterator[tuple[str, ...]]:
    plan = report.plan
    yield (
        "already",
        output.count(plan.already),
        f"mirrored {plan.mirrored:,}, cached {plan.cached:,}",
    )
    if plan.unlicensed:
        yield "unlicensed", output.count(plan.unlicensed), "their licence is not allowed"
    flagged = f"the cache has a bad file of {plan.flagged:,}" if plan.flagged else ""
    yield "wanted", output.count(plan.wanted), flagged
    if plan.gone:
        yield "  known to be gone", output.count(plan.gone), "not asked for again"
    if plan.given_up:
        yield "  given up before", output.count(plan.given_up), "--retry-failed asks again"
    if plan.postponed:
        yield "  postponed", output.count(plan.postponed), "to be tried again later"
    if report.dry_run:
        return
    yield "downloaded", output.count(report.downloaded), output.size(report.bytes) + " came"
    if report.overtaken:
        yield "overtaken", output.count(report.overtaken), "were there when their turn came"
    if report.taken_back:
        yield "taken back", output.count(report.taken_back), "placeholders, out of the cache again"
    yield "failed", output.count(report.failed_total), ""
    for kind, number in report.failed.items():
        if number:
            yield f"  {kind}", output.count(number), _WORDS.get(kind, "")
    yield "left", output.count(report.left), ""
    yield "requests", output.count(report.requests), f"throttled {report.throttled:,}"
    yield "took", output.duration(report.seconds), ""
