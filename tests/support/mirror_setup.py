"""A user's setup: a cache, a place for its mirror, and a state."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mirror.config.settings import Settings
from mirror.content.digest import digest_of
from mirror.layout import object_key
from mirror.store.base import Headers, Overwrite, list_all
from mirror.store.retry import RetryPolicy
from mirror.sync.run_sync import SyncOptions, sync
from mirror.sync.sync_report import SyncReport
from tests.conftest import MakePlace, Place
from tests.support.fault_proxy import FaultProxy

# One place of each kind. tests/conftest.py has them with every engine.
PLACES = ("file", "seaweedfs-obstore", "seaweedfs-aioboto3", "miniflare-obstore")
IS_ROOT = os.geteuid() == 0
# Prefix for a command: its mounts are private and end with it.
MOUNTS = ["unshare", "--mount"] if IS_ROOT else ["unshare", "--mount", "--map-root-user"]
SOON = RetryPolicy(base=0.002, cap=0.02, longest_retry_after=0.05)


def full_disk(size: int) -> list[str]:
    """Prefix for a command: its files cannot exceed `size` bytes, as on a full disk."""
    return ["prlimit", f"--fsize={size}:"]


class MirrorSetup:
    """A cache, a place for its mirror, and a state."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.cache = folder / "cache"
        self.cache.mkdir(exist_ok=True)
        self.state = folder / "state"

    def settings(self, **sync_section: Any) -> Settings:
        return self.place.settings(
            cache={"dir": str(self.cache)}, state={"dir": str(self.state)}, sync=sync_section
        )

    def through(self, proxy: FaultProxy, **sections: Any) -> Settings:
        """The settings of another run, with its own state, that reaches the server through a proxy."""
        folders = {"cache": self.cache, "state": self.state.with_name("other")}
        sections |= {name: {"dir": str(folder)} for name, folder in folders.items()}
        return self.place.settings(bucket={"endpoint": proxy.endpoint}, **sections)

    def sync(self, sources: Any = None, **options: Any) -> SyncReport:
        return sync(self.settings(), SyncOptions(**options), sources=sources)

    def objects(self) -> dict[str, bytes]:
        """The bytes of everything below objects/, by key."""

        async def read() -> dict[str, bytes]:
            store = self.place.open()
            try:
                keys = [info.key async for info in list_all(store, "objects/")]
                return {key: await store.get(key) for key in keys}
            finally:
                await store.aclose()

        return asyncio.run(read())

    def put(self, bodies: Mapping[str, bytes]) -> None:
        """Overwrite objects with these bodies by key, as only damage or other programs do."""

        async def write() -> None:
            store = self.place.open()
            try:
                for key, body in bodies.items():
                    await store.put(key, body, Overwrite(), Headers())
            finally:
                await store.aclose()

        asyncio.run(write())

    def remove(self, *keys: str) -> None:
        async def delete() -> None:
            store = self.place.open()
            assert await store.delete(keys) == {}
            await store.aclose()

        asyncio.run(delete())

    def rows(self) -> dict[bytes, dict[str, Any]]:
        """The latest catalog row of every URL."""
        import polars

        options: dict[str, str] = {}
        if self.place.server is not None:
            from mirror.store.object_store_options import delta_options
            from mirror.store.s3_access import S3Access

            options = delta_options(S3Access(self.place.url, self.settings().bucket))
        table = polars.read_delta(f"{self.place.url}/catalog", storage_options=options)
        return {row["url_md5"]: row for row in table.sort("seen_at").to_dicts()}


def aged(folder: Path, days: float) -> None:
    """Make every file below `days` older."""
    for path in folder.rglob("*"):
        if path.is_file():
            written = path.stat().st_mtime - days * 86_400
            os.utime(path, (written, written))


def key_of(body: bytes) -> str:
    """The object key of a JPEG."""
    return object_key(digest_of(body).content_hash, "jpeg")


@pytest.fixture(params=PLACES)
def mirror_setup(
    request: pytest.FixtureRequest, make_place: MakePlace, tmp_path: Path
) -> MirrorSetup:
    return MirrorSetup(make_place(request.param), tmp_path)


@pytest.fixture
def folder_setup(make_place: MakePlace, tmp_path: Path) -> MirrorSetup:
    """A setup with the mirror in a folder, for tests that do not depend on the place."""
    return MirrorSetup(make_place("file"), tmp_path)
