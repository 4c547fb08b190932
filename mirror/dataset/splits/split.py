"""Splits and samples of a dataset as functions of keys.

    key ──mix with seed──▶ position, 0 … 2**64 ──shares──▶ split

The split of a record depends only on its key, the seed and the shares. It does not depend on the
position in the file or on other records. So a file may be re-ordered or grow, and a record of `test`
stays in `test`. A key is a 64-bit integer that is equal for records that must stay together: usually
a prefix of the content hash, or the result of `component_keys` for contents and groups.

The positions of a seed must never change, because users have trained on their splits. Keep the
constants below and their use.
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
# How far from 1 the sum of shares may be: three thirds with six digits are within it.
_ROUNDING: Final = Fraction(1, 10**6)

_POSITIONS: Final = 1 << 64
_EXAMPLE: Final = "train=0.8,val=0.1,test=0.1"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
# At most forty characters of a decimal number.
_DECIMAL: Final = re.compile(r"(?=.{1,40}\Z)(?:[0-9]+\.?[0-9]*|\.[0-9]+)")


class Split(NamedTuple):
    """A named part of a dataset. `share` is its target share of the records, above 0 and at most 1."""

    name: str
    share: Fraction


class KeyedRandom(IntEnum):
    """Streams of a seed. A key has an independent position in each."""

    SPLIT = 0
    MOVE = 1
    SAMPLE = 2


def parse_splits(text: str) -> tuple[Split, ...]:
    """Parse splits such as `train=0.8,val=0.1,test=0.1`, in the order written.

    Shares are exact decimals. If they add up to 1 only within a millionth (`0.333333` three times),
    each is divided by their sum.

    Raises:
        UsageError: the text is malformed, or the shares do not add up to 1.
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
    """The position of each key in 0 … 2**64 under a seed: uniform, and different for each key.

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
    """Integers of any width as 64-bit words, modulo 2**64."""
    if keys.dtype.kind not in "iu":  # truncated floats would make different keys equal
        raise TypeError(f"keys are integers, not {keys.dtype}")
    return keys.astype(np.uint64, copy=False)


def by_key(keys: Keys, splits: Sequence[Split], seed: int) -> NDArray[np.uint8]:
    """The split of each key, as its index in `splits`.

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
    """For each position how many of the ends, ascending shares of all positions, it has passed."""
    exact = (ceil(end * _POSITIONS) for end in ends)
    # 2**64 does not fit 64 bits, and no position reaches it.
    thresholds = np.array([end for end in exact if end < _POSITIONS], np.uint64)
    passed: NDArray[np.intp] = np.searchsorted(thresholds, found, side="right")
    return passed


# --- samples ---


def sample_share(keys: Keys, seed: int, share: Fraction) -> NDArray[np.bool_]:
    """Which records are in a sample of a share. The sample of a larger share contains it.

    Args:
        keys: one for each record. Records with equal keys are in the sample together.
        seed: 0 … 2**64 - 1.
        share: 0 … 1.

    Raises:
        UsageError: the seed or the share is out of its range.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"The share {float(share):g} is out of range; choose from 0 to 1.")
    found = positions(keys, seed, KeyedRandom.SAMPLE)
    chosen: NDArray[np.bool_] = _ends_passed(found, [share]) == 0
    return chosen


def sample_count(keys: Keys, seed: int, count: int) -> NDArray[np.bool_]:
    """Which records are in a sample of `count` records. The sample of a larger count contains it.

    They have the smallest positions, as in a sample by share with the same keys and seed. Among equal
    keys at the limit, the first records of the input are chosen.

    Args:
        keys: one for each record.
        seed: 0 … 2**64 - 1.
        count: number of records; a larger number than there are selects all.

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
