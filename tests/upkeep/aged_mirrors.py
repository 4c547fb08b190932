"""Mirrors in a folder whose objects can be aged, and leases of other collections."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from mirror.catalog.gc_lease import GcLease
from mirror.catalog.upload import upload_body
from mirror.layout import GC_LEASE_KEY
from mirror.store.base import Headers, Store
from mirror.upkeep.verify import VerifyOptions, verify
from tests.support.mirror_setup import Workshop, aged, key_of
from tests.support.photos import fill, photo, url_of

DAY = 86_400.0


def root_of(shop: Workshop) -> Path:
    return Path(shop.place.url.path)


def pass_days(shop: Workshop, days: float) -> None:
    """Age everything in a mirror's folder by this many days."""
    aged(root_of(shop), days)


def objects(shop: Workshop) -> set[str]:
    return set(shop.objects())


def files(shop: Workshop) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root_of(shop).rglob("*")
        if path.is_file()
    }


def stocked(shop: Workshop, count: int = 6) -> None:
    fill(shop.cache, {url_of(n): photo(n) for n in range(count)})
    assert shop.sync().exit_status == 0


def keys(*numbers: int) -> set[str]:
    return {key_of(photo(number)) for number in numbers}


def is_whole(shop: Workshop) -> None:
    report = verify(shop.settings(), VerifyOptions(share=1.0))
    assert (report.missing, report.mismatched, report.error) == (0, 0, None)


def on(shop: Workshop, story: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        store = shop.place.open()
        try:
            await story(store)
        finally:
            await store.aclose()

    asyncio.run(run())


def orphan(shop: Workshop, number: int, days: float) -> Path:
    shop.put({key_of(photo(number)): photo(number)})
    path = root_of(shop) / key_of(photo(number))
    written = path.stat().st_mtime - days * DAY
    os.utime(path, (written, written))
    return path


def age_of(path: Path) -> timedelta:
    return datetime.now(UTC) - datetime.fromtimestamp(path.stat().st_mtime, UTC)


def adopting(shop: Workshop, number: int) -> Callable[[Store], Coroutine[Any, Any, None]]:
    async def story(store: Store) -> None:
        assert not await upload_body(store, key_of(photo(number)), photo(number), Headers())

    return story


def says(lease: GcLease, age: timedelta = timedelta(0)) -> Callable[[Workshop], None]:
    def write(shop: Workshop) -> None:
        shop.put({GC_LEASE_KEY: msgspec.json.encode(lease)})
        written = time.time() - age.total_seconds()
        os.utime(root_of(shop) / GC_LEASE_KEY, (written, written))

    return write


DELETING = GcLease(run="1", state="deleting", holder="elsewhere")
IDLE = GcLease(run="1", state="idle", holder="elsewhere")
