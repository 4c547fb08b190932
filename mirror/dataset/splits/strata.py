"""Stratified splits: every class has its share in each split, as far as whole units allow.

A unit is a set of records that must stay together. Each unit starts in the split of its key. Then as
few units as possible move, until the classes are within their bands. A hash of a unit's key decides
which units move, and pinned units never do. So the result does not depend on the order of the input, and changes little when
the dataset grows.

    band of a class of n records in a split of share s:
        the integers within tolerance × n of s × n, and s × n rounded down and up

The whole dataset counts as one more class of every record. Otherwise thousands of classes of three
records, each within its band, could add up to 84 % instead of 80 %.

There are three steps, from the cheapest to the most thorough:

1. `lone_units`: move units of a single class, for all classes at once, the largest units first.
2. `class_moves`: for classes still outside a band, move any unit, the rarest class first (Sechidis,
   Tsoumakas and Vlahavas, "On the stratification of multi-label data", 2011). The unit that helps
   most moves, where all its classes count.
3. `class_moves`: if no single move helps a class, divide its units of a single class again, by the
   best of all divisions, if the class is small enough to try them all.

Step 1 takes no class farther from its bands. Each move of steps 2 and 3 lowers the number of records
outside the bands, summed over classes and splits; or it keeps that number and lowers that of the
whole dataset. So no class suffers for the whole dataset, and the procedure ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.splits.class_moves import settle_class_by_class
from mirror.dataset.splits.lone_units import settle_lone_units
from mirror.dataset.splits.pins import NOT_PINNED, start_splits
from mirror.dataset.splits.split import Keys, Split
from mirror.dataset.splits.strata_state import Strata
from mirror.errors import UsageError

Reason = Literal["few_units", "pinned_units", "large_units", "mixed_units"]


class UnmetClass(NamedTuple):
    """A class that does not have its share in every split.

    Attributes:
        code: the class.
        reason: `few_units`: it has fewer units than there are splits, so it is missing in one, even
            if it is within its bands. `pinned_units`: some of its units are pinned, and no move of the
            others was found that brings it within its bands. `large_units`: all its units are of this class alone, but no
            division of them is within the bands. `mixed_units`: it shares units with other classes,
            and no move was found that does not put more records outside of bands.
        records: of the class.
        units: that contain the class.
        largest: the largest number of records of the class in one unit.
        split: the index of the split that is farthest off.
        have: records of the class in that split.
        want: the class's share of that split, in records.
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
        assignment: for each record the index of its split.
        moved: records in another split than `by_key` or their pin gives them.
        unmet: classes that do not have their shares, by code, without the whole dataset.
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
    *,
    pinned: NDArray[np.uint8] | None = None,
) -> StratifiedSplits:
    """Split records so that each class and the whole dataset have their shares within their bands.

    Memory grows with the records and with classes × splits.

    Args:
        units: a key for each record; records with equal keys are in one split.
        classes: the class of each record; below 0 for none, so that it counts only in the whole.
        splits: their shares add up to 1.
        seed: 0 … 2**64 - 1.
        tolerance: how far a split's part of a class may be off, as a share of the class; 0 … 1.
        pinned: for each record the index of the split that its unit stays in, or `NOT_PINNED`; equal
            for records of one unit. None if no unit is pinned.

    Raises:
        UsageError: the seed or the tolerance is out of its range.
    """
    if not 0 <= tolerance <= 1:
        raise UsageError(f"The tolerance {tolerance:g} is out of range; choose from 0 to 1.")
    keys, unit = np.unique(units, return_inverse=True)
    of_unit = None
    if pinned is not None:
        of_unit = np.empty(len(keys), np.uint8)
        of_unit[unit] = pinned
    start = start_splits(keys, splits, seed, of_unit)
    if not len(keys):
        return StratifiedSplits(start, 0, ())
    strata = Strata.of(
        keys=keys,
        record_unit=unit,
        record_class=classes,
        start=start.astype(np.int64),
        fixed=np.zeros(len(keys), np.bool_) if of_unit is None else of_unit != NOT_PINNED,
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
    fixed = np.logical_or.reduceat(strata.fixed[strata.unit[strata.members]], begin)
    farthest = np.abs(strata.count - strata.target).argmax(axis=1)
    few = units < strata.count.shape[1]
    unmet = few | strata.outside().any(axis=1)
    for class_ in np.flatnonzero(unmet[: strata.whole]).tolist():
        split = int(farthest[class_])
        yield UnmetClass(
            code=int(strata.codes[class_]),
            reason="few_units"
            if few[class_]
            else "pinned_units"
            if fixed[class_]
            else "large_units"
            if lone[class_]
            else "mixed_units",
            records=int(strata.count[class_].sum()),
            units=int(units[class_]),
            largest=int(largest[class_]),
            split=split,
            have=int(strata.count[class_, split]),
            want=float(strata.target[class_, split]),
        )
