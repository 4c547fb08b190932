"""Detects a catalog that was rolled back, lost or replaced since this state last relied on it.

A state acknowledges files because the catalog has their rows. A bucket that was restored from a
backup lacks the latest of them, and so does a catalog that a lifecycle rule has deleted. So the state
remembers the last version that it relied on and the identity of that version's entry of the log, and
each run looks for that entry first. One listing finds the entry, its ETag, and whether there are later
entries. Where nothing has changed, that is the only request of a run.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar, Final, Literal, NamedTuple

import msgspec

from mirror.errors import NotFound
from mirror.layout import CATALOG_LOG, log_entry_key, parse_log_entry_key
from mirror.store.base import Store, list_all
from mirror.sync.state import State

# format.json is read at least this often, in seconds.
ROOT_KNOWN_FOR: Final = 86_400.0

Found = Literal["same", "later", "lost"]


class CatalogMemory(msgspec.Struct, kw_only=True, frozen=True):
    """The last version of the catalog that a state has relied on.

    Attributes:
        version: of the catalog.
        commit: identifies the run's own commit of it; empty where another machine's is the latest.
        sha256: of the entry, in hexadecimal; empty where it was not read yet.
        etag: of the entry; empty where it was not listed yet.
        place: the mirror's address.
        root_read_at: when format.json was last read, in seconds since 1970.
    """

    KEY: ClassVar[str] = "catalog_seen"

    version: int
    commit: str = ""
    sha256: str = ""
    etag: str = ""
    place: str = ""
    root_read_at: float = 0.0

    @classmethod
    def load(cls, state: State) -> CatalogMemory | None:
        kept = state.get(cls.KEY)
        return msgspec.json.decode(kept, type=cls) if kept else None

    def save(self, state: State) -> None:
        state.set(self.KEY, msgspec.json.encode(self).decode())

    def knows_root_of(self, place: str, now: float) -> bool:
        """Whether format.json of this place was read lately enough, at this version."""
        return self.place == place and 0 <= now - self.root_read_at < ROOT_KNOWN_FOR

    def with_root(self, place: str, now: float) -> CatalogMemory:
        """The memory after format.json was read."""
        return msgspec.structs.replace(self, place=place, root_read_at=now)

    @staticmethod
    def forget(state: State) -> None:
        state.set(CatalogMemory.KEY, "")


def remember(state: State, version: int, commit: str) -> None:
    """Remember that files of the state rely on a version, before it acknowledges them.

    Args:
        state: of the cache.
        version: the newest one that the run knows.
        commit: the mark of this run's commit of it; empty where another machine's is the newest.
    """
    known = CatalogMemory.load(state)
    if known is None or known.version != version:
        CatalogMemory(version=version, commit=commit).save(state)


class Look(NamedTuple):
    """What a run found of the version that its state remembers.

    Attributes:
        found: `same`: it is the latest; `later`: there are later ones; `lost`: it is not there, or
            another commit has its number.
        latest: the memory with the latest version that was listed.
    """

    found: Found
    latest: CatalogMemory


async def look_for(store: Store, memory: CatalogMemory) -> Look:
    """Look for the entry of the version that the state remembers, with one request if it can.

    Raises: StoreError.
    """
    entries = await _listed_from(store, memory.version)
    etag = entries.get(memory.version)
    if etag is None or (etag != memory.etag and not await _is_entry(store, memory)):
        return Look("lost", memory)
    latest = max(entries)
    if latest == memory.version:
        return Look("same", msgspec.structs.replace(memory, etag=etag))
    later = CatalogMemory(version=latest, etag=entries[latest])
    return Look("later", later)


async def identified(store: Store, memory: CatalogMemory) -> CatalogMemory:
    """The memory with the identity of its version's entry, read from the bucket.

    Raises: StoreError; NotFound when there is no such entry.
    """
    key = log_entry_key(memory.version)
    etag = (await store.head(key)).etag
    sha256 = hashlib.sha256(await store.get(key)).hexdigest()
    return msgspec.structs.replace(memory, etag=etag, sha256=sha256)


async def latest_version(store: Store) -> int | None:
    """The latest version of the catalog; None where it has none. Raises: StoreError."""
    versions = [parse_log_entry_key(info.key) async for info in list_all(store, CATALOG_LOG)]
    return max((version for version in versions if version is not None), default=None)


async def _listed_from(store: Store, version: int) -> dict[int, str]:
    """ETags of the entries of the log from a version on, by version: the first page of them."""
    page = await store.list_page(CATALOG_LOG, log_entry_key(version - 1) if version > 0 else "")
    found = ((parse_log_entry_key(info.key), info.etag) for info in page)
    return {number: etag for number, etag in found if number is not None}


async def _is_entry(store: Store, memory: CatalogMemory) -> bool:
    """Whether the entry has the bytes that it had, by its hash or by the commit that wrote it.

    A mirror that was copied to another disk has other ETags and the same entries.
    """
    if not (memory.sha256 or memory.commit):
        return not memory.etag  # a run that was killed had no time to identify it
    try:
        body = await store.get(log_entry_key(memory.version))
    except NotFound:
        return False
    if memory.sha256:
        return hashlib.sha256(body).hexdigest() == memory.sha256
    return memory.commit.encode() in body
