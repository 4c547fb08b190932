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
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.splits.class_moves import settle_class_by_class
from mirror.dataset.splits.lone_units import settle_lone_units
from mirror.dataset.splits.split import Keys, Split, by_key
from mirror.dataset.splits.strata_state import Strata
from mirror.errors import UsageError

Reason = Literal["few_units", "large_units", "mixed_units"]


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
    strata = Strata.of(
        keys=keys,
        record_unit=unit,
        record_class=classes,
        start=start.astype(np.int64),
        splits=splits,
        seed=seed,
        tolerance=Fraction(str(tolerance)),
    )
    settle_lone_units(strata)
    settle_class_by_class(strata)
    assignment = strata.split.astype(np.uint8)[unit]
    moved = np.count_nonzero(assignment != start[unit])
    return StratifiedSplits(assignment, int(moved), tuple(_unmet(strata)))


def _unmet(strata: Strata) -> Iterator[UnmetClass]:
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
