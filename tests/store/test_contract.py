"""The store's contract: one suite that every engine passes on every server, and on a folder."""

from __future__ import annotations

import asyncio
import hashlib
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mirror.catalog.upload import object_headers
from mirror.errors import (
    AccessDenied,
    AlreadyExists,
    BadCredentials,
    BucketMissing,
    Conflict,
    NotFound,
    PreconditionFailed,
    StoreError,
    Unreachable,
)
from mirror.store.base import (
    Create,
    Created,
    Headers,
    IfMatch,
    NewObject,
    Overwrite,
    Store,
    list_all,
)
from mirror.store.s3_access import S3Access
from mirror.store.signing import Signer
from tests.conftest import PLACES, MakePlace, Place
from tests.servers import READER

PLAIN = Headers()
JPEG = Headers("image/jpeg", "public, max-age=31536000, immutable")


def run(place: Place, story: Callable[[Store], Awaitable[Any]]) -> Any:
    async def tell() -> Any:
        store = place.open()
        try:
            return await story(store)
        finally:
            await store.aclose()

    return asyncio.run(tell())


def test_an_object_is_read_back_whole_and_in_ranges(place: Place) -> None:
    body = bytes(range(256)) * 300

    async def story(store: Store) -> None:
        etag = await store.put("objects/ab/x.jpg", body, Create(), JPEG)
        assert await store.get("objects/ab/x.jpg") == body
        assert await store.get_range("objects/ab/x.jpg", 250, 20) == body[250:270]
        assert await store.get_range("objects/ab/x.jpg", len(body) - 3, 20) == body[-3:]
        info = await store.head("objects/ab/x.jpg")
        assert (info.key, info.size, info.etag) == ("objects/ab/x.jpg", len(body), etag)
        assert abs(datetime.now(UTC) - info.last_modified) < timedelta(minutes=5)

    run(place, story)


def test_an_empty_object_is_an_object(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.put("empty", b"", Create(), PLAIN)
        assert await store.get("empty") == b""
        assert (await store.head("empty")).size == 0

    run(place, story)


def test_create_refuses_a_taken_key_and_keeps_its_object(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.put("k", b"first", Create(), PLAIN)
        with pytest.raises(AlreadyExists):
            await store.put("k", b"second", Create(), PLAIN)
        assert await store.get("k") == b"first"

    run(place, story)


def turn_of(*keys: str) -> list[NewObject]:
    return [NewObject(key, f"body of {key}".encode(), JPEG) for key in keys]


def never() -> bool:
    return False


def test_create_in_turn_creates_objects_one_after_the_other(place: Place) -> None:
    async def story(store: Store) -> None:
        new = turn_of("a", "b", "c")
        assert await store.create_in_turn(new, never) == Created(3, None)
        assert await store.create_in_turn([], never) == Created(0, None)
        for one in new:
            assert await store.get(one.key) == one.body

    run(place, story)


def test_create_in_turn_ends_at_a_taken_key(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.put("taken", b"first", Create(), PLAIN)
        created = await store.create_in_turn(turn_of("a", "taken", "b"), never)
        assert created.written == 1
        assert isinstance(created.error, AlreadyExists)
        assert await store.get("taken") == b"first"
        with pytest.raises(NotFound):
            await store.head("b")

    run(place, story)


def test_create_in_turn_stops_when_asked_to(place: Place) -> None:
    async def story(store: Store) -> None:
        answers = iter([False, False, True])
        new = turn_of("a", "b", "c")
        assert await store.create_in_turn(new, lambda: next(answers)) == Created(2, None)
        with pytest.raises(NotFound):
            await store.head("c")

    run(place, story)


def test_of_many_creators_at_once_one_wins(place: Place) -> None:
    async def story(store: Store) -> None:
        async def create(number: int) -> bool:
            try:
                await store.put("raced", b"%d" % number, Create(), PLAIN)
            except (AlreadyExists, StoreError):
                return False
            return True

        won = await asyncio.gather(*(create(number) for number in range(8)))
        assert won.count(True) == 1
        assert await store.get("raced") == b"%d" % won.index(True)

    run(place, story)


def test_overwrite_replaces(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.put("k", b"first", Overwrite(), PLAIN)
        await store.put("k", b"second", Overwrite(), PLAIN)
        assert await store.get("k") == b"second"

    run(place, story)


def test_if_match_replaces_only_what_it_names(place: Place) -> None:
    async def story(store: Store) -> None:
        first = await store.put("k", b"first", Create(), PLAIN)
        second = await store.put("k", b"second", IfMatch(first), PLAIN)
        assert second != first
        with pytest.raises(PreconditionFailed):
            await store.put("k", b"third", IfMatch(first), PLAIN)
        with pytest.raises(PreconditionFailed):
            await store.put("absent", b"x", IfMatch(first), PLAIN)
        assert await store.get("k") == b"second"

    run(place, story)


@pytest.mark.parametrize("operation", ["get", "get_range", "head"])
def test_a_key_that_is_not_there_is_not_found(place: Place, operation: str) -> None:
    async def story(store: Store) -> None:
        arguments = (0, 1) if operation == "get_range" else ()
        with pytest.raises(NotFound):
            await getattr(store, operation)("no/such/key", *arguments)

    run(place, story)


def test_listing_is_in_key_order_page_by_page_and_only_below_the_prefix(place: Place) -> None:
    keys = [f"objects/{n % 7:02x}/{n:04d}.jpg" for n in range(1030)]

    async def story(store: Store) -> None:
        gate = asyncio.Semaphore(32)

        async def put(key: str) -> None:
            async with gate:
                await store.put(key, b"x", Create(), PLAIN)

        await asyncio.gather(*(put(key) for key in [*keys, "format.json", "objects.txt"]))
        listed = [info async for info in list_all(store, "objects/")]
        assert [info.key for info in listed] == sorted(keys)
        assert {info.size for info in listed} == {1}
        page = await store.list_page("objects/", "objects/03/9999.jpg")
        assert [info.key for info in page] == [k for k in sorted(keys) if k > "objects/03/9999.jpg"]
        # Sorted, because SeaweedFS lists a folder before a file whose name begins with the folder's.
        everything = sorted([info.key async for info in list_all(store, "")])
        assert everything == sorted([*keys, "format.json", "objects.txt"])
        assert await store.list_page("nothing/", "") == []

    run(place, story)


def leave_marker(place: Place, folder: str) -> None:
    """A folder marker is a key that ends with a slash, as a web console makes it."""
    if place.server is None:
        Path(place.url.path, folder).mkdir(parents=True)
        return
    key = f"{place.url.path}/{folder}/"
    client = S3Access(place.url, place.settings().bucket).client()
    client.put_object(Bucket=place.url.bucket, Key=key, Body=b"")


@pytest.mark.parametrize(
    "keys",
    [
        ["objects/00/a.jpg"],
        ["objects/00/a.jpg", "objects/ff-1.jpg", "objects/ff.jpg"],
        ["objects/00/a.jpg", "objects/ff.jpg", "objects/fg/a.jpg", "objects/fg/b.jpg"],
        ["objects/fe.jpg", "objects/fg.jpg", "objects/ff/a.jpg", "objects/ff/ b.jpg"],
    ],
    ids=["last", "after its neighbours", "amid others", "with objects in it"],
)
@pytest.mark.parametrize("page", [3, 1000])
def test_a_listing_with_a_folders_marker_in_it_ends_and_has_every_key_once(
    place: Place, keys: list[str], page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in ("obstore", "aioboto3", "file"):
        monkeypatch.setattr(f"mirror.store.engines.{engine}.LIST_PAGE", page)

    async def story(store: Store) -> list[str]:
        for key in keys:
            await store.put(key, b"x", Create(), PLAIN)
        listed: list[str] = []
        after = ""
        while found := await store.list_page("objects/", after):
            listed += [info.key for info in found]
            after = listed[-1]
            assert len(listed) <= len(keys) + 1
        return listed

    leave_marker(place, "objects/ff")
    listed = run(place, story)
    # A folder has no markers, and some servers list none. obstore lists most without the slash.
    assert sorted(key for key in listed if key.rstrip("/") != "objects/ff") == sorted(keys)


def test_delete_takes_many_keys_and_ignores_missing_ones(place: Place) -> None:
    async def story(store: Store) -> None:
        for key in ("a", "b", "c"):
            await store.put(key, b"x", Create(), PLAIN)
        assert await store.delete(["a", "c", "never-was"]) == {}
        assert [info.key async for info in list_all(store, "")] == ["b"]
        with pytest.raises(NotFound):
            await store.get("a")

    run(place, story)


def test_delete_with_etags_deletes_what_they_name(place: Place) -> None:
    """Servers differ in what they do with another ETag; `mirror doctor` says so."""

    async def story(store: Store) -> None:
        etags = [await store.put(key, b"x", Create(), PLAIN) for key in ("a", "b")]
        for _ in range(2):
            with suppress(Conflict):  # a server that refuses conditions gets none the next time
                assert await store.delete(["a", "b"], etags) == {}
        assert [info.key async for info in list_all(store, "")] == []

    run(place, story)


def test_a_large_object_goes_in_parts_and_comes_back_whole(place: Place) -> None:
    part = 5 << 20
    parts = [bytes([n]) * part for n in range(2)] + [b"tail"]

    async def chunks() -> AsyncIterator[bytes]:
        for one in parts:
            yield one

    async def story(store: Store) -> None:
        await store.put_multipart("large", chunks, part, JPEG)
        body = await store.get("large")
        assert hashlib.sha256(body).digest() == hashlib.sha256(b"".join(parts)).digest()

    run(place, story)


def test_a_large_object_whose_source_breaks_does_not_appear(place: Place) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield bytes(5 << 20)
        raise StoreError("changed while it was sent")

    async def story(store: Store) -> None:
        with pytest.raises(StoreError, match="changed while it was sent"):
            await store.put_multipart("large", breaking, 5 << 20, PLAIN)
        with pytest.raises(NotFound):
            await store.head("large")

    run(place, story)


@pytest.mark.parametrize("name", [name for name in PLACES if name != "file"])
def test_an_object_is_served_with_its_headers(name: str, make_place: MakePlace) -> None:
    place = make_place(name)

    async def story(store: Store) -> None:
        await store.put("objects/ab/a b+c.jpg", b"signed", Create(), JPEG)

    run(place, story)
    access = S3Access(place.url, place.settings().bucket)
    (url,) = Signer(access).sign(["objects/ab/a b+c.jpg"], timedelta(minutes=5))
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"signed"
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Content-Disposition"] is None


@pytest.mark.parametrize("how", ["put", "put_multipart"])
@pytest.mark.parametrize("name", [name for name in PLACES if name != "file"])
def test_a_strangers_page_is_served_as_a_download(
    name: str, how: str, make_place: MakePlace
) -> None:
    place = make_place(name)
    key, body, headers = "objects/ab/page.html", b"<script>steal()</script>", object_headers("html")

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    async def story(store: Store) -> None:
        if how == "put":
            await store.put(key, body, Create(), headers)
        else:
            await store.put_multipart(key, chunks, 5 << 20, headers)

    run(place, story)
    access = S3Access(place.url, place.settings().bucket)
    (url,) = Signer(access).sign([key], timedelta(minutes=5))
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == body
        assert answer.headers["Content-Disposition"] == "attachment"
        if not name.startswith("seaweedfs"):  # it derives a type from the key instead of this one
            assert answer.headers["Content-Type"] == "application/octet-stream"


S3_PLACES = ("seaweedfs-obstore", "seaweedfs-aioboto3")


@pytest.mark.parametrize("name", S3_PLACES)
def test_a_wrong_secret_is_bad_credentials(
    name: str, make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")

    async def story(store: Store) -> None:
        with pytest.raises((BadCredentials, AccessDenied)):
            await store.put("k", b"x", Create(), PLAIN)

    run(place, story)


@pytest.mark.parametrize("name", S3_PLACES)
def test_a_reader_may_read_and_not_write(
    name: str, make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(name)

    async def write(store: Store) -> None:
        await store.put("k", b"x", Create(), PLAIN)

    async def read(store: Store) -> None:
        assert await store.get("k") == b"x"
        with pytest.raises(AccessDenied):
            await store.put("other", b"x", Create(), PLAIN)
        failures = await store.delete(["k"])
        assert isinstance(failures["k"], AccessDenied)

    run(place, write)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER.secret_key)
    run(place, read)


@pytest.mark.parametrize("name", ["moto-obstore", "moto-aioboto3", *S3_PLACES])
def test_a_missing_bucket_is_said_to_be_missing(name: str, make_place: MakePlace) -> None:
    made = make_place(name)
    place = Place(name, made.layer | {"url": "s3://no-such-bucket/x"}, made.server)

    async def story(store: Store) -> None:
        with pytest.raises((BucketMissing, AccessDenied)):
            await store.put("k", b"x", Create(), PLAIN)

    run(place, story)


@pytest.mark.parametrize("engine", ["obstore", "aioboto3"])
def test_a_closed_port_is_unreachable(
    engine: str, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    layer = {
        "url": "s3://bkt",
        "endpoint": "http://127.0.0.1:9",
        "region": "auto",
        "engine": engine,
    }

    async def story(store: Store) -> None:
        with pytest.raises(Unreachable):
            await store.get("k")

    run(Place(f"closed-{engine}", layer), story)


@pytest.mark.parametrize("key", ["../escape", "a/../../b", "/absolute", "a//b", ""])
def test_a_folder_is_never_left(key: str, make_place: MakePlace) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(StoreError):
            await store.put(key, b"x", Create(), PLAIN)

    run(make_place("file"), story)
