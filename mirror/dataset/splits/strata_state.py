"""The state of a stratification: the split of each unit, and the counts and bands of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.splits.split import KeyedRandom, Keys, Split, positions

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# The low bits of a hash are independent of the high bits, which order the units.
_PHASE_BITS: Final = 24


@dataclass(frozen=True)
class Strata:
    """The split of each unit, and the resulting counts of classes.

    `split` and `count` change as units move. Units and classes are numbered without gaps; the last
    class is the whole dataset. A *holding* is the set of a unit's records of one class. The last
    holding of each unit is that of the whole dataset.

    Attributes:
        codes: the codes of the classes, ascending, without the whole dataset.
        rank: the hash of each unit; units with the smallest rank move first.
        start, split: for each unit the split of its key or pin, and its present split.
        fixed: for each unit whether it is pinned and must not move.
        unit, class_, size: of each holding, sorted by unit and then by class.
        unit_begin: for each unit its first holding; at the end the number of holdings.
        members: holdings sorted by class and then by the rank of their unit.
        class_begin: for each class its first index in `members`; at the end their number.
        count, low, high: records of class × split, and the limits of the band.
        target: the exact share of class × split, in records.
    """

    codes: Ints
    rank: Keys
    start: Ints
    split: Ints
    fixed: NDArray[np.bool_]
    unit: Ints
    class_: Ints
    size: Ints
    unit_begin: Ints
    members: Ints
    class_begin: Ints
    count: Ints
    low: Ints
    high: Ints
    target: Floats

    @classmethod
    def of(
        cls,
        *,
        keys: Keys,
        record_unit: Ints,
        record_class: NDArray[np.int32],
        start: Ints,
        fixed: NDArray[np.bool_],
        splits: Sequence[Split],
        seed: int,
        tolerance: Fraction,
    ) -> Strata:
        classed = record_class >= 0
        codes, of_record = np.unique(record_class[classed].astype(np.int64), return_inverse=True)
        width = len(codes) + 1
        pairs, size = np.unique(
            np.concatenate(
                [record_unit[classed] * width + of_record, (record_unit + 1) * width - 1]
            ),
            return_counts=True,
        )
        unit, class_ = np.divmod(pairs, width)
        rank = positions(keys, seed, KeyedRandom.MOVE)
        count = np.zeros((width, len(splits)), np.int64)
        np.add.at(count, (class_, start[unit]), size)
        records = count.sum(axis=1)
        low, high = _bands(records, splits, tolerance)
        return cls(
            codes, rank, start, start.copy(), fixed, unit, class_, size,
            unit_begin=np.searchsorted(unit, np.arange(len(keys) + 1)),
            members=np.lexsort((rank[unit], class_)),
            class_begin=np.searchsorted(np.sort(class_), np.arange(width + 1)),
            count=count, low=low, high=high,
            target=records[:, None] * np.array([float(split.share) for split in splits]),
        )  # fmt: skip

    @property
    def whole(self) -> int:
        return len(self.codes)

    @cached_property
    def weight(self) -> Ints:
        """The weight of a record outside a band: for a class more than for the whole dataset together."""
        weight = np.full(self.whole + 1, 2 * int(self.count[self.whole].sum()) + 1)
        weight[self.whole] = 1
        return weight

    def is_lone(self, units: Ints) -> NDArray[np.bool_]:
        """Which units contain a single class, besides the whole dataset."""
        lone: NDArray[np.bool_] = self.unit_begin[units + 1] - self.unit_begin[units] == 2
        return lone

    def outside(self, class_: Ints | int | slice = slice(None)) -> Ints:
        """Records outside the bands of classes, class × split."""
        return records_outside(self.count[class_], self.low[class_], self.high[class_])

    def members_of(self, class_: int) -> Ints:
        """The holdings of a class, by the rank of their units."""
        return self.members[self.class_begin[class_] : self.class_begin[class_ + 1]]

    def first_rank(self, class_: Ints) -> Keys:
        """The rank of each class's first unit: a hash of the class that rarely changes with new data."""
        return self.rank[self.unit[self.members[self.class_begin[class_]]]]

    def holdings_of(self, units: Ints) -> tuple[Ints, Ints]:
        """All holdings of units, unit after unit, and the index of each unit's first one."""
        begin = self.unit_begin[units]
        length = self.unit_begin[units + 1] - begin
        offset = np.cumsum(length) - length
        return np.repeat(begin - offset, length) + np.arange(length.sum()), offset

    def move(self, unit: int, to: int) -> None:
        """Move a unit to another split."""
        held = slice(self.unit_begin[unit], self.unit_begin[unit + 1])
        self.count[self.class_[held], self.split[unit]] -= self.size[held]
        self.count[self.class_[held], to] += self.size[held]
        self.split[unit] = to


def records_outside(count: Ints, low: Ints, high: Ints) -> Ints:
    """How many records are above or below the band."""
    outside: Ints = np.maximum(count - high, 0) + np.maximum(low - count, 0)
    return outside


def _bands(records: Ints, splits: Sequence[Split], tolerance: Fraction) -> tuple[Ints, Ints]:
    """The lower and upper limits, class × split, for classes with these numbers of records."""

    def band(share: Fraction, n: int) -> tuple[int, int]:
        less, more = share - tolerance, share + tolerance
        floor, ceil = _times(share, n), -_times(-share, n)
        return max(0, min(floor, -_times(-less, n))), min(n, max(ceil, _times(more, n)))

    sizes, of_class = np.unique(
        records, return_inverse=True
    )  # there are far fewer sizes than classes
    bands = np.array([[band(split.share, n) for split in splits] for n in sizes.tolist()], np.int64)
    return bands[of_class, :, 0], bands[of_class, :, 1]


def _times(share: Fraction, records: int) -> int:
    """`floor(share × records)`, exact, in integers."""
    return share.numerator * records // share.denominator


def phase_of(rank: Keys) -> Floats:
    """A number in 0 … 1 from the low bits of each rank."""
    low_bits = rank & np.uint64((1 << _PHASE_BITS) - 1)
    return low_bits.astype(np.float64) / (1 << _PHASE_BITS)


def apportion(total: Ints, weights: Floats, phase: Floats) -> Ints:
    """Divide the `total` of each row by its weights into integers, each rounded down or up.

    This is systematic sampling: over phases 0 … 1 the mean of a part is its exact value. So the
    rounded parts of thousands of small classes add up to the shares. Rows of zeros get nothing.
    """
    upto = np.cumsum(weights, axis=1)
    whole = upto[:, -1:]
    upto = np.divide(upto, whole, out=np.zeros_like(upto), where=whole > 0)
    ends = np.floor(upto * total[:, None] + phase[:, None])
    return np.diff(ends, axis=1, prepend=0).astype(np.int64)
