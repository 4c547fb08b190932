"""What a command says on standard error: sentences, or with `--log-format json` an object a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TextIO

EVERY_SECONDS: Final = 60.0

Format = Literal["text", "json"]
Level = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Style:
    """How lines look. `run_id` stands in each line of JSON."""

    format: Format = "text"
    run_id: str = ""


class _Current:
    # For the whole process, whichever thread speaks: the command line sets it before a command begins.
    style = Style()


def set_style(style: Style) -> None:
    _Current.style = style


def speaks_json() -> bool:
    return _Current.style.format == "json"


def wants_bar(stream: TextIO) -> bool:
    """Whether a progress bar belongs there: on a terminal, unless a program reads along."""
    return stream.isatty() and not speaks_json()


def line(sentence: str, level: Level = "info", **facts: object) -> str:
    """One line of the log, without its end.

    Args:
        sentence: for a person.
        level: `warning` for what a person should read, `error` for what ends a command.
        facts: further members of a line of JSON; text leaves them out.
    """
    style = _Current.style
    if style.format == "text":
        return f"mirror: {sentence}"
    import json
    from datetime import UTC, datetime

    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    head = {"time": now, "level": level, "run_id": style.run_id, "message": sentence}
    return json.dumps(head | facts, ensure_ascii=False)


def say(sentence: str, level: Level = "info", **facts: object) -> None:
    """Say one thing on standard error at once."""
    print(line(sentence, level, **facts), file=sys.stderr, flush=True)


def listing(title: str, lines: list[str], left: int = 0) -> None:
    """Say a list on standard error: `lines` are its first items, `left` were cut off."""
    if speaks_json():
        say(title.rstrip(":"), "warning", items=lines, left_out=left)
        return
    rest = [f"… and {left:,} more (all of them with --json)"] if left else []
    for text in [title, *(f"  {item}" for item in [*lines, *rest])]:
        print(text, file=sys.stderr)


class Log:
    """Lines on a stream, each flushed as it is said; cron's mail and a journal want it so."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """The work that is timed begins now."""
        self._began_at = self._said_at = self._clock()

    def say(self, sentence: str, level: Level = "info") -> None:
        print(line(sentence, level), file=self._stream, flush=True)

    def due(self) -> float | None:
        """Seconds since the work began when it is time for a line about it, at most one a minute."""
        now = self._clock()
        if now - self._said_at < EVERY_SECONDS:
            return None
        self._said_at = now
        return now - self._began_at
