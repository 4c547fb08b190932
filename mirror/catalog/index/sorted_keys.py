"""Sixteen-byte keys as two columns of 64-bit integers, sorted and searched by numpy. Pure."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray


def halves(keys: NDArray[np.uint8] | bytes) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Split 16-byte keys, in one buffer or (n, 16), into two columns of integers, each (n,)."""
    buffer = keys if isinstance(keys, bytes) else np.ascontiguousarray(keys, np.uint8)
    both = np.frombuffer(buffer, ">u8").reshape(-1, 2).astype(np.uint64)
    return both[:, 0], both[:, 1]


def key_of_halves(high: int, low: int) -> bytes:
    return (high << 64 | low).to_bytes(16, "big")


def keys_of_halves(hi: NDArray[Any], lo: NDArray[Any]) -> NDArray[np.uint8]:
    """Join two columns, each (n,), into keys: (n, 16) bytes."""
    both = np.empty((len(hi), 2), ">u8")
    both[:, 0], both[:, 1] = hi, lo
    return both.view(np.uint8)


def position_of(hi: memoryview, lo: memoryview, key: bytes) -> int:
    """Position of one 16-byte key in sorted halves, or -1.

    Bisection over memoryviews and not numpy's search: for one key it is no slower, and numpy
    releases the interpreter at every call, which costs a busy event loop ten times the search.
    """
    high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
    at = bisect_left(hi, high)
    while at < len(hi) and hi[at] == high:
        if lo[at] == low:
            return at
        at += 1
    return -1


def positions_of(
    key_hi: NDArray[Any], key_lo: NDArray[Any], hi: NDArray[Any], lo: NDArray[Any]
) -> NDArray[np.intp]:
    """Position of each key in the sorted halves `hi` and `lo`, or -1; of equal ones the first."""
    at = np.searchsorted(hi, key_hi)
    found = np.full(len(key_hi), -1, np.intp)
    pending = np.flatnonzero(at < len(hi))
    # Two keys hardly ever share a high half by chance; step over those that do.
    while len(pending):
        candidates = at[pending]
        same_hi = hi[candidates] == key_hi[pending]
        same = same_hi & (lo[candidates] == key_lo[pending])
        found[pending[same]] = candidates[same]
        pending = pending[same_hi & ~same]
        at[pending] += 1
        pending = pending[at[pending] < len(hi)]
    return found


def last_of_each(hi: NDArray[Any], lo: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark, in sorted halves, the last of each run of equal keys."""
    last = np.ones(len(hi), bool)
    last[:-1] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    return last
