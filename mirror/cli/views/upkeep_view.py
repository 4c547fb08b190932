"""The tables and lists of verify, repair, gc, pull and rebuild-state."""

from __future__ import annotations

from collections.abc import Sequence

from mirror.catalog.health import UpkeepReport
from mirror.cli import output
from mirror.cli.log import say
from mirror.cli.session import Session

Row = tuple[str, str, str]


def show(session: Session, report: UpkeepReport, rows: Sequence[Row], closing: str = "") -> None:
    """Print what a command found and did: JSON, or a table with the problems on standard error."""
    for kind, title in _TITLES.items():
        lines = [f"{p.key}: {p.reason}" for p in report.examples if p.kind == kind]
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
        output.echo("Interrupted: everything done so far is kept; run again for the rest.")
    elif closing:
        output.echo(closing)


_TITLES = {
    "missing": "Missing, though the catalog names them:",
    "mismatched": "Different from the catalog:",
    "unread": "Could not be read:",
    "failed": "Failed:",
    "kept": "Left alone, because another file has the name:",
    "flagged": "Catalogued as lost:",
    "orphaned": "Not named by any row:",
}
# Listed only with --verbose.
_QUIET = {"orphaned"}


def trouble(name: str, number: int, remark: str = "") -> list[Row]:
    """A row of the table for a problem; none if there are no problems of the kind."""
    return [(name, output.count(number), remark)] if number else []
