"""How results look to a person. Commands render through this; JSON is `Session.print_json`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from mirror.cli import log


def count(number: int) -> str:
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(nbytes: float) -> str:
    """Bytes in decimal units, as providers bill them: 132.8 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if nbytes < 1000 or unit == "TB":
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    raise AssertionError


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
    """Rows of `(label, number, remark)`: labels left, numbers right, remarks after."""
    rows = [tuple(row) + ("",) * (3 - len(row)) for row in rows]
    wide = max(len(row[0]) for row in rows)
    high = max(len(row[1]) for row in rows)
    for label, number, remark in rows:
        click.echo(f"{label:<{wide}}  {number:>{high}}  {remark}".rstrip())


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Names on the left, columns of numbers after them, each under its title."""
    lines = [list(header), *map(list, rows)]
    wide = [max(len(line[at]) for line in lines) for at in range(len(header))]
    for name, *numbers in lines:
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, wide[1:], strict=True)]
        click.echo("  ".join([f"{name:<{wide[0]}}", *cells]).rstrip())


def listing(title: str, lines: Sequence[str], most: int = 20) -> None:
    """A list on standard error, cut with a word about the rest."""
    if lines:
        log.listing(title, list(lines[:most]), max(0, len(lines) - most))
