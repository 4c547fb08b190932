"""How the commands of upkeep look: their progress, their tables, what they found."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import click

from mirror.cache.inspection import printable
from mirror.catalog.health import UpkeepReport
from mirror.cli import output
from mirror.cli.log import Log, say, wants_bar
from mirror.cli.session import Session

Row = tuple[str, str, str]


@contextmanager
def counting(
    verbosity: int,
    noun: str,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int, int], None]]:
    """Is told of things and their bytes: a counter on a terminal, a line a minute without one.

    Args:
        verbosity: of the session; nothing is said when quiet.
        noun: what is counted, in the plural.
        stream: standard error when None.
        clock: seconds.
    """
    stream = sys.stderr if stream is None else stream
    if verbosity < 0:
        yield lambda _things, _bytes: None
    elif wants_bar(stream):
        from tqdm import tqdm

        read = 0
        with tqdm(unit=f" {noun}", file=stream, leave=False, dynamic_ncols=True) as bar:

            def count(things: int, size: int) -> None:
                nonlocal read
                read += size
                if read:
                    bar.set_postfix_str(output.size(read), refresh=False)
                bar.update(things)

            yield count
    else:
        yield _logging(Log(stream, clock), noun)


def _logging(log: Log, noun: str) -> Callable[[int, int], None]:
    done = read = 0

    def count(things: int, size: int) -> None:
        nonlocal done, read
        done += things
        read += size
        if (seconds := log.due()) is not None:
            bytes_too = f", {output.size(read)}, {output.size(read / seconds)}/s" if read else ""
            log.say(f"{done:,} {noun}{bytes_too}, {done / seconds:,.0f} a second")

    return count


def show(session: Session, report: UpkeepReport, rows: Sequence[Row], closing: str = "") -> None:
    """What a command found and did: JSON, or a table with the problems on standard error."""
    for kind, title in _TITLES.items():
        lines = [printable(f"{p.key}: {p.reason}") for p in report.examples if p.kind == kind]
        if lines and (kind not in _QUIET or session.verbosity > 0):
            output.listing(title, lines)
    for warning in report.warnings:
        say(warning, "warning")
    if report.error is not None:
        say(str(report.error), "error")
    if session.concluded(session.named(report.as_json())):
        return
    requests = ", ".join(f"{name} {n:,}" for name, n in report.requests.items() if n)
    output.table(
        [
            *rows,
            ("requests", output.count(sum(report.requests.values())), requests),
            ("took", output.duration(report.seconds), ""),
        ]
    )
    if report.interrupted:
        click.echo("Interrupted: what was done is kept; run again for the rest.")
    elif closing:
        click.echo(closing)


_TITLES = {
    "missing": "Missing, though the catalog names them:",
    "mismatched": "Not what the catalog says:",
    "unread": "Could not be read:",
    "failed": "Could not be dealt with:",
    "kept": "Left as they are, for another file is there:",
    "flagged": "Catalogued as lost:",
    "orphaned": "Named by no row:",
}
# Told of only to who wants to hear more.
_QUIET = {"orphaned"}


def trouble(name: str, number: int, remark: str = "") -> list[Row]:
    """A line of the table for what is better not there."""
    return [(name, output.count(number), remark)] if number else []
