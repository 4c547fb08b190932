"""Writers: every format from every other, complete or not at all, and repeatable."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import pickle
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.dataset.chunks import Chunk, JsonLines, Rows
from mirror.dataset.compression import zstd
from mirror.dataset.formats import writers
from mirror.dataset.formats.arrow_chunk import ArrowChunk
from mirror.dataset.formats.writers import writing
from mirror.dataset.inputs import Input, read
from mirror.dataset.records import ReadOptions, Rejected
from mirror.dataset.rewrite.rejected_file import RejectedFile
from mirror.dataset.spool import Spool
from mirror.errors import MirrorError, UsageError

NAMES = [
    "out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.csv", "out.csv.gz", "out.tsv", "out.tsv.zst",
    "out.parquet", "out", "OUT.JSONL.GZ",
]  # fmt: skip
LINES = [
    b'{"image_url": "u", "n": 1, "list": ["a", "b"]}',
    '{"n": 2, "image_url": "v,\\n\\"ñ\\"", "late": {"x": [1, null]}}'.encode(),
    b'{"image_url": "w", "n": null, "list": []}',
]


def lines(*records: Any) -> JsonLines:
    return JsonLines([json.dumps(record).encode() for record in records])


def batch(**columns: Any) -> ArrowChunk:
    return ArrowChunk(pa.record_batch({name: pa.array(c) for name, c in columns.items()}))


def write(path: Path, *chunks: Chunk) -> Path:
    with writing(path) as (writer,):
        for chunk in chunks:
            writer.write(chunk)
    return path


def content(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        return gzip.decompress(data)
    return zstd.decompress(data) if path.name.lower().endswith(".zst") else data


def records(path: Path) -> list[dict[str, Any]]:
    """The records that mirror reads from a file."""
    found: list[dict[str, Any]] = []
    for one in read(Input(str(path)), ReadOptions()):
        assert one.rejected == []
        found += map(json.loads, one.unchanged(range(len(one))).lines())
    return found


def from_every_format(tmp_path: Path) -> dict[str, list[Chunk]]:
    """The same three records as a reader of each format gives them, in two chunks."""
    made = {"jsonl": [JsonLines(LINES[:2]), JsonLines(LINES[2:])]}
    chunks: dict[str, list[Chunk]] = {"jsonl": list(made["jsonl"])}
    for kind in ("csv", "parquet"):
        path = write(tmp_path / f"in.{kind}", *made["jsonl"])
        (one,) = read(Input(str(path)), ReadOptions())
        chunks[kind] = [one.unchanged([0, 1]), one.unchanged([2])]
    return chunks


# --- from one format to another ---


def test_json_lines_stay_as_they_are(tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out", "OUT.JSONL.GZ"):
        path = write(tmp_path / name, JsonLines(LINES[:1]), JsonLines(LINES[1:]))
        assert content(path) == b"".join(line + b"\n" for line in LINES)


def test_json_lines_to_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "out.csv", JsonLines(LINES[:1]), JsonLines(LINES[1:]))
    assert path.read_text() == (
        'image_url,late,n,list\nu,,1,"[""a"",""b""]"\n"v,\n""ñ""","{""x"":[1,null]}",2,\nw,,,[]\n'
    )


def test_json_lines_to_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "out.parquet", JsonLines(LINES[:1]), JsonLines(LINES[1:]))
    table = pq.read_table(path)
    assert table.to_pylist() == [
        {"image_url": "u", "n": 1, "list": ["a", "b"], "late": None},
        {"image_url": 'v,\n"ñ"', "n": 2, "list": None, "late": {"x": [1, None]}},
        {"image_url": "w", "n": None, "list": [], "late": None},
    ]
    assert table.schema.field("n").type == pa.int64()


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("name", NAMES)
def test_any_format_from_any(source: str, name: str, tmp_path: Path) -> None:
    chunks = from_every_format(tmp_path)[source]
    found = records(write(tmp_path / name, *chunks))
    assert [one["image_url"] for one in found] == ["u", 'v,\n"ñ"', "w"]
    assert [str(one.get("n") or "") for one in found] == ["1", "2", ""]
    late = found[1]["late"]
    assert (json.loads(late) if isinstance(late, str) else late) == {"x": [1, None]}


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("name", NAMES)
def test_twice_gives_the_same_bytes(source: str, name: str, tmp_path: Path) -> None:
    chunks = from_every_format(tmp_path)[source]
    first = write(tmp_path / name, *chunks).read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.utime(tmp_path / name, (0, 0))
    assert write(elsewhere / name, *chunks).read_bytes() == first


def test_the_name_says_the_compression_in_any_case(tmp_path: Path) -> None:
    for name, magic in (
        ("A.JSONL.GZ", b"\x1f\x8b"),
        ("a.Zst", b"\x28\xb5"),
        ("a.csv.Gz", b"\x1f\x8b"),
    ):
        assert write(tmp_path / name, lines({"a": 1})).read_bytes().startswith(magic)


# --- CSV ---


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""), ("", ""), ("x", "x"), (True, "true"), (False, "false"), (0, "0"), (-1.5, "-1.5"),
        (1e16, "1e+16"), (float("nan"), ""), (float("inf"), "inf"), ([], "[]"), ({}, "{}"),
        ('"', '"'), ('"x"', '"x"'), (["x"], '["x"]'), ("null", "null"), (2**70, str(2**70)),
        (datetime(2020, 1, 2, tzinfo=UTC), "2020-01-02T00:00:00Z"), (timedelta(1), "P1D"),
        (b"\xff", "/w=="), (Decimal("1.10"), "1.10"),
    ],
)  # fmt: skip
def test_a_value_in_a_cell(value: Any, cell: str, tmp_path: Path) -> None:
    path = write(tmp_path / "out.csv", Rows([{"a": value, "b": ""}]))
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], [cell, ""]]


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.lists(st.dictionaries(st.sampled_from(["image_url", "b", "c\r"]), cells), max_size=5))
def test_any_text_comes_back_from_csv(rows: list[dict[str, str]]) -> None:
    # A line with one empty cell is an empty line to some readers, so it is quoted.
    raw = io.BytesIO()
    with Spool(Path(tempfile.gettempdir())) as spool:
        writer = writers._CsvWriter(raw, spool, Path("it.csv"), writers._Columns(), ",")
        for row in rows:
            writer.write(Rows([row]))
        writer.finish()
    found = list(csv.reader(io.StringIO(raw.getvalue().decode(), newline=""), strict=True))
    names = found[0] if found else []
    assert set(names) == {name for row in rows for name in row}
    if names:
        assert found[1:] == [[row.get(name, "") for name in names] for row in rows]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"a": 1, "b": 2}, {"b": 3, "a": 4}], ["a", "b"]),
        ([{"a": 1, "c": 2}, {"a": 1, "b": 2, "c": 3}], ["a", "b", "c"]),
        ([{"b": 1}, {"a": 1, "b": 2}], ["a", "b"]),
        ([{"b": 1}, {"b": 1, "z": 2}, {"b": 1, "y": 2}], ["b", "y", "z"]),
    ],
)
def test_columns_that_appear_late_stand_where_they_stood(
    rows: Sequence[dict[str, int]], columns: list[str], tmp_path: Path
) -> None:
    chunks = [Rows([dict(row)]) for row in rows]
    with write(tmp_path / "out.csv", *chunks).open(newline="") as file:
        assert next(csv.reader(file)) == columns
    table = pq.read_table(write(tmp_path / "out.parquet", *chunks))
    assert table.column_names == columns
    assert table.to_pylist() == [{name: row.get(name) for name in columns} for row in rows]


def test_a_number_that_no_double_holds(tmp_path: Path) -> None:
    chunk = JsonLines([b'{"a": 1E400}', b'{"a": -1E400}', b'{"a": 1.5}'])
    assert write(tmp_path / "out.csv", chunk).read_text() == "a\ninf\n-inf\n1.5\n"
    table = pq.read_table(write(tmp_path / "out.parquet", chunk))
    assert table["a"].to_pylist() == [float("inf"), float("-inf"), 1.5]


# --- Parquet ---


@pytest.mark.parametrize(
    ("chunks", "kind", "values"),
    [
        ([lines({"a": 1}), lines({"a": 2.5})], pa.float64(), [1.0, 2.5]),
        ([lines({"a": None}), lines({"a": 1})], pa.int64(), [None, 1]),
        ([lines({"a": None}), lines({"a": None})], pa.string(), [None, None]),
        ([lines({"a": []}), lines({"a": ["x"]})], pa.list_(pa.field("element", pa.string())), [[], ["x"]]),
        ([lines({"a": []})], pa.list_(pa.field("element", pa.string())), [[]]),
        ([lines({"a": {"x": 1}}), lines({"a": {"y": "z"}})],
         pa.struct([("x", pa.int64()), ("y", pa.string())]),
         [{"x": 1, "y": None}, {"x": None, "y": "z"}]),
        ([lines({"a": {"x": None}})], pa.struct([("x", pa.string())]), [{"x": None}]),
        ([batch(a=[1]), lines({"a": 2})], pa.int64(), [1, 2]),
        ([batch(a=["x"]), lines({"a": "y"})], pa.string(), ["x", "y"]),
        ([batch(a=pa.nulls(1))], pa.null(), [None]),
        ([batch(a=pa.array([1], pa.int8())), batch(a=pa.array([300], pa.int16()))], pa.int16(), [1, 300]),
    ],
)  # fmt: skip
def test_types_are_found_out_from_all_records(
    chunks: list[Chunk], kind: Any, values: list[Any], tmp_path: Path
) -> None:
    table = pq.read_table(write(tmp_path / "out.parquet", *chunks))
    assert table["a"].to_pylist() == values
    assert table.schema.field("a").type == kind
    assert polars.read_parquet(tmp_path / "out.parquet").height == len(values)


@pytest.mark.parametrize(
    "chunks",
    [
        [lines({"a": 1}, {"a": "x"})],
        [lines({"a": 1}), lines({"a": "x"})],
        [lines({"a": True}), lines({"a": 1})],
        [lines({"a": [1]}), lines({"a": {"x": 1}})],
        [lines({"a": ["x"]}), lines({"a": "x"})],
        [lines({"a": 2**70})],
        [lines({"a": 2**60 + 1}), lines({"a": 0.5})],
        [lines({"a": {}})],
        [lines({"a": [{}]})],
        [lines({}, {})],
        [batch(a=[1]), batch(a=["x"])],
        [Rows([{"a": "\ud800"}])],
    ],
)
def test_records_that_fit_no_table_are_said(chunks: list[Chunk], tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    path.write_text("old")
    with pytest.raises(UsageError) as error:
        write(path, *chunks)
    assert str(error.value).startswith(
        f"The records do not fit one table, so {path} cannot be Parquet"
    )
    assert str(error.value).endswith("; write JSON lines instead.")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.parquet"]


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_a_record_that_is_nested_too_deeply_for_a_table(name: str, tmp_path: Path) -> None:
    chunk = JsonLines([b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
    with pytest.raises(UsageError, match="nested too deeply"):
        write(tmp_path / name, chunk)


def test_parquet_stays_parquet(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            pa.field("n", pa.int8(), nullable=False, metadata={"k": "v"}),
            pa.field("c", pa.dictionary(pa.int8(), pa.string())),
            pa.field("t", pa.timestamp("ms", "UTC")),
            pa.field("z", pa.null()),
            pa.field("u", pa.uuid()),
        ],
        metadata={"mine": "too"},
    )
    rows = [{"n": n, "c": "ab"[n % 2], "t": None, "z": None, "u": b"%016d" % n} for n in range(9)]
    whole = pa.RecordBatch.from_pylist(rows, schema)
    path = write(tmp_path / "out.parquet", ArrowChunk(whole), ArrowChunk(whole[2:4]))
    pq.write_table(pa.Table.from_batches([whole, whole[2:4]]), tmp_path / "expected.parquet")
    expected = pq.read_table(tmp_path / "expected.parquet")
    assert pq.read_table(path).equals(expected, check_metadata=True)


def test_a_column_that_a_file_lacks_may_be_empty(tmp_path: Path) -> None:
    required = pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.int64())])
    first = ArrowChunk(pa.RecordBatch.from_pylist([{"a": 1, "b": 2}], required))
    table = pq.read_table(write(tmp_path / "out.parquet", first, batch(b=[3])))
    assert table.to_pylist() == [{"a": 1, "b": 2}, {"a": None, "b": 3}]
    assert table.schema.field("a").nullable


def test_small_batches_make_large_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = [lines(*({"a": f"{n}-{i}"} for i in range(10))) for n in range(50)]
    file = pq.ParquetFile(write(tmp_path / "out.parquet", *chunks))
    assert (file.num_row_groups, file.metadata.num_rows) == (1, 500)
    monkeypatch.setattr(writers, "_ROW_GROUP", 100)
    assert pq.ParquetFile(write(tmp_path / "out.parquet", *chunks)).num_row_groups == 5
    monkeypatch.setattr(writers, "_ROW_GROUP_SIZE", 1)
    assert pq.ParquetFile(write(tmp_path / "out.parquet", *chunks)).num_row_groups == 50


def test_parquet_is_not_compressed_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"compresses its columns; leave \.gz out of the name"):
        write(tmp_path / "out.parquet.gz")
    assert os.listdir(tmp_path) == []


# --- nothing at all ---


@pytest.mark.parametrize("name", NAMES)
def test_no_record(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    if name == "out.parquet":
        assert pq.read_table(path).num_rows == 0
        assert polars.read_parquet(path).height == 0
    else:
        assert content(path) == b""
    write(path, JsonLines([]), Rows([]))
    assert records(path) == [] if name != "out.parquet" and "sv" not in name else path.exists()


# --- whole or not at all ---


@pytest.mark.parametrize("name", NAMES)
def test_a_file_appears_whole_or_not_at_all(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("old")

    def fail_halfway() -> None:
        with writing(path) as (writer,):
            writer.write(lines(*({"a": n} for n in range(10_000))))
            assert path.read_text() == "old"
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", [name])
    write(path, lines({"image_url": "u"}))
    assert os.listdir(tmp_path) == [name]
    assert [one["image_url"] for one in records(path)] == ["u"]


@pytest.mark.parametrize("name", ["nowhere/out.jsonl", "file/out.csv", "n" * 300, "."])
def test_a_file_that_cannot_be_made_is_said_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"), writing(tmp_path / name):
        raise AssertionError


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_full_disk_is_said(kind: str) -> None:
    full = Path("/dev/full")
    with pytest.raises(
        MirrorError, match=r"/dev/full cannot be written to its end \(No space left"
    ):
        write(full, lines(*({"a": "x" * 100} for _ in range(1000))))
    with pytest.raises(MirrorError, match="No space left"):  # what is still in a buffer counts too
        write(full, lines({"a": 1}))
    assert full.is_char_device()


def test_what_is_no_plain_file_is_written_to(tmp_path: Path) -> None:
    write(Path("/dev/null"), lines({"a": 1}))
    assert Path("/dev/null").is_char_device()
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(pipe, lines({"a": 1}), lines({"a": 2}))
    reader.join(60)
    assert got == [b"a\n1\n2\n"]
    assert os.listdir(tmp_path) == ["pipe.csv"]


def test_a_pipe_that_has_no_name() -> None:
    """Such as `-o >(gzip)` or `-o /dev/stdout | …`."""
    for name in ("jsonl", "csv"):
        reading, into = os.pipe()
        try:
            path = Path(f"/dev/fd/{into}")
            if name == "csv":
                with (
                    open(into, "wb", closefd=False) as raw,
                    Spool(writers._spool_folder(path)) as spool,
                ):
                    writer = writers._CsvWriter(raw, spool, path, writers._Columns(), ",")
                    writer.write(lines({"a": 1}))
                    writer.finish()
            else:
                write(path, lines({"a": 1}))
        finally:
            os.close(into)
        with open(reading, "rb") as file:
            assert file.read() == {"jsonl": b'{"a": 1}\n', "csv": b"a\n1\n"}[name]


def test_a_reader_that_goes_is_no_full_disk(tmp_path: Path) -> None:
    reading, into = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(BrokenPipeError):
            write(Path(f"/dev/fd/{into}"), lines(*({"a": "x" * 100} for _ in range(1000))))
    finally:
        os.close(into)


# --- records set aside ---


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_rejected_records_are_told(tmp_path: Path) -> None:
    path = tmp_path / "out.rejected.jsonl"
    with RejectedFile(path, dry_run=False) as rejected:
        begun = rejected.written
        rejected.write("in.jsonl", Rejected(3, "empty line", b""))
        rejected.write("in.jsonl", Rejected(5, "not JSON", 'ñ "x"\t\r'.encode()))
        rejected.write(os.fsdecode(b"\xff.jsonl"), Rejected(7, "not UTF-8", b"\xff\x00"))
        assert not path.exists()
    assert (begun, rejected.written) == (None, str(path))
    assert told(path) == [
        {"input": "in.jsonl", "line": 3, "reason": "empty line", "text": ""},
        {"input": "in.jsonl", "line": 5, "reason": "not JSON", "text": 'ñ "x"\t\r'},
        {"input": "\\udcff.jsonl", "line": 7, "reason": "not UTF-8",
         "base64": base64.b64encode(b"\xff\x00").decode()},
    ]  # fmt: skip


def test_rejected_records_of_another_run_go_away(tmp_path: Path) -> None:
    path = tmp_path / "out.rejected.jsonl"
    path.write_text("old")
    with RejectedFile(path, dry_run=True) as dry:
        dry.write("in", Rejected(1, "empty line", b""))
    assert (path.read_text(), dry.written) == ("old", None)

    def fail_halfway() -> None:
        with RejectedFile(path, dry_run=False) as failing:
            failing.write("in", Rejected(1, "empty line", b""))
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert path.read_text() == "old"
    with pytest.raises(ZeroDivisionError), RejectedFile(path, dry_run=False):
        _ = 1 / 0
    assert path.read_text() == "old"
    with RejectedFile(path, dry_run=False):
        pass
    assert os.listdir(tmp_path) == []
    with RejectedFile(path, dry_run=False):
        pass
    path.mkdir()
    with RejectedFile(path, dry_run=False):
        pass
    assert path.is_dir()


# --- records that wait ---


def test_a_spool_gives_back_what_it_was_given(tmp_path: Path) -> None:
    chunks: list[Chunk] = [
        JsonLines(LINES), JsonLines([]), JsonLines([b"{}"]), Rows([{"a": datetime(2020, 1, 2, tzinfo=UTC)}]),
        batch(a=[1, 2], b=["x", None]),
    ]  # fmt: skip
    with Spool(tmp_path) as spool:
        assert list(spool) == []
        for chunk in chunks:
            spool.add(chunk)
        for _ in range(2):
            assert [one.rows() for one in spool] == [one.rows() for one in chunks]
        assert os.listdir(tmp_path) == []


def test_a_spool_without_a_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written to"):
        Spool(tmp_path / "nowhere")


def test_a_spool_on_a_full_disk(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool._file.close()
        spool._file = open("/dev/full", "r+b")  # noqa: SIM115
        spool.add(lines({"a": 1}))  # there is room in a buffer
        with pytest.raises(MirrorError, match="cannot be written to its end.*No space left"):
            list(spool)
        with pytest.raises(MirrorError, match="cannot be written to its end.*No space left"):
            spool.add(lines({"a": "x" * 100_000}))
        with suppress(OSError):
            spool._file.close()


def test_a_chunk_takes_little_more_than_its_text() -> None:
    chunk = JsonLines([b'{"a": %d}' % n for n in range(1000)])
    assert len(pickle.dumps(chunk, 5)) < sum(len(line) + 1 for line in chunk.lines()) + 200
    assert chunk.take([2, 0]).lines() == [b'{"a": 2}', b'{"a": 0}']
    assert Rows([{"a": 1}, {"a": 2}]).take([1]).lines() == [b'{"a":2}']
    assert [len(one) for one in (chunk, batch(a=[1]), Rows([{}]))] == [1000, 1, 1]
