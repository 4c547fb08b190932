"""Exports of a real server's collection: which records, in which form, and complete files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import bson
import polars
import pyarrow
import pytest
from bson import Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, json_util
from bson.binary import Binary
from bson.code import Code
from pymongo.collection import Collection

from mirror.dataset.export import ExportOptions, ExportReport, export
from mirror.dataset.formats.documents import STYLES, Style
from mirror.dataset.formats.mongo_query import Query
from mirror.dataset.formats.mongo_url import MongoUrl
from mirror.errors import DatasetError, UsageError
from mirror.run.progress import Level, Progress, Stage
from mirror.store.retry import RetryPolicy
from tests.dataset.formats.mongo_relay import THROUGH_IT, altering
from tests.servers import MongoServer
from tests.servers.mongodb import MONGO_READER
from tests.servers.process import free_ports

SPECIES = ["Quercus robur", "Salix alba", "Ñandubay 🌿"]


def plant(n: int) -> dict[str, Any]:
    return {
        "_id": ObjectId(f"{n:024x}"),
        "image_url": f"https://example.org/photos/{n}.jpg",
        "species": SPECIES[n % 3],
        "observed": {"year": 2000 + n, "place": None if n % 2 else "Cádiz"},
        "score": n / 8,
    }


def record(n: int) -> dict[str, Any]:
    """A document as plain JSON."""
    return {**plant(n), "_id": f"{n:024x}"}


@pytest.fixture
def plants(mongodb: MongoServer) -> Collection[dict[str, Any]]:
    collection = mongodb.fresh_collection()
    collection.insert_many([plant(n) for n in reversed(range(10))])
    return collection


class Exporting:
    """Exports of one collection, with their progress recorded."""

    def __init__(self, url: MongoUrl, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.events: list[Any] = []

    def __call__(
        self, name: str = "out.jsonl", query: Query | None = None, **options: Any
    ) -> ExportReport:
        told = Told(self.events)
        options = {"retry": RetryPolicy(3, 0.0, 0.0), "batch_size": 4, **options}
        asked = ExportOptions(query or Query(), **options)
        return export(self.url, self.folder / name, asked, progress=told)

    def read(self, name: str = "out.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_bytes().splitlines()]


class Told(Progress):
    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def begin(self, stage: Stage) -> None:
        self._events.append(("counted", stage.items))

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        self._events.append(items)

    def say(self, sentence: str, level: Level = "info") -> None:
        broke = re.match(r"the scan broke after ([\d,]+) documents", sentence)
        assert broke is not None
        self._events.append(("broke", int(broke[1].replace(",", ""))))


@pytest.fixture
def exporting(
    mongodb: MongoServer, plants: Collection[dict[str, Any]], tmp_path: Path
) -> Exporting:
    folder = tmp_path / "out"
    folder.mkdir()
    return Exporting(MongoUrl.parse(mongodb.url(plants.name), {}), folder)


# --- which records ---


def test_all_documents_come_in_the_order_of_their_id(exporting: Exporting) -> None:
    report = exporting()
    assert exporting.read() == [record(n) for n in range(10)]
    assert [list(one) for one in exporting.read()] == [list(plant(0))] * 10
    assert (report.documents, report.written, report.failed, report.resumed) == (10, 10, 0, 0)
    assert (report.exit_status, report.output) == (0, exporting.folder / "out.jsonl")
    assert exporting.events == [("counted", 10), 4, 4, 2]


@pytest.mark.parametrize(
    ("filter_text", "projection_text", "expected"),
    [
        ('{"species": "Salix alba"}', "", [record(n) for n in (1, 4, 7)]),
        ('{"observed.year": {"$gte": 2008}}', "_id", [{"_id": f"{n:024x}"} for n in (8, 9)]),
        (
            f'{{"_id": {{"$lt": {{"$oid": "{2:024x}"}}}}}}',
            "image_url,observed.year",
            [
                {"_id": f"{n:024x}", "image_url": record(n)["image_url"],
                 "observed": {"year": 2000 + n}}
                for n in (0, 1)
            ],
        ),
        (
            '{"score": 0.5}',
            '{"_id": 0, "observed": 0, "image_url": 0}',
            [{"species": SPECIES[1], "score": 0.5}],
        ),
    ],
)  # fmt: skip
def test_filter_and_projection(
    exporting: Exporting, filter_text: str, projection_text: str, expected: list[dict[str, Any]]
) -> None:
    report = exporting("out.jsonl", Query.parse(filter_text, projection_text))
    assert exporting.read() == expected
    assert report.documents == report.written == len(expected)
    assert exporting.events[0] == ("counted", len(expected))


def test_an_empty_export_replaces_nothing_unless_that_is_meant(exporting: Exporting) -> None:
    exporting()
    none = Query.parse('{"species": "Rosa"}', "")
    report = exporting("out.jsonl", none, force=True)
    assert str(report.error).startswith("The filter matches no document of mongodb://")
    assert "nothing was written" in str(report.error)
    assert (report.exit_status, report.as_json()["error"]) == (1, str(report.error))
    assert len(exporting.read()) == 10
    report = exporting("out.jsonl", none, force=True, allow_empty=True)
    assert (report.exit_status, report.error, exporting.read()) == (0, None, [])


@pytest.mark.parametrize("style", STYLES)
def test_the_size_of_a_batch_changes_no_byte(exporting: Exporting, style: Style) -> None:
    for batch_size in (1, 3, 1000):
        exporting(f"{batch_size}.jsonl.gz", style=style, batch_size=batch_size)
    files = {(exporting.folder / f"{size}.jsonl.gz").read_bytes() for size in (1, 3, 1000)}
    assert len(files) == 1


# --- in what form ---

EVERYTHING: list[dict[str, Any]] = [
    {"_id": MinKey()},
    {"_id": 1, "n": Int64(2**62), "x": 2.5, "whole": 5.0, "big": 1.7976931348623157e308},
    {"_id": 2, "nan": math.nan, "inf": [math.inf, -math.inf], "price": Decimal128("1.10")},
    {"_id": "text", "z": 'Añb\u2028\U0001f33f\n"\\', "a": "", "$price": 1},
    {"_id": {"a": 1, "b": [None, True, {}]}},
    {
        "_id": UUID(int=7).bytes,
        "uuid": Binary.from_uuid(UUID(int=7)),
        "own": Binary(b"\0\xff", 128),
    },
    {"_id": ObjectId("5f0a1b2c3d4e5f6071829304"), "pattern": Regex("^a/b", "im")},
    {"_id": datetime(2020, 1, 2, 3, 4, 5, 678000, UTC)},
    {"_id": Timestamp(1577934245, 3), "code": Code("f()"), "scoped": Code("f(x)", {"x": 1})},
    {"_id": MaxKey()},
]


@pytest.fixture
def everything(mongodb: MongoServer, tmp_path: Path) -> Exporting:
    collection = mongodb.fresh_collection()
    collection.insert_many(EVERYTHING)
    return Exporting(MongoUrl.parse(mongodb.url(collection.name), {}), tmp_path)


def test_extended_json_is_read_back_to_the_same_documents(everything: Exporting) -> None:
    everything("out.jsonl", style="canonical")
    options = json_util.CANONICAL_JSON_OPTIONS.with_options(
        document_class=dict, datetime_conversion=bson.DatetimeConversion.DATETIME_AUTO
    )
    lines = (everything.folder / "out.jsonl").read_text().split("\n")
    assert lines.pop() == ""
    found = [bson.encode(json_util.loads(line, json_options=options)) for line in lines]
    assert found == [bson.encode(one) for one in EVERYTHING]


def test_relaxed_json_is_read_back_to_equal_documents(everything: Exporting) -> None:
    everything("out.jsonl", style="relaxed")
    options = json_util.RELAXED_JSON_OPTIONS.with_options(
        document_class=dict, datetime_conversion=bson.DatetimeConversion.DATETIME_AUTO
    )
    lines = (everything.folder / "out.jsonl").read_bytes().splitlines()
    found = [json_util.loads(line, json_options=options) for line in lines]
    # To the same bytes even: no int64 is among them that an int32 would hold.
    assert [bson.encode(one) for one in found] == [bson.encode(one) for one in EVERYTHING]


def test_plain_json_has_what_any_reader_understands(everything: Exporting) -> None:
    report = everything("out.jsonl", style="plain")
    found = everything.read()
    assert [one["_id"] for one in found] == [
        "MinKey", 1, 2, "text", {"a": 1, "b": [None, True, {}]}, "AAAAAAAAAAAAAAAAAAAABw==",
        "5f0a1b2c3d4e5f6071829304", "2020-01-02T03:04:05.678Z", {"t": 1577934245, "i": 3}, "MaxKey",
    ]  # fmt: skip
    assert found[1] == EVERYTHING[1]
    assert found[2] == {"_id": 2, "nan": None, "inf": [None, None], "price": "1.10"}
    assert found[3] == EVERYTHING[3]
    assert (report.non_finite, report.exit_status) == (3, 0)
    assert everything("extended.jsonl", style="relaxed").non_finite == 0


@pytest.mark.parametrize("name", ["out.jsonl", "out.json", "out", "out.jsonl.gz", "out.ndjson.zst"])
def test_json_lines_packed_as_the_name_says(exporting: Exporting, name: str) -> None:
    exporting(name)
    # It decompresses what a name says is compressed, and nothing else.
    raw = pyarrow.input_stream(str(exporting.folder / name)).read()
    assert [json.loads(line) for line in raw.splitlines()] == [record(n) for n in range(10)]
    assert raw.endswith(b"}\n")
    assert [path.name for path in exporting.folder.iterdir()] == [name]


@pytest.mark.parametrize(("name", "delimiter"), [("out.csv", ","), ("out.tsv", "\t")])
def test_a_table_of_text(exporting: Exporting, name: str, delimiter: str) -> None:
    exporting(name)
    text = (exporting.folder / name).read_text()
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    assert list(rows[0]) == list(plant(0))
    assert [row["species"] for row in rows] == [plant(n)["species"] for n in range(10)]
    assert [json.loads(row["observed"]) for row in rows] == [
        plant(n)["observed"] for n in range(10)
    ]
    exporting(f"{name}.gz")
    assert gzip.decompress((exporting.folder / f"{name}.gz").read_bytes()).decode() == text


def test_parquet(exporting: Exporting) -> None:
    exporting("out.parquet")
    table = polars.read_parquet(exporting.folder / "out.parquet")
    assert table.to_dicts() == [record(n) for n in range(10)]


def test_documents_that_make_no_table_are_no_parquet(everything: Exporting) -> None:
    with pytest.raises(UsageError, match="cannot be Parquet .* write JSON lines instead"):
        everything("out.parquet")
    assert list(everything.folder.iterdir()) == []


def test_running_twice_gives_identical_bytes(exporting: Exporting) -> None:
    for name in ("out.jsonl.gz", "out.jsonl.zst", "out.csv", "out.parquet"):
        exporting(name)
        first = (exporting.folder / name).read_bytes()
        exporting(name, force=True)
        assert (exporting.folder / name).read_bytes() == first


# --- whole or not at all ---


def test_an_output_that_exists_is_said_before_the_server_is_asked(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    nobody = MongoUrl.parse(f"mongodb://127.0.0.1:{port}/db/c?serverSelectionTimeoutMS=1", {})
    output = tmp_path / "out.jsonl"
    output.write_text("mine")
    with pytest.raises(UsageError, match="exists; --force replaces it"):
        export(nobody, output)
    with pytest.raises(UsageError, match="name a file in place of -"):
        export(nobody, Path("-"))
    with pytest.raises(UsageError, match="is a folder; name a file"):
        export(nobody, tmp_path, ExportOptions(force=True))
    with pytest.raises(UsageError, match="is not a folder, so .* cannot be written"):
        export(nobody, output / "no" / "such.jsonl")
    with pytest.raises(DatasetError, match="cannot be reached"):
        export(nobody, output, ExportOptions(force=True))
    assert output.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [output]


def test_force_replaces_what_is_there(exporting: Exporting) -> None:
    (exporting.folder / "out.jsonl").write_text("mine")
    exporting(force=True)
    assert len(exporting.read()) == 10


def test_what_is_no_plain_file_is_written_to_as_it_is(exporting: Exporting) -> None:
    assert export(exporting.url, Path(os.devnull)).written == 10


def test_an_interrupted_scan_goes_on(mongodb: MongoServer, exporting: Exporting) -> None:
    exporting("whole.jsonl")
    exporting.events.clear()
    with mongodb.failing("getMore", errorCode=43):
        report = exporting("broken.jsonl")
    assert exporting.read("broken.jsonl") == exporting.read("whole.jsonl")
    assert (report.documents, report.written, report.resumed, report.exit_status) == (10, 10, 2, 0)
    assert exporting.events == [("counted", 10), 4, ("broke", 4), 4, ("broke", 8), 2]


def test_an_interrupted_scan_goes_on_without_ids_in_the_output(
    mongodb: MongoServer, exporting: Exporting
) -> None:
    with mongodb.failing("getMore", errorCode=43):
        report = exporting("out.jsonl", Query.parse("", '{"_id": 0, "score": 1}'))
    assert report.resumed == 2
    assert exporting.read() == [{"score": n / 8} for n in range(10)]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv.gz", "out.parquet"])
def test_a_scan_that_is_lost_for_good_leaves_what_was_there(
    mongodb: MongoServer, exporting: Exporting, name: str
) -> None:
    output = exporting.folder / name
    for before in ([], [output]):
        for path in before:
            path.write_text("of yesterday")
        lost = mongodb.failing("find", "getMore", mode={"skip": 2, "times": 1000}, errorCode=43)
        with lost, pytest.raises(DatasetError, match="broke 3 times in a row after 8 documents"):
            exporting(name, force=True)
        assert list(exporting.folder.iterdir()) == before
    assert output.read_text() == "of yesterday"


def test_an_export_that_is_stopped_half_way_leaves_nothing(exporting: Exporting) -> None:
    class Stopped(Progress):
        def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
            assert [path.suffix for path in exporting.folder.iterdir()] == [".tmp"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(exporting.url, exporting.folder / "out.jsonl", progress=Stopped())
    assert list(exporting.folder.iterdir()) == []


# --- what is reported ---


@pytest.mark.parametrize(
    ("field", "value", "said", "spoilt", "names"),
    [
        ("species", "spoilt", b"spoilt", b"sp\xffilt", [f"{n:024x}" for n in (2, 8)]),
        # Nothing of the document can be read then, its _id neither.
        ("dried", True, b"dried\0\1", b"dried\0\2", ["document 3", "document 9"]),
    ],
    ids=["text", "a truth value"],
)
def test_documents_that_are_not_valid_are_left_out_counted_and_named(
    mongodb: MongoServer,
    plants: Collection[dict[str, Any]],
    tmp_path: Path,
    field: str,
    value: Any,
    said: bytes,
    spoilt: bytes,
    names: list[str],
) -> None:
    plants.update_many({"score": {"$in": [0.25, 1.0]}}, {"$set": {field: value}})
    with altering(mongodb, said, spoilt) as server:
        url = MongoUrl.parse(server.url(plants.name, MONGO_READER, **THROUGH_IT), {})
        exporting = Exporting(url, tmp_path)
        report = exporting()
    assert exporting.read() == [record(n) for n in range(10) if n not in (2, 8)]
    assert exporting.events == [("counted", 10), 4, 4, 2]
    assert (report.documents, report.written, report.failed, report.exit_status) == (10, 8, 2, 3)
    assert [name for name, _ in report.failures] == names
    assert all("is not valid BSON" in reason for _, reason in report.failures)


def test_a_report_as_json(exporting: Exporting) -> None:
    report = exporting("out.jsonl", Query.parse('{"score": {"$lt": 1}}'))
    assert json.loads(json.dumps(report.as_json())) == {
        "documents": 8,
        "written": 8,
        "failed": 0,
        "failures": [],
        "non_finite": 0,
        "resumed": 0,
        "output": str(exporting.folder / "out.jsonl"),
        "seconds": round(report.seconds, 3),
    }
    assert report.seconds > 0


def test_no_password_in_anything_that_is_said(exporting: Exporting, tmp_path: Path) -> None:
    report = exporting()
    said = [repr(report), str(report.as_json()), repr(exporting.url), repr(exporting.events)]
    with pytest.raises(UsageError) as refused:
        exporting("again.jsonl", Query.parse('{"$none": 1}'))
    said.append(str(refused.value))
    assert all(MONGO_READER.password not in text for text in said)
