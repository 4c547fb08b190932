"""Splits in which every class has its share, as far as whole units allow.

Start from each unit's split by its key, and move the fewest units that bring the classes into their
bands. Which unit moves is decided by a hash of its key, never by its place in the input, so that
the result is the same for records in another order and mostly stays as the dataset grows.

    band of a class of n records in a split of share s:
        the integers within tolerance × n of s × n, and s × n rounded down and up

The whole dataset is one more class that each record is of: else thousands of classes of three
records, all within their bands, could add up to 84 % where 80 % were asked for.

Three ways, from the cheap to the thorough:

1. Units of one class, all classes at once: as many as needed, the larger before the smaller.
2. Whatever unit, for classes still outside a band, the rarest class first (Sechidis, Tsoumakas and
   Vlahavas, "On the stratification of multi-label data", 2011): the unit that helps most, where all
   classes that it holds are counted.
3. For a class that no single move helps: its units of one class divided anew, the best of all
   ways, where the class is small enough to weigh them all.

The first takes no class farther from its bands. Each move of the others lowers the number of
records outside their classes' bands, summed over classes and splits, or leaves it and lowers the
whole's: no class pays for the whole, and all of it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.splits.split import KeyedRandom, Keys, Split, by_key, positions
from mirror.errors import UsageError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Reason = Literal["few_units", "large_units", "mixed_units"]

# The low bits of a hash, apart from the high ones that put units in order.
_PHASE_BITS: Final = 24
# Units weighed at once: what bounds the memory of weighing them against every split.
_WINDOW: Final = 1 << 14
# Counts × units up to which all divisions of a class are weighed.
_TABLES: Final = 1 << 21
_DIMENSIONS: Final = 30  # of numpy's arrays: 32 before version 2
_NO_WAY: Final = 1 << 30


class UnmetClass(NamedTuple):
    """A class that could not have its share in every split.

    Attributes:
        code: the class.
        reason: `few_units`: fewer units than splits, so it cannot be in each of them, even where
            it is within its bands; `large_units`: no division of its units is within them, though
            each is of this class alone; `mixed_units`: nor is one found where units of several
            classes may move only if that puts fewer records outside of bands than it brings in.
        records: of the class.
        units: that hold it.
        largest: records of the class in the unit that has most of them.
        split: the place in `splits` of the one that is farthest off.
        have: records of the class in that split.
        want: its share of the class's records there.
    """

    code: int
    reason: Reason
    records: int
    units: int
    largest: int
    split: int
    have: int
    want: float


class StratifiedSplits(NamedTuple):
    """Splits by class.

    Attributes:
        assignment: each record's split, as its place in `splits`.
        moved: records that are elsewhere than `by_key` puts them.
        unmet: classes that could not have their shares, by code. The whole is not among them.
    """

    assignment: NDArray[np.uint8]
    moved: int
    unmet: tuple[UnmetClass, ...]


def stratified(
    units: Keys,
    classes: NDArray[np.int32],
    splits: Sequence[Split],
    seed: int,
    tolerance: float = 0.01,
) -> StratifiedSplits:
    """Splits in which each class, and the whole, has its share, within its band, of whole units.

    Takes memory for records and for classes × splits.

    Args:
        units: a key for each record; records with equal keys are never in two splits.
        classes: each record's class; below 0 for none: then it counts only in the whole.
        splits: their shares add up to 1.
        seed: 0 … 2**64 - 1.
        tolerance: how far a split's part of a class may be off, as a share of the class; 0 … 1.

    Raises:
        UsageError: the seed or the tolerance is out of its range.
    """
    if not 0 <= tolerance <= 1:
        raise UsageError(f"The tolerance {tolerance:g} is out of range; choose from 0 to 1.")
    keys, unit = np.unique(units, return_inverse=True)
    start = by_key(keys, splits, seed)
    if not len(keys):
        return StratifiedSplits(start, 0, ())
    strata = _Strata.of(
        keys=keys,
        record_unit=unit,
        record_class=classes,
        start=start.astype(np.int64),
        splits=splits,
        seed=seed,
        tolerance=Fraction(str(tolerance)),
    )
    _settle_lone_units(strata)
    _settle_class_by_class(strata)
    assignment = strata.split.astype(np.uint8)[unit]
    moved = np.count_nonzero(assignment != start[unit])
    return StratifiedSplits(assignment, int(moved), tuple(_unmet(strata)))


@dataclass(frozen=True)
class _Strata:
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
    ) -> _Strata:
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
        return _outside(self.count[class_], self.low[class_], self.high[class_])

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


def _outside(count: Ints, low: Ints, high: Ints) -> Ints:
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


def _phase(rank: Keys) -> Floats:
    low_bits = rank & np.uint64((1 << _PHASE_BITS) - 1)
    return low_bits.astype(np.float64) / (1 << _PHASE_BITS)


def _apportion(total: Ints, weights: Floats, phase: Floats) -> Ints:
    """`total` of each row in whole parts by its weights, each rounded down or up.

    Systematic sampling: over phases 0 … 1 the mean of a part is its exact one, so that what is
    rounded in thousands of small classes adds up to the shares. Rows of zeros get nothing.
    """
    upto = np.cumsum(weights, axis=1)
    whole = upto[:, -1:]
    upto = np.divide(upto, whole, out=np.zeros_like(upto), where=whole > 0)
    ends = np.floor(upto * total[:, None] + phase[:, None])
    return np.diff(ends, axis=1, prepend=0).astype(np.int64)


# --- 1. units of one class ---


def _settle_lone_units(strata: _Strata) -> None:
    lone = np.flatnonzero(strata.is_lone(strata.unit) & (strata.class_ != strata.whole))
    unit = strata.unit[lone]
    order = np.lexsort(
        (strata.rank[unit], strata.split[unit], strata.class_[lone], strata.size[lone])
    )
    lone = lone[order]
    bounds = np.flatnonzero(np.diff(strata.size[lone])) + 1
    for equal in reversed(np.split(lone, bounds)):  # by size, the largest first
        if len(equal):
            _settle_equal_units(strata, equal)


def _settle_equal_units(strata: _Strata, holdings: Ints) -> None:
    """Move units of one class and one size, where that brings a class nearer to its bands.

    `holdings` are theirs, sorted by class, split and rank.
    """
    size = int(strata.size[holdings[0]])
    unit = strata.unit[holdings]
    rows, row = np.unique(strata.class_[holdings], return_inverse=True)
    width = strata.count.shape[1]
    cell = row * width + strata.split[unit]
    there = np.bincount(cell, minlength=len(rows) * width)
    leave, enter = _turnover(strata, rows, size, there.reshape(-1, width))
    nth = np.arange(len(cell)) - (np.cumsum(there) - there)[cell]
    # Sorted by class like the slots below, and as many of each class.
    leavers = unit[nth < leave.ravel()[cell]]
    strata.split[leavers] = np.repeat(np.tile(np.arange(width), len(rows)), enter.ravel())
    strata.count[rows] += (enter - leave) * size
    strata.count[strata.whole] += (enter - leave).sum(axis=0) * size


def _turnover(strata: _Strata, rows: Ints, size: int, there: Ints) -> tuple[Ints, Ints]:
    """How many units of a size leave and enter each split, class × split; row sums are equal.

    No split that gives falls below its band, and none that takes rises above it.
    """
    count, low, high = strata.count[rows], strata.low[rows], strata.high[rows]
    target, phase = strata.target[rows], _phase(strata.first_rank(rows))
    may_leave = np.minimum(there, np.maximum(count - low, 0) // size)
    may_enter = np.maximum(high - count, 0) // size
    leave = np.minimum(may_leave, -(-np.maximum(count - high, 0) // size))
    enter = np.minimum(may_enter, -(-np.maximum(low - count, 0) // size))
    # Where more must leave than must enter, or the other way, splits inside their bands make up
    # for it: those that are on the better side of their target, in proportion.
    more = leave.sum(axis=1) - enter.sum(axis=1)
    short = np.maximum(target - count - enter * size, 0) * (may_enter > enter)
    over = np.maximum(count - leave * size - target, 0) * (may_leave > leave)
    enter = np.minimum(may_enter, enter + _apportion(np.maximum(more, 0), short, phase))
    leave = np.minimum(may_leave, leave + _apportion(np.maximum(-more, 0), over, phase))
    moves = np.minimum(leave.sum(axis=1), enter.sum(axis=1))
    return _first(leave, moves), _first(enter, moves)


def _first(counts: Ints, total: Ints) -> Ints:
    """`counts` of each row cut down to the first `total` of them."""
    before = np.cumsum(counts, axis=1) - counts
    return np.clip(total[:, None] - before, 0, counts)


# --- 2 and 3. class by class ---


def _settle_class_by_class(strata: _Strata) -> None:
    order = _rarest_first(strata)
    moving = True
    while moving:
        moving = False
        for class_ in order[strata.outside(order).any(axis=1)].tolist():
            while strata.outside(class_).any() and (
                _move_units(strata, class_) or _divide_lone_units(strata, class_)
            ):
                moving = True


def _rarest_first(strata: _Strata) -> Ints:
    """Classes by their number of records and then by a hash of their units: never by their code."""
    hashes = np.zeros(strata.whole + 1, np.uint64)
    np.add.at(hashes, strata.class_, strata.rank[strata.unit] * strata.size.astype(np.uint64))
    return np.lexsort((hashes, strata.count.sum(axis=1)))


def _move_units(strata: _Strata, class_: int) -> bool:
    """Move units of a class, those that help most first, until it is met; whether any moved."""
    units = strata.unit[strata.members_of(class_)]
    moved = False
    for begin in range(0, len(units), _WINDOW):
        window = units[begin : begin + _WINDOW]
        best = _gains(strata, window).max(axis=1)
        for at in np.argsort(-best, kind="stable"):
            if not strata.outside(class_).any():
                return moved
            if best[at] <= 0:
                break
            gain = _gains(strata, window[at : at + 1])[0]  # others have moved since
            if gain.max() > 0:
                strata.move(window[at], _destination(strata, class_, window[at], gain))
                moved = True
    return moved


def _gains(strata: _Strata, units: Ints) -> Ints:
    """By how much (`_Strata.weight`) less is outside of bands when a unit goes to a split.

    Returns: unit × split.
    """
    held, begin = strata.holdings_of(units)
    class_, size = strata.class_[held], strata.size[held]
    count, low, high = strata.count[class_], strata.low[class_], strata.high[class_]
    at = np.arange(len(held)), strata.split[strata.unit[held]]
    now = _outside(count, low, high)
    entering = now - _outside(count + size[:, None], low, high)
    leaving = now[at] - _outside(count[at] - size, low[at], high[at])
    gains = np.add.reduceat((entering + leaving[:, None]) * strata.weight[class_, None], begin)
    gains[np.arange(len(units)), strata.split[units]] = 0
    return gains


def _destination(strata: _Strata, class_: int, unit: int, gain: Ints) -> int:
    """Of the splits where a unit gains most, one drawn by how far the class is short of its target."""
    most = gain == gain.max()
    short = np.maximum(strata.target[class_] - strata.count[class_], 0) * most
    if not short.any():
        short = most.astype(np.float64)
    drawn = _apportion(np.ones(1, np.int64), short[None], _phase(strata.rank[unit : unit + 1]))
    return int(np.argmax(drawn[0]))


def _divide_lone_units(strata: _Strata, class_: int) -> bool:
    """Divide a class's units of one class anew, with the fewest moved; whether that met its bands.

    Exact: over the units, the cheapest way to each table of counts. Only for classes so small that
    those tables are too: the larger have wider bands, and moving one unit at a time nearly always
    suffices.
    """
    members = strata.members_of(class_)
    lone = members[strata.is_lone(strata.unit[members])]
    if class_ == strata.whole or not len(lone):
        return False
    units, sizes = strata.unit[lone], strata.size[lone].tolist()
    here = np.bincount(strata.split[units], strata.size[lone], strata.count.shape[1])
    fixed = strata.count[class_] - here.astype(np.int64)
    low, high = np.maximum(strata.low[class_] - fixed, 0), strata.high[class_] - fixed
    rest = int(high.argmax())  # what is in no other split is there
    others = [split for split in range(len(high)) if split != rest]
    shape = tuple((high[others] + 1).tolist())
    if len(shape) > _DIMENSIONS or prod(shape) * len(units) > _TABLES:
        return False
    if not _sums_reach(sizes, low, high):
        return False
    cost = np.full(shape, _NO_WAY, np.int32)
    cost[(0,) * len(shape)] = 0
    chosen = np.empty((len(units), *shape), np.uint8)
    for at, (unit, size) in enumerate(zip(units, sizes, strict=True)):
        ways = np.full((len(high), *shape), _NO_WAY, np.int32)
        ways[rest] = cost + (strata.start[unit] != rest)
        for axis, split in enumerate(others):
            without = np.moveaxis(cost, axis, 0)[: max(shape[axis] - size, 0)]
            way = np.moveaxis(ways[split], axis, 0)  # a view
            way[size:] = without + (strata.start[unit] != split)
        chosen[at] = ways.argmin(axis=0)
        cost = np.minimum(ways.min(axis=0), _NO_WAY)
    counts = np.indices(shape).reshape(len(shape), -1)
    in_rest = sum(sizes) - counts.sum(axis=0)
    within = (counts >= low[others, None]).all(axis=0)
    within &= (in_rest >= low[rest]) & (in_rest <= high[rest])
    cost = np.where(within, cost.ravel(), _NO_WAY)
    if cost.min() == _NO_WAY:
        return False
    # Of equally cheap ends one drawn by a hash, so that ties favour no split.
    ends = np.flatnonzero(cost == cost.min())
    phase = _phase(strata.first_rank(np.array([class_])))[0]
    cell = counts[:, ends[int(phase * len(ends))]].copy()
    for at in reversed(range(len(units))):
        to = int(chosen[(at, *cell)])
        if to != rest:
            cell[others.index(to)] -= sizes[at]
        strata.move(units[at], to)
    return True


def _sums_reach(sizes: list[int], low: Ints, high: Ints) -> bool:
    """Whether for each split some of the sizes add up to a number in its band: else there is no way."""
    sums = 1  # bit n: some add up to n
    for size in sizes:
        sums |= sums << size
    bands = zip(low.tolist(), high.tolist(), strict=True)
    return all(most >= least and sums >> least & ((2 << most - least) - 1) for least, most in bands)


def _unmet(strata: _Strata) -> Iterator[UnmetClass]:
    begin = strata.class_begin[:-1]
    units = np.diff(strata.class_begin)
    largest = np.maximum.reduceat(strata.size[strata.members], begin)
    lone = np.logical_and.reduceat(strata.is_lone(strata.unit[strata.members]), begin)
    farthest = np.abs(strata.count - strata.target).argmax(axis=1)
    few = units < strata.count.shape[1]
    unmet = few | strata.outside().any(axis=1)
    for class_ in np.flatnonzero(unmet[: strata.whole]).tolist():
        split = int(farthest[class_])
        yield UnmetClass(
            code=int(strata.codes[class_]),
            reason="few_units" if few[class_] else "large_units" if lone[class_] else "mixed_units",
            records=int(strata.count[class_].sum()),
            units=int(units[class_]),
            largest=int(largest[class_]),
            split=split,
            have=int(strata.count[class_, split]),
            want=float(strata.target[class_, split]),
        )
