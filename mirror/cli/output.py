"""Numbers and tables for people. `Session.print_json` prints JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import click

from mirror.cli import log
from mirror.system.display_text import printable

# click drops colours where NO_COLOR is set (mirror.cli.main) and where no terminal reads.
_COLOURS: Final = dict.fromkeys(
    ("flagged", "blank", "corrupt", "not_image", "placeholder"), "yellow"
) | {"failed": "red"}


def echo(line: str = "", *, prefix: str = "", err: bool = False) -> None:
    """Print one line for a person. What does not print is escaped, a newline too.

    A file name, a URL or a server's answer could otherwise move the cursor, or forge a line.

    Args:
        line: without its end.
        prefix: text of this program in front of it, which may have colours.
        err: print on standard error.
    """
    click.echo(prefix + printable(line), err=err)


def echo_lines(text: str, *, err: bool = False) -> None:
    """`echo` for each line of a text whose newlines come from this program."""
    for line in text.split("\n"):
        echo(line, err=err)


def count(number: int) -> str:
    return f"{number:,}"


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def usd(amount: float) -> str:
    return f"${amount:.2f}" if amount >= 0.005 or amount == 0 else "less than $0.01"


def table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows of `(label, number, remark)`: labels left, numbers right, then remarks.

    A row of flagged or failed items is coloured on a terminal, unless there are none.
    """
    rows = [(*map(printable, row),) + ("",) * (3 - len(row)) for row in rows]
    widest_label = max(len(row[0]) for row in rows)
    widest_number = max(len(row[1]) for row in rows)
    for label, number, remark in rows:
        line = f"{label:<{widest_label}}  {number:>{widest_number}}  {remark}".rstrip()
        colour = _COLOURS.get(label.strip()) if number != "0" else None
        click.echo(click.style(line, fg=colour) if colour else line)


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print names on the left, then columns of numbers, each under its title."""
    lines = [[*map(printable, line)] for line in (header, *rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    for name, *numbers in lines:
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:], strict=True)]
        echo("  ".join([f"{name:<{widths[0]}}", *cells]).rstrip())


def listing(title: str, lines: Sequence[str], limit: int = 20) -> None:
    """Print the first lines on standard error, and how many more there are."""
    if lines:
        log.listing(title, list(lines[:limit]), max(0, len(lines) - limit))
