"""Steps 2 and 3 of a stratification: settle classes that are outside their bands, the rarest first."""

from __future__ import annotations

from math import prod
from typing import Final

import numpy as np

from mirror.dataset.splits.strata_state import Ints, Strata, apportion, phase_of, records_outside

# Units compared with every split at once; this limits the memory.
_WINDOW: Final = 1 << 14
# Counts × units up to which all divisions of a class are tried.
_TABLES: Final = 1 << 21
_DIMENSIONS: Final = 30  # of numpy's arrays: 32 before version 2
_NO_WAY: Final = 1 << 30


def settle_class_by_class(strata: Strata) -> None:
    """Move units until all classes are within their bands, or no move helps."""
    order = _rarest_first(strata)
    moving = True
    while moving:
        moving = False
        for class_ in order[strata.outside(order).any(axis=1)].tolist():
            while strata.outside(class_).any() and (
                _move_units(strata, class_) or _divide_lone_units(strata, class_)
            ):
                moving = True


def _rarest_first(strata: Strata) -> Ints:
    """Classes by their number of records, then by a hash of their units, but never by their code."""
    hashes = np.zeros(strata.whole + 1, np.uint64)
    np.add.at(hashes, strata.class_, strata.rank[strata.unit] * strata.size.astype(np.uint64))
    return np.lexsort((hashes, strata.count.sum(axis=1)))


def _move_units(strata: Strata, class_: int) -> bool:
    """Move units of a class, the most helpful first, until its bands are met. Return whether any moved."""
    units = strata.unit[strata.members_of(class_)]
    units = units[~strata.fixed[units]]
    moved = False
    for begin in range(0, len(units), _WINDOW):
        window = units[begin : begin + _WINDOW]
        best = _gains(strata, window).max(axis=1)
        for nth in np.argsort(-best, kind="stable"):
            if not strata.outside(class_).any():
                return moved
            if best[nth] <= 0:
                break
            gain = _gains(strata, window[nth : nth + 1])[0]  # other units have moved since
            if gain.max() > 0:
                strata.move(window[nth], _destination(strata, class_, window[nth], gain))
                moved = True
    return moved


def _gains(strata: Strata, units: Ints) -> Ints:
    """By how much the weighted records outside of bands decrease if a unit moves to a split.

    Returns: unit × split, weighted by `Strata.weight`.
    """
    held, begin = strata.holdings_of(units)
    class_, size = strata.class_[held], strata.size[held]
    count, low, high = strata.count[class_], strata.low[class_], strata.high[class_]
    here = np.arange(len(held)), strata.split[strata.unit[held]]
    now = records_outside(count, low, high)
    entering = now - records_outside(count + size[:, None], low, high)
    leaving = now[here] - records_outside(count[here] - size, low[here], high[here])
    gains = np.add.reduceat((entering + leaving[:, None]) * strata.weight[class_, None], begin)
    gains[np.arange(len(units)), strata.split[units]] = 0
    return gains


def _destination(strata: Strata, class_: int, unit: int, gain: Ints) -> int:
    """One of the splits with the largest gain, drawn by how far the class is below its target."""
    best = gain == gain.max()
    short = np.maximum(strata.target[class_] - strata.count[class_], 0) * best
    if not short.any():
        short = best.astype(np.float64)
    drawn = apportion(np.ones(1, np.int64), short[None], phase_of(strata.rank[unit : unit + 1]))
    return int(np.argmax(drawn[0]))


def _divide_lone_units(strata: Strata, class_: int) -> bool:
    """Divide the units of a single class again, moving the fewest. Return whether its bands are met.

    This is exact: dynamic programming over the units finds the cheapest way to each table of counts.
    It is only for classes whose tables are small. Larger classes have wider bands, and moving one
    unit at a time nearly always suffices.
    """
    members = strata.members_of(class_)
    units = strata.unit[members]
    lone = members[strata.is_lone(units) & ~strata.fixed[units]]
    if class_ == strata.whole or not len(lone):
        return False
    units, sizes = strata.unit[lone], strata.size[lone].tolist()
    here = np.bincount(strata.split[units], strata.size[lone], strata.count.shape[1])
    fixed = strata.count[class_] - here.astype(np.int64)
    low, high = np.maximum(strata.low[class_] - fixed, 0), strata.high[class_] - fixed
    rest = int(high.argmax())  # takes the units that no other split takes
    others = [split for split in range(len(high)) if split != rest]
    shape = tuple((high[others] + 1).tolist())
    if len(shape) > _DIMENSIONS or prod(shape) * len(units) > _TABLES:
        return False
    if not _sums_reach(sizes, low, high):
        return False
    cost = np.full(shape, _NO_WAY, np.int32)
    cost[(0,) * len(shape)] = 0
    chosen = np.empty((len(units), *shape), np.uint8)
    for nth, (unit, size) in enumerate(zip(units, sizes, strict=True)):
        ways = np.full((len(high), *shape), _NO_WAY, np.int32)
        ways[rest] = cost + (strata.start[unit] != rest)
        for axis, split in enumerate(others):
            without = np.moveaxis(cost, axis, 0)[: max(shape[axis] - size, 0)]
            way = np.moveaxis(ways[split], axis, 0)  # a view
            way[size:] = without + (strata.start[unit] != split)
        chosen[nth] = ways.argmin(axis=0)
        cost = np.minimum(ways.min(axis=0), _NO_WAY)
    counts = np.indices(shape).reshape(len(shape), -1)
    in_rest = sum(sizes) - counts.sum(axis=0)
    within = (counts >= low[others, None]).all(axis=0)
    within &= (in_rest >= low[rest]) & (in_rest <= high[rest])
    cost = np.where(within, cost.ravel(), _NO_WAY)
    if cost.min() == _NO_WAY:
        return False
    # A hash draws one of the equally cheap results, so that ties favour no split.
    ends = np.flatnonzero(cost == cost.min())
    phase = phase_of(strata.first_rank(np.array([class_])))[0]
    cell = counts[:, ends[int(phase * len(ends))]].copy()
    for nth in reversed(range(len(units))):
        to = int(chosen[(nth, *cell)])
        if to != rest:
            cell[others.index(to)] -= sizes[nth]
        strata.move(units[nth], to)
    return True


def _sums_reach(sizes: list[int], low: Ints, high: Ints) -> bool:
    """Whether for each split some of the sizes add up to a number within its band."""
    sums = 1  # bit n: some sizes add up to n
    for size in sizes:
        sums |= sums << size
    bands = zip(low.tolist(), high.tolist(), strict=True)
    return all(top >= low and sums >> low & ((2 << top - low) - 1) for low, top in bands)
