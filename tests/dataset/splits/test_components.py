"""Records that share a content or a group form one component, and stay together."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.dataset.splits.components import RecordKeys, component_keys
from mirror.dataset.splits.split import by_key
from mirror.dataset.splits.strata import stratified
from tests.dataset.splits.split_keys import SEEDS, THREE, few_keys, random_keys, u64, within

Pairs = list[tuple[int, int]]


def pairs_of(pairs: Pairs) -> RecordKeys:
    table = np.array(pairs, np.uint64).reshape(-1, 2)
    return RecordKeys(table[:, 0].astype(np.intp), table[:, 1])


def naive_components(records: int, *tables: Pairs) -> list[frozenset[int]]:
    """The component of each record, by a union-find that is independent of the tested code."""
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
    """The number of records, pairs with contents (at least one each), and pairs with groups for some."""
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
    """If the smallest position represented a component, large ones would prefer the first split."""
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
