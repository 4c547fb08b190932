"""SplitMix64, the 64-bit generator whose finaliser also serves as a hash of integers.

Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, with the
constants of Stafford's variant 13, as in Java's SplittableRandom and Vigna's splitmix64.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_GAMMA: Final = 0x9E3779B97F4A7C15
_FACTOR_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_FACTOR_2: Final = np.uint64(0x94D049BB133111EB)


def mix(words: Words) -> Words:
    """Apply the finaliser in place; returns the same array.

    The finaliser is a bijection: different words stay different. Each bit of a result depends on
    each bit of the word.
    """
    words ^= words >> np.uint64(30)
    words *= _FACTOR_1
    words ^= words >> np.uint64(27)
    words *= _FACTOR_2
    words ^= words >> np.uint64(31)
    return words


def outputs(seed: int, numbers: Iterable[int]) -> Words:
    """Outputs of the generator by their number.

    Args:
        seed: the generator's first state, 0 … 2**64 - 1.
        numbers: which outputs, counted from 1.
    """
    return mix(np.array([(seed + number * _GAMMA) % 2**64 for number in numbers], np.uint64))
