"""JSON lines: what is read, and that only the URLs change."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

import pytest

from mirror.dataset.chunks import JsonLines
from mirror.dataset.fields import MISSING, parse_path
from mirror.dataset.formats.jsonl import read_jsonl
from mirror.dataset.records import ReadOptions
from mirror.errors import UsageError
from tests.dataset.formats.jsonl_lines import U, V, read, rewritten, way
from tests.dataset.formats.read_all_ways import READING, Result, renamed, stream

__all__ = ["way"]


# --- one table of lines, however they come ---

# A line, and what it becomes.
GOOD: list[tuple[bytes, bytes]] = [
    (b'{"image_url": "u"}', b'{"image_url": "%b", "source_url": "u"}' % U),
    (b'{"image_url":"u"}', b'{"image_url":"%b","source_url":"u"}' % U),
    (b'{"image_url":\t"u"}', b'{"image_url":\t"%b", "source_url":\t"u"}' % U),
    (b'{"image_url" :"u"}', b'{"image_url" :"%b","source_url" :"u"}' % U),
    (b' { "a":1 , "image_url" : "u" , "b":2 } ',
     b' { "a":1 , "image_url" : "%b", "source_url" : "u" , "b":2 } ' % U),
    (b'{"a": 1E400, "b": -0.0, "c": 1.50, "d": 123456789012345678901234567890, "image_url": "u"}',
     b'{"a": 1E400, "b": -0.0, "c": 1.50, "d": 123456789012345678901234567890,'
     b' "image_url": "%b", "source_url": "u"}' % U),
    # The same name twice elsewhere, and in another object, is nobody's business.
    (b'{"a": 1, "a": 2, "image_url": "u", "n": {"image_url": "x", "image_url": "y"}}',
     b'{"a": 1, "a": 2, "image_url": "%b", "source_url": "u",'
     b' "n": {"image_url": "x", "image_url": "y"}}' % U),
    (b'{"n": {"image_url": "x"}, "image_url": "u"}',
     b'{"n": {"image_url": "x"}, "image_url": "%b", "source_url": "u"}' % U),
    (b'{"n": [{"image_url": "x"}], "image_url": "u"}',
     b'{"n": [{"image_url": "x"}], "image_url": "%b", "source_url": "u"}' % U),
    # The key's text as a value, and inside of one.
    (b'{"a": "image_url", "image_url": "u"}',
     b'{"a": "image_url", "image_url": "%b", "source_url": "u"}' % U),
    (b'{"a": "\\"image_url\\": \\"x\\"", "image_url": "u"}',
     b'{"a": "\\"image_url\\": \\"x\\"", "image_url": "%b", "source_url": "u"}' % U),
    (b'{"x\\"image_url": "x", "image_url": "u"}',
     b'{"x\\"image_url": "x", "image_url": "%b", "source_url": "u"}' % U),
    (b'{"a": "source_url", "image_url": "u"}',
     b'{"a": "source_url", "image_url": "%b", "source_url": "u"}' % U),
    (b'{"a": "}{][,:\\\\", "image_url": "u"}',
     b'{"a": "}{][,:\\\\", "image_url": "%b", "source_url": "u"}' % U),
    # Escaped keys and values.
    (b'{"image\\u005furl": "u"}', b'{"image\\u005furl": "%b", "source_url": "u"}' % U),
    (b'{"\\u0069mage_url":"u","a":"image_url"}',
     b'{"\\u0069mage_url":"%b","source_url":"u","a":"image_url"}' % U),
    (b'{"image_url": "\\u0075"}', b'{"image_url": "%b", "source_url": "\\u0075"}' % U),
    (b'{"image_url": "http:\\/\\/x\\/\\u00f1"}',
     b'{"image_url": "%b", "source_url": "http:\\/\\/x\\/\\u00f1"}'
     % renamed("http://x/ñ".encode())),
    ('{"image_url": "ñ🌿"}'.encode(),
     b'{"image_url": "%b", "source_url": "%b"}' % (renamed("ñ🌿".encode()), "ñ🌿".encode())),
    (b'{"image_url": "\\ud83c\\udf3f"}',
     b'{"image_url": "%b", "source_url": "\\ud83c\\udf3f"}' % renamed("🌿".encode())),
    # A field for the original that is there already.
    (b'{"source_url": null, "image_url": "u"}', b'{"source_url": "u", "image_url": "%b"}' % U),
    (b'{"image_url": "\\u0075", "a": 1, "source_url" : "" }',
     b'{"image_url": "%b", "a": 1, "source_url" : "\\u0075" }' % U),
    (b'{"image_url": "u", "source_url": "\\u0066irst", "n": {"source_url": 1}}',
     b'{"image_url": "%b", "source_url": "\\u0066irst", "n": {"source_url": 1}}' % U),
    (b'{"image_url": "u", "source\\u005furl": [ ]}',
     b'{"image_url": "%b", "source\\u005furl": "u"}' % U),
    # Lists.
    (b'{"image_url": [ "u" ,"v"], "a": 1}',
     b'{"image_url": [ "%b" ,"%b"], "source_url": [ "u" ,"v"], "a": 1}' % (U, V)),
    (b'{"image_url":["u"]}', b'{"image_url":["%b"],"source_url":["u"]}' % U),
]  # fmt: skip

# A line that is no record, and why.
BAD: list[tuple[bytes, str]] = [
    (b"", "empty line"),
    (b" \t ", "empty line"),
    (b"null", "not an object"),
    (b'"image_url"', "not an object"),
    (b"[]", "not an object"),
    (b'[{"image_url": "u"}]', "not an object"),
    (b"1E400", "not an object"),
    (b"nonsense", "not JSON: "),
    (b"{", "not JSON: "),
    (b'{"image_url": "u"', "not JSON: "),
    (b'{"image_url": "u"}}', "not JSON: "),
    (b'{"image_url": "u"}{"image_url": "u"}', "not JSON: "),
    (b'{"image_url": "u",}', "not JSON: "),
    (b"{'image_url': 'u'}", "not JSON: "),
    (b'{"image_url": "u", "a": NaNs}', "not JSON: "),
    (b'{"image_url": "u", "a": [Infinity}', "not JSON: "),
    (b'{"image_url": "u", "NaN": x}', "not JSON: "),
    (b'{"image_url": "u", "a": 01}', "not JSON: "),
    (b'{"image_url": "u", "a": "\t"}', "not JSON: "),
    (b'{"image_url": "u", "a": "\\q"}', "not JSON: "),
    (b'{"image_url": "u", "a": "\\ud800"}', "not JSON: half a surrogate pair"),
    (b'{"image_url": "u", "a": "\\udf3f\\ud83c"}', "not JSON: half a surrogate pair"),
    (b'\x00{"image_url": "u"}', "not JSON: "),
    (b'{"image_url": "\xff"}', "not UTF-8"),
    (b'{"image_url": "u", "a": "\xe9"}', "not UTF-8"),
    (b'{"image_url": "u", "\xc3": 1}', "not UTF-8"),
    (b'{"image_url": "u", "a": "\xed\xa0\x80"}', "not UTF-8"),
    (b'{"image_url": "u", "a": "\xc0\xaf"}', "not UTF-8"),
    (b"\xff\xfe{\x00", "not UTF-8"),
    (b"{}", "no field 'image_url'"),
    (b'{"a": {"image_url": "u"}}', "no field 'image_url'"),
    (b'{"a": "image_url"}', "no field 'image_url'"),
    (b'{"IMAGE_URL": "u"}', "no field 'image_url'"),
    (b'{"image_url": null}', "'image_url' is null, not text"),
    (b'{"image_url": 5}', "'image_url' is a number, not text"),
    (b'{"image_url": -1E400}', "'image_url' is a number, not text"),
    (b'{"image_url": true}', "'image_url' is a boolean, not text"),
    (b'{"image_url": {"a": "u"}}', "'image_url' is an object, not text"),
    (b'{"image_url": ["u", ["v"]]}', "'image_url' is a list, not text"),
    (b'{"image_url": ["u", null]}', "'image_url' is null, not text"),
    (b'{"image_url": ["u", {}]}', "'image_url' is an object, not text"),
    (b'{"image_url": ""}', "'image_url' is empty"),
    (b'{"image_url":""}', "'image_url' is empty"),
    (b'{"image_url": []}', "'image_url' is an empty list"),
    (b'{"image_url": ["u", ""]}', "'image_url' is empty"),
    (b'{"image_url": "u", "image_url": "v"}', "the key 'image_url' occurs twice"),
    (b'{"image_url": "u", "image\\u005furl": "u"}', "the key 'image_url' occurs twice"),
    (b'{"image_url": "u", "source_url": 1, "source_url": 2}', "the key 'source_url' occurs twice"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), GOOD, ids=[repr(case[0])[1:] for case in GOOD])
def test_a_record(line: bytes, expected: bytes, way: int) -> None:
    result = read(line + b"\n" + line, size=way)
    assert result.rejected == []
    assert result.numbers == [1, 2]
    assert result.kept == [line, line]
    assert result.lines == [expected, expected]
    json.loads(expected)


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[repr(case[0])[1:] for case in BAD])
def test_no_record(line: bytes, reason: str, way: int) -> None:
    result = read(GOOD[0][0] + b"\n" + line + b"\n" + GOOD[0][0], size=way)
    (rejected,) = result.rejected
    assert (rejected.number, rejected.raw) == (2, line)
    assert rejected.reason.startswith(reason)
    assert rejected.reason != "not JSON: "
    assert result.numbers == [1, 3]


def test_all_in_one_file(way: int) -> None:
    lines: list[tuple[bytes, bytes | str]] = [*GOOD, *BAD]
    mixed = lines[::3] + lines[1::3] + lines[2::3]
    result = read(b"".join(line + b"\n" for line, _ in mixed), size=way)
    expected = {n: found for n, (_, found) in enumerate(mixed, 1) if isinstance(found, bytes)}
    assert dict(zip(result.numbers, result.lines, strict=True)) == expected
    reasons = {n: found for n, (_, found) in enumerate(mixed, 1) if isinstance(found, str)}
    assert {n: reason[: len(reasons[n])] for n, reason in result.reasons} == reasons


@pytest.mark.parametrize(
    "garbage", [b"x", b"{", b"}", b",", b"\x00", b"\xff", b'{"image_url":"u"}']
)
def test_trailing_garbage(garbage: bytes, way: int) -> None:
    for line, _ in GOOD:
        on_it = read(line + garbage + b"\n" + line, size=way)
        assert [one.number for one in on_it.rejected] == [1]
        assert on_it.rejected[0].raw == line + garbage
        after_it = read(line + b"\n" + garbage, size=way)
        assert after_it.numbers[0] == 1
        assert len(after_it.numbers) + len(after_it.rejected) == 2


@pytest.mark.parametrize(("line", "expected"), GOOD[:6])
def test_carriage_returns_stay(line: bytes, expected: bytes, way: int) -> None:
    result = read(line + b"\r\n" + line + b"\r\n", size=way)
    assert result.lines == [expected + b"\r", expected + b"\r"]
    assert read(b"\r\n", size=way).reasons == [(1, "empty line")]


def test_a_byte_order_mark_is_no_part_of_the_first_line(way: int) -> None:
    bom = b"\xef\xbb\xbf"
    line, expected = GOOD[0]
    assert read(bom + line + b"\n", size=way).lines == [expected]
    assert read(bom + line, size=way).kept == [line]
    assert read(bom, size=way) == Result()
    assert read(bom + b"x\n", size=way).rejected[0].raw == b"x"
    twice = read(line + b"\n" + bom + line, size=way)
    assert [one.number for one in twice.rejected] == [2]
    assert [one.number for one in read(bom + bom + line, size=way).rejected] == [1]


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_nothing_is_no_record(data: bytes, way: int) -> None:
    assert read(data, size=way) == Result()


# --- keys ---


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a/b", b'{"x": {"a/b": "v"}, "a\\/b": "u"}'),
        ("a/b", b'{"a\\/b": "u", "x": [{"a/b": "v"}]}'),
        ("ñ", '{"x": {"ñ": "v"}, "\\u00f1": "u"}'.encode()),
        ("\x7f", b'{"x": {"\x7f": "v"}, "\\u007f": "u"}'),
        ("🌿", '{"x": {"🌿": "v"}, "\\ud83c\\udf3f": "u"}'.encode()),
    ],
)
def test_a_key_is_known_in_any_spelling(name: str, line: bytes) -> None:
    result = read(line, ReadOptions((name,)))
    assert result.urls == [[b"u"]]
    assert json.loads(result.lines[0])[name] == U.decode()
    assert json.loads(result.lines[0])["source_url"] == "u"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\x00"])
def test_a_key_that_is_always_escaped_is_refused(name: str) -> None:
    readings = [ReadOptions((name,)), ReadOptions(("a", name)), ReadOptions(source=name)]
    for reading in [*readings, ReadOptions(others=(("a", name),))]:
        with pytest.raises(UsageError, match="cannot be searched for in JSON; rename it"):
            read(b'{"image_url": "u"}', reading)


@pytest.mark.parametrize("source", ["a/b", "ñ", "image", "url", "image_url2", " "])
def test_a_source_field_of_any_name(source: str) -> None:
    for line, _ in GOOD[:6]:
        after = json.loads(rewritten(line, ReadOptions(source=source)))
        assert (after["image_url"], after[source]) == (U.decode(), "u")
    spelled = json.dumps(source).encode()
    held = read(b'{"image_url": "u", %b: "first"}' % spelled, ReadOptions(source=source))
    assert held.sourced == [1]
    assert json.loads(held.lines[0])[source] == "first"


@pytest.mark.parametrize("source", ["image_url", "\udcff"])
def test_a_source_field_that_cannot_be(source: str) -> None:
    with pytest.raises(UsageError):
        ReadOptions(source=source)


def test_without_a_source_field_nothing_is_rewritten() -> None:
    reading = ReadOptions(("source_url",), source="")
    result = read(b'{"image_url": "v", "source_url": "u", "": 1, "": 2}', reading, lambda _: None)
    assert result.urls == [[b"u"]]
    assert result.sourced == []
    with pytest.raises(UsageError, match="--source-field"):
        read(b'{"image_url": "u"}', ReadOptions(source=""))


@pytest.mark.parametrize(
    ("line", "sourced"),
    [
        (b'{"image_url": "u", "source_url": "u"}', False),
        (b'{"image_url": "u", "source_url": "\\u0075"}', False),
        (b'{"image_url": ["u"], "source_url": ["u"]}', False),
        (b'{"image_url": "u", "source_url": {}}', False),
        (b'{"image_url": "u", "source_url": { } }', False),
        (b'{"image_url": "u", "source_url": "v"}', True),
        (b'{"image_url": "u", "source_url": 0}', True),
        (b'{"image_url": "u", "source_url": 1E400}', True),
        (b'{"image_url": "u", "source_url": false}', True),
        (b'{"image_url": "u", "source_url": {"a": 1}}', True),
        (b'{"image_url": "u", "source_url": [1]}', True),
        (b'{"image_url": "u", "source_url": [["u"]]}', True),
        (b'{"image_url": "u", "n": {"source_url": "v"}}', False),
    ],
)
def test_a_source_field_that_holds_something_else_is_told(line: bytes, sourced: bool) -> None:
    assert bool(read(line).sourced) is sourced


# --- lists, and records of several URLs ---


@pytest.mark.parametrize(
    ("line", "gone", "expected"),
    [
        (b'{"image_url": ["u", "v", "w"]}', "u", b'{"image_url": ["v", "w"]}'),
        (b'{"image_url": ["u", "v", "w"]}', "v", b'{"image_url": ["u", "w"]}'),
        (b'{"image_url": ["u", "v", "w"]}', "w", b'{"image_url": ["u", "v"]}'),
        (b'{"image_url": [ "u" , "v" , "w" ]}', "uv", b'{"image_url": [ "w" ]}'),
        (b'{"image_url": [ "u" , "v" , "w" ]}', "vw", b'{"image_url": [ "u" ]}'),
        (b'{"image_url": [ "u" , "v" , "w" ]}', "uw", b'{"image_url": [ "v" ]}'),
        (b'{"image_url": ["u","v"], "source_url": [ "1", "2" ]}', "u",
         b'{"image_url": ["v"], "source_url": [ "2" ]}'),
        (b'{"image_url": ["u","v"], "source_url": ["1"]}', "u",
         b'{"image_url": ["v"], "source_url": ["1"]}'),
        (b'{"image_url": "u"}', "", b'{"image_url": "u"}'),
    ],
)  # fmt: skip
def test_urls_are_taken_out_of_their_list(line: bytes, gone: str, expected: bytes) -> None:
    kept = rewritten(line, new=lambda url: None if url.decode() in gone else url)
    assert kept == expected


@pytest.mark.parametrize(
    ("line", "gone", "expected"),
    [
        (b'{"photos": [{"url": "u"}, {"url": "v"}]}', "u", b'{"photos": [{"url": "v"}]}'),
        (b'{"photos": [{"url": "u"}, {"x": 1}, {"url": "v"}]}', "v",
         b'{"photos": [{"url": "u"}, {"x": 1}]}'),
        (b'{"photos": [[{"url": "u"}], [{"url": "v"}]]}', "u", b'{"photos": [[{"url": "v"}]]}'),
        (b'{"photos": [{"url": ["u", "v"]}, {"url": []}]}', "v",
         b'{"photos": [{"url": ["u"]}, {"url": []}]}'),
    ],
)  # fmt: skip
def test_objects_leave_their_list_with_their_urls(line: bytes, gone: str, expected: bytes) -> None:
    kept = rewritten(
        line, ReadOptions.of("photos.url"), lambda url: None if url.decode() in gone else url
    )
    assert kept == expected


def test_records_of_one_url_and_of_many_in_one_file(way: int) -> None:
    data = (
        b'{"photos": {"url": "a"}}\n{"photos": []}\n{"photos": [{"url": ["b", "c"]}, {"url": "d"}]}\n'
        b'{"photos": [{"url": []}, {"url": "e"}]}\n{"photos": {"url": ["f"]}}\n'
    )
    result = read(data, ReadOptions.of("photos.url"), size=way)
    assert result.numbers == [1, 3, 4, 5]
    assert result.urls == [[b"a"], [b"b", b"c", b"d"], [b"e"], [b"f"]]
    assert result.reasons == [(2, "no field 'photos.url'")]
    assert [re.findall(rb"[0-9a-f]{32}", line) for line in result.lines] == [
        [re.findall(rb"[0-9a-f]{32}", renamed(url))[0] for url in urls] for urls in result.urls
    ]


def test_some_records_of_a_batch() -> None:
    lines = [b'{"image_url": "%d"}' % n for n in range(9)]
    lines[4] = b'{"image_url": ["4", "44"]}'
    (batch,) = read_jsonl(stream(b"\n".join(lines) + b"\n"), READING)
    urls = [renamed(url) if url not in (b"1", b"44") else None for url in batch.urls]
    kept = batch.rewritten([0, 4, 8], urls).lines()
    assert [json.loads(line)["source_url"] for line in kept] == ["0", ["4"], "8"]
    assert batch.raw(3) == lines[3]
    assert batch.unchanged([2, 3]).lines() == lines[2:4]


# --- other fields ---


def others(line: bytes, *paths: str, url: str = "image_url") -> list[Any]:
    result = read(line, ReadOptions.of(url, "source_url", *paths))
    assert result.rejected == []
    return [result.others[parse_path(path)][0] for path in paths]


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        (b'{"image_url": "u", "a": "x"}', "a", "x"),
        (b'{"image_url": "u", "a": null}', "a", None),
        (b'{"image_url": "u"}', "a", MISSING),
        (b'{"image_url": "u", "a": {"b": [1]}}', "a.b", [1]),
        (b'{"image_url": "u", "a": [{"c": 1}, {"b": 2}]}', "a.b", 2),
        (b'{"image_url": "u", "a": 5}', "a.b", MISSING),
        (b'{"image_url": "u", "a": 1E400}', "a", float("inf")),
        (b'{"image_url": "u", "a": 2, "b": 1E400}', "a", 2),
        (b'{"image_url": "u", "a": 123456789012345678901234567890}', "a", 123456789012345678901234567890),
        (b'{"image_url": "u", "a": 1, "a": 2}', "a", 2),
        (b'{"image_url": "u", "\\u0061": "\\u00f1"}', "a", "ñ"),
        (b'{"image_url": "u"}', "image_url", "u"),
        (b'{"image_url": ["u", "v"]}', "image_url", ["u", "v"]),
        (b'{"image_url": "u", "source_url": "v"}', "source_url", "v"),
    ],
)  # fmt: skip
def test_other_fields(line: bytes, path: str, value: Any) -> None:
    assert others(line, path) == [value]


def test_fields_beside_a_nested_url() -> None:
    line = b'{"photo": {"url": "u", "license": "cc-by", "size": 1E400}, "a": 1}'
    found = others(line, "photo.license", "a", "photo.size", "photo.none", url="photo.url")
    assert found == ["cc-by", 1, float("inf"), MISSING]


# Whole lines, and parts of objects that lines before or after them would complete.
FRAGMENTS = [
    b'{"image_url":"a"}', b'{"image_url": "b"}\r', b'{"image_url":"c"} {"image_url":"d"}',
    b'{"x":', b'{"image_url":"e"}}', b'{"image_url":"f","x":[{}', b"{}]}", b'{"image_url":"g"',
    b',"x":{}}', b"{}", b"}", b"",
]  # fmt: skip


@pytest.mark.parametrize("first", FRAGMENTS)
def test_no_line_is_read_as_a_part_of_another(first: bytes) -> None:
    alone = {line: read(line + b"\n") for line in FRAGMENTS}
    for others in itertools.product(FRAGMENTS, repeat=2):
        lines = [first, *others]
        together = read(b"\n".join(lines) + b"\n")
        assert together.urls == [urls for line in lines for urls in alone[line].urls]
        assert together.reasons == [
            (number, reason)
            for number, line in enumerate(lines, 1)
            for _, reason in alone[line].reasons
        ]


# --- numbers that only Python's JSON has ---

ODD = rb'{"image_url": "u", "a": NaN, "b": [-Infinity,Infinity], "c": "NaN \" NaN", "NaN": 1}'


@pytest.mark.parametrize("line", [ODD, b" " + ODD.replace(b'"u"', b'["u"]')])
def test_nan_is_kept_replaced_or_rejected(line: bytes) -> None:
    plain = b'{"image_url": "v"}'
    data = plain + b"\n" + line + b"\n" + plain
    null = line.replace(b"NaN,", b"null,").replace(b"-Infinity,Infinity", b"null,null")
    assert read(data, ReadOptions()).kept == [plain, line, plain]
    result = read(data, ReadOptions(nan="null"))
    assert result.kept == [plain, null, plain]
    assert json.loads(result.lines[1])["source_url"] in ("u", ["u"])
    result = read(data, ReadOptions(nan="reject", others=(("a",),)))
    assert result.kept == [plain, plain]
    ((number, reason),) = result.reasons
    assert number == 2
    assert "NaN or infinite; --nan null or --nan keep" in reason


def test_a_kept_nan_is_a_number_in_a_table() -> None:
    (row,) = JsonLines([ODD]).rows()
    assert math.isnan(row["a"])
    assert row["b"] == [-math.inf, math.inf]
    assert row["c"] == 'NaN " NaN'


def test_a_field_that_is_nan_is_read_as_null() -> None:
    reading = ReadOptions(others=(("a",),))
    assert read(ODD, reading).others[("a",)] == [None]
