"""The one protocol by which a run reports how far it is."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["info", "warning", "error"]


class Stage(NamedTuple):
    """A part of a run that has a beginning and, where a total is known, an end.

    Attributes:
        noun: what is counted, in the plural: "files", "records".
        items: how many there are; None where that is not known.
        nbytes: how many bytes there are; None where that is not known.
        seconds: an estimate of how long the stage takes, where its pace is set by something else
            than this machine; None where the view may work it out from the pace so far.
        sentence: what to say at the beginning where no bar can be drawn.
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
        """No other run stands in the way: the work begins."""

    def begin(self, stage: Stage) -> None:
        """A stage begins; the one before it is over."""

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        """More of the stage is done.

        Args:
            items: how many more, in the stage's noun.
            nbytes: how many more bytes.
            outcome: what became of the items, for a tally: "duplicate", "failed".
        """

    def wait(self, seconds: float, reason: str) -> None:
        """Nothing will happen for so many seconds."""

    def say(self, sentence: str, level: Level = "info") -> None:
        """A person should read this sentence now."""
