"""Near hashes are found, all of them: beside brute force, on hot clusters and on equal hashes."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mirror.duplicates import near_hashes
from mirror.duplicates.connected_components import component_roots
from mirror.duplicates.near_hashes import MOST, bit_counts, near_components

Bits = NDArray[np.uint8]


def flipped(bits: Bits, flips: list[int]) -> Bits:
    plain = np.unpackbits(bits)
    plain[flips] ^= 1
    return np.packbits(plain)


def by_brute_force(bits: Bits, most: int) -> list[int]:
    values = [int.from_bytes(row.tobytes()) for row in bits]
    pairs = [
        (a, b)
        for a, one in enumerate(values)
        for b, other in enumerate(values[:a])
        if (one ^ other).bit_count() <= most
    ]
    links = np.array(pairs, np.intp).reshape(-1, 2).T
    roots = component_roots(len(values), *links)
    first: dict[int, int] = {}
    return [first.setdefault(root, at) for at, root in enumerate(roots.tolist())]


@st.composite
def clusters(draw: st.DrawFn) -> Bits:
    """Hashes around a few centres, at the distances where the threshold decides."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows: list[Bits] = []
    for _ in range(draw(st.integers(1, 5))):
        centre = rng.integers(0, 256, 32, np.uint8)
        for _ in range(draw(st.integers(1, 6))):
            flips = draw(st.integers(0, 30))
            rows.append(flipped(centre, rng.permutation(256)[:flips].tolist()))
    return np.stack([rows[at] for at in rng.permutation(len(rows))])


@given(clusters(), st.sampled_from([0, 5, 15, MOST]))
@settings(deadline=None, max_examples=150)
def test_few_hashes_give_the_components_of_brute_force(bits: Bits, most: int) -> None:
    assert near_components(bits, most).tolist() == by_brute_force(bits, most)


@given(clusters(), st.sampled_from([0, 5, 15, MOST]))
@settings(deadline=None, max_examples=30)
def test_chunks_give_the_components_of_brute_force(bits: Bits, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_hashes, "_FEW", 0)
        assert near_components(bits, most).tolist() == by_brute_force(bits, most)


@given(clusters())
@settings(deadline=None, max_examples=20)
def test_long_runs_give_the_same_components(bits: Bits) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_hashes, "_FEW", 0)
        patch.setattr(near_hashes, "_LONG_RUN", 1)
        patch.setattr(near_hashes, "_PAIRS", 3)
        assert near_components(bits, MOST).tolist() == by_brute_force(bits, MOST)


@pytest.mark.parametrize("chunk", range(12))
@pytest.mark.parametrize("bits", [2, 3])
def test_every_chunk_may_be_the_one_that_is_alike(
    chunk: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """23 flips: one in a chunk, two in each other chunk; another flip, and the pair is too far apart."""
    monkeypatch.setattr(near_hashes, "_FEW", 0)
    rng = np.random.default_rng(7)
    centre = rng.integers(0, 256, 32, np.uint8)
    flips = [at + 12 * step for at in range(12) for step in ([0] if at == chunk else range(2))]
    flips += [] if bits == 2 else [chunk + 12]
    pair = np.stack([centre, flipped(centre, flips)])
    assert near_components(pair, MOST).tolist() == ([0, 0] if bits == 2 else [0, 1])


def test_a_hot_cluster_is_one_component() -> None:
    rng = np.random.default_rng(5)
    centre = np.unpackbits(rng.integers(0, 256, 32, np.uint8))
    hot = np.packbits(centre ^ (rng.random((2000, 256)) < 0.02), axis=1)
    others = rng.integers(0, 256, (500, 32), np.uint8)
    found = near_components(np.concatenate([others, hot]), MOST)
    assert found.tolist() == [*range(500), *[500] * 2000]


def test_equal_hashes_are_one_component() -> None:
    equal = np.tile(np.random.default_rng(3).integers(0, 256, 32, np.uint8), (30_000, 1))
    assert not near_components(equal, MOST).any()


def test_no_hash_and_one_hash() -> None:
    assert near_components(np.empty((0, 32), np.uint8), MOST).tolist() == []
    assert near_components(np.zeros((1, 32), np.uint8), MOST).tolist() == [0]


def test_a_threshold_that_chunks_cannot_find_is_refused() -> None:
    with pytest.raises(ValueError, match="24 bits are not found"):
        near_components(np.zeros((1, 32), np.uint8), MOST + 1)


def test_an_older_numpy_counts_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(1).integers(0, 2**63, (50, 4), np.uint64)
    expected = [[value.bit_count() for value in row] for row in words.tolist()]
    assert bit_counts(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    try:
        assert importlib.reload(near_hashes).bit_counts(words).tolist() == expected
    finally:
        monkeypatch.undo()
        importlib.reload(near_hashes)
