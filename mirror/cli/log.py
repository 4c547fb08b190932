"""Lines on standard error: sentences, or JSON objects with `--log-format json`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from mirror.system.display_text import printable, printable_json

Format = Literal["text", "json"]
Level = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Style:
    """The format of the lines. Each line of JSON contains `run_id`."""

    format: Format = "text"
    run_id: str = ""


class _Current:
    # For all threads of the process. The command line sets it before a command begins.
    style = Style()


def set_style(style: Style) -> None:
    _Current.style = style


def speaks_json() -> bool:
    return _Current.style.format == "json"


def line(sentence: str, level: Level = "info", **facts: object) -> str:
    """One line of the log, without its end.

    Args:
        sentence: for a person.
        level: `warning` if a person should act on it, `error` if it ends a command.
        facts: further members of a line of JSON; text omits them.
    """
    style = _Current.style
    if style.format == "text":
        return f"mirror: {printable(sentence)}"
    import json
    from datetime import UTC, datetime

    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    head = {"time": now, "level": level, "run_id": style.run_id, "message": sentence}
    return printable_json(json.dumps(head | facts, ensure_ascii=False))


def say(sentence: str, level: Level = "info", **facts: object) -> None:
    """Print one line on standard error, and flush it."""
    print(line(sentence, level, **facts), file=sys.stderr, flush=True)


def listing(title: str, lines: list[str], left: int = 0) -> None:
    """Print a list on standard error: `lines` are its first items, `left` counts the others."""
    if speaks_json():
        say(title.rstrip(":"), "warning", items=lines, left_out=left)
        return
    rest = [f"… and {left:,} more (all of them with --json)"] if left else []
    for text in [title, *(f"  {item}" for item in [*lines, *rest])]:
        print(printable(text), file=sys.stderr)
