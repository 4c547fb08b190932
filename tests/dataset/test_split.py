"""Assigning records to splits: by key, in components, by class; and samples."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from math import ceil, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mirror.dataset.split import (
    MAX_SPLITS,
    RecordKeys,
    Split,
    Stream,
    by_key,
    component_keys,
    parse_splits,
    positions,
    sample_count,
    sample_share,
)
from mirror.dataset.strata import Stratified, stratified
from mirror.errors import UsageError

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
    """Whether a binomial count is within `SIGMAS` standard deviations of what is expected."""
    p = float(share)
    return bool(abs(count - n * p) <= SIGMAS * sqrt(n * p * (1 - p)))


# --- reading splits ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train=0.8,val=0.1,test=0.1", {"train": "4/5", "val": "1/10", "test": "1/10"}),
        (" train = .75 , hold-out_2 = 0.250 ", {"train": "3/4", "hold-out_2": "1/4"}),
        ("all=1", {"all": "1"}),
        ("all=1.", {"all": "1"}),
        ("a=0.333333,b=0.333333,c=0.333333", {"a": "1/3", "b": "1/3", "c": "1/3"}),
        ("a=0.333333,b=0.333333,c=0.333334",
         {"a": "0.333333", "b": "0.333333", "c": "0.333334"}),
    ],
)  # fmt: skip
def test_splits_are_read_exactly(text: str, expected: dict[str, str]) -> None:
    assert parse_splits(text) == tuple(Split(n, Fraction(s)) for n, s in expected.items())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' in the splits '' is not NAME=SHARE"),
        ("train", "'train' in the splits 'train' is not NAME=SHARE"),
        ("a=0.5,,b=0.5", "'' in the splits 'a=0.5,,b=0.5' is not NAME=SHARE"),
        ("=1", "'' cannot be a split's name"),
        ("../x=1", "'../x' cannot be a split's name"),
        ("été=1", "'été' cannot be a split's name"),
        ("train\n=0.5,b\n c=0.5", "'b\\n c' cannot be a split's name"),
        ("a=8/10,b=2/10", "The share '8/10' of the split 'a' is not a decimal number"),
        ("a=80%,b=20%", "The share '80%' of the split 'a' is not a decimal number"),
        ("a=1e0", "The share '1e0' of the split 'a' is not a decimal number"),
        ("a=-1,b=2", "The share '-1' of the split 'a' is not a decimal number"),
        ("a=nan", "The share 'nan' of the split 'a' is not a decimal number"),
        ("a=\u0660.\u0665,b=0.5", "of the split 'a' is not a decimal number"),
        ("a=.", "The share '.' of the split 'a' is not a decimal number"),
        ("a=", "The share '' of the split 'a' is not a decimal number"),
        ("a=0." + "3" * 5000, "of the split 'a' is not a decimal number"),
        ("a=1,b=0.0", "The share of the split 'b' is 0"),
        ("a=0.5,a=0.25,b=0.25", "The split 'a' is given 2 times"),
        ("train=0.8,val=0.2,test=0.1", "The splits add up to 1.1, not 1: train=0.8, val=0.2, test=0.1"),
        ("a=0.3333,b=0.3333,c=0.3333", "The splits add up to 0.9999, not 1"),
        ("a=0.5,b=0.500001001", "The splits add up to 1.000001001, not 1"),
        (",".join(f"s{n}=0.001" for n in range(1000)), "1000 splits are given; at most 200"),
    ],
)  # fmt: skip
def test_other_splits_are_refused_in_a_sentence_that_shows_them(text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_splits(text)
    assert says in str(raised.value)


def test_two_hundred_splits_are_possible() -> None:
    splits = parse_splits(",".join(f"s{n}=0.005" for n in range(MAX_SPLITS)))
    assert set(by_key(random_keys(20_000), splits, 0)) == set(range(MAX_SPLITS))


# --- positions ---


def mixed(word: int) -> int:
    """SplitMix64's finaliser, on Python's integers."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def splitmix64(seed: int) -> Iterator[int]:
    for n in itertools.count(1):
        yield mixed((seed + n * 0x9E3779B97F4A7C15) % 2**64)


def unmixed(word: int) -> int:
    def unshifted(value: int, by: int) -> int:
        return value ^ value >> by ^ value >> 2 * by

    word = unshifted(word, 31) * pow(0x94D049BB133111EB, -1, 2**64) % 2**64
    return unshifted(unshifted(word, 27) * pow(0xBF58476D1CE4E5B9, -1, 2**64) % 2**64, 30)


def key_at(position: int, seed: int, stream: Stream = Stream.SPLIT) -> int:
    first, second = itertools.islice(splitmix64(seed), 2 * stream, 2 * stream + 2)
    return unmixed(unmixed(position) ^ second) ^ first


def test_the_model_here_is_the_published_splitmix64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert list(itertools.islice(splitmix64(1234567), 3)) == published


@given(st.lists(u64, max_size=20), u64, st.sampled_from(Stream))
def test_positions_are_as_specified(keys: list[int], seed: int, stream: Stream) -> None:
    found = positions(keys_of(keys), seed, stream).tolist()
    assert [key_at(position, seed, stream) for position in found] == keys


@pytest.mark.parametrize(
    ("seed", "stream", "expected"),
    [
        (0, Stream.SPLIT, (0x5B232EA28E2EAE7E, 0xA57B81730D3AB9D6, 0x11E28231BCA1E9D9)),
        (0, Stream.MOVE, (0xCF2A71975ED3FB16, 0x57D3800162516EF2, 0xC972B7B9E680CF96)),
        (0, Stream.SAMPLE, (0xC0A40C9B002E72CE, 0x19A2A0BFAB8146D5, 0x96BA7E5D28C2CADC)),
        (42, Stream.SPLIT, (0x213B75B32DD0E70C, 0x19C360DEEEFF2AD1, 0xC4C3F95A5AA7845F)),
        (2**64 - 1, Stream.SPLIT, (0x4DD0E3DAC53CE1FF, 0x65BA0DD1AC37E63A, 0xD3B696E61CFB803E)),
    ],
)
def test_positions_never_change(seed: int, stream: Stream, expected: tuple[int, ...]) -> None:
    found = positions(keys_of([0, 1, 0x0123456789ABCDEF]), seed, stream)
    assert tuple(found.tolist()) == expected


@pytest.mark.parametrize("dtype", ["<u8", ">u8", "<i8", ">i8", ">u4", "<i2", "u1"])
def test_keys_may_be_of_any_width_and_byte_order(dtype: str) -> None:
    keys: NDArray[Any] = np.array([0, 1, 77, 100], dtype)
    assert positions(keys, 3).tolist() == positions(keys_of([0, 1, 77, 100]), 3).tolist()
    assert positions(np.repeat(keys, 2)[::2], 3).tolist() == positions(keys, 3).tolist()


def test_a_negative_key_is_the_unsigned_one_of_its_bits_and_keys_are_left_as_they_were() -> None:
    keys: NDArray[Any] = np.array([-1, 5], np.int64)
    assert positions(keys, 3).tolist() == positions(keys_of([2**64 - 1, 5]), 3).tolist()
    unsigned = keys_of([8, 9])
    by_key(unsigned, THREE, 0)
    assert unsigned.tolist() == [8, 9]


def test_a_float_is_no_key() -> None:
    with pytest.raises(TypeError, match="float64"):
        positions(np.array([0.5]), 0)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused_by_all(seed: int) -> None:
    keys, classes = random_keys(3), np.zeros(3, np.int32)
    for use in (
        lambda: by_key(keys, THREE, seed),
        lambda: sample_share(keys, seed, Fraction(1, 2)),
        lambda: sample_count(keys, seed, 1),
        lambda: stratified(keys, classes, THREE, seed),
    ):
        with pytest.raises(UsageError, match=f"seed {seed} is out of range"):
            use()


# --- by key ---


@given(split_lists, u64)
def test_a_split_ends_exactly_where_its_share_does(splits: tuple[Split, ...], seed: int) -> None:
    ends = [ceil(end * 2**64) for end in itertools.accumulate(split.share for split in splits)]
    firsts = [0, *ends[:-1]]
    keys = keys_of(key_at(at, seed) for at in [*firsts, *(end - 1 for end in ends)])
    assert by_key(keys, splits, seed).tolist() == [*range(len(splits))] * 2


def test_a_share_smaller_than_one_position_gets_nothing() -> None:
    splits = (Split("all", 1 - Fraction(1, 10**30)), Split("none", Fraction(1, 10**30)))
    assert by_key(keys_of([key_at(2**64 - 1, 7), 5]), splits, 7).tolist() == [0, 0]


@given(st.lists(u64, max_size=50), st.lists(u64, max_size=50), split_lists, u64, st.randoms())
def test_a_split_hangs_on_the_key_alone(
    keys: list[int], more: list[int], splits: tuple[Split, ...], seed: int, random: Any
) -> None:
    of_key = dict(zip(keys, by_key(keys_of(keys), splits, seed).tolist(), strict=True))
    shuffled = keys + more
    random.shuffle(shuffled)
    grown = dict(zip(shuffled, by_key(keys_of(shuffled), splits, seed).tolist(), strict=True))
    assert {key: grown[key] for key in keys} == of_key
    assert set(grown.values()) <= set(range(len(splits)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "keys", [np.arange(100_000), np.arange(100_000) << 40, random_keys(100_000)]
)
def test_shares_are_met(keys: NDArray[np.uint64], seed: int) -> None:
    counts = np.bincount(by_key(keys, THREE, seed), minlength=3)
    assert counts.sum() == len(keys)
    assert all(within(n, len(keys), split.share) for n, split in zip(counts, THREE, strict=True))


@pytest.mark.parametrize(("one", "other"), list(itertools.pairwise(SEEDS)))
def test_another_seed_is_another_assignment(one: int, other: int) -> None:
    keys = np.arange(100_000, dtype=np.uint64)
    same = np.count_nonzero(by_key(keys, THREE, one) == by_key(keys, THREE, other))
    assert within(same, len(keys), sum(split.share**2 for split in THREE))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_streams_of_a_seed_are_independent(seed: int) -> None:
    keys = np.arange(100_000, dtype=np.uint64)
    for one, other in itertools.combinations(Stream, 2):
        low = positions(keys, seed, one) < np.uint64(2**63)
        both = low & (positions(keys, seed, other) < np.uint64(2**63))
        assert within(np.count_nonzero(both), len(keys), 0.25)


# --- samples ---


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sample_does_not_skew_the_splits(seed: int) -> None:
    keys = np.arange(100_000, dtype=np.uint64)
    sampled = sample_share(keys, seed, Fraction(1, 2))
    assert within(np.count_nonzero(sampled), len(keys), 0.5)
    counts = np.bincount(by_key(keys[sampled], THREE, seed), minlength=3)
    assert all(within(n, counts.sum(), split.share) for n, split in zip(counts, THREE, strict=True))


@given(st.lists(u64, max_size=50), u64, st.fractions(0, 1), st.fractions(0, 1))
def test_a_larger_share_contains_a_smaller_one(
    keys: list[int], seed: int, one: Fraction, other: Fraction
) -> None:
    small, large = (sample_share(keys_of(keys), seed, s) for s in sorted((one, other)))
    assert not (small & ~large).any()
    assert not sample_share(keys_of(keys), seed, Fraction(0)).any()
    assert sample_share(keys_of(keys), seed, Fraction(1)).all()


def test_a_share_ends_exactly() -> None:
    share = Fraction("0.1")
    end = ceil(share * 2**64)
    keys = keys_of([key_at(end - 1, 9, Stream.SAMPLE), key_at(end, 9, Stream.SAMPLE)])
    assert sample_share(keys, 9, share).tolist() == [True, False]


@given(st.lists(st.one_of(few_keys, u64), max_size=50), u64, st.integers(0, 60))
def test_a_count_takes_the_smallest_positions_and_the_first_of_equal_keys(
    keys: list[int], seed: int, count: int
) -> None:
    found = positions(keys_of(keys), seed, Stream.SAMPLE).tolist()
    smallest = sorted(range(len(keys)), key=lambda at: (found[at], at))[:count]
    assert np.flatnonzero(sample_count(keys_of(keys), seed, count)).tolist() == sorted(smallest)


@pytest.mark.parametrize("share", [Fraction(-1, 10), Fraction(11, 10)])
def test_a_share_that_is_no_part_is_refused(share: Fraction) -> None:
    with pytest.raises(UsageError, match="is no part of a whole"):
        sample_share(random_keys(3), 0, share)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(UsageError, match="A sample of -1 records"):
        sample_count(random_keys(3), 0, -1)


# --- components ---

Pairs = list[tuple[int, int]]


def pairs_of(pairs: Pairs) -> RecordKeys:
    table = np.array(pairs, np.uint64).reshape(-1, 2)
    return RecordKeys(table[:, 0].astype(np.intp), table[:, 1])


def naive_components(records: int, *tables: Pairs) -> list[frozenset[int]]:
    """Each record's component, by a union-find that shares nothing with the code tested."""
    parent = list(range(records))

    def find(at: int) -> int:
        while parent[at] != at:
            at = parent[at]
        return at

    for table in tables:
        first: dict[int, int] = {}
        for record, key in table:
            parent[find(record)] = find(first.setdefault(key, record))
    together = defaultdict(set)
    for record in range(records):
        together[find(record)].add(record)
    return [frozenset(together[find(record)]) for record in range(records)]


@st.composite
def datasets(draw: st.DrawFn) -> tuple[int, Pairs, Pairs]:
    """Records, (record, content) with at least one each, (record, group) for some."""
    records = draw(st.integers(1, 25))
    key = st.integers(0, draw(st.integers(1, 60)))
    record = st.integers(0, records - 1)
    contents = [(at, draw(key)) for at in range(records)]
    contents += draw(st.lists(st.tuples(record, key), max_size=15))
    groups = draw(st.lists(st.tuples(record, key), max_size=20))
    return records, contents, groups


@given(datasets(), st.randoms())
def test_records_have_one_key_just_if_they_are_connected(
    dataset: tuple[int, Pairs, Pairs], random: Any
) -> None:
    records, contents, groups = dataset
    found = component_keys(records, pairs_of(contents), pairs_of(groups)).tolist()
    components = naive_components(records, contents, groups)
    for at, component in enumerate(components):
        own = [key for record, key in groups if record in component]
        own = own or [key for record, key in contents if record in component]
        assert found[at] == min(own)
        assert {found[other] for other in component} == {found[at]}
    random.shuffle(contents)
    random.shuffle(groups)
    assert component_keys(records, pairs_of(contents), pairs_of(groups)).tolist() == found


def test_components_that_are_apart_have_different_keys() -> None:
    contents = RecordKeys.one_each(random_keys(10_000))
    groups = RecordKeys.one_each(random_keys(3_000, 1)[np.arange(10_000) % 3_000])
    assert len(np.unique(component_keys(10_000, contents))) == 10_000
    assert len(np.unique(component_keys(10_000, contents, groups))) == 3_000


@given(datasets(), u64, st.randoms())
def test_no_content_and_no_group_is_in_two_splits(
    dataset: tuple[int, Pairs, Pairs], seed: int, random: Any
) -> None:
    records, contents, groups = dataset
    keys = component_keys(records, pairs_of(contents), pairs_of(groups))
    classes = np.array([random.randint(-1, 3) for _ in range(records)], np.int32)
    for assignment in (
        by_key(keys, THREE, seed),
        stratified(keys, classes, THREE, seed).assignment,
    ):
        for table in (contents, groups):
            of_key = {(key, int(assignment[record])) for record, key in table}
            assert len(of_key) == len(dict(of_key))


def test_a_record_of_one_content_goes_by_it() -> None:
    keys = random_keys(1000)[np.arange(2000) % 1000]
    assert component_keys(2000, RecordKeys.one_each(keys)).tolist() == keys.tolist()


@given(datasets(), st.lists(few_keys, max_size=10))
def test_new_contents_in_old_groups_move_nothing(
    dataset: tuple[int, Pairs, Pairs], into: list[int]
) -> None:
    records, contents, groups = dataset
    groups += [(record, record % 5) for record in range(records)]
    before = component_keys(records, pairs_of(contents), pairs_of(groups))
    added = list(enumerate(into, records))
    contents += [(record, 1000 - record) for record, _ in added]
    groups += [(record, group % min(5, records)) for record, group in added]
    after = component_keys(records + len(added), pairs_of(contents), pairs_of(groups))
    assert after[:records].tolist() == before.tolist()


def test_where_two_components_join_one_stays() -> None:
    contents = pairs_of([(0, 70), (1, 30)])
    assert component_keys(2, contents).tolist() == [70, 30]
    joined = pairs_of([(0, 70), (1, 30), (2, 70), (2, 30)])
    assert component_keys(3, joined).tolist() == [30, 30, 30]


def test_a_record_without_group_goes_by_its_content_and_never_names_a_component_with_one() -> None:
    contents = pairs_of([(0, 5), (1, 900), (2, 900), (3, 1)])
    assert component_keys(4, contents, pairs_of([(2, 40)])).tolist() == [5, 40, 40, 1]


def test_a_group_and_a_content_of_one_key_are_not_the_same() -> None:
    contents, groups = pairs_of([(0, 1), (1, 2)]), pairs_of([(0, 2), (1, 3)])
    assert component_keys(2, contents, groups).tolist() == [2, 3]


def test_records_without_any_key_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="every record needs"):
        component_keys(3, pairs_of([(0, 1), (2, 1)]))


def test_no_records_are_no_components() -> None:
    assert component_keys(0, pairs_of([]), pairs_of([])).tolist() == []


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_a_chain_of_a_hundred_thousand_records_is_one_component(order: str) -> None:
    length = 100_000
    places = {
        "ascending": np.arange(length),
        "descending": np.arange(length)[::-1],
        "shuffled": np.random.default_rng(1).permutation(length),
    }[order]
    links = random_keys(length, 2)
    chain = RecordKeys(
        np.concatenate([places, places[1:]]), np.concatenate([links, links[:-1]])
    )  # record n has the links n - 1 and n
    keys = component_keys(length, chain)
    assert set(keys.tolist()) == {int(links.min())}
    cut = chain.key.copy()
    cut[length // 2] ^= np.uint64(1)
    assert len(np.unique(component_keys(length, RecordKeys(chain.record, cut)))) == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_large_components_are_split_by_the_same_shares(seed: int) -> None:
    """Were the representative the one whose position is smallest, they would lean to the first."""
    components = 50_000
    contents = RecordKeys(np.repeat(np.arange(components), 5), random_keys(components * 5))
    counts = np.bincount(by_key(component_keys(components, contents), THREE, seed), minlength=3)
    assert all(within(n, components, split.share) for n, split in zip(counts, THREE, strict=True))


def test_components_do_not_depend_on_the_byte_order_of_keys() -> None:
    keys = random_keys(1000) % np.uint64(500)
    swapped = RecordKeys.one_each(keys.astype(">u8"))
    groups = RecordKeys.one_each((keys % np.uint64(50)).astype(">i4"))
    plain = RecordKeys.one_each(keys % np.uint64(50))
    expected = component_keys(1000, RecordKeys.one_each(keys), plain)
    assert component_keys(1000, swapped, groups).tolist() == expected.tolist()


# --- by class ---


def table(assignment: NDArray[Any], classes: NDArray[Any], splits: int) -> NDArray[np.int64]:
    """Records of class × split."""
    counts = np.zeros((int(classes.max(initial=-1)) + 1, splits), np.int64)
    np.add.at(counts, (classes[classes >= 0], assignment[classes >= 0]), 1)
    return counts


@cache
def allowed(n: int, share: Fraction) -> tuple[int, int]:
    """The least and the most of n records that may be in a split: 1 % off, or less than one."""
    off = {count: abs(count - share * n) for count in range(n + 1)}
    counts = [count for count in off if off[count] <= Fraction(n, 100) or off[count] < 1]
    return min(counts), max(counts)


def excess(count: int, n: int, share: Fraction) -> tuple[int, int]:
    """Records above and below what is allowed."""
    least, most = allowed(n, share)
    return max(0, count - most), max(0, least - count)


def outside(
    assignment: NDArray[Any], classes: NDArray[Any], splits: tuple[Split, ...]
) -> list[tuple[int, int]]:
    """Of each class, the records above and below what is allowed, summed over its splits."""
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
) -> tuple[Stratified, NDArray[np.uint64], NDArray[np.int32]]:
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
    """Every way to divide units of these sizes that is allowed."""
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
    """Of five records four must be in train, and the fifth may be in val or in test."""
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
    """Whether units of these sizes can be divided over three splits as is allowed."""
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
