"""The state of a stratification: where units are, and what each class needs."""

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

# The low bits of a hash, apart from the high ones that put units in order.
_PHASE_BITS: Final = 24


@dataclass(frozen=True)
class Strata:
    """Where units are, and what that makes of classes. `split` and `count` change as units move.

    Units and classes are numbered without gaps; the last class is the whole. A *holding* is a
    unit's records of one class; each unit's last one is of the whole.

    Attributes:
        codes: the classes' codes, ascending, without the whole.
        rank: each unit's hash: those with the smallest move first.
        start, split: each unit's split by its key, and now.
        unit, class_, size: of each holding, sorted by unit and then by class.
        unit_begin: a unit's first holding, and behind the last one the number of holdings.
        members: holdings sorted by class and then by their unit's rank.
        class_begin: a class's first place in `members`, and at the end their number.
        count, low, high: records of class × split; the band that they should be in.
        target: class × split, the exact share.
    """

    codes: Ints
    rank: Keys
    start: Ints
    split: Ints
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
            codes, rank, start, start.copy(), unit, class_, size,
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
        """What a record outside a class's band counts: in a class more than all can in the whole."""
        weight = np.full(self.whole + 1, 2 * int(self.count[self.whole].sum()) + 1)
        weight[self.whole] = 1
        return weight

    def is_lone(self, units: Ints) -> NDArray[np.bool_]:
        """Which units hold one class, beside the whole."""
        lone: NDArray[np.bool_] = self.unit_begin[units + 1] - self.unit_begin[units] == 2
        return lone

    def outside(self, class_: Ints | int | slice = slice(None)) -> Ints:
        """Records outside the bands of classes, class × split."""
        return records_outside(self.count[class_], self.low[class_], self.high[class_])

    def members_of(self, class_: int) -> Ints:
        return self.members[self.class_begin[class_] : self.class_begin[class_ + 1]]

    def first_rank(self, class_: Ints) -> Keys:
        """The rank of each class's first unit: a hash of the class that few additions change."""
        return self.rank[self.unit[self.members[self.class_begin[class_]]]]

    def holdings_of(self, units: Ints) -> tuple[Ints, Ints]:
        """All holdings of units, unit after unit, and where each unit's begin among them."""
        begin = self.unit_begin[units]
        length = self.unit_begin[units + 1] - begin
        offset = np.cumsum(length) - length
        return np.repeat(begin - offset, length) + np.arange(length.sum()), offset

    def move(self, unit: int, to: int) -> None:
        held = slice(self.unit_begin[unit], self.unit_begin[unit + 1])
        self.count[self.class_[held], self.split[unit]] -= self.size[held]
        self.count[self.class_[held], to] += self.size[held]
        self.split[unit] = to


def records_outside(count: Ints, low: Ints, high: Ints) -> Ints:
    outside: Ints = np.maximum(count - high, 0) + np.maximum(low - count, 0)
    return outside


def _bands(records: Ints, splits: Sequence[Split], tolerance: Fraction) -> tuple[Ints, Ints]:
    """The least and the most records that each split may have of classes of so many records."""

    def band(share: Fraction, n: int) -> tuple[int, int]:
        less, more = share - tolerance, share + tolerance
        floor, ceil = _times(share, n), -_times(-share, n)
        return max(0, min(floor, -_times(-less, n))), min(n, max(ceil, _times(more, n)))

    sizes, of_class = np.unique(records, return_inverse=True)  # far fewer than classes
    bands = np.array([[band(split.share, n) for split in splits] for n in sizes.tolist()], np.int64)
    return bands[of_class, :, 0], bands[of_class, :, 1]


def _times(share: Fraction, records: int) -> int:
    """`floor(share × records)`, exact, without making a fraction of it."""
    return share.numerator * records // share.denominator


def phase_of(rank: Keys) -> Floats:
    low_bits = rank & np.uint64((1 << _PHASE_BITS) - 1)
    return low_bits.astype(np.float64) / (1 << _PHASE_BITS)


def apportion(total: Ints, weights: Floats, phase: Floats) -> Ints:
    """`total` of each row in whole parts by its weights, each rounded down or up.

    Systematic sampling: over phases 0 … 1 the mean of a part is its exact one, so that what is
    rounded in thousands of small classes adds up to the shares. Rows of zeros get nothing.
    """
    upto = np.cumsum(weights, axis=1)
    whole = upto[:, -1:]
    upto = np.divide(upto, whole, out=np.zeros_like(upto), where=whole > 0)
    ends = np.floor(upto * total[:, None] + phase[:, None])
    return np.diff(ends, axis=1, prepend=0).astype(np.int64)
