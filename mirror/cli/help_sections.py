"""Options under headings in a command's `--help`.

@click.command("sync", cls=SectionedCommand)
@section("What to read", cache_option, click.option("--prefix", …))
@bucket_options
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

GENERAL: Final = "General"
_WIDEST_NAME: Final = 26
# What click says of a number that must not be negative: "[x>=0]", "[default: 7.0; x>0]".
_LOWER_LIMIT: Final = re.compile(r"(; )?x>=?[\d.]+(?=\]$)")


def section(title: str, *options: Decorator) -> Decorator:
    """One decorator for several options, which help shows under a heading and in this order.

    An option that has a heading already keeps it.
    """

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        before = len(getattr(function, "__click_params__", ()))
        for option in reversed(options):
            function = option(function)
        for parameter in function.__click_params__[before:]:  # type: ignore[attr-defined]
            parameter.__dict__.setdefault("section", title)
        return function

    return add


def section_of(parameter: click.Parameter) -> str:
    """The heading of an option; `GENERAL` where it was given none."""
    return str(getattr(parameter, "section", GENERAL))


class SectionedCommand(click.Command):
    """A command whose help shows its options under the headings of `section`, `GENERAL` last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                name, text = record
                records = sections.setdefault(section_of(parameter), [])
                records.append((name, _LOWER_LIMIT.sub("", text).removesuffix("  []")))
        general = sections.pop(GENERAL, [])
        names = [name for records in (*sections.values(), general) for name, _ in records]
        wide = max((len(name) for name in names if len(name) <= _WIDEST_NAME), default=0)
        for title, records in [*sections.items(), (GENERAL, general)]:
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(wide), text) for name, text in records], col_max=wide
                )
