"""The bad samples of a training, shared by the workers of a rank, and their budget."""

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
    """A sample that could not be read or decoded in an epoch.

    Attributes:
        epoch: the epoch, from 0.
        index: the sample's number in the dataset.
        url: its URL.
        reason: the error, in one sentence.
    """

    epoch: int
    index: int
    url: str
    reason: str


class BadSamples:
    """The bad samples that all workers of a rank have found, in one shared file.

    A sample counts once an epoch, whichever workers find it and however often.

    Args:
        budget: bad samples that are allowed in an epoch.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._file = SharedFile()
        self._read = 0
        self._list: list[BadSample] = []
        self._known: set[tuple[int, int]] = set()

    def record(self, bad: BadSample) -> None:
        """Count a bad sample.

        Raises:
            TooManyBadSamples: the epoch's budget is used up.
        """
        self._refresh()
        if (bad.epoch, bad.index) not in self._known:
            # A worker that is killed may leave half a line, so each record begins a line of its own.
            self._file.append(b"\n" + msgspec.json.encode(bad) + b"\n")
            self._refresh()
        in_epoch = [known for known in self._list if known.epoch == bad.epoch]
        if len(in_epoch) > self.budget:
            raise TooManyBadSamples(_sentence(in_epoch, self.budget))

    def all(self) -> list[BadSample]:
        """All bad samples so far, in the order in which they were found."""
        self._refresh()
        return list(self._list)

    def is_known(self, epoch: int, index: int) -> bool:
        """Whether this process knows that a sample is bad in an epoch."""
        return (epoch, index) in self._known

    def _refresh(self) -> None:
        """Read what the processes have appended since the last time."""
        appended = self._file.read(self._read, self._file.size - self._read)
        whole_lines = appended.rfind(b"\n") + 1
        self._read += whole_lines
        for line in appended[:whole_lines].splitlines():
            try:
                bad = msgspec.json.decode(line, type=BadSample)
            except msgspec.DecodeError:  # an empty line, or half a record
                continue
            if (bad.epoch, bad.index) not in self._known:
                self._known.add((bad.epoch, bad.index))
                self._list.append(bad)


def budget_of_rank(samples: int, budget: float, world_size: int) -> int:
    """Bad samples that one rank may meet in an epoch.

    Args:
        samples: samples of the dataset.
        budget: a number of samples (int) or a share of the dataset (float), for all ranks together.
            A budget above 0 allows each rank at least one.
        world_size: number of ranks.
    """
    together = budget if isinstance(budget, int) else samples * budget
    return max(1, int(together / world_size)) if budget else 0


def _sentence(found: list[BadSample], budget: int) -> str:
    shown = "".join(f"\n  {bad.reason}" for bad in found[:_SHOWN])
    more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        f"Epoch {found[0].epoch} has met {len(found)} bad samples, and {budget} are allowed: check "
        f"them with mirror verify, drop them with mirror rewrite, or raise budget:{shown}{more}"
    )
