"""Scans of a collection on a real MongoDB server, interrupted at any moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote
from uuid import UUID

import bson
import pytest
from bson import ObjectId, Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.collection import Collection

from mirror.dataset.formats.documents import split
from mirror.dataset.formats.mongo import Break, MongoCollection, connected, read_batches
from mirror.dataset.formats.mongo_query import Query
from mirror.dataset.formats.mongo_url import MongoUrl
from mirror.dataset.records import ReadOptions
from mirror.errors import ConfigError, DatasetError, MirrorError, UsageError
from mirror.store.retry import RetryPolicy
from tests.dataset.formats.mongo_relay import THROUGH_IT, altering
from tests.dataset.formats.test_mongo_query import filled, ids, scanned
from tests.servers import MongoServer
from tests.servers.mongodb import MONGO_LOCAL, MONGO_READER, MONGO_STRANGER, ROOT, MongoUser
from tests.servers.process import free_ports

# --- a scan ---

QUICKLY = RetryPolicy(attempts=3, base=0.0, cap=0.0)
TEN = list(range(10))


@dataclass
class Scan:
    """The results of a scan, until its end or its error."""

    ids: list[Any] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def run(self, source: MongoCollection, query: Query | None = None, **how: Any) -> Scan:
        how = {"retry": QUICKLY, "batch_size": 3, "on_break": self.breaks.append, **how}
        for batch in source.batches(query or Query(), **how):
            documents = split(batch)
            self.raw += documents
            self.ids += [bson.decode(one)["_id"] for one in documents]
            self.sizes.append(len(documents))
        return self

    @property
    def broke_after(self) -> list[int]:
        return [one.documents for one in self.breaks]


def parsed(address: str) -> MongoUrl:
    return MongoUrl.parse(address, {})


@pytest.fixture
def plants(mongodb: MongoServer) -> Collection[dict[str, Any]]:
    """Ten documents, inserted from the last to the first."""
    collection = mongodb.fresh_collection()
    collection.insert_many([{"_id": n, "even": n % 2 == 0} for n in reversed(TEN)])
    return collection


@pytest.fixture(scope="module")
def connection(mongodb: MongoServer) -> Iterator[MongoCollection]:
    """One connection for many tests, because checking a password takes as long as a scan."""
    collection = mongodb.fresh_collection()
    collection.insert_one({})
    # How soon after a break the driver finds the server well again: half a second at the least.
    with connected(parsed(mongodb.url(collection.name, heartbeatFrequencyMS="500"))) as source:
        yield source


def of(connection: MongoCollection, collection: Collection[dict[str, Any]]) -> MongoCollection:
    return replace(connection, collection=connection.collection.database[collection.name])


@pytest.fixture
def source(connection: MongoCollection, plants: Collection[dict[str, Any]]) -> MongoCollection:
    """The ten plants, through the user who may only read."""
    return of(connection, plants)


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(1, [1] * 10), (3, [3, 3, 3, 1]), (10, [10]), (1000, [10])]
)
def test_the_documents_come_in_the_order_of_their_id(
    source: MongoCollection, batch_size: int, sizes: list[int]
) -> None:
    scan = Scan().run(source, batch_size=batch_size)
    assert (scan.ids, scan.sizes, scan.breaks) == (TEN, sizes, [])


def test_a_filter_and_a_count_of_what_it_finds(source: MongoCollection) -> None:
    assert (source.count(Query()), source.count(Query({"even": True}))) == (10, 5)
    assert Scan().run(source, Query({"even": True})).ids == [0, 2, 4, 6, 8]
    assert Scan().run(source, Query({"even": None})).ids == []


def test_the_id_comes_even_when_the_projection_leaves_it_out(source: MongoCollection) -> None:
    for projection in ({"even": 1, "_id": 0}, {"_id": 0}, {"even": 0, "_id": 0}):
        assert Scan().run(source, Query({}, projection)).ids == TEN
    (batch,) = source.batches(Query({"_id": 4}, {"even": 1, "_id": 0}))
    assert bson.decode(batch) == {"_id": 4, "even": True}


def test_what_cannot_be_counted_is_read_all_the_same(
    mongodb: MongoServer, source: MongoCollection
) -> None:
    with mongodb.failing("count", "aggregate", errorCode=50):
        assert source.count(Query()) is None
        assert source.count(Query({"even": True})) is None
        assert Scan().run(source).ids == TEN


# --- a scan that breaks ---

CURSOR_NOT_FOUND = {"errorCode": 43}
CURSOR_KILLED = {"errorCode": 237}
SHUTDOWN_IN_PROGRESS = {"errorCode": 91}
NOT_PRIMARY = {"errorCode": 10107}
CLOSED = {"closeConnection": True}


@pytest.mark.parametrize(
    ("commands", "how", "mode", "broke_after"),
    [
        (["getMore"], CURSOR_NOT_FOUND, {"times": 1}, [3]),
        (["getMore"], CURSOR_NOT_FOUND, {"skip": 1, "times": 1}, [6]),
        (["getMore"], CURSOR_NOT_FOUND, {"skip": 2, "times": 1}, [9]),
        (["getMore"], CURSOR_KILLED, "alwaysOn", [3, 6, 9]),
        (["find", "getMore"], CURSOR_NOT_FOUND, {"times": 2}, [0, 0]),
        (["find", "getMore"], CURSOR_NOT_FOUND, {"skip": 1, "times": 2}, [3, 3]),
        (["find", "getMore"], CURSOR_NOT_FOUND, {"skip": 3, "times": 2}, [9, 9]),
        (["getMore"], SHUTDOWN_IN_PROGRESS, {"times": 1}, [3]),
        (["getMore"], NOT_PRIMARY, {"skip": 1, "times": 1}, [6]),
        (["getMore"], CLOSED, {"skip": 2, "times": 1}, [9]),
        (["find"], CLOSED, {"times": 1}, []),  # the driver itself asks again for a first batch
        (["getMore"], CLOSED, {"times": 2}, [3, 6]),
    ],
)
def test_a_scan_that_breaks_gives_each_document_once(
    mongodb: MongoServer,
    source: MongoCollection,
    commands: list[str],
    how: dict[str, Any],
    mode: Any,
    broke_after: list[int],
) -> None:
    with mongodb.failing(*commands, mode=mode, **how):
        scan = Scan().run(source)
    assert (scan.ids, scan.broke_after) == (TEN, broke_after)


@pytest.mark.parametrize("skip", [0, 1])
def test_filter_and_projection_hold_behind_a_break(
    mongodb: MongoServer, source: MongoCollection, skip: int
) -> None:
    query = Query({"even": True}, {"_id": 0, "even": 0})
    with mongodb.failing("getMore", mode={"skip": skip, "times": 1}, **CURSOR_NOT_FOUND):
        scan = Scan().run(source, query, batch_size=2)
    assert scan.raw == [bson.encode({"_id": n}) for n in (0, 2, 4, 6, 8)]
    assert scan.broke_after == [2 * (skip + 1)]


def test_what_is_written_behind_a_break_is_read_and_what_is_gone_is_not(
    mongodb: MongoServer, source: MongoCollection, plants: Collection[dict[str, Any]]
) -> None:
    def meanwhile(_: float) -> None:
        plants.delete_many({"_id": {"$in": [1, 2, 5]}})
        plants.insert_many([{"_id": 0.5}, {"_id": 6.5}])

    with mongodb.failing("getMore", mode={"times": 1}, **CURSOR_NOT_FOUND):
        scan = Scan().run(source, sleep=meanwhile)
    assert scan.ids == [0, 1, 2, 3, 4, 6, 6.5, 7, 8, 9]


def test_a_batch_that_never_comes_is_asked_for_again(
    mongodb: MongoServer, plants: Collection[dict[str, Any]]
) -> None:
    silence = {"blockConnection": True, "blockTimeMS": 1200}
    with (
        connected(parsed(mongodb.url(plants.name, socketTimeoutMS="600"))) as source,
        mongodb.failing("getMore", mode={"times": 1}, **silence),
    ):
        scan = Scan().run(source)
    assert (scan.ids, scan.broke_after) == (TEN, [3])
    assert "timed out" in scan.breaks[0].reason


@settings(max_examples=25, deadline=None)
@given(
    found=st.lists(ids, min_size=1, max_size=12),
    batch_size=st.integers(1, 4),
    skip=st.integers(0, 6),
    times=st.integers(1, 2),
)
def test_ids_of_all_types_come_once_whenever_the_scan_breaks(
    mongodb: MongoServer,
    connection: MongoCollection,
    found: list[Any],
    batch_size: int,
    skip: int,
    times: int,
) -> None:
    collection = filled(mongodb, found, name="Quercus robur")
    expected = scanned(collection, {})
    mode = {"skip": skip, "times": times}
    with mongodb.failing("find", "getMore", mode=mode, **CURSOR_NOT_FOUND):
        scan = Scan().run(of(connection, collection), batch_size=batch_size)
    collection.drop()
    assert scan.raw == expected


@pytest.mark.parametrize(
    ("how", "documents"), [(CURSOR_NOT_FOUND, 0), (CURSOR_NOT_FOUND, 6), (CLOSED, 3)]
)
def test_a_server_that_does_not_come_back_is_given_up(
    mongodb: MongoServer, source: MongoCollection, how: dict[str, Any], documents: int
) -> None:
    scan = Scan()
    mode = {"skip": documents // 3, "times": 1000}
    with (
        mongodb.failing("find", "getMore", mode=mode, **how),
        pytest.raises(DatasetError, match="run the command again") as given_up,
    ):
        scan.run(source)
    assert f"{source.url} broke 3 times in a row after {documents} documents" in str(given_up.value)
    assert (scan.ids, scan.broke_after) == (TEN[:documents], [documents] * 2)


def test_pauses_grow_until_a_document_comes_and_are_told_before_they_begin(
    mongodb: MongoServer, source: MongoCollection
) -> None:
    events: list[float | str] = []
    with mongodb.failing("find", "getMore", mode={"skip": 1, "times": 4}, **CURSOR_NOT_FOUND):
        Scan().run(
            source,
            retry=RetryPolicy(attempts=5, base=1.0, cap=10.0),
            on_break=lambda one: events.append(str(one)),
            sleep=events.append,
            jitter=lambda: 0.75,
        )
    said = "the scan broke after 3 documents (Failing command via 'failCommand' failpoint)"
    assert events == [
        event
        for pause in (1.5, 3.0, 6.0, 7.5)
        for event in (f"{said}; it resumes in {pause} s", pause)
    ]
    events.clear()
    with mongodb.failing("getMore", **CURSOR_NOT_FOUND):
        Scan().run(source, retry=QUICKLY, sleep=events.append)
    assert events == [0.0] * 3  # more breaks than attempts: there were documents between them


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ({"errorCode": 2}, DatasetError, "cannot be read: the server says"),
        ({"errorCode": 13}, DatasetError, "may not be read by this user"),
        ({"errorCode": 18}, ConfigError, "rejected the user or the password"),
        ({"errorCode": 292}, DatasetError, "use a narrower filter"),
    ],
)
def test_what_does_not_pass_by_itself_ends_the_scan_at_once(
    mongodb: MongoServer,
    source: MongoCollection,
    how: dict[str, Any],
    kind: type[MirrorError],
    words: str,
) -> None:
    scan = Scan()
    # A filter that has found something is not to blame.
    query = Query({"even": {"$exists": True}})
    with mongodb.failing("getMore", **how), pytest.raises(kind, match=words):
        scan.run(source, query)
    assert (scan.ids, scan.breaks) == (TEN[:3], [])


@pytest.mark.parametrize(
    "query",
    [
        Query({"$even": True}),
        Query({"even": {"$is": True}}),
        Query({"even": {"$regex": "["}}),
        Query({}, {"even": 1, "odd": 0}),
        Query({}, {"odd": {"$not_even": "$even"}}),
    ],
)
def test_a_query_that_the_server_does_not_take_is_the_users_to_mend(
    source: MongoCollection, query: Query
) -> None:
    with pytest.raises(UsageError, match="rejects the filter or the projection: "):
        Scan().run(source, query)


# --- who is let in, and to what ---

WRONG = MongoUser("reader", "wrong:hunter2", ())


@pytest.mark.parametrize("user", [MONGO_READER, MONGO_LOCAL, ROOT], ids=lambda user: user.name)
def test_users_of_any_database_are_let_in(
    mongodb: MongoServer, plants: Collection[dict[str, Any]], user: MongoUser
) -> None:
    with connected(parsed(mongodb.url(plants.name, user))) as source:
        assert Scan().run(source).ids == TEN


def test_user_and_password_of_the_environment(
    mongodb: MongoServer, plants: Collection[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGODB_USERNAME", MONGO_READER.name)
    monkeypatch.setenv("MONGODB_PASSWORD", MONGO_READER.password)
    with connected(MongoUrl.parse(mongodb.url(plants.name, None, authSource="admin"))) as source:
        assert Scan().run(source).ids == TEN


@pytest.mark.parametrize(
    ("user", "kind", "words"),
    [
        (None, ConfigError, "requires a user and a password; give them in MONGODB_USERNAME and"),
        (WRONG, ConfigError, r"rejected the user or the password; .* \?authSource=admin"),
        (MONGO_STRANGER, DatasetError, "may not be read by this user .* the role read on the"),
    ],
    ids=["no password", "wrong password", "no role"],
)
def test_who_is_not_let_in_is_told_why(
    mongodb: MongoServer,
    plants: Collection[dict[str, Any]],
    user: MongoUser | None,
    kind: type[MirrorError],
    words: str,
) -> None:
    url = parsed(mongodb.url(plants.name, user))
    with pytest.raises(kind, match=words) as refused, connected(url) as source:
        Scan().run(source)
    assert str(url) in str(refused.value)
    assert user is None or user.password not in str(refused.value)


def test_who_may_not_list_collections_may_read_one(
    mongodb: MongoServer, plants: Collection[dict[str, Any]]
) -> None:
    with (
        mongodb.failing("listCollections", errorCode=13),
        connected(parsed(mongodb.url(plants.name))) as source,
    ):
        assert Scan().run(source).ids == TEN


def test_a_database_of_many_collections_is_not_listed_to_open_one(
    mongodb: MongoServer, plants: Collection[dict[str, Any]]
) -> None:
    others = [mongodb.fresh_collection() for _ in range(110)]  # more than one answer lists
    for other in others:
        other.insert_one({})
    with (
        mongodb.failing("getMore", errorCode=43),
        connected(parsed(mongodb.url(plants.name))) as source,
    ):
        assert Scan().run(source).ids == TEN
    for other in others:
        other.drop()


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_collection_that_is_not_there_is_never_an_empty_one(
    mongodb: MongoServer, plants: Collection[dict[str, Any]], cut: int
) -> None:
    name = plants.name[:-cut] if cut else "trees"
    hint = f"no collection '{name}', but '{plants.name}'" if cut else "check both names"
    with (
        pytest.raises(DatasetError, match=f"does not exist: .*{hint}"),
        connected(parsed(mongodb.url(name))),
    ):
        pass


def test_a_server_that_is_down() -> None:
    (port,) = free_ports(1)
    url = parsed(f"mongodb://u:hunter2@127.0.0.1:{port}/db/c?serverSelectionTimeoutMS=500")
    with pytest.raises(DatasetError, match="cannot be reached") as down, connected(url):
        pass
    assert str(down.value) == (
        f"mongodb://127.0.0.1:{port}/db/c cannot be reached (127.0.0.1:{port}: [Errno 111] "
        "Connection refused); check the address and whether the server requires TLS (?tls=true)."
    )


def test_a_source_shows_no_secret(source: MongoCollection) -> None:
    for text in (repr(source), str(source), repr(source.url), str(source.collection)):
        assert MONGO_READER.password not in text
        assert quote(MONGO_READER.password, safe="") not in text


# --- views ---


@pytest.fixture
def view(
    mongodb: MongoServer, plants: Collection[dict[str, Any]]
) -> Iterator[Collection[dict[str, Any]]]:
    """A view with each plant twice: the _id of its documents is not unique."""
    pipeline = [{"$set": {"part": ["leaf", "stem"]}}, {"$unwind": "$part"}]
    yield plants.database.create_collection(
        f"{plants.name}-view", viewOn=plants.name, pipeline=pipeline
    )
    plants.database.drop_collection(f"{plants.name}-view")


TWICE = sorted(TEN * 2)


def test_a_view_is_read_like_a_collection(
    mongodb: MongoServer, view: Collection[dict[str, Any]]
) -> None:
    with connected(parsed(mongodb.url(view.name))) as source:
        assert source.kind == "view"
        assert source.count(Query()) == 20
        assert Scan().run(source).ids == TWICE
        with mongodb.failing("find", mode={"times": 2}, **CURSOR_NOT_FOUND):
            scan = Scan().run(source)
    assert (scan.ids, scan.broke_after) == (TWICE, [0, 0])


def test_a_view_whose_scan_broke_is_not_gone_on_with(
    mongodb: MongoServer, view: Collection[dict[str, Any]]
) -> None:
    scan = Scan()
    with (
        connected(parsed(mongodb.url(view.name))) as source,
        mongodb.failing("getMore", **CURSOR_NOT_FOUND),
        pytest.raises(DatasetError, match="after 3 documents .* a view has no unique _id"),
    ):
        scan.run(source)
    assert (scan.ids, scan.breaks) == (TWICE[:3], [])


# --- as a dataset's records ---


def test_documents_are_records(mongodb: MongoServer) -> None:
    collection = mongodb.fresh_collection()
    urls = [f"https://example.org/{n}.jpg" for n in range(5)]
    collection.insert_many(
        [
            {"_id": 1, "photo": {"urls": urls[:2]}, "licence": "cc0", "at": Timestamp(1, 2)},
            {"_id": 2, "photo": {}, "licence": "cc0"},
            {"_id": ObjectId("5f0a1b2c3d4e5f6071829304"), "photo": {"urls": urls[2:3]}},
            {"_id": UUID(int=3).hex, "photo": {"urls": 5}},
            {"_id": True, "photo": {"urls": urls[3:]}, "source_url": "x"},
        ]
    )
    reading = ReadOptions.of("photo.urls", "source_url", "licence")
    (batch,) = read_batches(parsed(mongodb.url(collection.name)), reading)
    assert batch.urls == [url.encode() for url in urls]
    assert list(batch.numbers) == [1, 4, 5]
    assert batch.owners is not None
    assert batch.owners.tolist() == [0, 0, 1, 2, 2]
    assert batch.others[("licence",)][0] == "cc0"
    assert [(one.number, json.loads(one.raw)["_id"]) for one in batch.rejected] == [
        (2, 2),
        (3, UUID(int=3).hex),
    ]
    assert batch.unchanged([0, 1]).rows() == [
        {"_id": 1, "photo": {"urls": urls[:2]}, "licence": "cc0", "at": {"t": 1, "i": 2}},
        {"_id": "5f0a1b2c3d4e5f6071829304", "photo": {"urls": urls[2:3]}},
    ]


def test_records_are_numbered_through_and_damaged_ones_rejected(mongodb: MongoServer) -> None:
    collection = mongodb.fresh_collection()
    damaged = {3, 1000, 1001, 2004}
    collection.insert_many(
        [
            {"_id": n, "image_url": f"https://example.org/{n}",
             "name": "spoilt" if n in damaged else "Quercus"}
            for n in range(2005)
        ]
    )  # fmt: skip
    with altering(mongodb, b"spoilt", b"sp\xffilt") as server:
        address = server.url(collection.name, MONGO_READER, **THROUGH_IT)
        batches = list(read_batches(parsed(address), ReadOptions()))
    assert len(batches) == 3
    numbers = [number for batch in batches for number in batch.numbers]
    assert numbers == [n + 1 for n in range(2005) if n not in damaged]
    rejected = [one for batch in batches for one in batch.rejected]
    assert [(one.number, one.raw) for one in rejected] == [
        (n + 1, str(n).encode()) for n in sorted(damaged)
    ]
    assert all("is not valid BSON" in one.reason for one in rejected)


def test_a_scan_does_not_go_on_behind_an_id_that_is_no_text(mongodb: MongoServer) -> None:
    collection = mongodb.fresh_collection()
    collection.insert_many([{"_id": "a"}, {"_id": "spoilt"}, {"_id": "z"}])
    with (
        altering(mongodb, b"spoilt", b"sp\xffilt") as server,
        connected(parsed(server.url(collection.name, MONGO_READER, **THROUGH_IT))) as source,
    ):
        assert len(list(source.batches(Query(), batch_size=1))) == 3
        with (
            mongodb.failing("getMore", mode={"skip": 1, "times": 1}, **CURSOR_NOT_FOUND),
            pytest.raises(DatasetError, match="after an _id that is not UTF-8"),
        ):
            list(source.batches(Query(), batch_size=1, retry=QUICKLY))
