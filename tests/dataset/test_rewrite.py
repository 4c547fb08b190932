"""Rewriting datasets: what is written, what is dropped and why, and that files appear whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.catalog.index import Index
from mirror.dataset.compression import zstd
from mirror.dataset.inputs import Input
from mirror.dataset.judge import LicenseRule
from mirror.dataset.records import Reading
from mirror.dataset.report import EXAMPLES, REASONS, RewriteReport
from mirror.dataset.resolve import Resolver
from mirror.dataset.rewrite import Progress, RewriteOptions, check_files, rewrite
from mirror.dataset.split import parse_splits
from mirror.errors import DatasetError, UsageError
from mirror.layout import BucketUrl
from mirror.urls import ObjectUrls
from tests.chaos.tally import count, kills
from tests.dataset.mirrored import (
    ABSENT,
    BLANK,
    CORRUPT,
    GOOD,
    MANY,
    NOT_IMAGE,
    PLACEHOLDER,
    SMALL,
    TWINS,
    Mirror,
    content_of,
    got,
    names,
    plants,
    put,
    work,
)
from tests.photos import url_of

__all__ = ["plants", "work"]

THREE = parse_splits("train=0.6,val=0.2,test=0.2")


def record(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "image_url": url_of(number), **fields}


# --- what is written, what is dropped ---


def test_every_record_is_written_or_dropped_for_a_reason_that_is_counted(
    plants: Mirror, work: Path
) -> None:
    repeated = 13
    dropped = {
        "blank": BLANK[0],
        "corrupt": CORRUPT[0],
        "not_image": NOT_IMAGE[0],
        "placeholder": PLACEHOLDER[0],
        "not_mirrored": ABSENT[0],
        "too_small": SMALL,
    }
    records: list[Any] = [record(n, license="cc0") for n in dropped.values()] * repeated
    records += [record(n, license="C") for n in [1] * repeated]
    records += ["{"] * repeated
    records += [record(n, license="cc0") for n in MANY]
    random.Random(1).shuffle(records)
    report = plants.rewrite(
        put(work / "raw.jsonl", records),
        work / "out.jsonl",
        plants.resolver(min_side=40),
        license=LicenseRule(("license",), frozenset({"cc0"})),
        sample=Fraction(1, 2),
    )
    assert list(report.dropped) == list(REASONS)
    assert {*dropped, "license", "invalid", "sample"} == set(REASONS)
    for reason in REASONS:
        if reason != "sample":
            assert report.dropped[reason] == repeated, reason
    assert 10 < report.dropped["sample"] < 50
    assert report.records == len(records) == report.written + sum(report.dropped.values())
    assert report.written == len(got(work / "out.jsonl"))
    for reason, number in dropped.items():
        examples = report.examples[reason]
        assert len(examples) == EXAMPLES == 10
        places = [at + 1 for at, one in enumerate(records) if record(number, license="cc0") == one]
        assert [example.number for example in examples] == places[:10]
        assert {example.what for example in examples} == {url_of(number)}
        assert {example.input for example in examples} == {str(work / "raw.jsonl")}
    assert report.examples["license"][0].what == f"'C': {url_of(1)}"
    assert report.examples["sample"] == []
    assert len(report.examples["invalid"]) == 10
    assert report.exit_status == 3


def test_a_record_gets_the_new_url_and_keeps_the_old_beside_it(plants: Mirror, work: Path) -> None:
    line = f'{{"a": 1.50, "image_url": "{url_of(1)}",  "é":"\\u00e9" , "z": [1,  2]}}'
    report = plants.rewrite(put(work / "raw.jsonl", [line]), work / "out.jsonl")
    expected = line.replace(url_of(1), f'{plants.url(1)}", "source_url": "{url_of(1)}')
    assert (work / "out.jsonl").read_text() == expected + "\n"
    assert (report.records, report.written, report.exit_status) == (1, 1, 0)
    assert report.outputs == {"out": str(work / "out.jsonl")}
    assert report.warnings == []
    assert names(work) == {"raw.jsonl", "out.jsonl"}


def test_equal_images_get_one_url(plants: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [record(GOOD[2]), record(TWINS[2])])
    plants.rewrite(path, work / "out.jsonl")
    first, second = got(work / "out.jsonl")
    assert first["image_url"] == second["image_url"]
    assert first["source_url"] != second["source_url"]


def test_several_inputs_are_one_dataset_in_their_order(plants: Mirror, work: Path) -> None:
    one = put(work / "one.jsonl", [record(1), "?", record(2)])
    other = work / "other.csv"
    other.write_text(f"image_url,id\n{url_of(3)},x\n{url_of(ABSENT[0])},y\n")
    report = plants.rewrite([one, other, one], work / "out.jsonl")
    assert [record["id"] for record in got(work / "out.jsonl")] == [1, 2, "x", 1, 2]
    assert report.records == 8
    assert [(e.input, e.number) for e in report.examples["invalid"]] == [(str(one), 2)] * 2
    (missing,) = report.examples["not_mirrored"]
    assert (missing.input, missing.number) == (str(other), 3)


LISTS = [
    {"id": "all", "image_url": [url_of(1), url_of(2)]},
    {"id": "some", "image_url": [url_of(ABSENT[0]), url_of(3), url_of(BLANK[0]), url_of(4)]},
    {"id": "none", "image_url": [url_of(ABSENT[0]), url_of(BLANK[0])]},
    {"id": "bad", "image_url": [url_of(BLANK[0]), url_of(ABSENT[0])]},
    {"id": "single", "image_url": url_of(5)},
]


def test_of_a_list_of_urls_those_that_are_missing_are_taken_out(plants: Mirror, work: Path) -> None:
    report = plants.rewrite(put(work / "raw.jsonl", LISTS), work / "out.jsonl")
    every, some, single = got(work / "out.jsonl")
    assert every["image_url"] == [plants.url(1), plants.url(2)]
    assert some["image_url"] == [plants.url(3), plants.url(4)]
    assert some["source_url"] == [url_of(3), url_of(4)]
    assert (single["image_url"], single["source_url"]) == (plants.url(5), url_of(5))
    assert report.urls_dropped == 2
    assert (report.dropped["not_mirrored"], report.dropped["blank"]) == (1, 1)


def test_lists_keep_what_is_missing_when_asked(plants: Mirror, work: Path) -> None:
    report = plants.rewrite(put(work / "raw.jsonl", LISTS), work / "out.jsonl", missing="keep")
    records = {record["id"]: record for record in got(work / "out.jsonl")}
    assert records["some"]["image_url"] == [url_of(ABSENT[0]), plants.url(3), plants.url(4)]
    assert records["some"]["source_url"] == [url_of(ABSENT[0]), url_of(3), url_of(4)]
    assert records["none"] == {"id": "none", "image_url": [url_of(ABSENT[0])]}
    assert report.written == 5
    assert (report.kept_missing, report.urls_dropped) == (3, 3)


def test_a_list_that_lacks_one_image_fails_when_nothing_may_be_missing(
    plants: Mirror, work: Path
) -> None:
    path = put(work / "raw.jsonl", LISTS)
    with pytest.raises(DatasetError, match="3 of 5 records") as raised:
        plants.rewrite(path, work / "out.jsonl", missing="fail")
    assert f"record 2: {url_of(ABSENT[0])}" in str(raised.value)


def test_missing_records_are_dropped_or_kept_or_fail(plants: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [record(1), record(ABSENT[0]), record(ABSENT[1]), record(2)])
    report = plants.rewrite(path, work / "drop.jsonl", missing="drop")
    assert [one["id"] for one in got(work / "drop.jsonl")] == [1, 2]
    assert (report.dropped["not_mirrored"], report.kept_missing) == (2, 0)

    report = plants.rewrite(path, work / "keep.jsonl", missing="keep")
    kept = got(work / "keep.jsonl")
    assert [one["id"] for one in kept] == [1, *ABSENT[:2], 2]
    assert kept[1] == record(ABSENT[0])  # no source_url: nothing was replaced
    assert (report.dropped["not_mirrored"], report.kept_missing, report.written) == (0, 2, 4)

    before = names(work)
    with pytest.raises(DatasetError) as raised:
        plants.rewrite(path, work / "fail.jsonl", missing="fail")
    assert "2 of 4 records" in str(raised.value)
    assert f"raw.jsonl, record 2: {url_of(ABSENT[0])}" in str(raised.value)
    assert names(work) == before
    plants.rewrite(put(path, [record(1), record(BLANK[0])]), work / "fine.jsonl", missing="fail")
    assert [one["id"] for one in got(work / "fine.jsonl")] == [1]


@pytest.mark.parametrize("missing", ["drop", "keep", "fail"])
def test_what_is_flagged_is_dropped_whatever_may_be_missing(
    plants: Mirror, work: Path, missing: Any
) -> None:
    flagged = [*BLANK, *CORRUPT, *NOT_IMAGE, *PLACEHOLDER]
    path = put(work / "raw.jsonl", [record(n) for n in flagged])
    report = plants.rewrite(path, work / "out.jsonl", missing=missing)
    assert (report.written, report.exit_status) == (0, 0)
    assert [report.dropped[reason] for reason in ("blank", "corrupt", "not_image", "placeholder")] == [
        3, 2, 4, 6,
    ]  # fmt: skip


def test_of_photos_found_under_other_spellings_those_that_are_written_are_counted(
    plants: Mirror, work: Path
) -> None:
    def spelled(number: int) -> dict[str, Any]:
        url = f"https://static.inaturalist.org/photos/{number}/medium.jpeg?{number}"
        return {"id": number, "image_url": url, "license": "cc0" if number != 2 else "C"}

    path = put(work / "raw.jsonl", [record(9), *map(spelled, (1, 2, 3, BLANK[0], ABSENT[0]))])
    resolver = plants.resolver(match="photo")
    rule = LicenseRule(("license",), required=True)
    report = plants.rewrite(path, work / "out.jsonl", resolver, license=rule)
    assert [one["id"] for one in got(work / "out.jsonl")] == [1, 3]
    assert [one["image_url"] for one in got(work / "out.jsonl")] == [plants.url(1), plants.url(3)]
    assert report.matched_by_photo == 2
    assert report.dropped["blank"] == 1
    assert plants.rewrite(path, work / "out.jsonl").matched_by_photo == 0
    report = plants.rewrite(path, work / "out.jsonl", resolver, sample=1)
    assert report.matched_by_photo == (got(work / "out.jsonl")[0]["id"] != 9)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (LicenseRule(), [1, 2, 3, 4]),
        (LicenseRule(("rights", "code"), frozenset({"cc0", "cc-by"})), [1, 2]),
        (LicenseRule(("rights", "code"), required=True), [1, 2, 3]),
    ],
)
def test_licences(plants: Mirror, work: Path, rule: LicenseRule, kept: list[int]) -> None:
    codes = {1: "CC0", 2: "cc_by", 3: "cc-by-nc", 4: None}
    path = put(work / "raw.jsonl", [record(n, rights={"code": c}) for n, c in codes.items()])
    report = plants.rewrite(path, work / "out.jsonl", license=rule)
    assert [one["id"] for one in got(work / "out.jsonl")] == kept
    assert report.dropped["license"] == 4 - len(kept)


def test_the_same_licences_in_a_table(plants: Mirror, work: Path) -> None:
    rule = LicenseRule(("rights", "code"), frozenset({"cc0"}))
    path = work / "raw.csv"
    path.write_text(f"image_url,rights.code\n{url_of(1)},CC0\n{url_of(2)},\n{url_of(3)},cc-by\n")
    plants.rewrite(path, work / "out.jsonl", license=rule)
    assert [one["source_url"] for one in got(work / "out.jsonl")] == [url_of(1)]


def test_samples(plants: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [record(n) for n in MANY])

    def sample(size: Fraction | int, seed: int = 0) -> list[int]:
        report = plants.rewrite(path, work / "out.jsonl", sample=size, seed=seed)
        chosen = [one["id"] for one in got(work / "out.jsonl")]
        assert chosen == sorted(chosen), "the order is the input's"
        assert report.written == len(chosen) == len(MANY) - report.dropped["sample"]
        return chosen

    assert len(sample(20)) == 20
    assert set(sample(20)) < set(sample(30))
    assert sample(20) == sample(20)
    assert sample(20) != sample(20, seed=1)
    assert sample(1000) == list(MANY)
    assert sample(0) == sample(Fraction(0)) == []
    assert set(sample(Fraction(1, 4))) < set(sample(Fraction(1, 2))) < set(sample(Fraction(1)))
    assert sample(Fraction(1)) == list(MANY)


def test_of_a_sample_only_what_is_written_is_told(plants: Mirror, work: Path) -> None:
    records = [{"id": n, "image_url": [url_of(n), url_of(ABSENT[n]), url_of(100)]} for n in GOOD]
    path = put(work / "raw.jsonl", records)
    report = plants.rewrite(path, work / "out.jsonl", missing="keep", sample=4)
    assert (report.written, report.kept_missing, report.urls_dropped) == (4, 4, 4)


def test_min_size(plants: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [record(1), record(SMALL)])
    report = plants.rewrite(path, work / "out.jsonl", plants.resolver(min_side=30))
    assert [one["id"] for one in got(work / "out.jsonl")] == [1]
    assert report.dropped["too_small"] == 1


# --- invalid records ---

INVALID = ["not json", "[1]", '{"image": 1}', "", '{"image_url": 7}']


def test_invalid_records_are_set_aside_with_where_they_stood_and_why(
    plants: Mirror, work: Path
) -> None:
    path = put(work / "raw.jsonl", [record(1), *INVALID, record(2)])
    report = plants.rewrite(path, work / "out.jsonl")
    assert (report.written, report.dropped["invalid"], report.exit_status) == (2, 5, 3)
    assert report.rejected == str(work / "out.rejected.jsonl")
    rejected = got(work / "out.rejected.jsonl")
    assert [one["line"] for one in rejected] == [2, 3, 4, 5, 6]
    assert [one["text"] for one in rejected] == INVALID
    assert {one["input"] for one in rejected} == {str(path)}
    assert rejected[2]["reason"] == "no field 'image_url'"

    plants.rewrite(put(path, [record(1)]), work / "out.jsonl")
    assert names(work) == {"raw.jsonl", "out.jsonl"}, "it would speak of other records"


def test_strict_stops_at_the_first_and_leaves_all_as_it_was(plants: Mirror, work: Path) -> None:
    put(work / "out.jsonl", [{"old": 1}])
    put(work / "out.rejected.jsonl", [{"old": 2}])
    path = put(work / "raw.jsonl", [record(1), *INVALID])
    before = {name: (work / name).read_bytes() for name in names(work)}
    with pytest.raises(DatasetError) as raised:
        plants.rewrite(path, work / "out.jsonl", strict=True, force=True)
    assert str(raised.value).startswith(f"{path}, record 2: not JSON")
    assert {name: (work / name).read_bytes() for name in names(work)} == before


def test_a_field_that_holds_something_else_is_not_written_over(plants: Mirror, work: Path) -> None:
    records: list[Any] = [
        "?",
        record(1, source_url="where I found it"),
        record(2),
        record(ABSENT[0], source_url="x"),
        record(3, source_url=""),
        "?",
    ]
    path = put(work / "raw.jsonl", records)
    report = plants.rewrite(path, work / "out.jsonl")
    assert [one["id"] for one in got(work / "out.jsonl")] == [2, 3]
    assert report.dropped["invalid"] == 3
    assert [one["line"] for one in got(work / "out.rejected.jsonl")] == [1, 2, 6]
    assert "--source-field" in report.examples["invalid"][1].what
    with pytest.raises(DatasetError, match="record 1: "):
        plants.rewrite(path, work / "out.jsonl", strict=True)

    reading = Reading(source="original")
    report = plants.rewrite(path, work / "out.jsonl", reading=reading)
    assert [one["id"] for one in got(work / "out.jsonl")] == [1, 2, 3]
    assert got(work / "out.jsonl")[0]["original"] == url_of(1)
    assert got(work / "out.jsonl")[0]["source_url"] == "where I found it"


def test_an_input_that_breaks_off_is_an_error_and_not_the_end(plants: Mirror, work: Path) -> None:
    class Breaking(Progress):
        def read(self, size: int) -> None:
            raise OSError(5, "Input/output error")

    path = put(work / "raw.jsonl", [record(1)])
    with pytest.raises(DatasetError, match="raw.jsonl cannot be read to its end"):
        rewrite(
            [Input(str(path))], work / "out.jsonl", RewriteOptions(), plants.resolver(),
            addresses=None, progress=Breaking(),
        )  # fmt: skip
    assert names(work) == {"raw.jsonl"}


# --- a dry run ---


@pytest.mark.parametrize("splits", [(), THREE])
def test_a_dry_run_tells_the_same_and_writes_nothing(
    plants: Mirror, work: Path, splits: Any
) -> None:
    path = put(work / "raw.jsonl", [*(record(n) for n in (*MANY, *BLANK, *ABSENT)), "?"])
    put(work / "out.rejected.jsonl", [{"old": 1}])
    before = {name: (work / name).read_bytes() for name in names(work)}
    dry = plants.rewrite(path, work / "out.jsonl", splits=splits, dry_run=True).as_json()
    assert {name: (work / name).read_bytes() for name in names(work)} == before
    wet = plants.rewrite(path, work / "out.jsonl", splits=splits).as_json()
    assert (dry["outputs"], dry["rejected"], dry["dry_run"]) == ({}, None, True)
    for name in ("records", "written", "dropped", "splits", "examples", "exit_status", "warnings"):
        assert dry[name] == wet[name], name


def test_a_dry_run_needs_no_room(plants: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [record(1), "?"])
    (work / "sealed").mkdir(mode=0o500)
    report = plants.rewrite(path, work / "sealed" / "out.jsonl", dry_run=True, splits=THREE)
    assert report.written == 1


# --- files ---


def test_what_is_there_is_replaced_as_a_whole(plants: Mirror, work: Path) -> None:
    put(work / "real.jsonl", [{"old": 1}])
    (work / "out.jsonl").symlink_to("real.jsonl")
    plants.rewrite(put(work / "raw.jsonl", [record(1)]), work / "out.jsonl", force=True)
    assert (work / "out.jsonl").is_symlink()
    assert [one["id"] for one in got(work / "real.jsonl")] == [1]


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    # input, output, options, what is said
    ("raw.jsonl", "raw.jsonl", {}, "raw.jsonl is an input and an output at once"),
    ("raw.jsonl", "raw.jsonl", {"force": True}, "an input and an output"),
    ("raw.jsonl", "raw.jsonl", {"dry_run": True}, "an input and an output"),
    ("raw.jsonl", "link.jsonl", {"force": True}, "an input and an output"),
    ("out_val.jsonl", "out.jsonl", {"splits": THREE, "force": True}, "an input and an output"),
    ("out.rejected.jsonl", "out.jsonl", {"force": True}, "out.rejected.jsonl is an input and"),
    ("raw.jsonl", "old.jsonl", {}, "old.jsonl exists; --force replaces it"),
    ("raw.jsonl", "out.jsonl", {"splits": THREE}, "out_val.jsonl exists; --force"),
    ("raw.jsonl", "folder", {"force": True}, "folder is a folder; name a file"),
    ("raw.jsonl", "nowhere/out.jsonl", {}, "The folder of nowhere/out.jsonl does not exist"),
    ("raw.jsonl", "old.jsonl/out.jsonl", {}, "The folder of"),
    ("raw.jsonl", "pipe", {"force": True}, "pipe is no plain file"),
    ("raw.jsonl", "-", {}, "name one in place of -"),
    ("raw.jsonl", "report.json", {}, "report.json would be written twice"),
    ("raw.jsonl", "", {}, "is a folder"),
    ("raw.jsonl", "/", {}, "/ is a folder"),
    ("missing.jsonl", "out.jsonl", {}, "missing.jsonl cannot be read (No such file"),
    ("folder", "out.jsonl", {}, "folder cannot be read (Is a directory)"),
    ("mongodb://host", "out.jsonl", {}, "address of the MongoDB collection is not understood"),
]


@pytest.mark.parametrize(("source", "output", "options", "said"), REFUSED)
def test_what_cannot_be_is_said_before_anything_is_read(
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    output: str,
    options: dict[str, Any],
    said: str,
) -> None:
    for name in ("raw", "old", "out_val", "out.rejected"):
        put(work / f"{name}.jsonl", [{"name": name}])
    (work / "folder").mkdir()
    (work / "link.jsonl").symlink_to("raw.jsonl")
    os.mkfifo(work / "pipe")
    monkeypatch.chdir(work)
    with pytest.raises(UsageError) as raised:
        check_files([Input(source)], Path(output), RewriteOptions(**options), [Path("report.json")])
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("new.jsonl", {}),
        ("raw.jsonl", {"splits": THREE}),  # raw_train.jsonl and so on, beside their input
        ("old.jsonl", {"force": True}),
        ("old.jsonl", {"dry_run": True}),
    ],
)
def test_what_can_be_is_let_be(
    work: Path, monkeypatch: pytest.MonkeyPatch, output: str, options: dict[str, Any]
) -> None:
    put(work / "raw.jsonl", [])
    put(work / "old.jsonl", [])
    monkeypatch.chdir(work)
    check_files([Input("raw.jsonl"), Input("-")], Path(output), RewriteOptions(**options))


def test_a_report_that_exists_is_not_replaced_by_a_dry_run_either(work: Path) -> None:
    raw, report = put(work / "raw.jsonl", []), put(work / "report.json", [])
    with pytest.raises(UsageError, match="report.json exists"):
        check_files([Input(str(raw))], work / "out.jsonl", RewriteOptions(dry_run=True), [report])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_said_when_it_is_asked_for(seed: int) -> None:
    with pytest.raises(UsageError, match="is out of range"):
        RewriteOptions(seed=seed)


def test_names_that_are_no_text_are_written_and_shown(plants: Mirror, work: Path) -> None:
    raw = put(Path(os.fsdecode(os.fsencode(work) + b"/r\xffw.jsonl")), [record(1), "?"])
    report = plants.rewrite(raw, Path(os.fsdecode(os.fsencode(work) + b"/o\xff.jsonl")))
    shown = json.loads(json.dumps(report.as_json()))
    assert shown["outputs"] == {"out": f"{work}/o\\udcff.jsonl"}
    assert shown["rejected"] == f"{work}/o\\udcff.rejected.jsonl"
    assert shown["examples"]["invalid"][0]["input"] == f"{work}/r\\udcffw.jsonl"
    assert b"o\xff.jsonl" in os.listdir(os.fsencode(work))


# --- again and again ---

FORMATS = ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.csv", "out.parquet", "out.csv.gz"]


@pytest.mark.parametrize("name", FORMATS)
def test_running_twice_gives_identical_bytes(plants: Mirror, work: Path, name: str) -> None:
    path = put(work / "raw.jsonl", [record(n, obs=n // 3, kind=n % 4) for n in (*MANY, *ABSENT)])
    options: dict[str, Any] = {
        "splits": THREE, "group": ("obs",), "stratify": ("kind",), "sample": 50, "force": True,
    }  # fmt: skip
    outputs = []
    for _ in range(2):
        report = plants.rewrite(path, work / name, **options)
        outputs.append({split: Path(out).read_bytes() for split, out in report.outputs.items()})
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {"train", "val", "test"}
    assert sum(report.splits.values()) == report.written == 50


def test_rewriting_again_changes_no_byte(plants: Mirror, work: Path) -> None:
    lines: list[Any] = [record(n) for n in GOOD]
    lines += [
        {"id": "nested", "photos": [{"image_url": url_of(1)}], "image_url": [url_of(2), url_of(3)]},
        '{"image_url":"https:\\/\\/inaturalist-open-data.s3.amazonaws.com\\/photos\\/4\\/medium.jpg"}',
    ]
    plants.rewrite(put(work / "raw.jsonl", lines), work / "once.jsonl")
    report = plants.rewrite(work / "once.jsonl", work / "twice.jsonl")
    assert (work / "twice.jsonl").read_bytes() == (work / "once.jsonl").read_bytes()
    assert (report.written, report.exit_status) == (12, 0)


def test_a_rewritten_dataset_moves_to_other_urls_and_keeps_the_first_ones(
    plants: Mirror, work: Path
) -> None:
    plants.rewrite(put(work / "raw.jsonl", [record(1), record(2)]), work / "once.jsonl")
    resolver = plants.resolver()
    report = rewrite(
        [Input(str(work / "once.jsonl"))],
        work / "public.jsonl",
        RewriteOptions(),
        resolver,
        addresses=lambda at: [b"https://img.example/" + key for key in resolver.object_keys(at)],
    )
    assert report.exit_status == 0
    for number, one in zip((1, 2), got(work / "public.jsonl"), strict=True):
        assert one["image_url"] == plants.url(number).replace(plants.base, "https://img.example/")
        assert one["source_url"] == url_of(number)


def test_what_was_kept_though_missing_is_rewritten_when_it_is_there(
    plants: Mirror, work: Path
) -> None:
    lists = [{"image_url": [url_of(2), url_of(1)]}, {"image_url": [url_of(1), url_of(2)]}]
    path = put(work / "raw.jsonl", lists)
    only = plants.index.find(hashlib.md5(url_of(1).encode()).digest())
    sightings = {name: column[only] for name, column in plants.index.sightings.items()}
    smaller = Index(0, sightings, plants.index.objects)
    early = Resolver(smaller, plants.settings.object_urls)
    plants.rewrite(path, work / "early.jsonl", early, missing="keep")
    assert got(work / "early.jsonl")[0]["image_url"] == [url_of(2), plants.url(1)]
    report = plants.rewrite(work / "early.jsonl", work / "late.jsonl")
    assert (report.written, report.dropped["invalid"]) == (2, 0)
    for one, urls in zip(got(work / "late.jsonl"), lists, strict=True):
        assert sorted(one["image_url"]) == sorted([plants.url(1), plants.url(2)])
        assert one["source_url"] == urls["image_url"]


def test_without_new_urls_records_stay_byte_for_byte(plants: Mirror, work: Path) -> None:
    lines = [f'{{ "x":1,"image_url" :  "{url_of(n)}"}}  ' for n in (1, ABSENT[0], BLANK[0], 2)]
    path = put(work / "raw.jsonl", lines)
    report = rewrite(
        [Input(str(path))], work / "out.jsonl", RewriteOptions(), plants.resolver(), addresses=None
    )
    assert (work / "out.jsonl").read_text() == f"{lines[0]}\n{lines[3]}\n"
    assert report.written == 2


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
    """Where each record goes, by its `id`; checks that each goes to one place, in its order."""
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
    """What must not be in two splits: contents, and URLs that the mirror lacks."""
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
            "reading": Reading(source="s"),
        }
        plants.rewrite(work / name, work / f"{name}.jsonl", **options)
        places[name] = {
            int(one["id"]): output.name.removeprefix(name)
            for output in work.glob(f"{name}_*.jsonl")
            for one in got(output)
        }
        assert len(places[name]) == len(MANY)
    assert places["a.jsonl"] == places["a.csv"] == places["a.parquet"]


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


def test_classes_have_their_shares_and_the_table_is_right(plants: Mirror, work: Path) -> None:
    records = [record(n, kind=("oak", "oak", "ash")[n % 3]) for n in MANY]
    path = put(work / "raw.jsonl", [*records, record(1), record(2, kind=None)])
    report = plants.rewrite(path, work / "out.jsonl", splits=THREE, stratify=("kind",))
    expected: dict[str, list[int]] = {"ash": [0, 0, 0], "oak": [0, 0, 0]}
    for at, name in enumerate(report.splits):
        for kind, times in Counter(r.get("kind") for r in got(Path(report.outputs[name]))).items():
            if kind:
                expected[kind][at] = times
    assert report.classes == expected
    assert report.as_json()["classes"]["oak"] == dict(
        zip(report.splits, expected["oak"], strict=True)
    )
    assert report.warnings == ["2 of 62 records have no value in 'kind': they are in no class."]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": ("observation",)}, "'observation', the field of --group-by"),
        ({"stratify": ("taxon", "name")}, "'taxon.name', the field of --stratify-by"),
    ],
)
def test_a_field_that_no_record_has_is_an_error(
    plants: Mirror, work: Path, options: dict[str, Any], said: str
) -> None:
    path = put(work / "raw.jsonl", [record(n) for n in GOOD])
    with pytest.raises(DatasetError, match="Not one of 10 records") as raised:
        plants.rewrite(path, work / "out.jsonl", splits=THREE, **options)
    assert said in str(raised.value)
    assert names(work) == {"raw.jsonl"}


# --- what nobody means to have ---


def test_another_field_holds_the_url(plants: Mirror, work: Path) -> None:
    fields = {f"field{n}": n for n in range(20)}
    path = put(work / "raw.jsonl", [{"url": url_of(1), "id": 1, **fields}, {"x": 1}])
    report = plants.rewrite(path, work / "out.jsonl")
    (warning,) = report.warnings
    assert warning.startswith("Not one of 2 records can be used; ")
    assert "record 1: no field 'image_url' among url, id, field0, " in warning
    assert "field19" not in warning
    assert "--url-field" in warning
    assert (report.written, report.exit_status) == (0, 3)
    assert plants.rewrite(path, work / "out.jsonl", reading=Reading(("url",))).warnings == []


def of_index(index: Index, **options: Any) -> Resolver:
    return Resolver(index, ObjectUrls(BucketUrl.parse("s3://plants")), **options)


DOUBTS: list[tuple[str, list[Any], dict[str, Any], list[str]]] = [
    ("empty", [], {}, ["There is no record in the input"]),
    ("all invalid", ["?", "?"], {}, ["Not one of 2 records can be used", "record 1: not JSON"]),
    ("all unknown", [record(n) for n in ABSENT[:3]], {},
     ["Not one of 3 records is in the mirror", "spelled", "--match photo"]),
    ("all unknown and kept", [record(n) for n in ABSENT[:3]], {"missing": "keep"},
     ["Not one of 3 records is in the mirror"]),
    ("no photos", [{"image_url": "https://x/1"}], {}, ["Not one of 1 records is in the mirror"]),
    ("all flagged", [record(n) for n in BLANK], {},
     ["Nothing is in the output: of 3 records the last 3 were dropped as 'blank', such as http"]),
    ("no licence", [record(1), record(ABSENT[0]), record(ABSENT[1])],
     {"license": LicenseRule(("license",), required=True)},
     ["of 3 records the last 1 were dropped as 'license', such as no licence: http"]),
    ("an empty sample", [record(1)], {"sample": 0}, ["dropped as 'sample'."]),
    ("an empty split", [record(1)], {"splits": THREE}, ["The split ", " is empty: the 1 records"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "options", "said"), [d[1:] for d in DOUBTS], ids=[d[0] for d in DOUBTS]
)
def test_a_result_that_nobody_means_is_remarked_in_a_sentence(
    plants: Mirror, work: Path, records: list[Any], options: dict[str, Any], said: list[str]
) -> None:
    report = plants.rewrite(put(work / "raw.jsonl", records), work / "out.jsonl", **options)
    assert len(report.warnings) == (2 if "splits" in options else 1)
    for words in said:
        assert words in report.warnings[0]
    assert report.exit_status == (3 if "?" in records else 0)


def test_photos_are_not_proposed_where_they_were_asked_for(plants: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [record(ABSENT[0])])
    report = plants.rewrite(path, work / "out.jsonl", plants.resolver(match="photo"))
    assert "--match" not in report.warnings[0]


def test_an_empty_mirror_is_called_so(work: Path) -> None:
    path = put(work / "raw.jsonl", [record(1)])
    for resolver, place in (
        (of_index(Index.empty()), "mirror"),
        (Resolver(Index.empty()), "cache"),
    ):
        report = rewrite(
            [Input(str(path))], work / "out.jsonl", RewriteOptions(), resolver, addresses=None
        )
        assert report.warnings == [f"The {place} knows no image at all, and so none of 1 records."]


def test_a_result_as_it_should_be_is_not_remarked(plants: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [record(n) for n in (*MANY, *ABSENT, *BLANK)] + ["?"])
    assert plants.rewrite(path, work / "out.jsonl", splits=THREE).warnings == []


def test_progress_is_told_of_bytes_and_records(plants: Mirror, work: Path) -> None:
    class Told(Progress):
        def __init__(self) -> None:
            self.bytes = 0
            self.records: list[int] = []

        def read(self, size: int) -> None:
            self.bytes += size

        def done(self, report: RewriteReport) -> None:
            self.records.append(report.records)

    path = put(work / "raw.jsonl", [record(1, text="x" * 1000) for _ in range(5000)])
    told = Told()
    rewrite(
        [Input(str(path))], work / "out.jsonl", RewriteOptions(), plants.resolver(),
        addresses=None, progress=told,
    )  # fmt: skip
    assert told.bytes == path.stat().st_size
    assert told.records == sorted(told.records)
    assert told.records[-1] == 5000
    assert len(told.records) > 3


# --- whatever happens ---


def command_line(plants: Mirror, *arguments: str) -> list[str]:
    state = plants.settings.state.dir
    return ["rewrite", f"--bucket={plants.settings.bucket.url}", f"--state={state}", *arguments]


def test_records_that_fit_no_table_leave_all_as_it_was(plants: Mirror, work: Path) -> None:
    put(work / "out.rejected.jsonl", ["old"])
    (work / "out.parquet").write_text("old")
    records = [record(1, x=1), record(2, x={"y": 1}), "?"]
    with pytest.raises(UsageError, match="cannot be Parquet"):
        plants.rewrite(put(work / "raw.jsonl", records), work / "out.parquet", force=True)
    assert names(work) == {"raw.jsonl", "out.parquet", "out.rejected.jsonl"}
    assert (work / "out.parquet").read_text() == "old"
    assert (work / "out.rejected.jsonl").read_text() == "old\n"


@pytest.mark.parametrize("splits", [(), THREE])
def test_interrupted_it_leaves_no_trace(plants: Mirror, work: Path, splits: Any) -> None:
    class Interrupting(Progress):
        def done(self, report: RewriteReport) -> None:
            raise KeyboardInterrupt

    path = put(work / "raw.jsonl", [record(1), "?"])
    put(work / "out.rejected.jsonl", ["old"])
    with pytest.raises(KeyboardInterrupt):
        rewrite(
            [Input(str(path))], work / "out.jsonl", RewriteOptions(splits=splits),
            plants.resolver(), addresses=None, progress=Interrupting(),
        )  # fmt: skip
    assert names(work) == {"raw.jsonl", "out.rejected.jsonl"}
    assert (work / "out.rejected.jsonl").read_text() == "old\n"


@pytest.mark.chaos("rewrite")
@pytest.mark.parametrize("out", ["out.jsonl", "out.csv.gz"])
def test_killed_at_any_line_it_leaves_each_file_as_it_was_or_as_it_will_be(
    plants: Mirror, work: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, splits = kills(60), "train=0.8,val=0.1,test=0.1"
    outputs = {out.replace("out", f"out_{name}") for name in ("train", "val", "test")}
    for name in (*outputs, "out.rejected.jsonl"):
        (work / name).write_bytes(b"old " + name.encode())
    put(work / "raw.jsonl", [*(record(n) for n in (*MANY, *ABSENT)), "?"])
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    place = [str(plants.settings.state.dir), str(plants.settings.bucket.url)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.dataset.killed_rewrites", str(most), str(work), *place, out, splits],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] == most
    count("kills", most)

    monkeypatch.chdir(work)
    resolver = plants.resolver()
    report = rewrite(
        [Input("raw.jsonl")], Path(out), RewriteOptions(splits=parse_splits(splits), force=True), resolver,
        addresses=resolver.object_keys,
    )  # fmt: skip
    assert report.written == len(MANY)
    after = {path.name: path.read_bytes() for path in work.iterdir()}
    told["found"].pop("hidden")  # what was being written
    assert set(told["found"]) == {"raw.jsonl", "out.rejected.jsonl", *outputs}
    for name, digests in told["found"].items():
        states = {hashlib.sha256(body[name]).hexdigest() for body in (before, after)}
        assert set(digests) == states, name  # and some were too early, some too late


# Runs `mirror` where no file may be larger than so many bytes: that is how a full disk feels.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from mirror.cli.main import run
sys.exit(run(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "out.jsonl"],
        ["-o", "out.csv", "--split", "train=0.8,val=0.2"],
        ["-o", "out.jsonl.zst", "--url-field", "nowhere"],  # the rejected file is what grows
    ],
    ids=["the output", "what waits", "what is rejected"],
)
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(
    plants: Mirror, work: Path, options: list[str]
) -> None:
    put(work / "raw.jsonl", [record(n, chance=random.Random(n).random()) for n in [*MANY] * 100])
    for name in (
        "out.jsonl",
        "out_train.csv",
        "out_val.csv",
        "out.jsonl.zst",
        "out.rejected.jsonl",
    ):
        (work / name).write_text("old")
    before = names(work)
    arguments = command_line(plants, "raw.jsonl", "--force", *options)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "100000", *arguments],
        cwd=work, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "cannot be written to its end (File too large)" in done.stderr
    assert "make room" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert names(work) == before
    assert all((work / name).read_text() == "old" for name in before - {"raw.jsonl"})


# Prints by how many bytes the second run's peak is above the first's.
GROWTH = """
import resource, sys
from mirror.cli.main import run
peaks = []
for name in ("small.jsonl", "large.jsonl"):
    assert run([*sys.argv[1:], name]) == 0
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_dataset(plants: Mirror, work: Path) -> None:
    numbers = [*MANY, *GOOD, *TWINS]
    lines = [json.dumps(record(n, text="x" * 200, obs=n, kind=n % 9)) + "\n" for n in numbers]
    (work / "small.jsonl").write_text("".join(lines * 100))
    with (work / "large.jsonl").open("w") as file:
        for _ in range(100):
            file.write("".join(lines * 25))
    arguments = command_line(
        plants, "-q", "-o", "out.jsonl", "--force", "--split=train=0.8,val=0.1,test=0.1",
        "--group-by=obs", "--stratify-by=kind", "--sample=150000",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, *arguments],
        cwd=work, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    size = (work / "large.jsonl").stat().st_size
    assert size > 60e6
    # Keys of 200,000 records, and one pass over them: far below the file.
    assert int(done.stdout) < 45e6


def uncompressed(path: Path) -> bytes:
    body = path.read_bytes()
    unpack: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".zst": zstd.decompress}
    return unpack.get(path.suffix, bytes)(body)


def test_the_same_records_are_in_every_compression(plants: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [record(n) for n in MANY])
    outputs = [work / name for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst")]
    for output in outputs:
        plants.rewrite(path, output)
    assert len({uncompressed(output) for output in outputs}) == 1
