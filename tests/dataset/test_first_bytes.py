"""The first bytes of a file decide what it is, whatever its name says."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror.dataset.compression import TolerantStream, zstd
from mirror.dataset.first_bytes import delimiter_of
from mirror.dataset.formats.json_array import values_of
from mirror.dataset.inputs import Input, read
from mirror.errors import UsageError
from tests.dataset.formats.read_all_ways import READING, Result, result_of, rows, stream

RECORDS: list[dict[str, Any]] = [
    {"image_url": f"https://x/{n}", "note": 'a [{"é\\', "in": {"a": [1, {}]}} for n in range(4)
]


def read_bytes(folder: Path, name: str, data: bytes, delimiter: str | None = None) -> Result:
    path = folder / name
    path.write_bytes(data)
    return result_of(read(Input(str(path), delimiter), READING))


def as_array(records: Any, **layout: Any) -> bytes:
    return json.dumps(records, ensure_ascii=False, **layout).encode()


def as_lines(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in records)


def as_parquet(records: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"image_url": one["image_url"]} for one in records]), file)
    return file.getvalue()


def as_table(records: list[dict[str, Any]], delimiter: str = ",") -> str:
    lines = [["image_url", "n"], *([one["image_url"], str(n)] for n, one in enumerate(records))]
    return "".join(delimiter.join(line) + "\r\n" for line in lines)


JSON: list[tuple[str, str, Callable[[list[dict[str, Any]]], bytes]]] = [
    ("an array in one line", "a.json", as_array),
    ("an array of lines", "a.json", lambda r: b"[" + b",\n".join(map(as_array, r)) + b"]\n"),
    ("a pretty array", "a.json", lambda r: as_array(r, indent=2)),
    ("a pretty array of Windows", "a.json", lambda r: as_array(r, indent=2).replace(b"\n", b"\r\n")),
    ("an array with a mark", "a.jsonl", lambda r: b"\xef\xbb\xbf" + as_array(r)),
    ("an array without an ending", "a", as_array),
    ("an array named as a table", "a.csv", as_array),
    ("two arrays", "a.json", lambda r: as_array(r[:2]) + b"\n" + as_array(r[2:])),
    ("objects over several lines", "a.json", lambda r: b"\n".join(as_array(o, indent=1) for o in r)),
    ("lines named as a table", "a.csv", as_lines),
    ("an array in gzip", "a.json", lambda r: gzip.compress(as_array(r))),
    ("an array in Zstandard", "a.json", lambda r: zstd.compress(as_array(r))),
    ("lines in UTF-16", "a.jsonl", lambda r: as_lines(r).decode().encode("utf-16")),
    ("an array in UTF-16", "a.json", lambda r: as_array(r).decode().encode("utf-16")),
    ("an array in UTF-32", "a.json", lambda r: as_array(r).decode().encode("utf-32")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data"), [j[1:] for j in JSON], ids=[j[0] for j in JSON])
def test_json_in_every_form_gives_all_records(
    tmp_path: Path, name: str, data: Callable[[list[dict[str, Any]]], bytes]
) -> None:
    result = read_bytes(tmp_path, name, data(RECORDS))
    assert result.rejected == []
    assert [json.loads(line) for line in result.kept] == RECORDS
    assert result.numbers == [1, 2, 3, 4]
    assert [row["source_url"] for row in rows(result)] == [r["image_url"] for r in RECORDS]


def test_a_value_of_an_array_keeps_its_bytes(tmp_path: Path) -> None:
    data = b'[ {"image_url" : "u",\t"n":1.50,"n":  2} ,\n{"x":[1,\n   2], "image_url":"\\u0075"}]'
    result = read_bytes(tmp_path, "a.json", data)
    assert result.kept == [
        b'{"image_url" : "u",\t"n":1.50,"n":  2}',
        b'{"x":[1,2], "image_url":"\\u0075"}',
    ]


DAMAGED: list[tuple[str, bytes, int, list[tuple[int, str]]]] = [
    ("empty", b"[ ]", 0, []),
    ("numbers", b'[1, "a", null]', 0, [(n, "not an object") for n in (1, 2, 3)]),
    ("no comma", b'[{"image_url":"u"}, {"image_url":"v"} {"image_url":"w"}]', 1, [(2, "a comma")]),
    ("a comma too many", b'[{"image_url":"u"},]', 1, [(2, "a comma")]),
    ("cut short", b'[{"image_url":"u"},{"image', 1, [(2, "a comma or a bracket is missing")]),
    ("cut after a comma", b'[{"image_url":"u"},', 1, [(2, "a comma or a bracket is missing")]),
    ("more after it", b'[{"image_url":"u"}] and', 1, [(2, "the rest was not read")]),
    ("a line's end in a text", b'[{"image_url":"u\nv"}, {"image_url":"u"}]', 1, [(1, "line's end")]),
    ("other brackets", b'[{"image_url":["u"}}, {"image_url":"u"}]', 1, [(1, "not JSON")]),
    ("deep", b"[" + b'{"a":' * 80 + b"1" + b"}" * 80 + b"]", 0, [(1, "nested too deeply")]),
]  # fmt: skip


@pytest.mark.parametrize("size", [1 << 20, 3], ids=["whole", "in pieces"])
@pytest.mark.parametrize(
    ("data", "good", "bad"), [d[1:] for d in DAMAGED], ids=[d[0] for d in DAMAGED]
)
def test_damage_in_an_array_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, good: int,
    bad: list[tuple[int, str]], size: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("mirror.dataset.formats.json_array._BLOCK", size)
    result = read_bytes(tmp_path, "a.json", data)
    assert len(result.numbers) == good
    assert [number for number, _ in result.reasons] == [number for number, _ in bad]
    for (_, reason), (_, words) in zip(result.reasons, bad, strict=True):
        assert words in reason


def test_a_broken_stream_says_why(tmp_path: Path) -> None:
    packed = gzip.compress(as_array(RECORDS), mtime=0)
    result = read_bytes(tmp_path, "a.json.gz", packed[:-20])
    assert "the compressed file ends too early; the rest was not read" in result.rejected[0].reason
    odd = as_lines(RECORDS).decode().encode("utf-16")[:-1]
    assert read_bytes(tmp_path, "a.jsonl", odd).rejected[0].reason.endswith("within a character)")


def test_an_array_is_read_in_constant_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.dataset.formats.json_array._BLOCK", 1 << 16)
    monkeypatch.setattr("mirror.dataset.formats.json_array._LONGEST", 1 << 20)
    value, text = b'"' + b"x" * 9998 + b'",', b"x" * 65536

    class Endless:
        """An array of 50 MB whose last text is never closed."""

        def __init__(self) -> None:
            self.parts = chain([b"["], repeat(value, 2000), [b'"'], repeat(text, 500))
            self.left = b""

        def read1(self, size: int, /) -> bytes:
            given = self.left or next(self.parts, b"")
            self.left = given[size:]
            return given[:size]

    tracemalloc.start()
    try:
        last, count = None, 0
        for last in values_of(TolerantStream(Endless())):
            count += len(last.lines)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert last is not None
    assert count == 2001
    ((reason, raw),) = last.flawed.values()
    assert "an open bracket or text, or longer than 1.0 MB" in reason
    assert len(raw) == 4096
    assert peak < 10 << 20


# --- tables ---


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_delimiter_is_found(tmp_path: Path, delimiter: str, name: str, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    result = read_bytes(tmp_path, name, (mark + as_table(RECORDS, delimiter)).encode(encoding))
    assert result.rejected == []
    assert [json.loads(line) for line in result.kept] == [
        {"image_url": one["image_url"], "n": str(n)} for n, one in enumerate(RECORDS)
    ]


@pytest.mark.parametrize(
    ("header", "usual", "found"),
    [
        ("image_url,a;b;c;d", ",", ","),
        ("image_url;a,b,c,d", ",", ";"),
        ("image_url", ",", ","),
        ("image_url", "\t", "\t"),
        ("url;name", ",", ";"),
        ("url", "\t", "\t"),
        ('"image_url";"a,b,c"', ",", ";"),
        ('"open', ",", ","),
        ("", ",", ","),
    ],
)
def test_the_delimiter_of_a_header(header: str, usual: str, found: str) -> None:
    assert delimiter_of(header, "image_url", usual) == found


def test_a_missing_column_is_said_with_the_real_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'image_url' among url, species, place;"):
        read_bytes(tmp_path, "t.csv", b"url;species;place\nu;oak;here\n")


def test_a_given_delimiter_is_taken(tmp_path: Path) -> None:
    data = b"image_url;a#b;c\nu;1#2;3\n"
    assert json.loads(read_bytes(tmp_path, "t.csv", data).kept[0])["a#b"] == "1#2"
    with pytest.raises(UsageError, match="among image_url;a, b;c;"):
        read_bytes(tmp_path, "t.csv", data, "#")
    (line,) = read_bytes(tmp_path, "t.txt", b"a#image_url\n1#u\n", "#").kept
    assert json.loads(line) == {"a": "1", "image_url": "u"}


# --- what is not read ---


def test_parquet_is_read_under_any_name(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a"):
        result = read_bytes(tmp_path, name, as_parquet(RECORDS))
        assert result.urls == [[one["image_url"].encode()] for one in RECORDS]


def test_parquet_in_a_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.jsonl is a Parquet file in .* compression; name"):
        read_bytes(tmp_path, "a.jsonl", gzip.compress(as_parquet(RECORDS)))


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.xlsx", "a.jsonl.gz"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zipped(), "is a ZIP archive, as Excel's"),
        (bz2.compress(b"{}"), "is compressed with bzip2; unpack"),
        (lzma.compress(b"{}"), "is compressed with xz; unpack"),
        (b"ARROW1\0\0", "is an Arrow file"),
    ],
)
def test_what_is_not_read_is_called_by_its_name(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read_bytes(tmp_path, name, data)


def test_what_was_looked_at_is_still_to_be_read() -> None:
    source = stream(b"abcdefgh", 3)
    assert source.peek(5) == b"abcde"
    assert source.read() == b"abcdefgh"
