"""How the commands of upkeep look: their tables, what they found."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mirror.catalog.health import UpkeepReport
from mirror.cli import output
from mirror.cli.log import say
from mirror.cli.session import Session
from mirror.inspection.inspect_cache import printable

Row = tuple[str, str, str]


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
