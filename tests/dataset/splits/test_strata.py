"""Each class has its shares with the fewest moves, and impossible shares are reported."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mirror.dataset.splits.split import MAX_SPLITS, Split, by_key, parse_splits
from mirror.dataset.splits.strata import StratifiedSplits, stratified
from mirror.errors import UsageError
from tests.dataset.splits.split_keys import (
    HALVES,
    SIGMAS,
    THREE,
    few_keys,
    keys_of,
    random_keys,
    split_lists,
    u64,
    within,
)

# --- by class ---


def table(assignment: NDArray[Any], classes: NDArray[Any], splits: int) -> NDArray[np.int64]:
    """Records of class × split."""
    counts = np.zeros((int(classes.max(initial=-1)) + 1, splits), np.int64)
    np.add.at(counts, (classes[classes >= 0], assignment[classes >= 0]), 1)
    return counts


@cache
def allowed(n: int, share: Fraction) -> tuple[int, int]:
    """The limits for n records in a split: 1 % off, or less than one record."""
    off = {count: abs(count - share * n) for count in range(n + 1)}
    counts = [count for count in off if off[count] <= Fraction(n, 100) or off[count] < 1]
    return min(counts), max(counts)


def excess(count: int, n: int, share: Fraction) -> tuple[int, int]:
    """Records above and below the limits."""
    least, most = allowed(n, share)
    return max(0, count - most), max(0, least - count)


def outside(
    assignment: NDArray[Any], classes: NDArray[Any], splits: tuple[Split, ...]
) -> list[tuple[int, int]]:
    """For each class the records above and below the limits, summed over splits."""
    by_class = []
    for counts in table(assignment, classes, len(splits)).tolist():
        each = [
            excess(count, sum(counts), split.share)
            for count, split in zip(counts, splits, strict=True)
        ]
        by_class.append((sum(above for above, _ in each), sum(below for _, below in each)))
    return by_class


def long_tail(records: int, classes: int, seed: int = 0) -> NDArray[np.int32]:
    weights = 1 / np.arange(1, classes + 1)
    drawn = np.random.default_rng(seed).choice(classes, records, p=weights / weights.sum())
    return drawn.astype(np.int32)


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_a_long_tail_is_met_with_the_fewest_moves_and_only_the_impossible_is_unmet(
    seed: int,
) -> None:
    keys, classes = random_keys(60_000, seed), long_tail(60_000, 1_000, seed)
    result = stratified(keys, classes, THREE, seed)
    assert not any(map(any, outside(result.assignment, classes, THREE)))
    start = by_key(keys, THREE, seed)
    # With units of one record: what is above must leave, what is below must be filled.
    assert result.moved == sum(map(max, outside(start, classes, THREE)))
    assert result.moved == np.count_nonzero(start != result.assignment)
    assert 0 < result.moved < 0.06 * len(keys)
    sizes = np.bincount(classes)
    few = np.flatnonzero((sizes > 0) & (sizes < 3))
    assert [unmet.code for unmet in result.unmet] == few.tolist()
    assert {unmet.reason for unmet in result.unmet} == {"few_units"}


@st.composite
def classed_units(draw: st.DrawFn) -> tuple[list[tuple[int, int]], tuple[Split, ...], int]:
    records = draw(st.lists(st.tuples(few_keys, st.integers(-1, 3)), max_size=40))
    return records, draw(split_lists), draw(u64)


def run(
    records: list[tuple[int, int]], splits: tuple[Split, ...], seed: int
) -> tuple[StratifiedSplits, NDArray[np.uint64], NDArray[np.int32]]:
    units = keys_of(unit for unit, _ in records)
    classes = np.array([class_ for _, class_ in records], np.int32)
    return stratified(units, classes, splits, seed), units, classes


@settings(max_examples=300)
@given(classed_units(), st.randoms())
def test_whatever_the_units_none_is_torn_nothing_gets_worse_and_order_does_not_matter(
    case: tuple[list[tuple[int, int]], tuple[Split, ...], int], random: Any
) -> None:
    records, splits, seed = case
    result, units, classes = run(records, splits, seed)
    of_unit = set(zip(units.tolist(), result.assignment.tolist(), strict=True))
    assert len(of_unit) == len(dict(of_unit))
    assert set(result.assignment.tolist()) <= set(range(len(splits)))

    start = by_key(units, splits, seed)
    assert result.moved == np.count_nonzero(start != result.assignment)
    after = outside(result.assignment, classes, splits)
    assert sum(map(sum, after)) <= sum(map(sum, outside(start, classes, splits)))

    holders = defaultdict(set)
    for unit, class_ in records:
        holders[class_].add(unit)
    few = {c for c, units in holders.items() if c >= 0 and len(units) < len(splits)}
    missed = {c for c, off in enumerate(after) if any(off)}
    assert {unmet.code for unmet in result.unmet} == few | missed
    assert {unmet.code for unmet in result.unmet if unmet.reason == "few_units"} == few

    order = list(range(len(records)))
    random.shuffle(order)
    renamed = {-1: -1, 0: 2, 1: 7, 2: 0, 3: 1}
    again, *_ = run([(records[at][0], renamed[records[at][1]]) for at in order], splits, seed)
    assert again.assignment.tolist() == result.assignment[order].tolist()


def divisions(sizes: list[int], splits: tuple[Split, ...]) -> Iterator[tuple[int, ...]]:
    """All allowed divisions of units of these sizes."""
    bands = [allowed(sum(sizes), split.share) for split in splits]
    for division in itertools.product(range(len(splits)), repeat=len(sizes)):
        counts = [0] * len(splits)
        for to, size in zip(division, sizes, strict=True):
            counts[to] += size
        if all(low <= n <= high for n, (low, high) in zip(counts, bands, strict=True)):
            yield division


@settings(max_examples=300)
@given(
    st.lists(st.integers(1, 6), min_size=3, max_size=6),
    st.sampled_from([THREE, HALVES, parse_splits("a=0.5,b=0.3,c=0.2")]),
    u64,
)
def test_a_small_class_is_unmet_just_if_no_division_of_its_units_meets_it(
    sizes: list[int], splits: tuple[Split, ...], seed: int
) -> None:
    records = [(unit, 0) for unit, size in enumerate(sizes) for _ in range(size)]
    result, *_ = run(records, splits, seed)
    possible = any(True for _ in divisions(sizes, splits))
    assert [unmet.reason for unmet in result.unmet] == ([] if possible else ["large_units"])


def test_units_of_several_sizes_move_hardly_more_than_they_must() -> None:
    rng = np.random.default_rng(6)
    splits = parse_splits("a=0.5,b=0.3,c=0.2")
    moved = fewest = 0
    for seed in range(400):
        sizes = rng.integers(1, 6, 6).tolist()
        records = [(unit, 0) for unit, size in enumerate(sizes) for _ in range(size)]
        start = by_key(keys_of(range(6)), splits, seed).tolist()
        ways = [sum(map(int.__ne__, way, start)) for way in divisions(sizes, splits)]
        if ways:
            result, units, _ = run(records, splits, seed)
            now = dict(zip(units.tolist(), result.assignment.tolist(), strict=True))
            moved += sum(now[unit] != start[unit] for unit in range(6))
            fewest += min(ways)
    assert fewest <= moved <= 1.1 * fewest


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([(1, 0)] * 5 + [(2, 0)], (0, "large_units", 6, 2, 5)),
        ([(1, 0)] * 6, (0, "few_units", 6, 1, 6)),
        ([(1, 0), (2, 0), (1, 1), (1, 1), (1, 1), (2, 1)], (1, "mixed_units", 4, 2, 3)),
        ([(1, 0)] * 3 + [(2, 0)] * 2 + [(3, 0)], None),
    ],
)
def test_what_cannot_be_met_is_told_with_its_numbers(
    records: list[tuple[int, int]], expected: tuple[int, str, int, int, int] | None
) -> None:
    for seed in range(10):
        result, _, classes = run(records, HALVES, seed)
        counts = table(result.assignment, classes, 2)
        assert [unmet[:5] for unmet in result.unmet] == ([expected] if expected else [])
        for unmet in result.unmet:
            assert unmet.have == counts[unmet.code, unmet.split]
            assert unmet.want == unmet.records / 2
            assert abs(unmet.have - unmet.want) == abs(counts[unmet.code] - unmet.want).max()


@pytest.mark.parametrize("size", [2, 3, 5, 12])
def test_thousands_of_small_classes_add_up_to_the_shares(size: int) -> None:
    classes = np.repeat(np.arange(6_000, dtype=np.int32), size)
    keys = random_keys(len(classes))
    result = stratified(keys, classes, THREE, 5)
    assert not any(map(any, outside(result.assignment, classes, THREE)))
    counts = np.bincount(result.assignment, minlength=3)
    for count, split in zip(counts.tolist(), THREE, strict=True):
        assert excess(count, len(classes), split.share) == (0, 0)


def test_what_is_rounded_in_small_classes_favours_no_split() -> None:
    """Four of five records must be in train; the fifth may be in val or test."""
    classes = np.repeat(np.arange(6_000, dtype=np.int32), 5)
    result = stratified(random_keys(len(classes)), classes, THREE, 5)
    _, val, test = np.bincount(result.assignment).tolist()
    assert val + test == 6_000
    assert within(val, 6_000, 0.5)


def test_which_unit_moves_says_nothing_of_its_key() -> None:
    keys, classes = random_keys(60_000), long_tail(60_000, 1_000)
    start = by_key(keys, THREE, 1)
    moved = keys[stratified(keys, classes, THREE, 1).assignment != start].astype(float) / 2**64
    assert abs(moved.mean() - 0.5) < SIGMAS * sqrt(1 / 12 / len(moved))


def can_be_divided(sizes: list[int], splits: tuple[Split, ...]) -> bool:
    """Whether units of these sizes have an allowed division over three splits."""
    (low, high), *rest = (allowed(sum(sizes), split.share) for split in splits)
    reached = {(0, 0)}  # records in the second split and in the third
    for size in sizes:
        reached |= {(b + size, c) for b, c in reached} | {(b, c + size) for b, c in reached}
        reached = {(b, c) for b, c in reached if b <= rest[0][1] and c <= rest[1][1]}
    return any(
        b >= rest[0][0] and c >= rest[1][0] and low <= sum(sizes) - b - c <= high
        for b, c in reached
    )


@pytest.mark.parametrize("smallest", [1, 2])
def test_of_classes_with_units_of_several_sizes_only_the_impossible_are_unmet(
    smallest: int,
) -> None:
    rng = np.random.default_rng(3)
    sizes = rng.geometric(0.5, 12_000) + smallest - 1
    of_unit = rng.integers(0, 1_000, 12_000, np.int32)
    units, classes = np.repeat(random_keys(12_000), sizes), np.repeat(of_unit, sizes)
    result = stratified(units, classes, THREE, 11)
    impossible = {
        code
        for code in range(1_000)
        if np.count_nonzero(of_unit == code) >= 3
        and not can_be_divided(sizes[of_unit == code].tolist(), THREE)
    }
    assert {unmet.code for unmet in result.unmet if unmet.reason == "large_units"} == impossible
    assert impossible
    missed = {c for c, off in enumerate(outside(result.assignment, classes, THREE)) if any(off)}
    assert impossible <= missed <= {unmet.code for unmet in result.unmet}


def test_units_of_several_classes_come_nearer() -> None:
    rng = np.random.default_rng(4)
    units = random_keys(4_000)[rng.integers(0, 4_000, 20_000)]
    classes = long_tail(20_000, 200)
    result = stratified(units, classes, THREE, 12)
    after = outside(result.assignment, classes, THREE)
    before = outside(by_key(units, THREE, 12), classes, THREE)
    assert sum(map(sum, after)) < 0.05 * sum(map(sum, before))


def test_records_without_class_stay_where_their_keys_put_them() -> None:
    keys = random_keys(100_000)
    result = stratified(keys, np.full(len(keys), -1, np.int32), THREE, 3)
    assert (result.moved, result.unmet) == (0, ())
    assert result.assignment.tolist() == by_key(keys, THREE, 3).tolist()


def test_growth_leaves_nearly_all_where_they_were() -> None:
    keys, classes = random_keys(66_000), long_tail(66_000, 1_000)
    before = stratified(keys[:60_000], classes[:60_000], THREE, 1).assignment
    after = stratified(keys, classes, THREE, 1).assignment[:60_000]
    assert np.count_nonzero(before != after) < 0.02 * len(before)


def test_another_seed_is_another_stratified_assignment() -> None:
    keys, classes = random_keys(20_000), long_tail(20_000, 100)
    one, other = (stratified(keys, classes, HALVES, seed).assignment for seed in (1, 2))
    assert within(np.count_nonzero(one == other), len(keys), 0.5)


def test_a_wider_tolerance_moves_less() -> None:
    keys, classes = random_keys(20_000), long_tail(20_000, 100)
    moved = [
        stratified(keys, classes, THREE, 1, tolerance).moved for tolerance in (0, 0.01, 0.1, 1)
    ]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > moved[1] > moved[2] > moved[3] == 0


def test_two_hundred_splits_can_be_stratified() -> None:
    splits = parse_splits(",".join(f"s{n}=0.005" for n in range(MAX_SPLITS)))
    keys, classes = random_keys(40_000), long_tail(40_000, 20)
    result = stratified(keys, classes, splits, 1)
    assert not any(map(any, outside(result.assignment, classes, splits)))
    assert not result.unmet


def test_strata_do_not_depend_on_the_byte_order_or_width_of_their_input() -> None:
    keys, classes = random_keys(5_000) >> np.uint64(1), long_tail(5_000, 50)
    expected = stratified(keys, classes, THREE, 1)
    for key_type, class_type in ((">u8", ">i4"), (">i8", "<i8"), ("<u8", ">i2")):
        result = stratified(keys.astype(key_type), classes.astype(class_type), THREE, 1)
        assert result.assignment.tolist() == expected.assignment.tolist()
        assert result[1:] == expected[1:]


def test_no_records_are_no_strata() -> None:
    result = stratified(keys_of([]), np.array([], np.int32), THREE, 0)
    assert (result.assignment.tolist(), result.moved, result.unmet) == ([], 0, ())


@pytest.mark.parametrize("tolerance", [-0.01, 1.01, float("nan")])
def test_a_tolerance_that_is_no_share_is_refused(tolerance: float) -> None:
    with pytest.raises(UsageError, match="tolerance .* is out of range"):
        stratified(random_keys(3), np.zeros(3, np.int32), THREE, 0, tolerance)
