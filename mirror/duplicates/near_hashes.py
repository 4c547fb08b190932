"""Joins perceptual hashes that differ in few bits: all pairs, without comparing all pairs. Pure.

The bits are divided into twelve chunks. If two hashes differ in at most 23 bits, one of the chunks
differs in at most one bit. So for each chunk, hashes are compared whose chunks are equal or differ in
one bit. That finds every pair.

Only components are wanted, not pairs: two hashes that are joined already are not compared again. So a
cluster of thousands of near hashes costs little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mirror.content.perceptual_hash import BITS
from mirror.duplicates.connected_components import component_roots

_CHUNKS: Final = 12
PASSES: Final = _CHUNKS
# The most bits in which near hashes may differ: two in each chunk but one.
MOST: Final = 2 * _CHUNKS - 1
# Hashes with like chunks that are compared pair by pair. Of more, one component is left out.
_LONG_RUN: Final = 64
# So few hashes are all compared: the tables of the chunks would take longer.
_FEW: Final = 1024
# Pairs that are compared at once: this bounds the memory.
_PAIRS: Final = 1 << 20

Words = NDArray[np.uint64]


def near_components(
    bits: NDArray[np.uint8], most: int, passed: Callable[[], object] = lambda: None
) -> NDArray[np.intp]:
    """For each hash the representative of its component: hashes that chains of near ones join.

    Args:
        bits: (n, 32) bytes, the bits of hashes; n is at most 2**32.
        most: bits in which near hashes differ at most; up to `MOST`.
        passed: called after each of the `PASSES` over many hashes.

    Returns:
        (n,) numbers, equal for hashes of one component: the first hash of it.
    """
    if most > MOST:
        raise ValueError(f"hashes that differ in {most} bits are not found; the most is {MOST}")
    words, number = _distinct(np.ascontiguousarray(bits).view(np.uint64))
    joined = _Components(words, most)
    if len(words) <= _FEW:
        joined.join_all()
    else:
        for first in range(_CHUNKS):
            # Every chunk has bits of all frequencies: the lowest ones alone are alike too often.
            joined.join_like(range(first, BITS, _CHUNKS))
            passed()
    root = np.empty(len(words), np.intp)
    root[joined.number] = joined.root
    root = root[number]
    order = np.argsort(root, kind="stable")
    starts = np.ones(len(order), bool)
    starts[1:] = root[order][1:] != root[order][:-1]
    first_of = np.empty(len(words), np.intp)
    first_of[root[order[starts]]] = order[starts]
    return first_of[root]


def _distinct(words: Words) -> tuple[Words, NDArray[np.intp]]:
    """The distinct hashes, and for each hash its number among them."""
    order = np.lexsort(words.T)
    ordered = words[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    number = np.empty(len(order), np.intp)
    number[order] = np.cumsum(starts) - 1
    return ordered[starts], number


def _chunk(rows: NDArray[np.uint8], bits: range) -> NDArray[np.intp]:
    """Some bits of each hash as an integer."""
    chunk = np.zeros(len(rows), np.intp)
    for bit in bits:
        byte, shift = divmod(bit, 8)
        chunk <<= 1
        chunk |= (rows[:, byte] >> np.uint8(7 - shift)) & 1
    return chunk


class _Components:
    """The components that have been found so far.

    Hashes are moved so that those that are compared lie together: random access to memory would take
    most of the time.

    Attributes:
        number: the hash at each position.
        root: at each position the representative of the hash's component.
    """

    def __init__(self, words: Words, most: int) -> None:
        self.number = np.arange(len(words))
        self.root = np.arange(len(words))
        self._words = words
        self._most = most

    def join_all(self) -> None:
        """Join all near hashes, by comparing all."""
        self._join_long(np.arange(len(self.root)))

    def join_like(self, bits: range) -> None:
        """Join all near hashes that are equal in these bits, or differ in one of them."""
        chunk = _chunk(self._words.view(np.uint8), bits)
        order = np.argsort(chunk, kind="stable")
        self.number, self.root = self.number[order], self.root[order]
        self._words = self._words[order]
        # The hashes with chunk c are at begin[c] … begin[c + 1] - 1.
        begin = np.zeros((1 << len(bits)) + 1, np.intp)
        np.cumsum(np.bincount(chunk, minlength=1 << len(bits)), out=begin[1:])
        known = np.flatnonzero(begin[1:] > begin[:-1])
        several = known[begin[known + 1] - begin[known] > 1]
        self._join_runs(begin, several, several)
        for bit in range(len(bits)):
            ones = known[known & (1 << bit) == 0] | (1 << bit)
            ones = ones[begin[ones + 1] > begin[ones]]
            self._join_runs(begin, ones ^ (1 << bit), ones)

    def _join_runs(
        self, begin: NDArray[np.intp], left: NDArray[np.intp], right: NDArray[np.intp]
    ) -> None:
        """Compare all hashes that have the chunk left[i] with all that have right[i], for each i."""
        size = begin[left + 1] - begin[left], begin[right + 1] - begin[right]
        long = size[0] + size[1] > _LONG_RUN
        for chunks in zip(left[long].tolist(), right[long].tolist(), strict=True):
            self._join_long(
                np.concatenate([np.arange(begin[c], begin[c + 1]) for c in sorted(set(chunks))])
            )
        left, right = begin[left[~long]], begin[right[~long]]
        width, pairs = size[1][~long], (size[0] * size[1])[~long]
        until = np.cumsum(pairs)
        cuts = np.arange(_PAIRS, int(until[-1]) if len(until) else 0, _PAIRS)
        for part in np.split(np.arange(len(pairs)), np.searchsorted(until, cuts)):
            # The pairs of each i, numbered by row and column of the table left × right.
            which = np.repeat(part, pairs[part])
            row, column = np.divmod(_numbered(pairs[part]), width[which])
            self._join(left[which] + row, right[which] + column)

    def _join_long(self, run: NDArray[np.intp]) -> None:
        """Compare each hash outside of the run's largest component with the whole run."""
        if not len(run):
            return
        roots, count = np.unique(self.root[run], return_counts=True)
        for at in run[self.root[run] != roots[count.argmax()]].tolist():
            self._join(np.full(len(run), at), run)

    def _join(self, left: NDArray[np.intp], right: NDArray[np.intp]) -> None:
        """Join those of the pairs that are near. The positions are (pairs,) each."""
        # Most pairs differ by too many bits in their first quarter.
        near = bit_counts(self._words[left, 0] ^ self._words[right, 0]) <= self._most
        left, right = left[near], right[near]
        apart = self.root[left] != self.root[right]
        left, right = left[apart], right[apart]
        near = distances(self._words[left], self._words[right]) <= self._most
        if not near.any():
            return
        ends = self.root[np.stack([left[near], right[near]])]
        roots, node = np.unique(ends, return_inverse=True)
        parent = np.arange(len(self.root))
        parent[roots] = roots[component_roots(len(roots), *node.reshape(2, -1))]
        self.root = parent[self.root]


def _numbered(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """0 … counts[i] - 1 for each i, end to end."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)


def distances(left: Words, right: Words) -> NDArray[np.uint16]:
    """The bits in which hashes differ, pair by pair: (n, 4) and (n, 4) words give (n,)."""
    total: NDArray[np.uint16] = bit_counts(left ^ right).sum(axis=1, dtype=np.uint16)
    return total


if hasattr(np, "bitwise_count"):

    def bit_counts(words: Words) -> NDArray[np.uint8]:
        """The number of ones in each word."""
        counts: NDArray[np.uint8] = np.bitwise_count(words)
        return counts

else:  # NumPy 1
    _ONES: Final = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)

    def bit_counts(words: Words) -> NDArray[np.uint8]:
        """The number of ones in each word."""
        quarters = _ONES[np.ascontiguousarray(words).view(np.uint16)]
        counts: NDArray[np.uint8] = quarters.reshape(*words.shape, 4).sum(axis=-1, dtype=np.uint8)
        return counts
