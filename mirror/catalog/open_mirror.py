"""Opens the mirror that the settings name, for commands that only read its catalog.

A sync opens the same store, catalog and snapshots through the same `Location`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import Index
from mirror.catalog.root import Root, read_root
from mirror.config.settings import Settings
from mirror.errors import (
    CatalogError,
    ConfigError,
    StoreError,
    StoreSetupError,
    Throttled,
    Unreachable,
)
from mirror.layout import CATALOG
from mirror.store import open_store
from mirror.store.base import Store
from mirror.store.object_store_errors import error_of
from mirror.store.object_store_options import delta_options
from mirror.store.retry import Retrying, RetryPolicy
from mirror.store.s3_access import S3Access, explain
from mirror.store.throttle import AdaptiveLimit, ConcurrencyGate, Counting, Throttling
from mirror.store.unfinished import UnfinishedWrites, unfinished_writes
from mirror.system.files import settle

# Attempts at a command's first request. Fewer than later, because nothing is lost by failing soon.
_FIRST_ATTEMPTS = 4
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


class Location:
    """Where a mirror is, and how to reach it.

    Attributes:
        url: the parsed `bucket.url`.

    Raises:
        ConfigError: `bucket.url` is absent, not understood, or cannot hold a catalog.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = settings.bucket_url
        if self.url.scheme == "file" and _ESCAPE.search(self.url.path):
            raise ConfigError(
                f"The mirror's folder {self.url.path} has an escape such as %20 in its name, which "
                "delta-rs decodes to another name; choose another folder."
            )
        self._settings = settings
        self._access = S3Access(self.url, settings.bucket) if self.url.scheme == "s3" else None

    def store(self) -> Store:
        """Open the engine, without retries or limits. The caller closes it."""
        settings = self._settings
        return open_store(self.url, self._access, settings.bucket, settings.sync.concurrency)

    def catalog(self, store: Store, retry: RetryPolicy) -> Catalog:
        """The mirror's catalog, whose data files are read through `store`."""
        access = self._access
        if access is None:
            folder = Path(self.url.path)
            return Catalog(store, str(folder / CATALOG), dict, retry, settle=lambda: settle(folder))
        options = partial(delta_options, access)

        def translate(error: Exception) -> StoreError | None:
            found = error_of(error, "The catalog's log", access.address, access.proxy)
            return found if isinstance(found, (StoreSetupError, Throttled, Unreachable)) else None

        return Catalog(store, f"{self.url}/{CATALOG}", options, retry, translate=translate)

    def snapshots(self, root: Root) -> Path:
        """The folder of the mirror's index, which all processes and caches of this machine share.

        Each address has its own folder below the mirror's id: a copied bucket has the id of the
        original, but a catalog of its own from then on.
        """
        return self._settings.index_dir / root.id / self._address

    def upkeep(self, root: Root) -> Path:
        """The folder of this machine's damage log and locks of the mirror, apart from any cache."""
        return self._settings.upkeep_dir / root.id / self._address

    def all_snapshots(self) -> list[Path]:
        """The index folders of all mirrors read at this address, which may have been replaced."""
        return list(self._settings.index_dir.glob(f"*/{self._address}"))

    @property
    def _address(self) -> str:
        address = f"{self.url}\0{self._settings.server}".encode(errors="surrogateescape")
        return hashlib.sha256(address).hexdigest()[:12]

    def unfinished_writes(self) -> UnfinishedWrites:
        """The writes that killed writers left unfinished."""
        return unfinished_writes(self.url, self._access)

    def explained(self, error: StoreError) -> StoreError:
        """A clearer error for a failed first request."""
        return explain(self._access, error) if self._access else error


def first_attempts(retry: RetryPolicy) -> RetryPolicy:
    """The policy of a command's first request."""
    return replace(retry, attempts=_FIRST_ATTEMPTS)


def read_index(settings: Settings, *, retry: RetryPolicy | None = None) -> tuple[Root, Index]:
    """The mirror of `settings`, and an index of its newest catalog: empty where there is none yet.

    Writes nothing to the mirror, and on this machine only the index's snapshot, if it can. Blocks;
    not to be called on a thread whose event loop runs.

    Args:
        settings: where the bucket and the state are; no cache is needed.
        retry: how often and how soon a request that failed is tried again.

    Raises:
        NotFound: there is no mirror.
        MirrorError: it cannot be read: the bucket, the key, the network, the format, the catalog.
    """
    return asyncio.run(_read(Location(settings), retry or RetryPolicy()))


def read_local_index(settings: Settings) -> Index:
    """The mirror's index as a command on this machine last read it; the mirror is not asked.

    Raises:
        CatalogError: none was kept.
    """
    found = [Index.load(folder) for folder in Location(settings).all_snapshots()]
    kept = [index for index in found if index.path is not None]
    if not kept:
        raise CatalogError(
            f"No index of {settings.bucket_url} is kept on this machine, which it takes to work "
            "offline; run mirror prefetch once while the mirror is in reach."
        )
    return max(kept, key=_age)


def _age(index: Index) -> float:
    assert index.path is not None
    return index.path.stat().st_mtime


async def _read(location: Location, retry: RetryPolicy) -> tuple[Root, Index]:
    store = location.store()
    try:
        root = await _root(location, store, retry)
        catalog = location.catalog(Retrying(store, retry), retry)
        return root, await catalog.refresh(Index.empty(), location.snapshots(root))
    finally:
        await store.aclose()


async def _root(location: Location, store: Store, retry: RetryPolicy) -> Root:
    try:
        return await read_root(Retrying(store, first_attempts(retry)))
    except StoreError as error:
        raise location.explained(error) from None


@dataclass(frozen=True)
class OpenMirror:
    """A mirror that exists, for as long as `open_mirror` lasts.

    Attributes:
        location: where it is.
        root: which one it is.
        store: with another attempt, shared limits and a count around each request.
        catalog: read through the same.
        requests: how many were sent, by operation.
    """

    location: Location
    root: Root
    store: Retrying
    catalog: Catalog
    requests: dict[str, int]

    @property
    def folder(self) -> Path:
        return self.location.upkeep(self.root)

    async def index(self) -> Index:
        """An index of the newest catalog."""
        return await self.catalog.refresh(Index.empty(), self.location.snapshots(self.root))


@asynccontextmanager
async def open_mirror(
    settings: Settings, *, retry: RetryPolicy | None = None
) -> AsyncIterator[OpenMirror]:
    """Open the mirror of `settings`; nothing is written to it by this.

    Args:
        settings: where the bucket and the state are, and how many requests may be in flight.
        retry: how often and how soon a request that failed is tried again.

    Raises:
        NotFound: there is no mirror.
        MirrorError: it cannot be read: the bucket, the key, the network, the format.
    """
    retry = retry or RetryPolicy()
    location = Location(settings)
    counting = Counting(location.store())
    try:
        root = await _root(location, counting, retry)
        gate = ConcurrencyGate(AdaptiveLimit(settings.sync.concurrency))
        store = Retrying(Throttling(counting, gate), retry)
        yield OpenMirror(location, root, store, location.catalog(store, retry), counting.requests)
    finally:
        await counting.aclose()
