"""What the catalog said within a recent period: a process that read it then may still rely on it.

The time of a version is when its entry of the log was written, by the store's clock. A commit adds
data files, and a compaction replaces some by others with the same rows. Neither changes a file.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import arro3.core as arrow
import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import halves, positions_of
from mirror.errors import CatalogError, NotFound
from mirror.layout import CATALOG_LOG, log_entry_key, parse_log_entry_key
from mirror.store.base import Store, list_all

_CHECKPOINT: Final = re.compile(
    rf"{CATALOG_LOG}(\d{{20}})\.checkpoint(?:\.[0-9a-f-]+)*\.(?:parquet|json)"
).fullmatch
_AT_ONCE: Final = 16
_QUERY: Final = "SELECT url_md5, content_hash, verdict, seen_at FROM sound"

Halves = tuple[NDArray[np.uint64], NDArray[np.uint64]]


@dataclass(frozen=True, slots=True)
class RecentCatalog:
    """The catalog's data files since a time.

    Attributes:
        began_with: data files of the version that was the newest at that time.
        added: data files with rows that were committed since.
        kept: data files of all versions since; a reader of one of them may still need it.
    """

    began_with: frozenset[str]
    added: frozenset[str]
    kept: frozenset[str]


async def recent_catalog(store: Store, catalog: Catalog, since: datetime) -> RecentCatalog:
    """The catalog's data files since a time.

    The version of that time may no longer be readable: its log was deleted, or the bucket is a
    younger copy. Then every row counts as committed since. Only the listing of the log decides that: an
    error of a version that should be readable is raised, because its files would be missing from `kept`.

    Args:
        store: the mirror's.
        catalog: of the same mirror.
        since: by the store's clock.

    Raises:
        CatalogError: the catalog cannot be read.
        StoreError: the store refused.
    """
    entries: list[tuple[int, datetime]] = []
    checkpoints: set[int] = set()
    async for info in list_all(store, CATALOG_LOG):
        if (version := parse_log_entry_key(info.key)) is not None:
            entries.append((version, info.last_modified))
        elif match := _CHECKPOINT(info.key):
            checkpoints.add(int(match[1]))
    now = frozenset(await asyncio.to_thread(catalog.data_files))
    if not entries:
        return RecentCatalog(frozenset(), now, now)
    old = [version for version, written in entries if written <= since]
    later = sorted(version for version, written in entries if not old or version > max(old))
    added, replaced = await _added(store, later)
    began_with: frozenset[str] | None = frozenset()
    if old and _is_readable(max(old), {version for version, _ in entries}, checkpoints):
        began_with = frozenset(await asyncio.to_thread(catalog.data_files_at, max(old)))
    elif old or min(later) > 0:
        began_with = None
    if began_with is None:
        return RecentCatalog(frozenset(), now | added, now | added | replaced)
    return RecentCatalog(began_with, added, now | began_with | added | replaced)


def _is_readable(version: int, entries: set[int], checkpoints: set[int]) -> bool:
    """Whether the log has what a reader of a version needs: a checkpoint, and the entries after it."""
    at = version
    while at in entries and at not in checkpoints:
        at -= 1
    return at < 0 or at in checkpoints


async def _added(store: Store, versions: Sequence[int]) -> tuple[frozenset[str], frozenset[str]]:
    """Data files that commits have added, and data files that compactions have written."""
    added: set[str] = set()
    written: set[str] = set()
    for begin in range(0, len(versions), _AT_ONCE):
        some = versions[begin : begin + _AT_ONCE]
        bodies = await asyncio.gather(*(store.get(log_entry_key(v)) for v in some))
        for line in b"\n".join(bodies).splitlines():
            if not line.strip():
                continue
            try:
                action = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise CatalogError("An entry of the catalog's log is damaged.") from None
            if add := action.get("add"):
                (added if add.get("dataChange", True) else written).add(add["path"])
    return frozenset(added), frozenset(written)


async def recently_named(
    catalog: Catalog, past: RecentCatalog, contents: Halves
) -> NDArray[np.bool_]:
    """Mark the contents that a live `ok` row has named at any time of a period.

    Args:
        catalog: of the mirror.
        past: the period.
        contents: content hashes, sorted, as two halves: (n,) each. One content may occur several
            times, as that of objects with different extensions.

    Returns:
        (n,) marks.

    Raises:
        CatalogError: the catalog cannot be read.
    """
    named = np.zeros(len(contents[0]), bool)
    if not len(named):
        return named
    try:
        for file in sorted(past.added):
            rows = await _rows_naming(catalog, file, contents)
            named[rows.content] = True
        suspects = [await _rows_naming(catalog, file, contents) for file in sorted(past.began_with)]
        await _mark_those_live(catalog, past, _Rows.joined(suspects), named)
    except NotFound:
        # Another tool has deleted files that a reader of that time may need: mark all, delete nothing.
        named[:] = True
    # Rows are matched with the first of equal contents, which decides for the others.
    return named[positions_of(*contents, *contents)]


async def _mark_those_live(
    catalog: Catalog, past: RecentCatalog, suspects: _Rows, named: NDArray[np.bool_]
) -> None:
    """Mark the contents of rows that were the latest of their URL when the period began."""
    if not len(suspects.content):
        return
    order = np.lexsort((suspects.url_lo, suspects.url_hi))
    suspects = suspects.taken(order)
    urls = suspects.url_hi, suspects.url_lo
    latest = np.full(len(order), np.iinfo(np.int64).min)
    for file in sorted(past.began_with):
        rows = await catalog.read_file(file, _QUERY, _columns)
        for url_hi, url_lo, _, _, _, seen_at in rows:
            at = positions_of(url_hi, url_lo, *urls)  # the first of equal URLs represents all
            np.maximum.at(latest, at[at >= 0], seen_at[at >= 0])
    first = positions_of(*urls, *urls)
    live = suspects.seen_at >= latest[first]
    named[suspects.content[live]] = True


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows that name one of the wanted contents; `content` is its position among them."""

    url_hi: NDArray[np.uint64]
    url_lo: NDArray[np.uint64]
    seen_at: NDArray[np.int64]
    content: NDArray[np.intp]

    def taken(self, at: NDArray[np.intp]) -> _Rows:
        return _Rows(self.url_hi[at], self.url_lo[at], self.seen_at[at], self.content[at])

    @classmethod
    def joined(cls, pieces: Sequence[_Rows]) -> _Rows:
        empty = cls(np.empty(0, "u8"), np.empty(0, "u8"), np.empty(0, "i8"), np.empty(0, np.intp))
        pieces = [empty, *pieces]
        return cls(
            np.concatenate([piece.url_hi for piece in pieces]),
            np.concatenate([piece.url_lo for piece in pieces]),
            np.concatenate([piece.seen_at for piece in pieces]),
            np.concatenate([piece.content for piece in pieces]),
        )


async def _rows_naming(catalog: Catalog, file: str, contents: Halves) -> _Rows:
    pieces = []
    for url_hi, url_lo, hash_hi, hash_lo, ok, seen_at in await catalog.read_file(
        file, _QUERY, _columns
    ):
        content = positions_of(hash_hi, hash_lo, *contents)
        at = np.flatnonzero(ok & (content >= 0))
        pieces.append(_Rows(url_hi[at], url_lo[at], seen_at[at], content[at]))
    return _Rows.joined(pieces)


def _columns(batch: arrow.RecordBatch) -> tuple[NDArray[Any], ...]:
    urls, hashes, verdicts = (batch.column(at).to_pylist() for at in range(3))
    seen_at = batch.column(3).cast(arrow.DataType.int64()).to_numpy().astype("i8")
    ok = np.array([verdict == "ok" for verdict in verdicts], bool)
    return (*halves(b"".join(urls)), *halves(b"".join(hashes)), ok, seen_at)
