"""Assigning records to splits by key, and samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mirror.dataset.splits.split import (
    MAX_SPLITS,
    KeyedRandom,
    Split,
    by_key,
    parse_splits,
    positions,
    sample_count,
    sample_share,
)
from mirror.dataset.splits.strata import stratified
from mirror.errors import UsageError
from tests.dataset.splits.split_keys import (
    SEEDS,
    THREE,
    few_keys,
    keys_of,
    random_keys,
    split_lists,
    u64,
    within,
)

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


def key_at(position: int, seed: int, stream: KeyedRandom = KeyedRandom.SPLIT) -> int:
    first, second = itertools.islice(splitmix64(seed), 2 * stream, 2 * stream + 2)
    return unmixed(unmixed(position) ^ second) ^ first


def test_the_model_here_is_the_published_splitmix64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert list(itertools.islice(splitmix64(1234567), 3)) == published


@given(st.lists(u64, max_size=20), u64, st.sampled_from(KeyedRandom))
def test_positions_are_as_specified(keys: list[int], seed: int, stream: KeyedRandom) -> None:
    found = positions(keys_of(keys), seed, stream).tolist()
    assert [key_at(position, seed, stream) for position in found] == keys


@pytest.mark.parametrize(
    ("seed", "stream", "expected"),
    [
        (0, KeyedRandom.SPLIT, (0x5B232EA28E2EAE7E, 0xA57B81730D3AB9D6, 0x11E28231BCA1E9D9)),
        (0, KeyedRandom.MOVE, (0xCF2A71975ED3FB16, 0x57D3800162516EF2, 0xC972B7B9E680CF96)),
        (0, KeyedRandom.SAMPLE, (0xC0A40C9B002E72CE, 0x19A2A0BFAB8146D5, 0x96BA7E5D28C2CADC)),
        (42, KeyedRandom.SPLIT, (0x213B75B32DD0E70C, 0x19C360DEEEFF2AD1, 0xC4C3F95A5AA7845F)),
        (
            2**64 - 1,
            KeyedRandom.SPLIT,
            (0x4DD0E3DAC53CE1FF, 0x65BA0DD1AC37E63A, 0xD3B696E61CFB803E),
        ),
    ],
)
def test_positions_never_change(seed: int, stream: KeyedRandom, expected: tuple[int, ...]) -> None:
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
    for one, other in itertools.combinations(KeyedRandom, 2):
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
    keys = keys_of([key_at(end - 1, 9, KeyedRandom.SAMPLE), key_at(end, 9, KeyedRandom.SAMPLE)])
    assert sample_share(keys, 9, share).tolist() == [True, False]


@given(st.lists(st.one_of(few_keys, u64), max_size=50), u64, st.integers(0, 60))
def test_a_count_takes_the_smallest_positions_and_the_first_of_equal_keys(
    keys: list[int], seed: int, count: int
) -> None:
    found = positions(keys_of(keys), seed, KeyedRandom.SAMPLE).tolist()
    smallest = sorted(range(len(keys)), key=lambda at: (found[at], at))[:count]
    assert np.flatnonzero(sample_count(keys_of(keys), seed, count)).tolist() == sorted(smallest)


@pytest.mark.parametrize("share", [Fraction(-1, 10), Fraction(11, 10)])
def test_a_share_that_is_no_part_is_refused(share: Fraction) -> None:
    with pytest.raises(UsageError, match="is out of range"):
        sample_share(random_keys(3), 0, share)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(UsageError, match="A sample of -1 records"):
        sample_count(random_keys(3), 0, -1)
