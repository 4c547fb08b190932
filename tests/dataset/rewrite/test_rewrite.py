"""Rewrites: which records are written, and which are dropped for which reason."""

from __future__ import annotations

import json
import os
import random
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mirror.catalog.index import Index
from mirror.catalog.lookup import UrlLookup
from mirror.dataset.records import ReadOptions
from mirror.dataset.rewrite.license_rule import LicenseRule
from mirror.dataset.rewrite.rewrite_options import RewriteOptions
from mirror.dataset.rewrite.rewrite_report import EXAMPLES, REASONS
from mirror.errors import DatasetError, UsageError
from mirror.run.progress import Progress, Stage
from tests.dataset.rewrite.conftest import THREE, Rewrite
from tests.support.mirrored_dataset import (
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
    got,
    names,
    put,
    record,
)
from tests.support.photos import url_of

# --- what is written, what is dropped ---


COPIES = {"label_conflict", "near_duplicate"}


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
        plants.lookup(min_side=40),
        license=LicenseRule(("license",), frozenset({"cc0"})),
        sample=Fraction(1, 2),
    )
    assert list(report.dropped) == list(REASONS)
    assert {*dropped, "license", "invalid", *COPIES, "sample"} == set(REASONS)
    for reason in REASONS:
        if reason not in {"sample", *COPIES}:
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


def test_a_record_gets_the_new_url_and_keeps_the_old_beside_it(
    rewrite: Rewrite, plants: Mirror, work: Path
) -> None:
    line = f'{{"a": 1.50, "image_url": "{url_of(1)}",  "é":"\\u00e9" , "z": [1,  2]}}'
    report = rewrite([line])
    expected = line.replace(url_of(1), f'{plants.url(1)}", "source_url": "{url_of(1)}')
    assert (work / "out.jsonl").read_text() == expected + "\n"
    assert (report.records, report.written, report.exit_status) == (1, 1, 0)
    assert report.outputs == {"out": str(work / "out.jsonl")}
    assert report.warnings == []
    assert names(work) == {"raw.jsonl", "out.jsonl"}


def test_equal_images_get_one_url(rewrite: Rewrite, work: Path) -> None:
    rewrite([record(GOOD[2]), record(TWINS[2])])
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


def test_of_a_list_of_urls_those_that_are_missing_are_taken_out(
    rewrite: Rewrite, plants: Mirror, work: Path
) -> None:
    report = rewrite(LISTS)
    every, some, single = got(work / "out.jsonl")
    assert every["image_url"] == [plants.url(1), plants.url(2)]
    assert some["image_url"] == [plants.url(3), plants.url(4)]
    assert some["source_url"] == [url_of(3), url_of(4)]
    assert (single["image_url"], single["source_url"]) == (plants.url(5), url_of(5))
    assert report.urls_dropped == 2
    assert (report.dropped["not_mirrored"], report.dropped["blank"]) == (1, 1)


def test_lists_keep_what_is_missing_when_asked(
    rewrite: Rewrite, plants: Mirror, work: Path
) -> None:
    report = rewrite(LISTS, missing="keep")
    records = {record["id"]: record for record in got(work / "out.jsonl")}
    assert records["some"]["image_url"] == [url_of(ABSENT[0]), plants.url(3), plants.url(4)]
    assert records["some"]["source_url"] == [url_of(ABSENT[0]), url_of(3), url_of(4)]
    assert records["none"] == {"id": "none", "image_url": [url_of(ABSENT[0])]}
    assert report.written == 5
    assert (report.kept_missing, report.urls_dropped) == (3, 3)


def test_a_list_that_lacks_one_image_fails_when_nothing_may_be_missing(rewrite: Rewrite) -> None:
    with pytest.raises(DatasetError, match="3 of 5 records") as raised:
        rewrite(LISTS, missing="fail")
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
def test_what_is_flagged_is_dropped_whatever_may_be_missing(rewrite: Rewrite, missing: Any) -> None:
    flagged = [*BLANK, *CORRUPT, *NOT_IMAGE, *PLACEHOLDER]
    report = rewrite([record(n) for n in flagged], missing=missing, allow_empty=True)
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
    lookup = plants.lookup(match="photo")
    rule = LicenseRule(("license",), required=True)
    report = plants.rewrite(path, work / "out.jsonl", lookup, license=rule)
    assert [one["id"] for one in got(work / "out.jsonl")] == [1, 3]
    assert [one["image_url"] for one in got(work / "out.jsonl")] == [plants.url(1), plants.url(3)]
    assert report.matched_by_photo == 2
    assert report.dropped["blank"] == 1
    assert plants.rewrite(path, work / "out.jsonl").matched_by_photo == 0
    report = plants.rewrite(path, work / "out.jsonl", lookup, sample=1)
    assert report.matched_by_photo == (got(work / "out.jsonl")[0]["id"] != 9)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (LicenseRule(), [1, 2, 3, 4]),
        (LicenseRule(("rights", "code"), frozenset({"cc0", "cc-by"})), [1, 2]),
        (LicenseRule(("rights", "code"), required=True), [1, 2, 3]),
    ],
)
def test_licences(rewrite: Rewrite, work: Path, rule: LicenseRule, kept: list[int]) -> None:
    codes = {1: "CC0", 2: "cc_by", 3: "cc-by-nc", 4: None}
    report = rewrite([record(n, rights={"code": c}) for n, c in codes.items()], license=rule)
    assert [one["id"] for one in got(work / "out.jsonl")] == kept
    assert report.dropped["license"] == 4 - len(kept)


def test_the_same_licences_in_a_table(plants: Mirror, work: Path) -> None:
    rule = LicenseRule(("rights", "code"), frozenset({"cc0"}))
    path = work / "raw.csv"
    path.write_text(f"image_url,rights.code\n{url_of(1)},CC0\n{url_of(2)},\n{url_of(3)},cc-by\n")
    plants.rewrite(path, work / "out.jsonl", license=rule)
    assert [one["source_url"] for one in got(work / "out.jsonl")] == [url_of(1)]


def test_samples(rewrite: Rewrite, work: Path) -> None:

    def sample(size: Fraction | int, seed: int = 0) -> list[int]:
        report = rewrite([record(n) for n in MANY], sample=size, seed=seed, allow_empty=True)
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


def test_of_a_sample_only_what_is_written_is_told(rewrite: Rewrite) -> None:
    records = [{"id": n, "image_url": [url_of(n), url_of(ABSENT[n]), url_of(100)]} for n in GOOD]
    report = rewrite(records, missing="keep", sample=4)
    assert (report.written, report.kept_missing, report.urls_dropped) == (4, 4, 4)


def test_min_size(rewrite: Rewrite, plants: Mirror, work: Path) -> None:
    report = rewrite([record(1), record(SMALL)], plants.lookup(min_side=30))
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

    plants.rewrite(put(path, [record(1)]), work / "out.jsonl", force=True)
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

    reading = ReadOptions(source="original")
    report = plants.rewrite(path, work / "out.jsonl", reading=reading)
    assert [one["id"] for one in got(work / "out.jsonl")] == [1, 2, 3]
    assert got(work / "out.jsonl")[0]["original"] == url_of(1)
    assert got(work / "out.jsonl")[0]["source_url"] == "where I found it"


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


# --- what nobody means to have ---


def test_another_field_holds_the_url(plants: Mirror, work: Path) -> None:
    fields = {f"field{n}": n for n in range(20)}
    path = put(work / "raw.jsonl", [{"url": url_of(1), "id": 1, **fields}, {"x": 1}])
    report = plants.rewrite(path, work / "out.jsonl")
    said = str(report.error)
    assert said.startswith("None of 2 records can be used; ")
    assert "record 1: no field 'image_url' among url, id, field0, " in said
    assert "field19" not in said
    assert "--url-field" in said
    assert (report.written, report.exit_status, report.warnings) == (0, 1, [])
    assert plants.rewrite(path, work / "out.jsonl", reading=ReadOptions(("url",))).warnings == []


DOUBTS: list[tuple[str, list[Any], dict[str, Any], list[str]]] = [
    ("empty", [], {}, ["The input has no records"]),
    ("all invalid", ["?", "?"], {}, ["None of 2 records can be used", "record 1: not JSON"]),
    ("all unknown", [record(n) for n in ABSENT[:3]], {},
     ["None of 3 records is in the mirror", "spelled", "--match photo"]),
    ("all unknown and kept", [record(n) for n in ABSENT[:3]], {"missing": "keep"},
     ["None of 3 records is in the mirror"]),
    ("no photos", [{"image_url": "https://x/1"}], {}, ["None of 1 records is in the mirror"]),
    ("all flagged", [record(n) for n in BLANK], {},
     ["No record is left: of 3 records the last 3 were dropped as 'blank', such as http"]),
    ("no licence", [record(1), record(ABSENT[0]), record(ABSENT[1])],
     {"license": LicenseRule(("license",), required=True)},
     ["of 3 records the last 1 were dropped as 'license', such as no licence: http"]),
    ("an empty sample", [record(1)], {"sample": 0}, ["dropped as 'sample'."]),
    ("an empty split", [record(1)], {"splits": THREE}, ["The split ", " is empty: there are too few records (1)"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "options", "said"), [d[1:] for d in DOUBTS], ids=[d[0] for d in DOUBTS]
)
def test_a_result_that_nobody_means_is_remarked_in_a_sentence(
    rewrite: Rewrite, records: list[Any], options: dict[str, Any], said: list[str]
) -> None:
    report = rewrite(records, allow_empty=True, **options)
    assert len(report.warnings) == (2 if "splits" in options else 1)
    for words in said:
        assert words in report.warnings[0]
    assert report.exit_status == (3 if "?" in records else 0)


@pytest.mark.parametrize(
    ("records", "options", "said"),
    [d[1:] for d in DOUBTS if d[0] not in ("all unknown and kept", "an empty split")],
    ids=[d[0] for d in DOUBTS if d[0] not in ("all unknown and kept", "an empty split")],
)
@pytest.mark.parametrize("splits", [(), THREE], ids=["whole", "split"])
def test_good_files_are_never_replaced_by_empty_ones(
    rewrite: Rewrite, work: Path, records: list[Any], options: dict[str, Any], said: list[str],
    splits: Any,
) -> None:  # fmt: skip
    rewrite([record(n) for n in MANY] + ["?"], splits=splits)
    before = {path: path.read_bytes() for path in work.iterdir() if path.name != "raw.jsonl"}
    for dry_run in (False, True):
        report = rewrite(records, splits=splits, force=True, dry_run=dry_run, **options)
        for words in (*said, "Nothing was written", "--allow-empty"):
            assert words in str(report.error)
        assert (report.exit_status, report.outputs, report.rejected) == (1, {}, None)
        assert report.as_json()["error"] == str(report.error)
    after = {path: path.read_bytes() for path in work.iterdir() if path.name != "raw.jsonl"}
    assert after == before
    rewrite(records, splits=splits, force=True, allow_empty=True, **options)
    assert got(work / ("out_val.jsonl" if splits else "out.jsonl")) == []


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv.gz", "out.parquet"])
def test_a_split_with_records_is_not_replaced_by_an_empty_one(
    rewrite: Rewrite, work: Path, output: str
) -> None:
    rewrite([record(n) for n in MANY], output=output, splits=THREE)
    before = {path: path.read_bytes() for path in work.iterdir() if path.name != "raw.jsonl"}
    report = rewrite([record(1)], output=output, splits=THREE, force=True)
    assert re.search(
        r"The split \w+ is empty: .*It would replace the records of", str(report.error)
    )
    assert before == {path: path.read_bytes() for path in before}
    # Once it is empty, another empty one may replace it.
    assert rewrite([record(1)], output=output, splits=THREE, force=True, allow_empty=True).written
    assert rewrite([record(1)], output=output, splits=THREE, force=True).exit_status == 0


def test_photos_are_not_proposed_where_they_were_asked_for(
    rewrite: Rewrite, plants: Mirror
) -> None:
    report = rewrite([record(ABSENT[0])], plants.lookup(match="photo"))
    assert "--match" not in str(report.error)


def test_an_empty_mirror_is_called_so(rewrite: Rewrite) -> None:
    for place, lookup in (
        ("mirror", UrlLookup(Index.empty())),
        ("cache", UrlLookup(Index.empty(), of_mirror=False)),
    ):
        report = rewrite([record(1)], lookup, base=None)
        why = f"The {place} has no images, so it has none of the 1 records."
        assert str(report.error).startswith(why)


def test_a_result_as_it_should_be_is_not_remarked(rewrite: Rewrite) -> None:
    assert (
        rewrite([record(n) for n in (*MANY, *ABSENT, *BLANK)] + ["?"], splits=THREE).warnings == []
    )


def test_progress_is_told_of_bytes_and_records(plants: Mirror, work: Path) -> None:
    class Told(Progress):
        def __init__(self) -> None:
            self.bytes = 0
            self.records: list[int] = []

        def begin(self, stage: Stage) -> None:
            assert stage.nbytes == path.stat().st_size

        def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
            self.bytes += nbytes
            if items:
                self.records.append(items + (self.records[-1] if self.records else 0))

    path = put(work / "raw.jsonl", [record(1, text="x" * 1000) for _ in range(5000)])
    told = Told()
    plants.rewrite(path, work / "out.jsonl", base=None, progress=told)
    assert told.bytes == path.stat().st_size
    assert told.records == sorted(told.records)
    assert told.records[-1] == 5000
    assert len(told.records) > 3
