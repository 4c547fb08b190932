"""Which split of a dataset each record belongs to, as functions of keys.

    key ──mix with seed──▶ position, 0 … 2**64 ──shares──▶ split

A record's split hangs on its key, the seed and the shares, and on nothing else: not on its place in
the file, nor on the records around it. So files may be re-ordered and may grow, and what was in
`test` stays in `test`. A key is any 64-bit integer that names what must not be torn apart: most
often a prefix of the content's hash, or what `component_keys` makes of contents and groups.

The positions of a seed are a promise to those who have trained on a split: neither the constants
below nor the way they are used may ever change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum
from fractions import Fraction
from itertools import accumulate
from math import ceil
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.content.splitmix64 import mix, outputs
from mirror.errors import UsageError

Keys = NDArray[np.uint64]

MAX_SPLITS: Final = 200
# How far from 1 shares may add up: three thirds written with six digits do.
_ROUNDING: Final = Fraction(1, 10**6)

_POSITIONS: Final = 1 << 64
_EXAMPLE: Final = "train=0.8,val=0.1,test=0.1"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
# Forty characters of a number are more than anybody means.
_DECIMAL: Final = re.compile(r"(?=.{1,40}\Z)(?:[0-9]+\.?[0-9]*|\.[0-9]+)")


class Split(NamedTuple):
    """One part of a dataset. `share` of the records, above 0 and at most 1, are meant to be in it."""

    name: str
    share: Fraction


class KeyedRandom(IntEnum):
    """Independent positions of one key under one seed, so that no choice leans on another."""

    SPLIT = 0
    MOVE = 1
    SAMPLE = 2


def parse_splits(text: str) -> tuple[Split, ...]:
    """The splits of `train=0.8,val=0.1,test=0.1`, in the order written.

    Shares are read as decimals, exactly. When they add up to 1 within a millionth and not exactly
    (`0.333333` three times), each is divided by their sum; nothing else is mended.

    Raises:
        UsageError: the text says anything else.
    """
    pieces = [piece.strip() for piece in text.split(",")]
    if len(pieces) > MAX_SPLITS:
        raise UsageError(f"{len(pieces)} splits are given; at most {MAX_SPLITS} are possible.")
    splits = tuple(_parse_split(piece, text) for piece in pieces)
    name, times = Counter(split.name for split in splits).most_common(1)[0]
    if times > 1:
        raise UsageError(f"The split {name!r} is given {times} times; give each name once.")
    total = sum((split.share for split in splits), Fraction(0))
    if abs(total - 1) > _ROUNDING:
        raise UsageError(
            f"The splits add up to {float(total):.12g}, not 1: {', '.join(pieces)}; "
            f"change the shares, for example to {_EXAMPLE}."
        )
    return tuple(Split(split.name, split.share / total) for split in splits)


def _parse_split(piece: str, text: str) -> Split:
    name, equals, share = (part.strip() for part in piece.partition("="))
    if not equals:
        raise UsageError(
            f"{piece!r} in the splits {text!r} is not NAME=SHARE; write them as {_EXAMPLE}."
        )
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a split's name; use letters, digits, - and _, as in {_EXAMPLE}."
        )
    if not _DECIMAL.fullmatch(share):
        raise UsageError(
            f"The share {share!r} of the split {name!r} is not a decimal number; "
            f"write shares as in {_EXAMPLE}."
        )
    if not (exact := Fraction(share)):
        raise UsageError(
            f"The share of the split {name!r} is 0; leave it out, or give it more than 0."
        )
    return Split(name, exact)


# --- positions ---


def positions(keys: Keys, seed: int, stream: KeyedRandom = KeyedRandom.SPLIT) -> Keys:
    """Where keys fall in 0 … 2**64 under a seed: uniform, and no two keys in one place.

        position = mix(mix(key ^ a) ^ b)

    `mix` is SplitMix64's finaliser; a and b are outputs 2·stream + 1 and 2·stream + 2, counted
    from 1, of SplitMix64 started at the seed. See `mirror.content.splitmix64` for its source.

    Args:
        keys: integers of any width and byte order, taken modulo 2**64.
        seed: 0 … 2**64 - 1.
        stream: which of the seed's independent streams.

    Raises:
        UsageError: the seed is out of its range.
    """
    if not 0 <= seed < _POSITIONS:
        raise UsageError(f"The seed {seed} is out of range; choose one from 0 to 2**64 - 1.")
    first, second = outputs(seed, (2 * stream + 1, 2 * stream + 2))
    return mix(mix(as_words(keys) ^ first) ^ second)


def as_words(keys: Keys) -> Keys:
    if keys.dtype.kind not in "iu":  # a float would be cut short, and distinct keys would meet
        raise TypeError(f"keys are integers, not {keys.dtype}")
    return keys.astype(np.uint64, copy=False)


def by_key(keys: Keys, splits: Sequence[Split], seed: int) -> NDArray[np.uint8]:
    """The split of each key, as its place in `splits`; a function of the key alone.

    Args:
        keys: one for each record. Records with equal keys are in one split.
        splits: at most `MAX_SPLITS`; their shares add up to 1.
        seed: 0 … 2**64 - 1.

    Raises:
        UsageError: the seed is out of its range.
    """
    ends = accumulate(split.share for split in splits[:-1])
    return _ends_passed(positions(keys, seed), ends).astype(np.uint8)


def _ends_passed(found: Keys, ends: Iterable[Fraction]) -> NDArray[np.intp]:
    """How many of the ascending ends, as shares of all positions, lie at or before each position."""
    exact = (ceil(end * _POSITIONS) for end in ends)
    # 2**64 itself is not a u8, and no position is there.
    thresholds = np.array([end for end in exact if end < _POSITIONS], np.uint64)
    passed: NDArray[np.intp] = np.searchsorted(thresholds, found, side="right")
    return passed


# --- samples ---


def sample_share(keys: Keys, seed: int, share: Fraction) -> NDArray[np.bool_]:
    """Which records are in a sample of a share of the keys; a larger share's holds a smaller one's.

    Args:
        keys: one for each record. Records with equal keys are in the sample together.
        seed: 0 … 2**64 - 1.
        share: 0 … 1.

    Raises:
        UsageError: the seed or the share is out of its range.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"The share {float(share):g} is no part of a whole; choose from 0 to 1.")
    found = positions(keys, seed, KeyedRandom.SAMPLE)
    chosen: NDArray[np.bool_] = _ends_passed(found, [share]) == 0
    return chosen


def sample_count(keys: Keys, seed: int, count: int) -> NDArray[np.bool_]:
    """Which records are in a sample of `count`; a larger count's holds a smaller one's.

    They are those with the smallest positions, as in a sample by share of the same keys and seed.
    Where equal keys are the last to fit, the first of them in the input do.

    Args:
        keys: one for each record.
        seed: 0 … 2**64 - 1.
        count: records wanted; more than there are is all of them.

    Raises:
        UsageError: the seed is out of its range, or the count is negative.
    """
    if count < 0:
        raise UsageError(f"A sample of {count} records is impossible; ask for 0 or more.")
    found = positions(keys, seed, KeyedRandom.SAMPLE)
    if count == 0 or count >= len(found):
        return np.full(len(found), count > 0, np.bool_)
    last = np.partition(found, count - 1)[count - 1]
    chosen: NDArray[np.bool_] = found < last
    at_last = np.flatnonzero(found == last)
    chosen[at_last[: count - np.count_nonzero(chosen)]] = True
    return chosen
