"""The progress of a run on standard error: a bar on a terminal, else a line a minute.

A quiet command shows warnings and errors only.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from mirror.cli import log, output
from mirror.run.progress import Level, Progress, Stage
from mirror.system.display_text import format_size, printable

if TYPE_CHECKING:
    from tqdm import tqdm

SECONDS_BETWEEN_LINES: Final = 60.0
_SECONDS_BETWEEN_DRAWINGS: Final = 0.1
# Shorter waits get no line of their own.
_LONG_WAIT: Final = 120.0
_NARROWEST_BAR: Final = 6


@contextmanager
def terminal_progress(
    verbosity: int,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    started: Callable[[], object] = lambda: None,
) -> Iterator[Progress]:
    """The view that fits a stream. The bar disappears when the block ends, before results are shown.

    Args:
        verbosity: the session's; below 0 only warnings and errors are shown.
        stream: standard error when None.
        clock: seconds, for rates and for the times between two lines.
        started: called when the run holds its lock.
    """
    stream = sys.stderr if stream is None else stream
    if verbosity < 0:
        yield _Quiet(stream, started)
    elif stream.isatty() and not log.speaks_json():
        bar = _Bar(stream, started, clock)
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield _LogLines(stream, started, clock)


class _Quiet(Progress):
    def __init__(self, stream: TextIO, started: Callable[[], object]) -> None:
        self._stream = stream
        self._started = started

    def started(self) -> None:
        self._started()

    def say(self, sentence: str, level: Level = "info") -> None:
        if level != "info":
            self._print(sentence, level)

    def _print(self, sentence: str, level: Level) -> None:
        # Flushed: cron's mail and a journal need each line at once.
        print(_line(sentence, level), file=self._stream, flush=True)


class _Figures(_Quiet):
    """Counts a stage and words the figures; its subclasses show them."""

    _interval: float

    def __init__(
        self, stream: TextIO, started: Callable[[], object], clock: Callable[[], float]
    ) -> None:
        super().__init__(stream, started)
        self._clock = clock
        self._reset(Stage(""))

    def _reset(self, stage: Stage) -> None:
        self._stage = stage
        self._items = self._nbytes = 0
        self._tally: Counter[str] = Counter()
        self._waiting = ""
        self._began_at = self._shown_at = self._clock()

    def begin(self, stage: Stage) -> None:
        self._reset(stage)

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        self._items += items
        self._nbytes += nbytes
        if outcome:
            self._tally[outcome] += items or 1
        self._waiting = ""
        now = self._clock()
        if now - self._shown_at >= self._interval:
            self._shown_at = now
            self._show(now)

    def _show(self, now: float) -> None:
        raise NotImplementedError

    def _pieces(self, now: float) -> Iterator[str]:
        """The figures in words, the most important first."""
        stage, seconds = self._stage, now - self._began_at
        if self._waiting:
            yield self._waiting
        of = "" if stage.items is None else f"/{stage.items:,}"
        yield f"{self._items:,}{of} {stage.noun}"
        if stage.nbytes:
            yield f"{self._nbytes / stage.nbytes:.0%} of {format_size(stage.nbytes)}"
        elif stage.items:
            yield f"{min(1, self._items / stage.items):.0%}"
        if (left := self._seconds_left(seconds)) is not None:
            yield f"{output.duration(left)} left"
        if self._nbytes and not stage.nbytes:
            yield format_size(self._nbytes)
        if seconds > 0 and stage.seconds is None:
            # With a total in bytes and none in items, the bytes only tell the position: they are
            # those of a dataset whose records are counted.
            of_dataset = stage.nbytes is not None and stage.items is None
            if self._nbytes and not of_dataset:
                yield f"{format_size(self._nbytes / seconds)}/s"
            if of_dataset or stage.nbytes is None:
                yield f"{self._items / seconds:,.0f} {stage.noun.split()[0]}/s"

    def _outcomes(self) -> list[str]:
        return [f"{name} {n:,}" for name, n in sorted(self._tally.items())]

    def _seconds_left(self, seconds: float) -> float | None:
        stage = self._stage
        done, total = self._position
        if not total:
            return None
        left = max(0.0, 1 - done / total)
        if stage.seconds is not None:
            return stage.seconds * left
        return None if not done else seconds * left * total / done

    @property
    def _position(self) -> tuple[int, int | None]:
        """How far the stage is, and its total: in bytes where their total is known."""
        if self._stage.nbytes:
            return self._nbytes, self._stage.nbytes
        return self._items, self._stage.items


class _Bar(_Figures):
    _interval = _SECONDS_BETWEEN_DRAWINGS
    _bar: tqdm[Any] | None = None

    def begin(self, stage: Stage) -> None:
        from tqdm import tqdm

        self.close()
        super().begin(stage)
        self._bar = tqdm(
            total=self._position[1], file=self._stream, leave=False, **self._look(self._shown_at)
        )

    def wait(self, seconds: float, reason: str) -> None:
        self._waiting = f"waiting {output.duration(seconds)}: {reason}"
        self._show(self._clock())

    def say(self, sentence: str, level: Level = "info") -> None:
        from tqdm import tqdm

        tqdm.write(_line(sentence, level), file=self._stream)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _show(self, now: float) -> None:
        if self._bar is None:
            return
        look = self._look(now)
        self._bar.ncols, self._bar.bar_format = look["ncols"], look["bar_format"]
        self._bar.set_description_str(look["desc"], refresh=False)
        done, total = self._position
        self._bar.n = done if total is None else min(done, total)
        self._bar.refresh()

    def _look(self, now: float) -> dict[str, Any]:
        """The figures that fit on one line, each whole, and a bar where there is room for one."""
        columns = _columns(self._stream)
        text = ""
        for piece in map(printable, (*self._pieces(now), *self._outcomes())):
            longer = f"{text}, {piece}" if text else piece
            if text and len(longer) >= columns:
                break
            text = longer
        has_bar = self._position[1] and columns - len(text) > _NARROWEST_BAR + 3
        return {
            "ncols": columns,
            "bar_format": "|{bar}| {desc}" if has_bar else "{desc}",
            "desc": text,
        }


class _LogLines(_Figures):
    _interval = SECONDS_BETWEEN_LINES
    _last_wait = ""

    def begin(self, stage: Stage) -> None:
        super().begin(stage)
        if stage.sentence:
            self.say(stage.sentence)

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        self._last_wait = ""
        super().advance(items, nbytes, outcome)

    def wait(self, seconds: float, reason: str) -> None:
        if seconds >= _LONG_WAIT and reason != self._last_wait:
            self._last_wait = reason
            self.say(f"waiting {output.duration(seconds)}: {reason}")

    def say(self, sentence: str, level: Level = "info") -> None:
        self._print(sentence, level)

    def _show(self, now: float) -> None:
        tally = ", ".join(self._outcomes())
        self.say(", ".join(self._pieces(now)) + (f" ({tally})" if tally else ""))


def _line(sentence: str, level: Level) -> str:
    return log.line(sentence, level)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
