"""Keys and splits for tests of splitting."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from mirror.dataset.splits.split import Split, parse_splits

THREE = parse_splits("train=0.8,val=0.1,test=0.1")
HALVES = parse_splits("a=0.5,b=0.5")
SEEDS = (0, 1, 42, 2**63, 2**64 - 1)
SIGMAS = 5

u64 = st.integers(0, 2**64 - 1)
few_keys = st.integers(0, 12)
split_lists = st.lists(st.integers(1, 50), min_size=1, max_size=6).map(
    lambda parts: tuple(Split(f"s{n}", Fraction(p, sum(parts))) for n, p in enumerate(parts))
)


def keys_of(values: Iterable[int]) -> NDArray[np.uint64]:
    return np.array(list(values), np.uint64)


def random_keys(count: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng([seed, 64]).integers(0, 2**64, count, np.uint64)


def within(count: int | np.integer[Any], n: int | np.integer[Any], share: Fraction | float) -> bool:
    """Whether a binomial count is within `SIGMAS` standard deviations of its expectation."""
    p = float(share)
    return bool(abs(count - n * p) <= SIGMAS * sqrt(n * p * (1 - p)))
