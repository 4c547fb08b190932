"""Parquet: every type survives, and only the URLs change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import polars
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from mirror.dataset.fields import MISSING
from mirror.dataset.formats import parquet as parquet_module
from mirror.dataset.formats.arrow_chunk import ArrowChunk
from mirror.dataset.formats.arrow_types import without_views
from mirror.dataset.formats.parquet import ArrowBatch, read_parquet
from mirror.dataset.records import ReadOptions
from mirror.errors import UsageError
from tests.dataset.formats.read_all_ways import READING, New, Result, renamed, result_of, rows

U, V, W = (renamed(url).decode() for url in (b"u", b"v", b"w"))


def tables_of(
    path: Path, reading: ReadOptions = READING, new: New = renamed
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Pairs of the table as read and as rewritten, one per batch."""
    for batch in read_parquet(str(path), reading):
        keep = range(len(batch))
        old, fresh = batch.unchanged(keep), batch.rewritten(keep, [new(url) for url in batch.urls])
        assert isinstance(old, ArrowChunk)
        assert isinstance(fresh, ArrowChunk)
        yield pa.Table.from_batches([old.batch]), pa.Table.from_batches([fresh.batch])


def put(path: Path, table: pa.Table | dict[str, Any], **options: Any) -> Path:
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)
    return path


def parquet(path: Path, reading: ReadOptions = READING, new: New = renamed) -> Result:
    return result_of(read_parquet(str(path), reading), new)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "it.parquet"


def every_type() -> dict[str, pa.Array]:
    words = pa.array(["a", None, "b"]).dictionary_encode()
    return {
        "null": pa.nulls(3),
        "boolean": pa.array([True, None, False]),
        "int8": pa.array([-128, None, 127], pa.int8()),
        "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "float16": pa.array([0.5, None, -0.0], pa.float16()),
        "float32": pa.array([0.1, None, -0.0], pa.float32()),
        "float64": pa.array([0.1, None, float("-inf")]),
        "decimal": pa.array([Decimal("1.10"), None, Decimal("-0.01")], pa.decimal128(5, 2)),
        "decimal256": pa.array([Decimal("1e30"), None, Decimal(0)], pa.decimal256(50, 2)),
        "date": pa.array([date(2020, 1, 2), None, date(1, 1, 1)]),
        "time": pa.array([time(1, 2, 3, 4), None, time(0)], pa.time64("us")),
        "millis": pa.array([0, None, 1], pa.timestamp("ms")),
        "nanos": pa.array([1, None, 2**60 + 1], pa.timestamp("ns")),
        "zoned": pa.array([0, None, 1], pa.timestamp("us", "Europe/Madrid")),
        "duration": pa.array([timedelta(1), None, timedelta(0)], pa.duration("us")),
        "binary": pa.array([b"\xff", None, b""]),
        "large_binary": pa.array([b"\xff", None, b""], pa.large_binary()),
        "fixed": pa.array([b"abc", None, b"def"], pa.binary(3)),
        "text": pa.array(["ñ", None, ""]),
        "large_text": pa.array(["ñ", None, ""], pa.large_string()),
        "category": words,
        "ordered": pa.DictionaryArray.from_arrays(words.indices, words.dictionary, ordered=True),
        "list": pa.array([[1, None], None, []]),
        "large_list": pa.array([["a"], None, []], pa.large_list(pa.string())),
        "fixed_list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
        "struct": pa.array([{"x": 1, "y": {"z": "a"}}, None, {"x": None, "y": None}]),
        "list_of_structs": pa.array([[{"x": 1}, None], None, []]),
        "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        "uuid": pa.array([b"0" * 16, None, b"1" * 16], pa.uuid()),
    }


def test_every_type_survives(file: Path) -> None:
    columns = every_type()
    urls = pa.array(["u", "v", "w"])
    fields = [pa.field(name, column.type, metadata={"k": name}) for name, column in columns.items()]
    fields.insert(5, pa.field("image_url", pa.string(), nullable=False, metadata={"note": "mine"}))
    arrays = [*columns.values()]
    arrays.insert(5, urls)
    schema = pa.schema(fields, metadata={"pandas": "{}", "mine": "too"})
    put(file, pa.table(arrays, schema=schema))
    stored = pq.read_table(file)
    ((old, new),) = tables_of(file)
    assert old.equals(stored, check_metadata=True)
    names = stored.column_names
    assert new.column_names == [*names[:6], "source_url", *names[6:]]
    assert new["image_url"].to_pylist() == [U, V, W]
    assert new["source_url"].to_pylist() == ["u", "v", "w"]
    assert new.drop_columns(["image_url", "source_url"]).equals(
        stored.drop_columns(["image_url"]), check_metadata=True
    )
    assert new.schema.field("image_url").equals(
        stored.schema.field("image_url"), check_metadata=True
    )
    assert new.schema.metadata == stored.schema.metadata


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_text_of_any_kind_holds_urls(kind: Any, file: Path) -> None:
    urls = ["u", "v", None, "u", ""]
    put(file, {"image_url": pa.array(urls, kind), "n": range(5)})
    result = parquet(file)
    assert result.reasons == [
        (3, "'image_url' is null, not text"),
        (5, "'image_url' is empty"),
    ]
    assert result.numbers == [1, 2, 4]
    assert [row["image_url"] for row in rows(result)] == [U, V, U]
    assert [row["source_url"] for row in rows(result)] == ["u", "v", "u"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_(pa.string(), 2),
        pa.list_(pa.field("element", pa.dictionary(pa.int32(), pa.string()))),
    ],
    ids=str,
)
def test_lists_of_urls(kind: Any, file: Path) -> None:
    put(file, {"n": [1, 2], "image_url": pa.array([["u", "v"], ["w", "v"]], kind)})
    result = parquet(file, new=lambda url: None if url == b"v" else renamed(url))
    assert result.urls == [[b"u", b"v"], [b"w", b"v"]]
    assert rows(result) == [
        {"n": 1, "image_url": [U], "source_url": ["u"]},
        {"n": 2, "image_url": [W], "source_url": ["w"]},
    ]


def test_views_are_arrows_own() -> None:
    view = pa.string_view()
    batch = pa.record_batch({
        "image_url": pa.array([["u"], None], pa.list_(view)),
        "a": pa.array([[{"x": "y"}], None], pa.large_list(pa.struct([("x", view)]))),
        "b": pa.array([["p", "q"], None], pa.list_(view, 2)),
        "c": pa.array([[("k", b"v")], None], pa.map_(view, pa.binary_view())),
    })  # fmt: skip
    plain = without_views(batch)
    assert plain.to_pylist() == batch.to_pylist()
    one = ArrowBatch.over(plain, 1, READING)
    assert one.rewritten([0], [b"U"]).rows() == [
        {"image_url": ["U"], "source_url": ["u"], **batch.select(["a", "b", "c"]).to_pylist()[0]}
    ]
    assert without_views(plain) is plain


def test_only_taken_out_of_a_list_there_is_no_original(file: Path) -> None:
    put(file, {"image_url": [["u", "v"], ["w"]]})
    result = parquet(file, new=lambda url: None if url == b"v" else url)
    assert rows(result) == [{"image_url": ["u"]}, {"image_url": ["w"]}]


def nested(kind: Any = None) -> pa.Table:
    """Photos with their licences, next to a column of the same names."""
    item = pa.struct([
        pa.field("id", pa.int32(), metadata={"k": "v"}),
        pa.field("url", pa.string(), nullable=False),
        pa.field("taken", pa.timestamp("ms", "UTC")),
        pa.field("score", pa.decimal128(4, 2)),
        pa.field("small", pa.float32()),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string())),
        pa.field("tags", pa.list_(pa.field("element", pa.large_string()))),
    ])  # fmt: skip
    kind = kind or pa.list_(pa.field("element", item, nullable=False))

    def photo(url: str) -> dict[str, Any]:
        taken = datetime(2020, 1, 2, tzinfo=UTC)
        return {"id": 7, "url": url, "taken": taken, "score": Decimal("1.10"), "small": 0.1,
                "kind": "leaf", "tags": ["a", None]}  # fmt: skip

    photos = [[photo("u"), photo("v")], [photo("w")], [], None]
    return pa.table({"n": [1, 2, 3, 4], "photos": pa.array(photos, kind), "url": list("abcd")})


@pytest.mark.parametrize("large", [False, True])
def test_urls_in_a_list_of_structs(file: Path, large: bool) -> None:
    put(file, nested())
    if large:
        kind = pa.large_list(nested().schema.field("photos").type.value_field)
        put(file, nested(kind))
    stored = pq.read_table(file)
    reading = ReadOptions.of("photos.url", "source_url", "photos.kind")
    result = parquet(file, reading)
    assert result.reasons == [(3, "no field 'photos.url'"), (4, "no field 'photos.url'")]
    assert result.others == {("photos", "kind"): ["leaf", "leaf"]}
    ((old, new),) = tables_of(file, reading)
    assert old.equals(stored[:2])
    item = stored.schema.field("photos").type.value_type
    found = new.schema.field("photos").type
    assert [f.name for f in found.value_type] == [
        "id", "url", "source_url", "taken", "score", "small", "kind", "tags",
    ]  # fmt: skip
    assert found.value_field.name == "element"
    assert not found.value_field.nullable
    assert pa.types.is_large_list(found) == large
    for field in item:
        kept = found.value_type.field(found.value_type.get_field_index(field.name))
        assert kept.equals(field, check_metadata=True)
    before = pa.compute.list_flatten(old["photos"]).to_pylist()
    after = pa.compute.list_flatten(new["photos"]).to_pylist()
    for one, other in zip(before, after, strict=True):
        assert other == {
            **one,
            "url": renamed(one["url"].encode()).decode(),
            "source_url": one["url"],
        }
    assert new.drop_columns("photos").equals(stored[:2].drop_columns("photos"))


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (pa.timestamp("ns"), 2**60 + 1), (pa.timestamp("ns", "UTC"), 1), (pa.time64("ns"), 4001),
        (pa.duration("ns"), 1), (pa.timestamp("us"), 10**18), (pa.timestamp("s"), -(10**15)),
        (pa.date32(), 10**7), (pa.date64(), 86_400_000 * 10**7), (pa.time32("ms"), 1),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_stands_beside_a_url_stays_to_the_last_nanosecond(
    kind: pa.DataType, number: int, wrapped: bool, file: Path
) -> None:
    width = pa.int32() if kind.bit_width == 32 else pa.int64()
    item = pa.struct([("url", pa.string()), ("at", kind), ("more", pa.list_(kind))])
    numbers = pa.struct([("url", pa.string()), ("at", width), ("more", pa.list_(width))])
    photo = {"url": "u", "at": number, "more": [number, None]}
    photos = [[photo], [photo, photo]] if wrapped else [photo, photo]
    as_numbers, as_kind = (pa.list_(numbers), pa.list_(item)) if wrapped else (numbers, item)
    put(file, {"photo": pa.array(photos, as_numbers).cast(as_kind)})

    def beside(table: pa.Table) -> list[pa.Array]:
        column = table["photo"].combine_chunks()
        structs = column.flatten() if wrapped else column
        return [structs.field("at"), structs.field("more")]

    ((old, new),) = tables_of(file, ReadOptions.of("photo.url"))
    stored = pq.read_table(file)
    assert beside(old) == beside(new) == beside(stored)


def test_structs_leave_their_list_with_their_urls(file: Path) -> None:
    put(file, nested())
    gone = parquet(
        file, ReadOptions.of("photos.url"), lambda url: None if url == b"u" else renamed(url)
    )
    assert [[photo["url"] for photo in row["photos"]] for row in rows(gone)] == [[V], [W]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([{"url": "u"}], [{"url": U, "source_url": "u"}]),
        ([{"url": "u", "source_url": None}], [{"url": U, "source_url": "u"}]),
        ([{"source_url": "first", "url": "u"}], [{"source_url": "first", "url": U}]),
        ([{"a": {"url": "x"}, "url": ["u", "v"]}],
         [{"a": {"url": "x"}, "url": [U, V], "source_url": ["u", "v"]}]),
    ],
)  # fmt: skip
def test_urls_in_a_struct(values: list[Any], expected: list[Any], file: Path) -> None:
    put(file, {"photo": values})
    result = parquet(file, ReadOptions.of("photo.url"))
    assert [row["photo"] for row in rows(result)] == expected


def test_urls_far_down(file: Path) -> None:
    put(file, {"a": [[{"b": {"c": [{"url": "u", "n": 1}]}}, None, {"b": None}]]})
    result = parquet(file, ReadOptions.of("a.b.c.url"))
    assert result.urls == [[b"u"]]
    assert rows(result)[0]["a"][0] == {"b": {"c": [{"url": U, "source_url": "u", "n": 1}]}}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (pa.nulls(2), ["u", "v"]),
        (pa.array([None, ""]), ["u", "v"]),
        (pa.array(["first", None]), ["first", "v"]),
        (pa.array(["first", None], pa.large_string()), ["first", "v"]),
        (pa.array(["first", None]).dictionary_encode(), ["first", "v"]),
    ],
)
def test_a_source_column_that_is_there_keeps_its_place(
    source: pa.Array, found: list[str], file: Path
) -> None:
    put(file, {"source_url": source, "image_url": ["u", "v"]})
    result = parquet(file)
    assert [row["source_url"] for row in rows(result)] == found
    assert list(rows(result)[0]) == ["source_url", "image_url"]
    assert result.sourced == ([1] if "first" in found else [])


@pytest.mark.parametrize("source", [[5, None], [None, 0], [[1], None], [{"a": 1}, None]])
def test_originals_that_do_not_fit_their_column_are_said(source: list[Any], file: Path) -> None:
    put(file, {"image_url": ["u", "v"], "source_url": source})
    with pytest.raises(UsageError, match="do not fit the field 'source_url'.*--source-field"):
        parquet(file)
    put(file, {"photo": [{"url": "u", "source_url": one} for one in source]})
    with pytest.raises(UsageError, match="do not fit the field 'source_url'.*--source-field"):
        parquet(file, ReadOptions.of("photo.url"))
    # Where nothing is rewritten it may hold anything.
    (batch,) = read_parquet(str(file), ReadOptions.of("photo.url"))
    assert len(batch.unchanged([0, 1])) == 2


def test_row_groups(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [f"{n}" if n % 7 else None for n in range(100)]
    put(file, {"image_url": urls, "n": range(100)}, row_group_size=13)
    monkeypatch.setattr(parquet_module, "_BATCH_RECORDS", 10)
    result = parquet(file, ReadOptions.of("image_url", "source_url", "n"))
    assert result.numbers == [n + 1 for n in range(100) if n % 7]
    assert result.others["n",] == [n for n in range(100) if n % 7]
    assert [one.number for one in result.rejected] == [n + 1 for n in range(100) if not n % 7]
    assert [row["source_url"] for row in rows(result)] == [url for url in urls if url]


def test_a_row_group_without_one_url(file: Path) -> None:
    put(file, {"image_url": pa.array([None, None, "u"]), "n": [1, 2, 3]}, row_group_size=2)
    result = parquet(file, ReadOptions.of("image_url", "source_url", "n"))
    assert (result.numbers, result.others["n",]) == ([3], [3])
    put(file, {"image_url": pa.nulls(2)})
    assert [one.number for one in parquet(file).rejected] == [1, 2]


def test_no_row_is_no_record(file: Path) -> None:
    put(file, {"image_url": pa.array([], pa.string())})
    assert parquet(file) == Result()


def test_a_batch_is_bounded_by_what_it_holds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_module, "_BATCH_BYTES", 1 << 20)
    images = [n.to_bytes(100, "big") * 1000 for n in range(40)]
    put(file, {"image_url": [str(n) for n in range(40)], "image": images}, compression="none",
        use_dictionary=False)  # fmt: skip
    sizes = [len(batch) for batch in read_parquet(str(file), READING)]
    assert sum(sizes) == 40
    assert max(sizes) <= 11


def test_some_rows_of_a_batch(file: Path) -> None:
    put(file, {"image_url": ["u", None, "v", "w"], "n": [1, 2, 3, 4]})
    (batch,) = read_parquet(str(file), READING)
    assert batch.numbers == [1, 3, 4]
    kept = batch.unchanged([0, 2])
    assert [row["n"] for row in kept.rows()] == [1, 4]
    assert [row["n"] for row in kept.take([1, 0]).rows()] == [4, 1]
    assert msgspec.json.decode(batch.raw(1)) == {"image_url": "v", "n": 3}
    some = batch.rewritten([0, 2], [b"U", None, b"W"]).rows()
    assert [row["image_url"] for row in some] == ["U", "W"]


def test_other_columns(file: Path) -> None:
    put(file, {
        "image_url": ["u", None, "v"],
        "a": pa.array([1, 2, 3], pa.timestamp("ns")),
        "b": [{"c": "x"}, {"c": "y"}, None],
        "d": pa.array(["p", "q", None]).dictionary_encode(),
    })  # fmt: skip
    result = parquet(
        file, ReadOptions.of("image_url", "source_url", "b.c", "d", "e", "image_url", "a")
    )
    assert result.others["b", "c"] == ["x", MISSING]
    assert result.others["d",] == ["p", None]
    assert result.others["e",] == [MISSING, MISSING]
    assert result.others["image_url",] == ["u", "v"]
    assert result.others["a",] == ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:00.000000003"]


def broken_text() -> pa.Array:
    """Text that is not UTF-8, as some programs write it."""
    texts = b"u\xffv"
    offsets = b"".join(n.to_bytes(4, "little") for n in (0, 1, 2, 3))
    return pa.StringArray.from_buffers(3, pa.py_buffer(offsets), pa.py_buffer(texts))


@pytest.mark.parametrize("column", ["image_url", "other"])
def test_text_that_is_not_utf_8(column: str, file: Path) -> None:
    good = pa.array(["u", "?", "v"])
    put(file, {"image_url": good, "other": good} | {column: broken_text()})
    result = parquet(file, ReadOptions.of("image_url", "source_url", "other"))
    assert result.numbers == [1, 3]
    assert result.urls == [[b"u"], [b"v"]]
    assert result.others["other",] == ["u", "v"]
    ((number, reason),) = result.reasons
    assert number == 2
    assert "UTF8" in reason
    put(file, {"image_url": good, "deep": pa.ListArray.from_arrays([0, 1, 2, 3], broken_text())})
    assert parquet(file).numbers == [1, 3]


@pytest.mark.parametrize(
    ("table", "url", "says"),
    [
        ({"id": [1], "url": ["u"]}, "image_url", "no column 'image_url' among id, url; name the column"),
        ({"image_url": [1]}, "image_url", "holds int64 in 'image_url', not text"),
        ({"image_url": [b"u"]}, "image_url", "holds binary in 'image_url', not text"),
        ({"image_url": [[1]]}, "image_url", "holds int64 in 'image_url', not text"),
        ({"image_url": [{"a": "u"}]}, "image_url", "not text"),
        ({"photo": ["u"]}, "photo.url", "has no 'url' in its column 'photo'"),
        ({"photo": [{"a": "u"}]}, "photo.url", "has no 'url' in its column 'photo'"),
        ({"photo": [[{"url": 5}]]}, "photo.url", "holds int64 in 'photo.url', not text"),
        ({"photo.url": ["u"]}, "photo.url", "no column 'photo'"),
        ({"photo": pa.array([[("url", "u")]], pa.map_(pa.string(), pa.string()))}, "photo.url",
         "has no 'url' in its column 'photo'"),
    ],
)  # fmt: skip
def test_a_table_without_urls_is_refused(table: Any, url: str, says: str, file: Path) -> None:
    put(file, table)
    with pytest.raises(UsageError, match=says):
        parquet(file, ReadOptions.of(url))


def test_a_name_for_two_columns(file: Path) -> None:
    put(file, pa.table([["u"], [1], [2]], names=["image_url", "a", "a"]))
    with pytest.raises(UsageError, match="names a column twice"):
        parquet(file)


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1PAR1", b'{"image_url": "u"}', b"PAR1" + b"\xff" * 99]
)
def test_no_parquet_file(data: bytes, file: Path) -> None:
    file.write_bytes(data)
    with pytest.raises(UsageError, match=r"it.parquet cannot be read as Parquet: "):
        parquet(file)
    with pytest.raises(UsageError, match=r"cannot be read as Parquet: .*No such file"):
        parquet(file.with_name("none"))


def test_a_damaged_parquet_file(file: Path) -> None:
    urls = [renamed(b"%d" % n).decode() for n in range(300)]
    put(file, {"image_url": urls}, row_group_size=100, use_dictionary=False)
    whole = file.read_bytes()
    reading = ReadOptions.of("image_url", "source_url", "n")
    noticed = 0
    for at in range(10, len(whole), 199):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            result = parquet(file, reading)
        except UsageError:
            noticed += 1
            continue
        # Records that it gives are those that were there, as far as they can be known.
        assert len(result.numbers) + len(result.rejected) >= 1
        for number, reason in result.reasons:
            assert number == 1 + len(result.numbers) or "damaged" not in reason
        noticed += any("damaged from here on" in reason for _, reason in result.reasons)
    assert noticed
    file.write_bytes(whole[: len(whole) // 2] + whole[-2000:])
    try:
        result = parquet(file, reading)
    except UsageError:
        return
    assert result.rejected


def test_files_of_polars_and_pandas(file: Path) -> None:
    when = datetime(2020, 1, 2, tzinfo=UTC).replace(tzinfo=None)
    frame = polars.DataFrame({
        "image_url": ["u", "v"],
        "c": polars.Series(["x", "y"], dtype=polars.Categorical),
        "e": polars.Series(["x", "y"], dtype=polars.Enum(["x", "y"])),
        "l": [["a"], []],
        "t": [when, None],
    })  # fmt: skip
    frame.write_parquet(file)
    ((_, new),) = tables_of(file)
    put(file, new)
    again = polars.read_parquet(file)
    assert again.drop("image_url", "source_url").equals(frame.drop("image_url"))
    assert again["source_url"].to_list() == ["u", "v"]
    pandas = frame.select("image_url", "t").to_pandas()
    pandas.index = ["first", "second"]
    pandas.to_parquet(file)
    ((_, new),) = tables_of(file)
    assert new.to_pandas().index.tolist() == ["first", "second"]


# --- what a row holds, as text or as a value ---


@pytest.mark.parametrize(
    ("array", "line"),
    [
        (pa.array([1577934245123456], pa.timestamp("us")), '"2020-01-02T03:04:05.123456"'),
        (pa.array([1577934245123456000], pa.timestamp("ns")), '"2020-01-02T03:04:05.123456"'),
        (pa.array([1577934245123456789], pa.timestamp("ns")), '"2020-01-02 03:04:05.123456789"'),
        (pa.array([1577934245000000000], pa.timestamp("ns", "UTC")), '"2020-01-02T03:04:05Z"'),
        (pa.array([1001], pa.time64("ns")), '"00:00:00.000001001"'),
        (pa.array([1000], pa.time64("ns")), '"00:00:00.000001"'),
        (pa.array([2**55], pa.timestamp("us", "Mars/Olympus")), None),
        (pa.array([10**15], pa.timestamp("s")), '"<value out of range: 1000000000000000>"'),
        (pa.array([date(2020, 1, 2)]), '"2020-01-02"'),
        (pa.array([timedelta(1, 2)], pa.duration("ns")), '"P1DT2S"'),
        (pa.array([Decimal("1.10")]), "1.10"),
        (pa.array([0.1], pa.float32()), "0.10000000149011612"),
        (pa.array([float("nan")]), "null"),
        (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
        (pa.array([b"\x00\xff"]), '"AP8="'),
        (pa.array([b"0" * 16], pa.uuid()), f'"{UUID(bytes=b"0" * 16)}"'),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), '[["k",1]]'),
        (pa.array(["x"]).dictionary_encode(), '"x"'),
        (pa.array([{"a": [None, {"b": True}]}]), '{"a":[null,{"b":true}]}'),
        (pa.nulls(1), "null"),
    ],
)
def test_a_value_as_json(array: pa.Array, line: str | None) -> None:
    chunk = ArrowChunk(pa.RecordBatch.from_arrays([array], ["a"]))
    if line is None:
        with pytest.raises(UsageError, match=r"A column of timestamp\[us, tz=Mars/Olympus\] holds"):
            chunk.lines()
        return
    assert chunk.lines() == [f'{{"a":{line}}}'.encode()]
