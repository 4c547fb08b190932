"""Rewrites into splits: disjoint, grouped, without leaks, stable, and correctly reported."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.dataset.records import ReadOptions
from mirror.dataset.rewrite.rewrite_options import EarlierOutput
from mirror.errors import DatasetError, UsageError
from tests.dataset.rewrite.conftest import THREE, Rewrite
from tests.support.mirrored_dataset import (
    ABSENT,
    BLANK,
    GOOD,
    MANY,
    TWINS,
    Mirror,
    content_of,
    got,
    names,
    put,
    record,
)
from tests.support.photos import url_of

# --- splits ---

SCREENED = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NUMBERS = st.sampled_from([*MANY, *MANY, *GOOD, *TWINS, ABSENT[0], BLANK[0]])
DATASET = st.lists(
    st.fixed_dictionaries(
        {
            "image_url": NUMBERS.map(url_of)
            | st.lists(NUMBERS.map(url_of), min_size=1, max_size=3),
            "obs": st.sampled_from([None, "", 1, 2, 3, "3", "x"]),
            "kind": st.sampled_from(["oak", "oak", "ash", None]),
        }
    ),
    max_size=40,
)
SPLIT_OPTIONS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 5),
        "group": st.sampled_from([None, ("obs",)]),
        "stratify": st.sampled_from([None, ("kind",)]),
        "missing": st.sampled_from(["drop", "keep"]),
    }
)


def split(plants: Mirror, folder: Path, records: list[Any], **options: Any) -> dict[int, str]:
    """The split of each record by `id`. Checks that each record is in one split, in order."""
    path = put(folder / "raw.jsonl", records)
    try:
        report = plants.rewrite(path, folder / "out.jsonl", splits=THREE, **options)
    except DatasetError:  # of these few, none has a group, or a class
        return {}
    places: dict[int, str] = {}
    order = [record["id"] for record in records]
    for name, output in report.outputs.items():
        ids = [record["id"] for record in got(Path(output))]
        assert ids == sorted(ids, key=order.index)
        assert report.splits[name] == len(ids)
        assert not set(ids) & set(places), "splits are disjoint"
        places |= dict.fromkeys(ids, name)
    assert len(places) == report.written == report.records - sum(report.dropped.values())
    return places


def numbered(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": at, **record} for at, record in enumerate(records)]


def images_of(record: dict[str, Any]) -> set[int]:
    """Keys that must not be in two splits: contents, and URLs that the mirror lacks."""
    urls = record["image_url"]
    found = {int(url.split("/")[-2]) for url in ([urls] if isinstance(urls, str) else urls)}
    return {content_of(number) for number in found - {BLANK[0]}}


@SCREENED
@given(DATASET, SPLIT_OPTIONS, st.randoms())
def test_splits_are_disjoint_complete_grouped_leak_free_and_stable(
    plants: Mirror,
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[dict[str, Any]],
    options: dict[str, Any],
    chance: random.Random,
) -> None:
    folder = tmp_path_factory.mktemp("splits")
    records = numbered(drawn)
    places = split(plants, folder, records, **options)
    whole = plants.rewrite(folder / "raw.jsonl", folder / "whole.jsonl", missing=options["missing"])
    if places:
        assert set(places) == {record["id"] for record in got(folder / "whole.jsonl")}, "complete"
        assert len(places) == whole.written

    inseparable: defaultdict[Any, set[str]] = defaultdict(set)
    for one in records:
        if one["id"] not in places:
            continue
        for image in images_of(one) - (set() if options["missing"] == "keep" else {ABSENT[0]}):
            inseparable["image", image].add(places[one["id"]])
        if options["group"] and one["obs"] not in (None, ""):
            inseparable["group", str(one["obs"])].add(places[one["id"]])
    assert all(len(splits) == 1 for splits in inseparable.values())

    shuffled = list(records)
    chance.shuffle(shuffled)
    assert split(plants, folder, shuffled, **options) == places


@SCREENED
@given(DATASET, DATASET, st.integers(0, 5))
def test_a_record_keeps_its_split_when_the_dataset_grows(
    plants: Mirror,
    tmp_path_factory: pytest.TempPathFactory,
    before: list[dict[str, Any]],
    more: list[dict[str, Any]],
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("growth")
    single = [one for one in numbered(before + more) if isinstance(one["image_url"], str)]
    old = [one for one in single if one["id"] < len(before)]
    was = split(plants, folder, old, seed=seed)
    now = split(plants, folder, single[::-1], seed=seed)
    assert was.items() <= now.items()


def test_the_same_dataset_in_another_format_is_divided_alike(plants: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [record(n, obs=n // 3) for n in MANY])
    places = {}
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        plants.rewrite(path, work / name)
        options: dict[str, Any] = {
            "splits": THREE,
            "group": ("obs",),
            "reading": ReadOptions(source="s"),
        }
        plants.rewrite(work / name, work / f"{name}.jsonl", **options)
        places[name] = {
            int(one["id"]): output.name.removeprefix(name)
            for output in work.glob(f"{name}_*.jsonl")
            for one in got(output)
        }
        assert len(places[name]) == len(MANY)
    assert places["a.jsonl"] == places["a.csv"] == places["a.parquet"]


@pytest.mark.parametrize("name", ["raw.jsonl", "raw.parquet"])
@pytest.mark.parametrize(
    ("path", "of"),
    [
        (("seen", "obs"), lambda groups: {"seen": [{"obs": group} for group in groups]}),
        (("obs",), lambda groups: {"obs": groups}),
    ],
)
def test_a_record_of_several_groups_stays_with_all_of_them(
    plants: Mirror, work: Path, name: str, path: tuple[str, ...], of: Any
) -> None:
    groups = {n: [f"own {n}", ("a", "b")[n % 2]] for n in GOOD}
    put(work / "raw.jsonl", [record(n, **of(one)) for n, one in groups.items()])
    if name != "raw.jsonl":
        plants.rewrite(work / "raw.jsonl", work / name)
    for seed in range(5):
        options: dict[str, Any] = {"splits": THREE, "group": path, "seed": seed}
        report = plants.rewrite(work / name, work / "out.jsonl", force=True, **options)
        assert report.written == len(groups)
        assert not any("have no value" in warning for warning in report.warnings)
        for output in report.outputs.values():
            numbers = [one["id"] for one in got(Path(output))]
            for parity in (0, 1):
                assert len([n for n in numbers if n % 2 == parity]) in (0, 5)


def test_leaks_can_be_allowed(plants: Mirror, work: Path) -> None:
    records = [record(n) for n in (*GOOD, *TWINS, *MANY)]
    apart = together = 0
    for seed in range(5):
        loose = split(plants, work, records, allow_leaks=True, seed=seed)
        tight = split(plants, work, records, seed=seed)
        for one, other in zip(GOOD, TWINS, strict=True):
            apart += loose[one] != loose[other]
            together += tight[one] == tight[other]
    assert together == 50
    assert apart > 5


def test_classes_have_their_shares_and_the_table_is_right(rewrite: Rewrite) -> None:
    records = [record(n, kind=("oak", "oak", "ash")[n % 3]) for n in MANY]
    report = rewrite([*records, record(1), record(2, kind=None)], splits=THREE, stratify=("kind",))
    expected: dict[str, list[int]] = {"ash": [0, 0, 0], "oak": [0, 0, 0]}
    for at, name in enumerate(report.splits):
        for kind, times in Counter(r.get("kind") for r in got(Path(report.outputs[name]))).items():
            if kind:
                expected[kind][at] = times
    assert report.classes == expected
    assert report.as_json()["classes"]["oak"] == dict(
        zip(report.splits, expected["oak"], strict=True)
    )
    assert report.warnings == ["2 of 62 records have no value in 'kind': they belong to no class."]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": ("observation",)}, "'observation', the field of --group-by"),
        ({"stratify": ("taxon", "name")}, "'taxon.name', the field of --stratify-by"),
    ],
)
def test_a_field_that_no_record_has_is_an_error(
    rewrite: Rewrite, work: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DatasetError, match="None of 10 records") as raised:
        rewrite([record(n) for n in GOOD], splits=THREE, **options)
    assert said in str(raised.value)
    assert names(work) == {"raw.jsonl"}


@pytest.mark.parametrize(("options", "warned"), [({}, True), ({"group": ("obs",)}, False)])
def test_records_that_may_move_once_they_are_mirrored_are_told(
    plants: Mirror, work: Path, options: dict[str, Any], warned: bool
) -> None:
    path = put(work / "raw.jsonl", [record(n, obs=n) for n in (*MANY, *ABSENT[:7])])
    report = plants.rewrite(path, work / "out.jsonl", splits=THREE, missing="keep", **options)
    assert report.kept_missing == 7
    told = [one for one in report.warnings if one.startswith("7 records are kept although")]
    assert len(told) == warned
    assert plants.rewrite(path, work / "one.jsonl", missing="keep").warnings == []


# --- pins ---


def pinned_to(outputs: dict[str, str]) -> tuple[EarlierOutput, ...]:
    return tuple(EarlierOutput(name, Path(path)) for name, path in outputs.items())


@pytest.mark.parametrize("ending", ["jsonl", "csv.gz", "parquet"])
@pytest.mark.parametrize("base", ["", None], ids=["rewritten", "only filtered"])
@pytest.mark.parametrize("allow_leaks", [False, True])
def test_records_of_earlier_outputs_keep_their_splits(
    plants: Mirror, work: Path, ending: str, base: str | None, allow_leaks: bool
) -> None:
    options: dict[str, Any] = {
        "stratify": ("kind",), "missing": "keep", "allow_leaks": allow_leaks,
    }  # fmt: skip
    numbers = [*GOOD, *MANY, *ABSENT]
    records = [record(n, obs=n // 3, kind=n % 5) for n in numbers]
    old = put(work / "old.jsonl", records[::2])
    earlier = plants.rewrite(
        old, work / f"old.{ending}", base=base, seed=1, splits=THREE, **options
    ).outputs
    for name, path in earlier.items():  # readable forms of the same splits
        plants.rewrite(Path(path), work / f"{name}.jsonl", base=None, missing="keep")
    was = {int(one["id"]): name for name in earlier for one in got(work / f"{name}.jsonl")}
    assert len(was) == len(records[::2])
    now = split(plants, work, records, seed=2, pins=pinned_to(earlier), **options)
    assert len(now) == len(records)
    assert was.items() <= now.items()
    assert not was.items() <= split(plants, work, records, seed=2, **options).items()


def test_a_group_follows_its_pinned_record_and_a_torn_group_is_reported(
    plants: Mirror, work: Path
) -> None:
    train = put(work / "train.jsonl", [record(1), record(2)])
    test = put(work / "test.jsonl", [record(3)])
    pins = (EarlierOutput("train", train), EarlierOutput("test", test))
    obs = {1: "a", 4: "a", 2: "b", 3: "b", 5: "b"}
    path = put(work / "raw.jsonl", [record(n, obs=group) for n, group in obs.items()])
    report = plants.rewrite(path, work / "out.jsonl", splits=THREE, group=("obs",), pins=pins)
    assert {n["id"] for n in got(work / "out_train.jsonl")} == {1, 4}
    assert {n["id"] for n in got(work / "out_test.jsonl")} == {2, 3, 5}
    assert (report.pinned, report.pin_conflicts) == (2, 1)
    assert report.warnings[0] == (
        "Earlier outputs have 1 inseparable groups of records in several splits: each is now in "
        "the smallest of these, and 1 records moved to it."
    )


def test_pins_of_another_dataset_are_doubted(plants: Mirror, work: Path) -> None:
    pins = (EarlierOutput("train", put(work / "train.jsonl", [record(ABSENT[0])])),)
    path = put(work / "raw.jsonl", [record(n) for n in MANY])
    report = plants.rewrite(path, work / "out.jsonl", splits=THREE, pins=pins)
    assert report.pinned == 0
    assert any("stands in the files of --pin" in warning for warning in report.warnings)


def test_a_pin_that_cannot_be_read_whole_is_refused(plants: Mirror, work: Path) -> None:
    pins = (EarlierOutput("train", put(work / "train.jsonl", [record(1), {"id": 2}])),)
    path = put(work / "raw.jsonl", [record(n) for n in MANY])
    with pytest.raises(UsageError, match=r"train\.jsonl, record 2: no field 'image_url'"):
        plants.rewrite(path, work / "out.jsonl", splits=THREE, pins=pins)
    assert names(work) == {"raw.jsonl", "train.jsonl"}
