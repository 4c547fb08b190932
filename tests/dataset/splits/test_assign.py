"""Samples, splits, groups and strata together: gathered batch by batch, decided at the end."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.dataset.fields import MISSING
from mirror.dataset.splits.assign import LEFT_OUT, BatchKeys, SplitAssigner, SplitAssignment
from mirror.dataset.splits.image_keys import LAST, ImageKeys
from mirror.dataset.splits.pins import Pins, by_precedence
from mirror.dataset.splits.split import by_key, parse_splits, sample_count, sample_share

THREE = parse_splits("train=0.8,val=0.1,test=0.1")


class Record(NamedTuple):
    """`url` is unique; `images` are the keys of the record's contents."""

    url: int
    images: tuple[int, ...]
    group: Any = None
    kind: Any = None


def assigned(
    records: Sequence[Record],
    *,
    splits: Any = THREE,
    seed: int = 0,
    sample: int | None = None,
    tolerance: float = 0.01,
    allow_leaks: bool = False,
    grouped: bool = False,
    stratified: bool = False,
    batch: int = 7,
    pins: Pins | None = None,
) -> SplitAssignment:
    """The assignment of records added in batches, each with one dropped record."""
    assigner = SplitAssigner(
        splits, seed, sample, tolerance,
        allow_leaks=allow_leaks, grouped=grouped, stratified=stratified, pins=pins,
    )  # fmt: skip
    dropped = Record(999, (1,), "a group of its own", "a class of its own")
    for begin in range(0, len(records), batch):
        some = list(records[begin : begin + batch])
        some.insert(len(some) // 2, dropped)
        kept = [at for at, record in enumerate(some) if record is not dropped]
        pairs = [(at, image) for at in kept for image in some[at].images]
        if allow_leaks:
            pairs = [(at, some[at].url) for at in kept]
        assigner.add(
            BatchKeys(
                records=np.array(kept, np.intp),
                images=images_of(pairs),
                url_keys=np.array([record.url for record in some], np.uint64),
                groups=[[record.group] for record in some] if grouped else None,
                classes=[record.kind for record in some] if stratified else None,
            )
        )
    return assigner.assign()


def images_of(pairs: Sequence[tuple[int, int]]) -> ImageKeys:
    """Images by record and key. None is a copy of another."""
    keys, count = np.array([key for _, key in pairs], np.uint64), len(pairs)
    return ImageKeys(
        record=np.array([at for at, _ in pairs], np.intp),
        key=keys,
        order=np.full(count, LAST),
        content=keys,
        url=keys,
        photo=np.zeros(count, np.uint64),
        hashed=np.ones(count, bool),
        same=keys,
        pixels=np.ones(count, np.int64),
    )


def by_url(records: Sequence[Record], assignment: SplitAssignment) -> dict[int, int]:
    return {record.url: int(at) for record, at in zip(records, assignment.split, strict=True)}


def photographs(number: int, seed: int = 1) -> list[Record]:
    """Records with one content each, some of them shared, in groups and classes."""
    chance = random.Random(seed)
    return [
        Record(
            chance.getrandbits(64),
            (chance.getrandbits(64) if chance.random() < 0.9 else chance.randrange(number // 10),),
            f"obs-{chance.randrange(number // 2)}",
            chance.choice(["oak", "oak", "oak", "ash", "elm"]),
        )
        for _ in range(number)
    ]


def test_a_record_of_one_image_goes_where_its_content_says() -> None:
    records = photographs(500)
    keys = np.array([record.images[0] for record in records], np.uint64)
    assignment = assigned(records, seed=5)
    assert assignment.split.tolist() == by_key(keys, THREE, 5).tolist()
    assert assignment.counts.tolist() == [
        assignment.split.tolist().count(at) for at in range(len(THREE))
    ]
    assert (assignment.written, assignment.left_out) == (500, 0)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("sample", [None, 70])
def test_how_records_are_batched_changes_nothing(
    stratified: bool, grouped: bool, sample: int | None
) -> None:
    records = photographs(200)
    options: dict[str, Any] = {"stratified": stratified, "grouped": grouped, "sample": sample}
    splits = [assigned(records, batch=n, **options).split.tolist() for n in (1, 7, 1000)]
    assert splits[0] == splits[1] == splits[2]


def test_a_sample_alone_needs_no_splits() -> None:
    records = photographs(200)
    assignment = assigned(records, splits=(), sample=30, seed=3)
    keys = np.array([record.url for record in records], np.uint64)
    assert (assignment.split != LEFT_OUT).tolist() == sample_count(keys, 3, 30).tolist()
    assert (assignment.written, assignment.left_out) == (30, 170)
    assert assigned(records, splits=(), sample=1000).written == 200
    assert assigned(records, splits=(), sample=0).written == 0


def test_a_record_of_a_sample_has_the_split_that_it_has_in_the_whole() -> None:
    records = photographs(300)
    whole = by_url(records, assigned(records))
    small = by_url(records, assigned(records, sample=40))
    large = by_url(records, assigned(records, sample=120))
    chosen = {url: split for url, split in small.items() if split != LEFT_OUT}
    assert len(chosen) == 40
    for url, split in chosen.items():
        assert whole[url] == large[url] == split


def test_the_whole_is_divided_by_its_shares() -> None:
    records = photographs(5000)
    choices: list[dict[str, Any]] = [{}, {"grouped": True}, {"stratified": True}]
    for options in choices:
        counts = assigned(records, **options).counts / 5000
        assert counts == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_another_seed_divides_otherwise() -> None:
    records = photographs(500)
    one, other = (assigned(records, seed=seed).split for seed in (1, 2))
    assert 0.1 < np.mean(one != other) < 0.6


def test_nothing_is_divided_into_nothing() -> None:
    for options in ({}, {"grouped": True}, {"stratified": True}, {"sample": 3}):
        assignment = assigned([], **options)
        assert (assignment.written, assignment.left_out) == (0, 0)
        assert assignment.counts.tolist() == [0, 0, 0]
        assert (assignment.classes, assignment.imbalances) == ({}, [])


# --- groups and classes ---

SAME = [
    (7, "7"), (7, 7.0), ("7", 7.0), (-0.0, 0), (2**70, str(2**70)), (True, True), ("é", "é"),
    ([1, {"b": 2, "a": 1}], [1, {"a": 1, "b": 2}]), (Decimal("1.5"), "1.5"),
    (datetime(2020, 1, 2, tzinfo=UTC), "2020-01-02T00:00:00Z"), ("\ud800", "\ud800"),
]  # fmt: skip
DIFFERENT = [(7, 8), ("a", "A"), ("a", "a "), (7, 7.5), (0, False), ([1], [1, 1]), ("", "x")]
NOTHING = [None, "", float("nan"), float("inf"), MISSING]


def together(one: Any, other: Any) -> bool:
    """Whether two values of the group keep records in one split, for every seed."""
    records = [Record(1, (1,), one), Record(2, (2,), other)]
    splits = [assigned(records, seed=seed, grouped=True).split.tolist() for seed in range(40)]
    return all(first == second for first, second in splits)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_value_is_the_same_however_a_format_spells_it(one: Any, other: Any) -> None:
    assert together(one, other)
    records = [Record(1, (1,), None, one), Record(2, (2,), None, other)]
    assert len(assigned(records, stratified=True).classes) == 1


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_values_keep_nothing_together(one: Any, other: Any) -> None:
    assert not together(one, other)


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
def test_no_value_is_no_group_and_no_class(nothing: Any) -> None:
    assert not together(nothing, nothing)
    records = [Record(n, (n,), nothing, nothing) for n in range(3)] + [Record(9, (9,), "a", "a")]
    assignment = assigned(records, grouped=True, stratified=True)
    assert (assignment.ungrouped, assignment.unclassed) == (3, 3)
    assert list(assignment.classes) == ["a"]
    assert assignment.written == 4


def test_what_is_left_out_of_a_sample_counts_nowhere() -> None:
    records = [
        Record(n, (n,), None if n % 2 else "g", None if n % 3 else f"class {n}") for n in range(60)
    ]
    assignment = assigned(records, sample=20, grouped=True, stratified=True)
    chosen = [r for r, at in zip(records, assignment.split, strict=True) if at != LEFT_OUT]
    assert len(chosen) == 20
    assert assignment.ungrouped == sum(record.group is None for record in chosen)
    assert assignment.unclassed == sum(record.kind is None for record in chosen)
    assert set(assignment.classes) == {record.kind for record in chosen if record.kind}


def test_the_table_of_classes_counts_what_was_assigned() -> None:
    records = photographs(400)
    assignment = assigned(records, stratified=True)
    expected: dict[str, list[int]] = {kind: [0, 0, 0] for kind in ("ash", "elm", "oak")}
    for record, at in zip(records, assignment.split, strict=True):
        expected[record.kind][at] += 1
    assert assignment.classes == expected
    assert list(assignment.classes) == sorted(expected)
    for counts in expected.values():
        shares = np.array(counts) / sum(counts)
        assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert assignment.imbalances == []


def test_what_strata_had_to_move_is_counted() -> None:
    records = photographs(400)
    assignment = assigned(records, stratified=True)
    plain = assigned(records)
    assert assignment.moved == np.count_nonzero(assignment.split != plain.split) > 0


def test_classes_that_could_not_have_their_shares_are_told_the_largest_first() -> None:
    oaks = [Record(n, (n,), "one tree", "oak") for n in range(50)]
    ashes = [Record(100 + n, (100 + n,), f"ash {n}", "ash") for n in range(100)]
    elms = [Record(300 + n, (300 + n,), f"elm {n}", "elm") for n in range(2)]
    assignment = assigned([*elms, *ashes, *oaks], grouped=True, stratified=True)
    oak, elm = assignment.imbalances
    assert (oak.name, oak.reason, oak.records, oak.units) == ("oak", "few_units", 50, 1)
    assert (elm.name, elm.reason, elm.records, elm.units) == ("elm", "few_units", 2, 2)
    assert oak.split in {"train", "val", "test"}
    assert abs(oak.have - oak.want) > 5


# --- properties ---

FEW = settings(max_examples=40, deadline=None)
RECORDS = st.lists(
    st.builds(
        Record,
        st.integers(0, 2**64 - 1),
        st.lists(st.integers(0, 30), min_size=1, max_size=3).map(tuple),
        st.sampled_from([None, "", "a", "b", "c", 7, "7"]),
        st.sampled_from([None, "oak", "ash", "elm"]),
    ),
    max_size=40,
    unique_by=lambda record: record.url,
)
OPTIONS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**64 - 1),
        "grouped": st.booleans(),
        "stratified": st.booleans(),
        "allow_leaks": st.booleans(),
        "sample": st.none() | st.integers(0, 50),
    }
)


@FEW
@given(RECORDS, OPTIONS, st.randoms())
def test_splits_keep_their_promises_whatever_is_asked_together(
    records: list[Record], options: dict[str, Any], chance: random.Random
) -> None:
    assignment = assigned(records, **options)
    where = by_url(records, assignment)
    asked = len(records) if options["sample"] is None else options["sample"]
    assert assignment.written == min(asked, len(records))
    assert Counter(where.values())[LEFT_OUT] == assignment.left_out
    assert assignment.counts.tolist() == [
        list(where.values()).count(at) for at in range(len(THREE))
    ]

    inseparable: dict[Any, set[int]] = defaultdict(set)
    for record in records:
        if where[record.url] == LEFT_OUT:
            continue
        if not options["allow_leaks"]:
            for image in record.images:
                inseparable["image", image].add(where[record.url])
        if options["grouped"] and record.group not in (None, ""):
            inseparable["group", str(record.group)].add(where[record.url])
    assert all(len(splits) == 1 for splits in inseparable.values())

    shuffled = list(records)
    chance.shuffle(shuffled)
    assert by_url(shuffled, assigned(shuffled, **options)) == where


@FEW
@given(RECORDS, RECORDS, st.integers(0, 2**64 - 1))
def test_a_record_of_one_image_keeps_its_split_when_the_dataset_grows(
    before: list[Record], more: list[Record], seed: int
) -> None:
    before = [record._replace(images=record.images[:1]) for record in before]
    known = {record.url for record in before}
    more = [r._replace(images=r.images[:1]) for r in more if r.url not in known]
    was = by_url(before, assigned(before, seed=seed))
    grown = [*more, *before]
    assert was.items() <= by_url(grown, assigned(grown, seed=seed)).items()


@FEW
@given(RECORDS, st.integers(0, 2**64 - 1))
def test_a_sample_of_a_share_is_decided_record_by_record(records: list[Record], seed: int) -> None:
    assigner = SplitAssigner(
        (), seed, None, 0.01, allow_leaks=False, grouped=False, stratified=False
    )  # fmt: skip
    assert not assigner.needed
    keys = np.array([record.url for record in records], np.uint64)
    chosen = [sample_share(keys, seed, Fraction(n, 10)) for n in range(11)]
    assert not chosen[0].any()
    assert chosen[10].all()
    for less, more in pairwise(chosen):
        assert not (less & ~more).any()
    alone = [
        bool(sample_share(keys[at : at + 1], seed, Fraction(1, 2))[0]) for at in range(len(keys))
    ]
    assert chosen[5].tolist() == alone


# --- pins ---


def pins_of(where: dict[int, int], records: Sequence[Record], *, allow_leaks: bool) -> Pins:
    """Pins of the records' images, or of their URLs where leaks are allowed."""
    order = by_precedence(THREE)
    keys = [
        ((record.url,) if allow_leaks else record.images, order.index(where[record.url]))
        for record in records
        if where[record.url] != LEFT_OUT
    ]
    return Pins((np.array(key, np.uint64), rank) for key, rank in keys)


@FEW
@given(RECORDS, RECORDS, OPTIONS, st.integers(0, 20))
def test_a_pinned_record_keeps_its_split_unless_its_group_was_in_several(
    before: list[Record], more: list[Record], options: dict[str, Any], growth: int
) -> None:
    known = {record.url for record in before}
    grown = [*(record for record in more if record.url not in known), *before]
    was = by_url(before, assigned(before, **options))
    pins = pins_of(was, before, allow_leaks=options["allow_leaks"])
    if options["sample"] is not None:
        options = options | {"sample": options["sample"] + growth}
    assignment = assigned(grown, **options, pins=pins)
    now = by_url(grown, assignment)
    changed = [
        (split, now[url])
        for url, split in was.items()
        if LEFT_OUT not in (split, now[url]) and split != now[url]
    ]
    kept = assignment.pins
    if kept is None:
        assert not grown
        return
    assert len(changed) <= kept.moved
    assert bool(kept.moved) == bool(kept.conflicts)
    order = by_precedence(THREE)
    assert all(order.index(after) < order.index(earlier) for earlier, after in changed)
    # The whole unit is in one split, pinned or not.
    images: dict[int, set[int]] = defaultdict(set)
    for record in grown:
        if now[record.url] != LEFT_OUT and not options["allow_leaks"]:
            for image in record.images:
                images[image].add(now[record.url])
    assert all(len(splits) == 1 for splits in images.values())


def test_of_several_earlier_splits_the_smallest_wins_and_of_equal_ones_the_last() -> None:
    assert [THREE[index].name for index in by_precedence(THREE)] == ["test", "val", "train"]
    # Records 1 to 3 were in train, val and test, and are now one observation.
    records = [Record(n, (n,), "obs") for n in (1, 2, 3, 4)]
    pins = pins_of({1: 0, 2: 1, 3: 2}, records[:3], allow_leaks=False)
    assignment = assigned(records, grouped=True, pins=pins)
    assert assignment.split.tolist() == [2, 2, 2, 2]
    kept = assignment.pins
    assert kept is not None
    assert (kept.kept, kept.moved, kept.conflicts) == (1, 2, 1)


def test_pins_hold_against_strata_which_report_the_classes_that_they_keep_off() -> None:
    records = [Record(n, (n + 1000,), None, "oak") for n in range(100)]
    pins = pins_of(dict.fromkeys(range(60), 2), records[:60], allow_leaks=False)
    assignment = assigned(records, stratified=True, pins=pins)
    assert set(assignment.split[:60].tolist()) == {2}
    assert [it.reason for it in assignment.imbalances] == ["pinned_units"]
