"""CSV: what is read, and that only the URLs change."""

from __future__ import annotations

import csv
import gzip
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.dataset.fields import MISSING
from mirror.dataset.formats import csv_reader
from mirror.dataset.formats.csv_reader import read_csv
from mirror.dataset.records import ReadOptions
from mirror.errors import UsageError
from tests.dataset.formats.read_all_ways import READING, Result, renamed, result_of, rows, stream

U, V, W = (renamed(url).decode() for url in (b"u", b"v", b"w"))
WAYS = {"whole": 1 << 30, "byte by byte": 1}


# --- CSV ---


def read(
    data: bytes,
    reading: ReadOptions = READING,
    *,
    delimiter: str = ",",
    size: int = 1 << 30,
    error: Exception | None = None,
) -> Result:
    return result_of(read_csv(stream(data, size, error), reading, "it.csv", delimiter=delimiter))


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> int:
    return WAYS[request.param]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"image_url\nu\n", {"image_url": U, "source_url": "u"}),
        (b"image_url\nu", {"image_url": U, "source_url": "u"}),
        (b"image_url\r\nu\r\n", {"image_url": U, "source_url": "u"}),
        (b"image_url\ru\r", {"image_url": U, "source_url": "u"}),
        (b"\xef\xbb\xbfimage_url\nu\n", {"image_url": U, "source_url": "u"}),
        (b"id,image_url,x\n01,u,\n", {"id": "01", "image_url": U, "source_url": "u", "x": ""}),
        (b'"a ""b""","image_url"\n"1,\n2","u"\n',
         {'a "b"': "1,\n2", "image_url": U, "source_url": "u"}),
        (b'a,image_url\n"x\r\ny\rz",u\n', {"a": "x\r\ny\rz", "image_url": U, "source_url": "u"}),
        ("ñ,image_url\n🌿\u2028,u\n".encode(), {"ñ": "🌿\u2028", "image_url": U, "source_url": "u"}),
        (b"a,image_url\n\x00,u\n", {"a": "\x00", "image_url": U, "source_url": "u"}),
        (b"image_url,source_url\nu,\n", {"image_url": U, "source_url": "u"}),
        (b"source_url,image_url\n,u\n", {"source_url": "u", "image_url": U}),
        (b"image_url,source_url\nu,first\n", {"image_url": U, "source_url": "first"}),
        (b"image_url,\nu,5\n", {"image_url": U, "source_url": "u", "": "5"}),
        (b"photo.url,image_url\na,u\n", {"photo.url": "a", "image_url": U, "source_url": "u"}),
    ],
)  # fmt: skip
def test_a_row(data: bytes, expected: dict[str, str], way: int) -> None:
    result = read(data, size=way)
    assert result.rejected == []
    assert result.urls == [[b"u"]]
    assert rows(result) == [expected]
    assert list(rows(result)[0]) == list(expected)


def test_values_are_text() -> None:
    (row,) = rows(read(b"image_url,a,b,c\nu,1,true,\n"))
    assert (row["a"], row["b"], row["c"]) == ("1", "true", "")


def test_tabs() -> None:
    (row,) = rows(read(b"a\timage_url\n1,2\tu\n", delimiter="\t"))
    assert row == {"a": "1,2", "image_url": U, "source_url": "u"}


def test_a_dot_in_a_name_is_only_a_dot() -> None:
    reading = ReadOptions.of("photo.url", "source_url", "photo.license", "a")
    result = read(b"photo.url,photo.license\nu,cc0\n", reading)
    assert rows(result) == [{"photo.url": U, "source_url": "u", "photo.license": "cc0"}]
    assert result.others == {("photo", "license"): ["cc0"], ("a",): [MISSING]}


# After a header of two columns and one good row: what is wrong, on which line, why, what is shown.
BAD_ROWS: list[tuple[bytes, int, str, bytes]] = [
    (b"\n", 3, "empty line", b""),
    (b"1\n", 3, "1 cells under 2 columns", b"1"),
    (b"1,2,3\n", 3, "3 cells under 2 columns", b"1,2,3"),
    (b'"1\n2",3,4\n', 3, "3 cells under 2 columns", b'"1\n2",3,4'),
    (b"1,\xff\n", 3, "not UTF-8", b"1,\xff"),
    (b"\xed\xa0\x80,u\n", 3, "not UTF-8", b"\xed\xa0\x80,u"),
    (b'"1"2,u\n', 3, "not CSV: ',' expected after '\"'", b'"1"2,u'),
    (b"1,\n", 3, "'image_url' is empty", b'{"id":"1","image_url":""}'),
]


@pytest.mark.parametrize(("row", "number", "reason", "raw"), BAD_ROWS)
def test_a_bad_row(row: bytes, number: int, reason: str, raw: bytes, way: int) -> None:
    result = read(b"id,image_url\n0,u\n" + row + b"9,v\n", size=way)
    assert result.rejected == [(number, reason, raw)]
    assert [one["id"] for one in rows(result)] == ["0", "9"]
    assert result.numbers == [2, 3 + row.count(b"\n")]


def test_rows_are_numbered_by_their_first_lines(way: int) -> None:
    """An editor can then open the line."""
    good = [b'"a\nb",u\n', b"c,u\r\n", b'"d\r\n\r\ne",u\n']
    bad = [row for row, *_ in BAD_ROWS]
    data = b"id,image_url\n"
    numbers: list[int] = []
    wrong: list[int] = []
    for n in range(16):
        numbers.append(1 + len(data.splitlines()))
        data += good[n % 3]
        wrong.append(1 + len(data.splitlines()))
        data += bad[n % 8]
    result = read(data, size=way)
    assert result.numbers == numbers
    assert sorted(one.number for one in result.rejected) == wrong


def test_an_open_quote_takes_the_rest_of_the_file() -> None:
    result = read(b'id,image_url\n0,u\n"1,u\n2,u\n3,u\n')
    (rejected,) = result.rejected
    assert rejected == (3, "not CSV: unexpected end of data", b'"1,u\n2,u\n3,u')
    assert result.numbers == [2]


def test_an_open_quote_does_not_take_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "_LONGEST_RECORD", 100)
    rest = b"".join(b"%d,u\n" % n for n in range(100))
    for quote in (b'"1,u\n', b'1,"' + b'x","' * 20 + b"\n"):
        result = read(b"id,image_url\n0,u\n" + quote + rest)
        first = result.rejected[0]
        assert (first.number, first.reason) == (
            3,
            "not CSV: an unclosed quote, or longer than 100 B",
        )
        assert 90 <= len(first.raw) <= 250
        # It is one record that is lost, not the file.
        assert result.numbers[-1] == 103
        assert len(result.numbers) > 60
    csv.field_size_limit(131072)


def test_a_line_that_is_too_long(monkeypatch: pytest.MonkeyPatch, way: int) -> None:
    monkeypatch.setattr(csv_reader, "_LONGEST_RECORD", 100)
    for length in (98, 99, 350, 1000):
        row = b"1," + b"x" * length
        result = read(b"id,image_url\n0,u\n" + row + b"\n2,v\n", size=way)
        assert result.numbers == [2, 4]
        (rejected,) = result.rejected
        assert (rejected.number, rejected.raw) == (3, row[:100])
    fits = read(b"id,image_url\n0,u\n1," + b"x" * 97, size=way)
    assert fits.urls[1] == [b"x" * 97]
    csv.field_size_limit(131072)


def test_a_cell_of_ten_megabytes() -> None:
    cell = b"x" * (10 << 20)
    result = read(b'id,image_url\n"%b",u\n' % cell)
    assert len(rows(result)[0]["id"]) == 10 << 20


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it.csv is empty"),
        (b"\xef\xbb\xbf", "it.csv is empty"),
        (b"\n\nimage_url\n", "it.csv is empty"),
        (b"image_url,a,a\nu,1,2\n", "names a column twice"),
        (b"image_url,\xff\nu,1\n", "The column names of it.csv are not UTF-8"),
        (b'image_url,"a"b\nu,1\n', "does not begin with a header of column names"),
        (b'image_url,"a\nu,1\n', "does not begin with a header of column names"),
        (b"id,url\n1,u\n", "has no column 'image_url' among id, url; name the column of the URL with --url-field"),
        (gzip.compress(b"image_url,more_of_it\nu\n", mtime=0)[:-20], "has no complete line: the compressed file"),
    ],
)  # fmt: skip
def test_without_a_header_nothing_is_read(data: bytes, says: str, way: int) -> None:
    with pytest.raises(UsageError, match=says):
        read(data, size=way)


def test_a_header_is_no_record() -> None:
    assert read(b"image_url\n") == Result()


def test_a_batch_of_csv_is_bounded_by_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"id,image_url\n" + b"".join(b"%d,u\n" % n for n in range(100))
    monkeypatch.setattr(csv_reader, "_BATCH_RECORDS", 30)
    assert [len(b) for b in read_csv(stream(data), READING, "", delimiter=",")] == [30, 30, 30, 10]
    monkeypatch.setattr(csv_reader, "_BATCH_BYTES", 50)
    sizes = [len(b) for b in read_csv(stream(data), READING, "", delimiter=",")]
    assert sum(sizes) == 100
    assert max(sizes) <= 13


def test_rejected_rows_are_told_with_their_batch_and_alone() -> None:
    reading = ReadOptions.of("image_url", "source_url", "id")
    for data in (b"id,image_url\n1\n", b"id,image_url\n1,u\n2\n", b"id,image_url\n2\n1,u\n"):
        (batch,) = read_csv(stream(data), reading, "", delimiter=",")
        assert len(batch.rejected) == 1
        assert len(batch.others["id",]) == len(batch)


CSV = b"id,image_url\n" + b"".join(b"%d,%b\n" % (n, renamed(b"%d" % n)) for n in range(1500))


def test_a_compressed_csv_that_is_cut_short(way: int) -> None:
    packed = gzip.compress(CSV)
    cuts = [len(packed) - 9] if way == 1 else range(1000, len(packed) - 1, 3001)
    for cut in cuts:
        result = read(packed[:cut], size=way)
        count = len(result.numbers)
        assert result.numbers == list(range(2, count + 2))
        assert result.reasons == [(count + 2, "the compressed file ends too early")]
        line = CSV.splitlines()[count + 1] if count < 1500 else b""
        assert line.startswith(result.rejected[0].raw)


def test_damage_in_a_compressed_csv_is_noticed() -> None:
    packed = gzip.compress(CSV)
    for at in range(1000, len(packed), 3001):
        spoilt = packed[:at] + bytes([packed[at] ^ 0x10]) + packed[at + 1 :]
        try:
            result = read(spoilt)
        except UsageError as error:  # so early that not even the header was read
            assert "has no complete line" in str(error)  # noqa: PT017
            continue
        assert result.rejected or result.kept == read(CSV).kept, at


def test_a_disk_that_gives_up() -> None:
    result = read(CSV[:50_000], error=OSError(5, "Input/output error"))
    assert len(result.numbers) > 500
    assert result.reasons == [
        (len(result.numbers) + 2, "the file cannot be read further ([Errno 5] Input/output error)")
    ]


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(
    st.lists(st.tuples(cells, cells, cells.filter(bool)), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.integers(1, 20),
)
def test_what_python_writes_is_read(
    table: list[tuple[str, str, str]], end: str, quoting: Any, size: int
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, quoting=quoting)
    writer.writerow(["a", "b", "image_url"])
    if quoting == csv.QUOTE_MINIMAL:  # Python's writer forgets this quote before 3.13
        table = [tuple(cell.replace("\r", "").replace("\n", "") for cell in row) for row in table]  # type: ignore[misc]
        table = [row for row in table if row[2]]
    writer.writerows(table)
    result = read(text.getvalue().encode(), size=size)
    assert result.rejected == []
    assert result.urls == [[row[2].encode()] for row in table]
    assert [(row["a"], row["b"]) for row in rows(result)] == [row[:2] for row in table]
