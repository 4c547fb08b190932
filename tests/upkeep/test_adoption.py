"""A writer that adopts an unreferenced object makes it young, or leaves it while gc deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from mirror.catalog.gc_lease import GcLease
from mirror.catalog.upload import upload_body
from mirror.errors import AccessDenied, StoreError
from mirror.layout import GC_LEASE_KEY
from mirror.store.base import Headers, IfMatch
from mirror.store.engines.file import FileStore
from tests.support.mirror_setup import Workshop, key_of
from tests.support.photos import photo
from tests.upkeep.aged_mirrors import (
    DELETING,
    IDLE,
    adopting,
    age_of,
    on,
    orphan,
    root_of,
    says,
    stocked,
)


@pytest.mark.parametrize(
    ("days", "is_renewed"), [(0.0, False), (0.9, False), (1.1, True), (100.0, True), (-1.0, True)]
)
def test_adopting_an_old_object_makes_it_young(
    local: Workshop, days: float, is_renewed: bool
) -> None:
    stocked(local)
    path = orphan(local, 70, days)
    inode = path.stat().st_ino
    on(local, adopting(local, 70))
    assert (path.stat().st_ino != inode) == is_renewed
    if is_renewed:
        assert age_of(path) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("write", "adopted"),
    [
        (says(IDLE), True),
        (says(GcLease(run="1", state="planning", holder="x")), True),
        (says(DELETING), False),
        (says(DELETING, timedelta(minutes=50)), False),
        (says(DELETING, timedelta(minutes=70)), True),
    ],
    ids=["idle", "planning", "deleting", "deleting for long", "dead"],
)
def test_an_old_object_is_not_adopted_while_gc_deletes(
    local: Workshop, write: Callable[[Workshop], None], adopted: bool
) -> None:
    stocked(local)
    orphan(local, 70, 30)
    write(local)
    if adopted:
        on(local, adopting(local, 70))
    else:
        with pytest.raises(StoreError, match="next run"):
            on(local, adopting(local, 70))
        orphan(local, 71, 0)
        on(local, adopting(local, 71))  # a young one needs no care


def test_a_collection_that_began_and_ended_meanwhile_is_noticed(local: Workshop) -> None:
    stocked(local)
    orphan(local, 70, 30)
    says(IDLE)(local)
    on(local, adopting(local, 70))
    orphan(local, 71, 30)

    class Meanwhile(FileStore):
        async def put(self, key: str, body: bytes, mode: Any, headers: Headers) -> str:
            if isinstance(mode, IfMatch):
                (root_of(local) / GC_LEASE_KEY).write_bytes(
                    msgspec.json.encode(GcLease(run="2", state="idle", holder="x"))
                )
            return await super().put(key, body, mode, headers)

    with pytest.raises(StoreError, match="next run"):
        asyncio.run(adopting(local, 71)(Meanwhile(local.place.url)))


class Locked(FileStore):
    """A bucket whose lock forbids overwriting objects."""

    async def put(self, key: str, body: bytes, mode: Any, headers: Headers) -> str:
        if isinstance(mode, IfMatch):
            raise AccessDenied(f"PUT {key}: locked")
        return await super().put(key, body, mode, headers)


def test_an_old_object_under_a_bucket_lock_is_adopted_without_a_rewrite(local: Workshop) -> None:
    stocked(local)
    path = orphan(local, 70, 30)
    inode = path.stat().st_ino
    asyncio.run(adopting(local, 70)(Locked(local.place.url)))
    assert path.stat().st_ino == inode
    says(DELETING)(local)
    with pytest.raises(StoreError, match="next run"):
        asyncio.run(adopting(local, 70)(Locked(local.place.url)))


def test_damage_under_a_bucket_lock_fails_one_file_only(local: Workshop) -> None:
    stocked(local)
    local.put({key_of(photo(70)): photo(71)})

    async def story() -> None:
        await upload_body(Locked(local.place.url), key_of(photo(70)), photo(70), Headers())

    with pytest.raises(StoreError, match="a lock") as caught:
        asyncio.run(story())
    assert not isinstance(caught.value, AccessDenied)


def test_an_object_that_vanishes_during_the_check_is_uploaded(local: Workshop) -> None:
    stocked(local)
    path = orphan(local, 70, 30)

    class Vanishing(FileStore):
        async def head(self, key: str) -> Any:
            if key == key_of(photo(70)):
                path.unlink(missing_ok=True)
            return await super().head(key)

    async def story() -> None:
        store = Vanishing(local.place.url)
        assert await upload_body(store, key_of(photo(70)), photo(70), Headers())

    asyncio.run(story())
    assert path.read_bytes() == photo(70)
