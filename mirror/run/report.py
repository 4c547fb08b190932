"""The report that a verb of the library returns: a frozen copy of what `--json` prints."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

import msgspec

from mirror.errors import EXIT_DONE
from mirror.run.report_json import encoded

_WIDTH: Final = 100


class Report:
    """What a run did.

    The keys of `as_dict()` are attributes as well: `report.uploaded`, `report.flagged["blank"]`.
    A report cannot be changed; it pickles and compares by value.

    Args:
        command: the name of the command that prints the same values.
        values: the object of `--json`.
        exit_status: the exit status of that command.
    """

    __slots__ = ("_values", "command", "exit_status")

    command: str
    exit_status: int
    _values: dict[str, Any]

    def __init__(
        self, command: str, values: Mapping[str, Any], exit_status: int = EXIT_DONE
    ) -> None:
        # Through JSON and back: the copy is exact, and it shares nothing with the run.
        copied = msgspec.json.decode(encoded(dict(values)))
        for name, value in (
            ("_values", copied),
            ("command", command),
            ("exit_status", exit_status),
        ):
            object.__setattr__(self, name, value)

    @property
    def succeeded(self) -> bool:
        """Whether the run did everything that was asked: its exit status is 0."""
        return self.exit_status == EXIT_DONE

    def as_dict(self) -> dict[str, Any]:
        """Return a copy of the object that the command prints with `--json`."""
        return deepcopy(self._values)

    def __getattr__(self, name: str) -> Any:
        # Unpickling asks for attributes before there are any.
        values = {} if name.startswith("_") else self._values
        if name not in values:
            raise AttributeError(
                f"a report of {self.command!r} has no {name!r}", name=name, obj=self
            )
        return deepcopy(values[name])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a report cannot be changed: {name!r}", name=name, obj=self)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a report cannot be changed: {name!r}", name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._values})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Report):
            return NotImplemented
        return self.__reduce__() == other.__reduce__()

    __hash__ = None  # type: ignore[assignment]  # it holds lists and dictionaries

    def __reduce__(self) -> tuple[type[Report], tuple[str, dict[str, Any], int]]:
        return Report, (self.command, self._values, self.exit_status)

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={text}" for name, text in self._facts())
        text = f"<{self.command}: {facts}>"
        return textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align: left'>{html.escape(name)}</th>"
            f"<td style='text-align: left'>{html.escape(text)}</td></tr>"
            for name, text in self._facts()
        )
        return f"<table><caption>mirror {html.escape(self.command)}</caption>{rows}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        """What a person wants to see: the values that are not empty or zero, in a few words."""
        shown = {"exit_status": self.exit_status} | self._values
        return [(name, _shown(value)) for name, value in shown.items() if _tells(name, value)]


def _tells(name: str, value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_tells("", inner) for inner in value.values())
    return name == "exit_status" or (value not in (None, False, 0, "") and value != [])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = (f"{name}: {_shown(part)}" for name, part in value.items() if _tells("", part))
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "1 item" if len(value) == 1 else f"{len(value):,} items"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
