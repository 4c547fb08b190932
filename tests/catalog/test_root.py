"""format.json: created once, never guessed, and the proof that the endpoint can be trusted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from mirror.catalog.root import Root, open_root, read_root
from mirror.errors import ConditionalPutIgnored, FormatError, NotFound
from mirror.layout import FORMAT, FORMAT_KEY, BucketUrl
from mirror.store.base import Create, Headers, Operation, Overwrite, PutMode, Store, StoreWrapper
from mirror.store.engines.file import FileStore
from mirror.store.throttle import Counting
from tests.conftest import MakePlace

T = TypeVar("T")


class Around(StoreWrapper):
    async def _call(
        self, operation: Operation, nbytes: int, request: Callable[[], Awaitable[T]]
    ) -> T:
        return await request()


class Deaf(Around):
    """An endpoint that silently ignores `If-None-Match`, and overwrites."""

    async def put(self, key: str, body: bytes, mode: PutMode, headers: Headers) -> str:
        return await super().put(key, body, Overwrite(), headers)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FileStore(BucketUrl("file", "", str(tmp_path)))


def hold(store: Store, body: bytes) -> None:
    asyncio.run(store.put(FORMAT_KEY, body, Create(), Headers()))


def test_a_root_is_created_once_and_kept(store: Store) -> None:
    first = asyncio.run(open_root(store, proven=False))
    assert first.format == FORMAT
    assert asyncio.run(open_root(store, proven=False)) == first
    held = json.loads(asyncio.run(store.get(FORMAT_KEY)))
    assert held["id"] == first.id
    assert held["created_by"].startswith("dataset-mirror ")


def test_a_root_is_read_with_one_request_that_changes_nothing(store: Store) -> None:
    made = asyncio.run(open_root(store, proven=False))
    counting = Counting(store)
    assert asyncio.run(read_root(counting)) == made
    assert counting.requests == {"put": 0, "get": 1, "head": 0, "list": 0, "delete": 0}


def test_reading_creates_no_root(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=f"no mirror at file://{tmp_path}; run mirror sync first"):
        asyncio.run(read_root(store))
    assert not list(tmp_path.iterdir())


def test_two_mirrors_have_different_ids(store: Store, tmp_path: Path) -> None:
    other = FileStore(BucketUrl("file", "", str(tmp_path / "other")))
    one, two = (asyncio.run(open_root(at, proven=True)) for at in (store, other))
    assert one.id != two.id


def test_a_proven_endpoint_costs_one_read(store: Store) -> None:
    asyncio.run(open_root(store, proven=True))
    counting = Counting(store)
    asyncio.run(open_root(counting, proven=True))
    assert counting.requests == {"put": 0, "get": 1, "head": 0, "list": 0, "delete": 0}


@pytest.mark.parametrize("name", ["file", "moto-obstore"])
def test_many_racing_creators_open_the_same_root(name: str, make_place: MakePlace) -> None:
    store = make_place(name).open()
    absent = asyncio.Barrier(8)

    class Racer(Around):
        """Creates the root only when every racer has found none."""

        first = True

        async def get(self, key: str) -> bytes:
            try:
                return await super().get(key)
            except NotFound:
                if self.first:
                    self.first = False
                    await absent.wait()
                raise

    async def race() -> list[Root]:
        return await asyncio.gather(*(open_root(Racer(store), proven=True) for _ in range(8)))

    roots = asyncio.run(race())
    assert len({root.id for root in roots}) == 1


@pytest.mark.parametrize("later", [0, 2, 99])
def test_another_format_is_refused_and_left_alone(later: int, store: Store) -> None:
    body = json.dumps({"format": later, "id": "x", "shards": 4}).encode()
    hold(store, body)
    with pytest.raises(FormatError, match=rf"format {later}\b.*upgrade"):
        asyncio.run(open_root(store, proven=False))
    assert asyncio.run(store.get(FORMAT_KEY)) == body


def test_keys_of_a_later_version_are_ignored(store: Store) -> None:
    hold(store, json.dumps({"format": FORMAT, "id": "x", "colour": "blue"}).encode())
    assert asyncio.run(open_root(store, proven=True)).id == "x"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b'{"format": 1}',
        b'{"format": "1", "id": "x"}',
        b'{"format": 1, "id": 5}',
        b'{"format": 1, "id": "\xff"}',
        b'{"format": 1, "id": "x"',
        b'{"format": 1, "id": ""}',
        b'{"format": 1, "id": ".."}',
        b'{"format": 1, "id": "../x"}',
        b'{"format": 1, "id": "/etc"}',
        b'{"format": 1, "id": "x\\n"}',
        b"<html>404</html>",
    ],
)
def test_garbage_is_refused_and_left_alone(body: bytes, store: Store) -> None:
    hold(store, body)
    for opening in (open_root(store, proven=False), read_root(store)):
        with pytest.raises(FormatError, match="not a mirror's"):
            asyncio.run(opening)
    assert asyncio.run(store.get(FORMAT_KEY)) == body


def test_an_endpoint_that_ignores_the_condition_is_refused_each_time(store: Store) -> None:
    for _ in range(2):
        with pytest.raises(ConditionalPutIgnored, match="If-None-Match"):
            asyncio.run(open_root(Deaf(store), proven=False))


def test_the_trial_changes_nothing_even_where_it_overwrites(store: Store) -> None:
    asyncio.run(open_root(store, proven=True))
    before = asyncio.run(store.get(FORMAT_KEY))
    with pytest.raises(ConditionalPutIgnored):
        asyncio.run(open_root(Deaf(store), proven=False))
    assert asyncio.run(store.get(FORMAT_KEY)) == before
