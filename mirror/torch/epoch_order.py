"""The order of an epoch, and what of it is whose. Pure: functions of seed, epoch, rank and position.

An order is never written down. A Feistel network over a × b ≥ n is a bijection, so each position's
sample is computed when it is asked for: ten million samples cost no memory in any process, a resumed
epoch begins at its position at once, and no version of NumPy can shuffle in another way than the one
before. What lies outside of n is put through again until it is inside.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.content.splitmix64 import mix

Positions = NDArray[np.int64]
_Words = NDArray[np.uint64]

# With fewer the orders of very small datasets are not equally likely; this costs 0.3 µs a sample.
_ROUNDS: Final = 16


class EpochOrder:
    """A permutation of `range(length)`, another for each pair of seed and epoch.

    Args:
        length: samples, at least 1.
        seed: any integer.
        epoch: any integer.
        shuffle: False keeps the samples in their order.
    """

    def __init__(self, length: int, seed: int, epoch: int, *, shuffle: bool = True) -> None:
        self.length = length
        self._shuffle = shuffle and length > 1
        self._left = np.uint64(math.isqrt(max(0, length - 1)) + 1)
        self._right = np.uint64(-(-length // int(self._left)))
        self._keys = _keys(f"epoch {seed} {epoch}")

    def at(self, positions: Positions) -> Positions:
        """The samples at these positions of the epoch, each from 0 to length - 1."""
        if not self._shuffle:
            return positions
        words = self._permuted(positions.astype(np.uint64))
        outside = np.flatnonzero(words >= self.length)
        while len(outside):
            words[outside] = self._permuted(words[outside])
            outside = outside[words[outside] >= self.length]
        return words.astype(np.int64)

    def _permuted(self, words: _Words) -> _Words:
        left, right = words // self._right, words % self._right
        for number, key in enumerate(self._keys):
            if number % 2:
                right = (right + mix(left ^ key) % self._right) % self._right
            else:
                left = (left + mix(right ^ key) % self._left) % self._left
        permuted: _Words = left * self._right + right
        return permuted


class Share(NamedTuple):
    """What one rank has left of an epoch.

    Ranks take turns, sample by sample, from `begin` on. All of them have equally many: at the end
    the order begins again for those whose turn does not come any more, or with `drop_last` the
    remainder is nobody's.

        length  begin  ranks  drop_last   positions of rank 0, of rank 1, …
        5       0      2                  0 2 4, 1 3 0
        5       0      2      yes         0 2, 1 3
        5       2      2                  2 4, 3 0
        5       5      2                  none

    Attributes:
        length: samples of the dataset.
        begin: positions that all ranks together have done with.
        rank: from 0 on.
        world_size: ranks.
        drop_last: leave out instead of doubling.
    """

    length: int
    begin: int
    rank: int
    world_size: int
    drop_last: bool = False

    @property
    def left(self) -> int:
        """Samples that this rank has left: the same for every rank."""
        samples = max(0, self.length - self.begin)
        return samples // self.world_size if self.drop_last else -(-samples // self.world_size)

    def positions(self, first: int, last: int) -> Positions:
        """Positions in the epoch of this rank's samples from `first` to before `last`."""
        turns = np.arange(first, min(last, self.left), dtype=np.int64)
        positions: Positions = (self.begin + self.rank + turns * self.world_size) % self.length
        return positions


def turns_instead(batch: Iterable[int], seed: int, epoch: int, index: int) -> list[int]:
    """The samples of a batch, each once, in the order in which they are tried in the place of one."""
    return sorted(
        set(batch), key=lambda other: _keys(f"instead {seed} {epoch} {index} by {other}")[0]
    )


def replacement(length: int, seed: int, epoch: int, index: int, attempt: int) -> int:
    """The position that is tried in place of a sample that is bad: chosen by the arguments alone.

    Args:
        length: positions there are.
        seed: of the run.
        epoch: in which it is met.
        index: of the bad sample.
        attempt: from 0 on; for when the replacement is bad, too.
    """
    return int(_keys(f"instead {seed} {epoch} {index} {attempt}")[0]) % length


def _keys(text: str) -> _Words:
    return np.frombuffer(hashlib.shake_128(text.encode()).digest(8 * _ROUNDS), "<u8")
