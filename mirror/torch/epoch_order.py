"""The order of an epoch, and each rank's share of it. Pure: functions of seed, epoch and rank.

An order is never stored. A Feistel network over a × b ≥ n is a bijection, so the sample at each
position is computed when it is needed. A result outside n goes through the network again until it is
inside (cycle walking). So ten million samples cost no memory, and a resumed epoch starts at its
position at once. The order does not depend on the version of NumPy.
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

# With fewer rounds, the orders of very small datasets are not equally likely. Costs 0.3 µs a sample.
_ROUNDS: Final = 16


class EpochOrder:
    """A permutation of `range(length)`; each pair of seed and epoch has its own.

    Args:
        length: number of samples, at least 1.
        seed: any integer.
        epoch: any integer.
        shuffle: False keeps the dataset's order.
    """

    def __init__(self, length: int, seed: int, epoch: int, *, shuffle: bool = True) -> None:
        self.length = length
        self._shuffle = shuffle and length > 1
        self._left = np.uint64(math.isqrt(max(0, length - 1)) + 1)
        self._right = np.uint64(-(-length // int(self._left)))
        self._keys = _keys(f"epoch {seed} {epoch}")

    def at(self, positions: Positions) -> Positions:
        """Return the sample numbers at (n,) positions of the epoch, each from 0 to length - 1."""
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
    """The positions that one rank has left of an epoch.

    Ranks take turns, sample by sample, from `begin` on, and all have equally many samples. At the
    end, the remaining ranks take samples from the start of the order again; with `drop_last`, the
    remainder is left out.

        length  begin  ranks  drop_last   positions of rank 0, of rank 1, …
        5       0      2                  0 2 4, 1 3 0
        5       0      2      yes         0 2, 1 3
        5       2      2                  2 4, 3 0
        5       5      2                  none

    Attributes:
        length: samples of the dataset.
        begin: positions that all ranks together have consumed.
        rank: this rank, from 0.
        world_size: number of ranks.
        drop_last: leave the remainder out instead of repeating samples.
    """

    length: int
    begin: int
    rank: int
    world_size: int
    drop_last: bool = False

    @property
    def left(self) -> int:
        """Samples that this rank has left; every rank has equally many."""
        samples = max(0, self.length - self.begin)
        return samples // self.world_size if self.drop_last else -(-samples // self.world_size)

    def positions(self, first: int, last: int) -> Positions:
        """Return the epoch positions of this rank's samples `first` to `last` - 1."""
        turns = np.arange(first, min(last, self.left), dtype=np.int64)
        positions: Positions = (self.begin + self.rank + turns * self.world_size) % self.length
        return positions


def batch_candidates(batch: Iterable[int], seed: int, epoch: int, index: int) -> list[int]:
    """The samples of a batch, each once, in the order to try them in place of sample `index`."""
    return sorted(
        set(batch), key=lambda other: _keys(f"instead {seed} {epoch} {index} by {other}")[0]
    )


def candidate(length: int, seed: int, epoch: int, index: int, attempt: int) -> int:
    """The position to try in place of a bad sample. It depends on the arguments alone.

    Args:
        length: number of positions.
        seed: seed of the run.
        epoch: the epoch, from 0.
        index: number of the bad sample.
        attempt: from 0; the next one is for a candidate that is bad, too.
    """
    return int(_keys(f"instead {seed} {epoch} {index} {attempt}")[0]) % length


def _keys(text: str) -> _Words:
    return np.frombuffer(hashlib.shake_128(text.encode()).digest(8 * _ROUNDS), "<u8")
