"""Queries of MongoDB: parsing by table, and "after an _id" as a real server evaluates it."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from mirror.dataset.formats.mongo_query import LastId, Query
from mirror.errors import DatasetError, UsageError
from tests.servers import MongoServer

AN_ID = ObjectId("5f0a1b2c3d4e5f6071829304")
DAY = datetime(2020, 1, 2)  # noqa: DTZ001 - as bson has it: UTC, and without saying so

# --- parsing ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (" \n", {}),
        ("{}", {}),
        ('{"species": "Quercus robur"}', {"species": "Quercus robur"}),
        ('{"_id": {"$gt": {"$oid": "5f0a1b2c3d4e5f6071829304"}}}', {"_id": {"$gt": AN_ID}}),
        ('{"at": {"$date": "2020-01-02T00:00:00Z"}}', {"at": DAY}),
        ('{"name": {"$regex": "^Qu", "$options": ""}}', {"name": Regex("^Qu")}),
        ('{"$or": [{"a": 1}, {"b": null}]}', {"$or": [{"a": 1}, {"b": None}]}),
        ('{"n": {"$numberLong": "5"}}', {"n": Int64(5)}),
    ],
)
def test_a_filter(text: str, expected: dict[str, Any]) -> None:
    assert Query.parse(text).filter == expected
    assert Query.parse(text).after(None) == expected


@pytest.mark.parametrize(
    ("text", "sent", "keeps_id"),
    [
        ("", None, True),
        ("image_url,species", {"image_url": 1, "species": 1}, True),
        (" a , b.c ", {"a": 1, "b.c": 1}, True),
        ("_id", {"_id": 1}, True),
        ("_id,a", {"_id": 1, "a": 1}, True),
        ("ñ$,_idea", {"ñ$": 1, "_idea": 1}, True),
        ('{"a": 1}', {"a": 1}, True),
        (' {"a": 0}', {"a": 0}, True),
        ('{"_id": 1}', {"_id": 1}, True),
        ('{"_id": true, "a": true}', {"_id": True, "a": True}, True),
        # A scan needs the _id to go on; who drops it is the renderer.
        ('{"_id": 0}', None, False),
        ('{"_id": 0, "a": 1}', {"a": 1}, False),
        ('{"a": 0, "_id": false}', {"a": 0}, False),
        ('{"_id": {"$numberInt": "0"}}', None, False),
        ('{"url": "$image.url"}', {"url": "$image.url"}, True),
    ],
)
def test_a_projection(text: str, sent: dict[str, Any] | None, keeps_id: bool) -> None:
    query = Query.parse("", text)
    assert query.sent_projection == sent
    assert query.keeps_id is keeps_id


@pytest.mark.parametrize(
    ("filter_text", "projection_text", "words"),
    [
        ("species", "", "The filter is not"),
        ("{", "", "The filter is not"),
        ("[]", "", "The filter is not a JSON object"),
        ("1", "", "The filter is not a JSON object"),
        ('{"a": "\\ud800"}', "", "The filter is not"),
        ('{"a\\u0000": 1}', "", "The filter is not"),
        ('{"a": 99999999999999999999}', "", "The filter is not"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "", "The filter is not"),
        ('{"_id": {"$oid": "5f0a"}}', "", "The filter is not"),
        ('{"a": {"$numberDecimal": "ten"}}', "", "The filter is not"),
        ('{"a": {"$binary": {}}}', "", "The filter is not"),
        ('{"a": {"$binary": 1, "$type": 1}}', "", "The filter is not"),
        ('{"a": {"$regularExpression": {"pattern": "x"}}}', "", "The filter is not"),
        ("", "{a: 1}", "The projection is not"),
        ("", "a,,b", "has an empty name"),
        ("", ",", "has an empty name"),
        ("", '{"_id": "$species"}', "may set _id only to 1 or 0"),
        ("", '{"_id": {"$toString": "$_id"}}', "may set _id only to 1 or 0"),
        # With a part of the _id a broken scan would not know where it was.
        ("", "_id.observation,species", "may set _id only to 1 or 0"),
        ("", '{"_id.observation": 0}', "may set _id only to 1 or 0"),
    ],
)
def test_what_is_no_query_is_said(filter_text: str, projection_text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        Query.parse(filter_text, projection_text)
    assert len(str(refused.value)) < 400


names_of_extended_json = st.sampled_from([
    "$oid", "$date", "$binary", "$type", "$uuid", "$regularExpression", "$regex", "$options",
    "$timestamp", "$numberLong", "$numberDouble", "$numberDecimal", "$code", "$scope", "$ref",
    "$id", "$symbol", "$minKey", "base64", "subType", "pattern", "options", "t", "i", "a",
])  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names_of_extended_json, inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(anything | st.dictionaries(st.just("a"), anything))
def test_any_json_is_a_query_or_refused(value: Any) -> None:
    try:
        query = Query.parse(json.dumps(value))
    except UsageError:
        return
    bson.encode(query.filter)


def test_pymongo_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(UsageError, match=r"pip install 'dataset-mirror\[mongo\]'"):
        Query.parse("{}")


# --- what comes after ---

# At least two of each type that has two values, in the order of BSON's types and of their values.
# What this server does not compare as MongoDB does is not here: binaries of several lengths or
# subtypes, a code with a scope and the same code without, a number beyond 2**53 and a double.
IDS_IN_ORDER: list[Any] = [
    MinKey(),
    None,
    math.nan, -math.inf, Int64(-(2**53)), -5, Decimal128("-0.1"), 0, 2.5, Int64(2**40),
    Decimal128("1E+40"), math.inf,
    "", "A", "a", "a\0b", "añb", "\U0001f33f",
    {}, {"a": 1}, {"a": 1, "b": 1}, {"b": 0},
    b"ab", b"b\0", b"\xff\xff",
    ObjectId("000000000000000000000000"), AN_ID,
    False, True,
    datetime(1869, 7, 4, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC),
    Timestamp(0, 1), Timestamp(1577934245, 3),
    Code("a"), Code("b"),
    Code("c", {}), Code("d", {"x": 1}),
    MaxKey(),
]  # fmt: skip


def filled(mongodb: MongoServer, ids: Sequence[Any], **fields: Any) -> Collection[dict[str, Any]]:
    """A new collection of documents with these `_id`s, inserted in random order."""
    collection = mongodb.fresh_collection()
    documents = [{"_id": one, **fields} for one in ids]
    random.Random(7).shuffle(documents)
    with suppress(BulkWriteError):  # drawn `_id`s may be equal: 0 and 0.0
        collection.insert_many(documents, ordered=False)
    return collection


def scanned(collection: Collection[dict[str, Any]], wanted: dict[str, Any]) -> list[bytes]:
    """The documents that a server finds, in the order of a scan."""
    raw: Collection[Any] = collection.with_options(
        bson.CodecOptions(document_class=RawBSONDocument)
    )
    return [one.raw for one in raw.find(wanted, sort=[("_id", 1)])]


def assert_every_resumption_is_exact(collection: Collection[dict[str, Any]], query: Query) -> None:
    everything = scanned(collection, query.after(None) or {})
    for at, document in enumerate(everything):
        wanted = query.after(LastId.of(document))
        found = [] if wanted is None else scanned(collection, wanted)
        assert found == everything[at + 1 :], bson.decode(document)["_id"]


def test_the_scan_goes_on_behind_every_type_of_id(mongodb: MongoServer) -> None:
    collection = filled(mongodb, IDS_IN_ORDER)
    expected = [bson.encode({"_id": one}) for one in IDS_IN_ORDER]
    assert scanned(collection, {}) == expected
    assert_every_resumption_is_exact(collection, Query())


@pytest.mark.parametrize("nan", [math.nan, Decimal128("NaN")], ids=["double", "decimal"])
def test_what_is_not_a_number_comes_before_all_numbers(mongodb: MongoServer, nan: Any) -> None:
    ids = [None, nan, -math.inf, -1.5, 3, "text"]
    collection = filled(mongodb, ids)
    after = Query().after(LastId.of(bson.encode({"_id": nan})))
    assert [one["_id"] for one in collection.find(after, sort=[("_id", 1)])] == ids[2:]
    assert_every_resumption_is_exact(collection, Query())


def test_the_scan_goes_on_behind_a_uuid(mongodb: MongoServer) -> None:
    collection = filled(mongodb, [Binary.from_uuid(UUID(int=n)) for n in (1, 2**64, 7, 2**127)])
    assert_every_resumption_is_exact(collection, Query())


def test_nothing_is_after_the_greatest_key() -> None:
    assert Query({"a": 1}).after(LastId.of(bson.encode({"_id": MaxKey()}))) is None


def test_a_filter_holds_behind_every_id_too(mongodb: MongoServer) -> None:
    collection = filled(mongodb, IDS_IN_ORDER, kept=True, n=1)
    collection.update_many({"_id": {"$in": IDS_IN_ORDER[::3]}}, {"$set": {"kept": False}})
    for wanted in (
        {"kept": True},
        {"$or": [{"kept": False}, {"n": 2}]},
        {"_id": {"$gte": 0}},
        {"kept": True, "_id": {"$type": ["string", "object"]}},
    ):
        assert len(scanned(collection, wanted)) > 3
        assert_every_resumption_is_exact(collection, Query(wanted))


small_objects = st.dictionaries(st.sampled_from("ab"), st.integers(0, 1) | st.none(), max_size=2)
ids = st.one_of(
    st.none(),
    st.sampled_from([MinKey(), MaxKey(), math.nan, Decimal128("NaN"), -math.inf, -0.0]),
    st.integers(-2, 2),
    st.integers(-(2**53), 2**53).map(Int64),
    st.floats(),
    st.integers(-5, 5).map(lambda n: Decimal128(f"{n}.5")),
    st.text(st.sampled_from("aBñ\0\U0001f33f"), max_size=3),
    small_objects,
    st.binary(min_size=2, max_size=2),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.booleans(),
    st.integers(-(6 * 10**13), 10**14).map(DatetimeMS),
    st.builds(Timestamp, st.integers(0, 9), st.integers(0, 2)),
    st.builds(Code, st.sampled_from("ab")),
    st.builds(Code, st.sampled_from("cd"), st.just({})),
)


@settings(max_examples=30, deadline=None)
@given(found=st.lists(ids, min_size=1, max_size=12))
def test_resuming_after_any_document_gives_exactly_the_rest(
    mongodb: MongoServer, found: list[Any]
) -> None:
    collection = filled(mongodb, found)
    try:
        assert_every_resumption_is_exact(collection, Query())
    finally:
        collection.drop()


def test_damage_in_another_field_does_not_hide_the_id() -> None:
    document = bson.encode({"_id": "a", "name": "abc"}).replace(b"abc", b"a\xffc")
    assert LastId.of(document).value == "a"


def test_an_id_that_is_no_text_is_nowhere_to_go_on_from() -> None:
    document = bson.encode({"_id": "abc"}).replace(b"abc", b"a\xffc")
    with pytest.raises(DatasetError, match="not UTF-8"):
        LastId.of(document)
