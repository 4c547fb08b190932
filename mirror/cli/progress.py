"""How far a command is, on standard error: a bar on a terminal, else a line a minute; if quiet, warnings."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from mirror.cli import log, output

if TYPE_CHECKING:
    from tqdm import tqdm

EVERY_SECONDS: Final = 60.0

# What a line says, from the seconds that the work has taken.
Line = Callable[[float], str]
# What stands before the bar, and behind it.
Beside = Callable[[], tuple[str, str]]


class Meter:
    """Is told how far the work is. This one says only what is wrong: the command is quiet."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, total: int | None = None, sentence: str = "") -> None:
        """The work that is timed begins now; must come before it moves.

        Args:
            total: of a bar of its own, in the bar's unit; None when it is not known.
            sentence: said where there is no bar.
        """

    def moved(
        self, amount: int = 0, line: Line | None = None, beside: Beside | None = None
    ) -> None:
        """So much more is done, in the bar's unit; what a line says of it, and what the bar."""

    def waits(self, reason: str, sentence: str = "") -> None:
        """Before the bar stands the reason, at once; where there is no bar the sentence is said."""

    def say(self, sentence: str, level: log.Level = "info") -> None:
        """Say it at once, above the bar or as a line; what is only to be known, not if quiet."""
        if level != "info":
            self._print(sentence, level)

    def _print(self, sentence: str, level: log.Level) -> None:
        # Flushed: cron's mail and a journal want each line as it is said.
        print(log.line(sentence, level), file=self._stream, flush=True)


@contextmanager
def metering(
    verbosity: int,
    unit: str,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Meter]:
    """The meter that fits. The bar is gone when this ends, and results can be shown.

    Args:
        verbosity: of the session; when quiet, only warnings and errors are said.
        unit: of the bar, in the plural; `B` for bytes.
        stream: standard error when None.
        clock: seconds, for the lines.
    """
    stream = sys.stderr if stream is None else stream
    if verbosity < 0:
        yield Meter(stream)
    elif stream.isatty() and not log.speaks_json():
        with closing(_Bar(unit, stream)) as bar:
            yield bar
    else:
        yield _LogLines(stream, clock)


class _Bar(Meter):
    def __init__(self, unit: str, stream: TextIO) -> None:
        super().__init__(stream)
        self._looks: dict[str, Any] = {"file": stream, "leave": False, "dynamic_ncols": True}
        self._looks |= {"unit": "B", "unit_scale": True} if unit == "B" else {"unit": f" {unit}"}
        self._bar: tqdm[Any] | None = None

    def begin(self, total: int | None = None, sentence: str = "") -> None:
        from tqdm import tqdm

        self.close()
        self._bar = tqdm(total=total, **self._looks)

    def moved(
        self, amount: int = 0, line: Line | None = None, beside: Beside | None = None
    ) -> None:
        assert self._bar is not None
        if beside is not None:
            before, behind = beside()
            self._bar.set_description_str(before, refresh=False)
            self._bar.set_postfix_str(behind, refresh=False)
        self._bar.update(amount)

    def waits(self, reason: str, sentence: str = "") -> None:
        assert self._bar is not None
        self._bar.set_description_str(reason)

    def say(self, sentence: str, level: log.Level = "info") -> None:
        from tqdm import tqdm

        tqdm.write(log.line(sentence, level), file=self._stream)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _LogLines(Meter):
    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        super().__init__(stream)
        self._clock = clock

    def begin(self, total: int | None = None, sentence: str = "") -> None:
        self._began_at = self._said_at = self._clock()
        if sentence:
            self.say(sentence)

    def moved(
        self, amount: int = 0, line: Line | None = None, beside: Beside | None = None
    ) -> None:
        if line is not None and (now := self._clock()) - self._said_at >= EVERY_SECONDS:
            self._said_at = now
            self.say(line(now - self._began_at))

    def waits(self, reason: str, sentence: str = "") -> None:
        if sentence:
            self.say(sentence)

    def say(self, sentence: str, level: log.Level = "info") -> None:
        self._print(sentence, level)


@contextmanager
def counting(
    verbosity: int,
    noun: str,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    *,
    judged: bool = False,
) -> Iterator[Callable[[int, int], None]]:
    """Is told of things and their bytes.

    Args:
        verbosity: as `metering` has it.
        noun: what is counted, in the plural.
        stream: as `metering` has it.
        clock: as `metering` has it.
        judged: they are, maybe by their headers alone: how many bytes a second says nothing.
    """
    done = read = 0

    def line(seconds: float) -> str:
        size = f", {output.size(read)}" if read else ""
        rate = f", {output.size(read / seconds)}/s" if read and not judged else ""
        return f"{done:,} {noun}{' judged' * judged}{size}{rate}, {done / seconds:,.0f} {noun}/s"

    def beside() -> tuple[str, str]:
        return "", output.size(read) if read else ""

    def count(things: int, size: int) -> None:
        nonlocal done, read
        done += things
        read += size
        meter.moved(things, line, beside)

    with metering(verbosity, noun, stream, clock) as meter:
        meter.begin()
        yield count
