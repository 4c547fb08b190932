"""The order of an epoch, and the ranks' shares of it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.torch.epoch_order import EpochOrder, Share, candidate

SEEDS = st.integers(-(2**63), 2**63 - 1)


def order_of(length: int, seed: int = 0, epoch: int = 0, **options: bool) -> list[int]:
    order = EpochOrder(length, seed, epoch, **options)
    return [int(sample) for sample in order.at(np.arange(length))]


@given(st.integers(1, 3000), SEEDS, st.integers(0, 1000))
def test_an_order_is_a_permutation(length: int, seed: int, epoch: int) -> None:
    assert sorted(order_of(length, seed, epoch)) == list(range(length))


@given(st.integers(1, 10**12), st.data())
def test_a_part_of_an_order_is_computed_without_the_rest(length: int, data: st.DataObject) -> None:
    at = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=50))
    order = EpochOrder(length, 7, 3)
    together = order.at(np.array(at))
    assert together.tolist() == [int(order.at(np.array([one]))[0]) for one in at]
    assert all(0 <= sample < length for sample in together)


def test_orders_do_not_change_between_versions() -> None:
    """A checkpoint of an older version must find the same order."""
    assert order_of(10, 0, 0) == [2, 7, 6, 9, 1, 8, 4, 0, 5, 3]
    assert order_of(10, 0, 1) != order_of(10, 0, 0)
    assert order_of(10, 1, 0) != order_of(10, 0, 0)
    assert candidate(1000, 1, 2, 3, 4) == 931


def test_without_shuffle_the_order_is_that_of_the_dataset() -> None:
    assert order_of(50, 3, 4, shuffle=False) == list(range(50))


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_all_orders_are_equally_likely(length: int) -> None:
    trials, cells = 1500, math.factorial(length)
    counts = Counter(tuple(order_of(length, seed)) for seed in range(trials))
    chi2 = sum((n - trials / cells) ** 2 / (trials / cells) for n in counts.values())
    degrees = cells - 1
    assert len(counts) == cells
    assert chi2 < degrees + 4 * math.sqrt(2 * degrees)


def test_neighbours_are_separated() -> None:
    steps = [np.abs(np.diff(order_of(100, seed))) == 1 for seed in range(300)]
    assert np.mean(steps) == pytest.approx(2 / 100, rel=0.1)


@pytest.mark.parametrize(
    ("share", "positions"),
    [
        (Share(5, 0, 0, 2), [0, 2, 4]),
        (Share(5, 0, 1, 2), [1, 3, 0]),
        (Share(5, 0, 0, 2, drop_last=True), [0, 2]),
        (Share(5, 0, 1, 2, drop_last=True), [1, 3]),
        (Share(5, 2, 0, 2), [2, 4]),
        (Share(5, 2, 1, 2), [3, 0]),
        (Share(5, 5, 0, 2), []),
        (Share(5, 9, 0, 2), []),
        (Share(1, 0, 3, 4), [0]),
        (Share(2, 0, 3, 4), [1]),
        (Share(2, 0, 3, 4, drop_last=True), []),
    ],
)
def test_ranks_take_turns(share: Share, positions: list[int]) -> None:
    assert share.positions(0, 100).tolist() == positions
    assert share.left == len(positions)


@given(
    st.integers(1, 500), st.integers(0, 600), st.integers(1, 9), st.booleans(), st.integers(1, 70)
)
def test_ranks_have_equally_many_and_together_all_remaining_samples(
    length: int, begin: int, world_size: int, drop_last: bool, piece: int
) -> None:
    shares = [Share(length, begin, rank, world_size, drop_last) for rank in range(world_size)]
    taken = [
        [
            at
            for first in range(0, share.left, piece)
            for at in share.positions(first, first + piece)
        ]
        for share in shares
    ]
    assert len({len(one) for one in taken}) == 1
    left = Counter(range(begin, length))
    together = Counter(at for one in taken for at in one)
    if drop_last:
        assert together <= left
        assert (left - together).total() < world_size
    else:
        assert left <= together
        assert (together - left).total() < world_size


@given(st.integers(1, 1000), SEEDS, st.integers(0, 99), st.integers(0, 999), st.integers(0, 31))
def test_a_replacement_is_a_sample_and_always_the_same(
    length: int, seed: int, epoch: int, index: int, attempt: int
) -> None:
    one = candidate(length, seed, epoch, index, attempt)
    assert 0 <= one < length
    assert one == candidate(length, seed, epoch, index, attempt)
