"""Samples that turned out bad during training: who has met which, and when it is too many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from mirror.errors import TooManyBadSamples
from mirror.fetch.shared_memory import SharedFile

OnBad = Literal["raise", "skip", "resample"]

_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that could not be had in an epoch, and why."""

    epoch: int
    index: int
    url: str
    reason: str


class BadSamples:
    """What all workers of a rank have met, in one file, against one budget.

    A sample counts once an epoch, however often and by whomever it is met.

    Args:
        allowed: bad samples in an epoch.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self._file = SharedFile()
        self._read = 0
        self._known: list[BadSample] = []
        self._met: set[tuple[int, int]] = set()

    def note(self, bad: BadSample) -> None:
        """Count it.

        Raises:
            TooManyBadSamples: the epoch's budget is used up.
        """
        self._refresh()
        if (bad.epoch, bad.index) not in self._met:
            self._file.append(msgspec.json.encode(bad) + b"\n")
            self._refresh()
        met = [known for known in self._known if known.epoch == bad.epoch]
        if len(met) > self.allowed:
            raise TooManyBadSamples(_sentence(met, self.allowed))

    def all(self) -> list[BadSample]:
        """All of them so far, in the order in which they were met."""
        self._refresh()
        return list(self._known)

    def is_known(self, epoch: int, index: int) -> bool:
        """Has this process heard that the sample is bad in this epoch?"""
        return (epoch, index) in self._met

    def _refresh(self) -> None:
        """Read what any process has put there since the last time."""
        fresh = self._file.read(self._read, self._file.size - self._read)
        whole = fresh.rfind(b"\n") + 1
        self._read += whole
        for line in fresh[:whole].splitlines():
            bad = msgspec.json.decode(line, type=BadSample)
            if (bad.epoch, bad.index) not in self._met:
                self._met.add((bad.epoch, bad.index))
                self._known.append(bad)


def allowance(samples: int, allowed: float, world_size: int) -> int:
    """Bad samples that one rank may meet in an epoch.

    Args:
        samples: of the dataset.
        allowed: a number of samples (an int), or a share of the dataset; what is not 0 allows each
            rank at least one.
        world_size: ranks, of which each sees its part, and is allowed a part.
    """
    together = allowed if isinstance(allowed, int) else samples * allowed
    return max(1, int(together / world_size)) if allowed else 0


def _sentence(met: list[BadSample], allowed: int) -> str:
    shown = "".join(f"\n  {bad.reason}" for bad in met[:_SHOWN])
    more = f"\n  and {len(met) - _SHOWN} more" if len(met) > _SHOWN else ""
    return (
        f"Epoch {met[0].epoch} has met {len(met)} bad samples, and {allowed} are allowed: see to them "
        f"with mirror verify, leave them out with mirror rewrite, or allow more:{shown}{more}"
    )
