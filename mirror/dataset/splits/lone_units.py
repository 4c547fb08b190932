"""Step 1 of a stratification: move units that hold a single class."""

from __future__ import annotations

import numpy as np

from mirror.dataset.splits.strata_state import Ints, Strata, apportion, phase_of


def settle_lone_units(strata: Strata) -> None:
    """Move units of a single class until their classes are as near to their bands as they allow."""
    movable = strata.is_lone(strata.unit) & ~strata.fixed[strata.unit]
    lone = np.flatnonzero(movable & (strata.class_ != strata.whole))
    unit = strata.unit[lone]
    order = np.lexsort(
        (strata.rank[unit], strata.split[unit], strata.class_[lone], strata.size[lone])
    )
    lone = lone[order]
    bounds = np.flatnonzero(np.diff(strata.size[lone])) + 1
    for equal in reversed(np.split(lone, bounds)):  # by size, the largest first
        if len(equal):
            _settle_equal_units(strata, equal)


def _settle_equal_units(strata: Strata, holdings: Ints) -> None:
    """Move units of a single class and of one size that bring the class nearer to its bands.

    Args:
        strata: changed in place.
        holdings: of these units, sorted by class, split and rank.
    """
    size = int(strata.size[holdings[0]])
    unit = strata.unit[holdings]
    rows, row = np.unique(strata.class_[holdings], return_inverse=True)
    width = strata.count.shape[1]
    cell = row * width + strata.split[unit]
    present = np.bincount(cell, minlength=len(rows) * width)
    leave, enter = _turnover(strata, rows, size, present.reshape(-1, width))
    nth = np.arange(len(cell)) - (np.cumsum(present) - present)[cell]
    # Sorted by class like the destinations below, with as many of each class.
    leavers = unit[nth < leave.ravel()[cell]]
    strata.split[leavers] = np.repeat(np.tile(np.arange(width), len(rows)), enter.ravel())
    strata.count[rows] += (enter - leave) * size
    strata.count[strata.whole] += (enter - leave).sum(axis=0) * size


def _turnover(strata: Strata, rows: Ints, size: int, present: Ints) -> tuple[Ints, Ints]:
    """How many units of a size leave and enter each split, class × split, with equal row sums.

    A split that gives units does not fall below its band; a split that takes them does not rise
    above it.
    """
    count, low, high = strata.count[rows], strata.low[rows], strata.high[rows]
    target, phase = strata.target[rows], phase_of(strata.first_rank(rows))
    may_leave = np.minimum(present, np.maximum(count - low, 0) // size)
    may_enter = np.maximum(high - count, 0) // size
    leave = np.minimum(may_leave, -(-np.maximum(count - high, 0) // size))
    enter = np.minimum(may_enter, -(-np.maximum(low - count, 0) // size))
    # If more must leave than enter, or the reverse, splits within their bands balance it, in
    # proportion to their distance from the target.
    more = leave.sum(axis=1) - enter.sum(axis=1)
    short = np.maximum(target - count - enter * size, 0) * (may_enter > enter)
    over = np.maximum(count - leave * size - target, 0) * (may_leave > leave)
    enter = np.minimum(may_enter, enter + apportion(np.maximum(more, 0), short, phase))
    leave = np.minimum(may_leave, leave + apportion(np.maximum(-more, 0), over, phase))
    moves = np.minimum(leave.sum(axis=1), enter.sum(axis=1))
    return _first(leave, moves), _first(enter, moves)


def _first(counts: Ints, total: Ints) -> Ints:
    """Reduce the `counts` of each row to the first `total` of them."""
    before = np.cumsum(counts, axis=1) - counts
    return np.clip(total[:, None] - before, 0, counts)
