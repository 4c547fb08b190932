"""MongoDB documents as records: plain JSON by table, Extended JSON by reading it back."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import bson
import msgspec
import pytest
from bson import DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, json_util
from bson.binary import Binary
from bson.code import Code
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from mirror.dataset.formats.documents import STYLES, Rendering, Style, split

AN_ID = ObjectId("5f0a1b2c3d4e5f6071829304")
A_UUID = UUID("12345678-1234-5678-1234-567812345678")

# What is stored, and what plain JSON makes of it.
PLAIN: list[tuple[str, Any, Any]] = [
    ("object id", AN_ID, "5f0a1b2c3d4e5f6071829304"),
    ("date", datetime(2020, 1, 2, 3, 4, 5, 678000, UTC), "2020-01-02T03:04:05.678Z"),
    ("date on the second", datetime(2020, 1, 2, tzinfo=UTC), "2020-01-02T00:00:00.000Z"),
    ("date before 1970", datetime(1869, 7, 4, 1, 2, 3, 4000, UTC), "1869-07-04T01:02:03.004Z"),
    ("date after 9999", DatetimeMS(253402300800001), "10000-01-01T00:00:00.001Z"),
    ("date before Christ", DatetimeMS(-62167219200001), "-001-12-31T23:59:59.999Z"),
    ("decimal", Decimal128("1.10"), "1.10"),
    ("decimal of 34 digits", Decimal128("1234567890.123456789012345678901234"), "1234567890.123456789012345678901234"),
    ("decimal that is none", Decimal128("NaN"), "NaN"),
    ("int32", 7, 7),
    ("int64", Int64(2**63 - 1), 2**63 - 1),
    ("double", 2.5, 2.5),
    ("double without a fraction", 5.0, 5.0),
    ("largest double", 1.7976931348623157e308, 1.7976931348623157e308),
    ("boolean", True, True),
    ("null", None, None),
    ("text", 'Añb\u2028\U0001f33f\n"', 'Añb\u2028\U0001f33f\n"'),
    ("empty text", "", ""),
    ("bytes", b"\x00\xff", "AP8="),
    ("binary of the user's own type", Binary(b"\x00\xff", 128), "AP8="),
    ("UUID", Binary.from_uuid(A_UUID), str(A_UUID)),
    ("UUID of another length", Binary(b"\x00\xff", 4), "AP8="),
    ("UUID of an old driver", Binary(A_UUID.bytes, 3), "EjRWeBI0VngSNFZ4EjRWeA=="),
    ("timestamp", Timestamp(1577934245, 3), {"t": 1577934245, "i": 3}),
    ("regular expression", Regex("^a/b", re.IGNORECASE | re.MULTILINE), "/^a/b/im"),
    ("code", Code("return 1"), "return 1"),
    ("code with a scope", Code("x", {"x": AN_ID}), {"code": "x", "scope": {"x": str(AN_ID)}}),
    ("reference", DBRef("users", AN_ID, "db"), {"$ref": "users", "$id": str(AN_ID), "$db": "db"}),
    ("least key", MinKey(), "MinKey"),
    ("greatest key", MaxKey(), "MaxKey"),
    ("not a number", math.nan, None),
    ("infinity", math.inf, None),
    ("less than all", -math.inf, None),
    ("list", [1, [AN_ID], {"a": None}], [1, [str(AN_ID)], {"a": None}]),
    ("empty ones", [[], {}], [[], {}]),
]  # fmt: skip


def record(style: Style, document: dict[str, Any]) -> dict[str, Any]:
    """A record as a reader of the file sees it."""
    (line,) = lines(style, document)
    found: dict[str, Any] = json.loads(line)
    return found


def lines(style: Style, *documents: dict[str, Any]) -> list[bytes]:
    chunk, bad = Rendering(style).chunk(b"".join(map(bson.encode, documents)))
    assert not bad
    return chunk.lines()


@pytest.mark.parametrize(("stored", "expected"), [c[1:] for c in PLAIN], ids=[c[0] for c in PLAIN])
def test_plain(stored: Any, expected: Any) -> None:
    document = {"value": stored, "deep": {"list": [{"value": stored}]}}
    found = record("plain", document)
    assert found == {"value": expected, "deep": {"list": [{"value": expected}]}}
    assert type(found["value"]) is type(expected)


def test_numbers_that_json_has_not_are_counted() -> None:
    rendering = Rendering("plain")
    rendering.chunk(bson.encode({"a": math.nan, "b": [math.inf, 1.0], "c": Decimal128("NaN")}))
    rendering.chunk(bson.encode({"a": {"b": -math.inf}}))
    assert rendering.non_finite == 3


@pytest.mark.parametrize("style", STYLES)
def test_fields_keep_their_order(style: Style) -> None:
    names = ["_id", "z", "a", "é", "$price", "with.dot", "", "A"]
    document = {name: {"y": 1, "x": 2} for name in names}
    assert list(record(style, document)) == names
    assert b'"y":' in lines(style, document)[0].split(b'"x":')[0]


@pytest.mark.parametrize("style", STYLES)
def test_a_record_is_one_line_of_utf_8(style: Style) -> None:
    (line,) = lines(style, {"a": "one\ntwo\r\u2028", "b": "Añb"})
    assert b"\n" not in line
    assert "Añb".encode() in line
    assert b": " not in line


@pytest.mark.parametrize("stored", [c[1] for c in PLAIN], ids=[c[0] for c in PLAIN])
def test_canonical_is_read_back_to_the_same_bytes(stored: Any) -> None:
    document = bson.encode({"value": stored, "list": [stored]})
    chunk, _ = Rendering("canonical").chunk(document)
    options = json_util.CANONICAL_JSON_OPTIONS.with_options(
        document_class=dict, datetime_conversion=bson.DatetimeConversion.DATETIME_AUTO
    )
    assert bson.encode(json_util.loads(chunk.lines()[0], json_options=options)) == document


def test_relaxed_is_as_the_specification_has_it() -> None:
    found = record("relaxed", {
        "id": AN_ID, "n": Int64(5), "x": 1.5, "nan": math.nan, "price": Decimal128("1.10"),
        "when": datetime(2020, 1, 2, 3, 4, 5, 678000, UTC), "far": DatetimeMS(253402300800000),
    })  # fmt: skip
    assert found == {
        "id": {"$oid": str(AN_ID)}, "n": 5, "x": 1.5, "nan": {"$numberDouble": "NaN"},
        "price": {"$numberDecimal": "1.10"}, "when": {"$date": "2020-01-02T03:04:05.678Z"},
        "far": {"$date": {"$numberLong": "253402300800000"}},
    }  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_the_id_can_be_left_out(style: Style) -> None:
    rendering = Rendering(style, keep_id=False)
    chunk, _ = rendering.chunk(bson.encode({"_id": 1, "a": {"_id": 2}}))
    assert b'"_id":' in chunk.lines()[0]
    assert list(json.loads(chunk.lines()[0])) == ["a"]


@pytest.mark.parametrize("style", STYLES)
def test_a_document_that_is_not_valid_is_left_out_and_named(style: Style) -> None:
    good = [bson.encode({"_id": n, "a": "abc"}) for n in range(4)]
    spoilt = good[2].replace(b"abc", b"a\xffc")
    rendering = Rendering(style)
    rendering.chunk(good[0])
    chunk, bad = rendering.chunk(good[1] + spoilt + good[3])
    assert [record["_id"] for record in _plain_ids(chunk.lines())] == [1, 3]
    assert [(one.number, one.shown_id) for one in bad] == [(3, "2")]
    assert "not valid BSON" in bad[0].reason
    assert (rendering.documents, rendering.undecodable) == (4, 1)


def _plain_ids(found: list[bytes]) -> list[dict[str, Any]]:
    return [
        {"_id": int(one["_id"]["$numberInt"]) if isinstance(one["_id"], dict) else one["_id"]}
        for one in map(json.loads, found)
    ]


@pytest.mark.parametrize("damage", [b"\x00\x00\x00\x00", b"\x05\x00\x00", b"\xff\xff\xff\x7f\x00"])
def test_damage_ends_in_a_report(damage: bytes) -> None:
    good = bson.encode({"_id": 1})
    chunk, bad = Rendering().chunk(good + damage)
    assert len(chunk) == 1
    assert [one.number for one in bad] == [2]


def test_a_batch_of_nothing() -> None:
    chunk, bad = Rendering().chunk(b"")
    assert (len(chunk), bad) == (0, [])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_characters="\0", codec="utf-8")), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
documents = st.dictionaries(
    st.text(st.characters(exclude_characters="\0$", codec="utf-8")), values, max_size=6
)


@given(st.lists(documents, min_size=1, max_size=5))
def test_what_json_has_is_kept_as_it_is(stored: list[dict[str, Any]]) -> None:
    batch = b"".join(map(bson.encode, stored))
    assert split(batch) == list(map(bson.encode, stored))
    chunk, _ = Rendering("plain").chunk(batch)
    assert [msgspec.json.decode(line) for line in chunk.lines()] == stored
