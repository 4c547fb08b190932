"""Pins: the splits that records had in earlier outputs, found again by the keys of their images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.splits.split import Keys, Split, by_key

NOT_PINNED: Final = 255

Ranks = NDArray[np.uint8]


def by_precedence(splits: Sequence[Split]) -> list[int]:
    """The indices of splits in the order in which they win a conflict.

    The smallest share wins; of equal shares the split named last. So a record of a test or validation
    split never moves to a larger training split.
    """
    return sorted(range(len(splits)), key=lambda index: (splits[index].share, -index))


class Pinned(NamedTuple):
    """The ranks of splits, as `by_precedence` orders them. Each array has one element per item.

    Attributes:
        first: the winning rank; `NOT_PINNED` if the item is not pinned.
        last: the rank of the split that loses to all others; 0 if the item is not pinned. It differs
            from `first` if the item was in several splits.
    """

    first: Ranks
    last: Ranks

    @classmethod
    def none(cls, items: int) -> Self:
        """Items that are not pinned."""
        return cls(np.full(items, NOT_PINNED, np.uint8), np.zeros(items, np.uint8))

    def combined(self, item: NDArray[np.intp], items: int) -> Pinned:
        """Combine the pins of parts into the pins of whole items.

        Args:
            item: for each part the number of its item.
            items: their number.
        """
        whole = Pinned.none(items)
        np.minimum.at(whole.first, item, self.first)
        np.maximum.at(whole.last, item, self.last)
        return whole


class Pins:
    """Splits by key. Takes 10 bytes of memory for each key.

    Args:
        keys: parts of the keys, and the rank of the split in which they all are.
    """

    def __init__(self, keys: Iterable[tuple[Keys, int]]) -> None:
        parts = list(keys)
        joined = np.concatenate([np.zeros(0, np.uint64), *(part for part, _ in parts)])
        ranks = [np.full(len(part), rank, np.uint8) for part, rank in parts]
        rank = np.concatenate([np.zeros(0, np.uint8), *ranks])
        self._keys, key = np.unique(joined, return_inverse=True)
        self._pinned = Pinned(rank, rank).combined(key, len(self._keys))

    def find(self, keys: Keys) -> Pinned:
        """Find the pins of keys."""
        found = Pinned.none(len(keys))
        if not len(self._keys):
            return found
        index = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[index] == keys
        found.first[known] = self._pinned.first[index[known]]
        found.last[known] = self._pinned.last[index[known]]
        return found


def start_splits(
    keys: Keys, splits: Sequence[Split], seed: int, pinned: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """The pinned split of each key, or else the split of the key itself."""
    start = by_key(keys, splits, seed)
    return start if pinned is None else np.where(pinned == NOT_PINNED, start, pinned)


class KeptSplits(NamedTuple):
    """The splits that records keep.

    Attributes:
        split: for each record the index of the split of its unit; `NOT_PINNED` for none.
        kept: records that keep their earlier split.
        moved: records that leave an earlier split, because their unit was in several.
        conflicts: units that were in several splits.
    """

    split: NDArray[np.uint8]
    kept: int
    moved: int
    conflicts: int


def kept_splits(pinned: Pinned, units: Keys, splits: Sequence[Split]) -> KeptSplits:
    """Pin whole units to the winning splits of their records.

    Args:
        pinned: the pins of each record.
        units: a key for each record; records with equal keys are in one split.
        splits: of this rewrite.
    """
    keys, unit = np.unique(units, return_inverse=True)
    first, last = pinned.combined(unit, len(keys))
    index = np.array([*by_precedence(splits), *[NOT_PINNED] * (256 - len(splits))], np.uint8)
    was_pinned = pinned.first != NOT_PINNED
    loses = was_pinned & (pinned.last != first[unit])
    return KeptSplits(
        index[first[unit]],
        int(np.count_nonzero(was_pinned & ~loses)),
        int(np.count_nonzero(loses)),
        int(np.count_nonzero((first != NOT_PINNED) & (first != last))),
    )
