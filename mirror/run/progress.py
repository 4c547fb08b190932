"""The one protocol by which a run reports its progress."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["info", "warning", "error"]


class Stage(NamedTuple):
    """A part of a run that has a beginning and, where a total is known, an end.

    Attributes:
        noun: what is counted, in the plural: "files", "records read".
        items: how many there are; None where that is not known.
        nbytes: how many bytes there are; None where that is not known. Where it is known, bytes
            measure how far the stage is.
        seconds: an estimate of how long the stage takes, where something other than this machine
            sets its pace; None where a view works it out from the pace so far.
        sentence: what a view says at the beginning where it draws no bar.
    """

    noun: str
    items: int | None = None
    nbytes: int | None = None
    seconds: float | None = None
    sentence: str = ""


class Progress:
    """Receives the progress of a run. This base class ignores it; views override its methods.

    A run calls these methods from one thread at a time. Each must return at once. An exception
    that one raises ends the run.
    """

    def started(self) -> None:
        """The run holds its lock: the work begins."""

    def begin(self, stage: Stage) -> None:
        """A stage begins; the one before it is over."""

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        """More of the stage is done.

        Args:
            items: how many more, in the stage's noun.
            nbytes: how many more bytes.
            outcome: the result of these items, for a tally: "duplicate", "failed". With `items` 0
                it counts one attempt that finished no item, such as "throttled".
        """

    def wait(self, seconds: float, reason: str) -> None:
        """Nothing happens for this many seconds, unless something ends the wait."""

    def say(self, sentence: str, level: Level = "info") -> None:
        """Show a sentence at once. A quiet view shows only warnings and errors."""
