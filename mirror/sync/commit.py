"""Commits acknowledged files in batches: to the catalog, then to the local state.

The order keeps the promise. The store acknowledges an object before a catalog row names it, and the
row is committed before the state records the file as done. After a kill between any two steps the
next run finds the work undone, and finishes it without uploading an object again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mirror.cache.prepare import Prepared
from mirror.catalog.delta_table import Catalog
from mirror.catalog.gc_lease import KNOWN_FOR
from mirror.catalog.index import Index, Sighting
from mirror.catalog.optimistic_commit import commit_optimistically, with_carried_sources
from mirror.catalog.row import UNKNOWN_SOURCE, Row, RowSource
from mirror.errors import CatalogError, MirrorError
from mirror.sync.decide import replaces_good, supersedes
from mirror.sync.row_sources import Sources, source_digest
from mirror.sync.state import SeenFile, State

# Rows committed since the index was read that are kept in memory; then the index is read again. A
# transfer refreshes it earlier by itself, but not where most files are duplicates.
_MAX_REMEMBERED: Final = 60_000


@dataclass
class CommitCount:
    """How many commits a run made, and the catalog's version after the last one."""

    commits: int = 0
    version: int | None = None


class Committer:
    """Turns acknowledged files into rows, and commits them.

    Runs on the event loop; only blocking calls (deltalake's commit, SQLite) go to a thread. The
    caller awaits one `commit` before it starts the next.

    Attributes:
        count: the commits so far.
        index: the catalog as last read; empty until the first `refresh`.

    Args:
        catalog: the mirror's.
        state: this cache's.
        snapshots: the folder of the index's snapshots.
        sources: a dataset's sources of the URLs, if there is a dataset.
        now: seconds since 1970.
    """

    def __init__(
        self,
        catalog: Catalog,
        state: State,
        snapshots: Path,
        sources: Sources | None,
        now: Callable[[], float],
    ) -> None:
        self.count = CommitCount()
        self._catalog = catalog
        self._state = state
        self._snapshots = snapshots
        self._sources = sources
        self._now = now
        self._seen: list[SeenFile] = []
        self._rows: dict[bytes, Row] = {}
        self._committing: dict[bytes, Row] = {}
        self._committed: dict[bytes, Row] = {}
        self._version = 0  # newest catalog version whose rows are all known; version 0 has none
        self._known_at = now()
        self._oldest_knowledge: float | None = None
        self.index = Index.empty()

    async def refresh(self) -> None:
        """Read the newest catalog, with the rows of this run and of other machines."""
        requested_at = self._now()
        await self._read_catalog()
        self._known_at = requested_at

    async def _read_catalog(self) -> None:
        """Refresh the index, but leave the age of the run's knowledge as it is.

        Waiting rows were compared with the old index, so they are compared with the new one. Rows
        that are being committed stay earlier than those that wait.
        """
        self.index = await self._catalog.refresh(self.index, self._snapshots)
        self._version = max(self.index.version, 0)
        self._committed.clear()
        for number, rows in enumerate((self._committing, self._rows), 1):
            for url, row in list(rows.items()):
                prior = self.index.sighting(url)
                if prior is None or _is_row(prior, row):
                    continue
                if replaces_good(row, prior):
                    del rows[url]
                else:
                    rows[url] = row._replace(seen_at=max(row.seen_at, prior.seen_at + number))

    @property
    def knowledge_age(self) -> float:
        """Seconds since the last `refresh`."""
        return self._now() - self._known_at

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, prepared: Prepared) -> None:
        """Add a file whose object the store has acknowledged, or which is flagged."""
        entry, digest, judged = prepared.entry, prepared.digest, prepared.inspection
        source = self._sources.get(entry.url_md5) if self._sources is not None else None
        row = Row(
            entry.url_md5, digest.content_hash, digest.sha256, digest.size, judged.format,
            judged.width, judged.height, judged.verdict, judged.reason,
            source or UNKNOWN_SOURCE, int(self._now() * 1e6),
        )  # fmt: skip
        prior = self._prior(entry.url_md5)
        if prior is not None:
            # A clock that was set back, or another machine's clock that runs ahead, must not make
            # yesterday's row the latest one.
            row = row._replace(seen_at=max(row.seen_at, prior.seen_at + 1))
        if supersedes(row, prior):
            self._rows[row.url_md5] = row
            self._note_knowledge_age()
        self._seen.append(SeenFile(entry, row, source_digest(source) if source else None))

    def add_source(self, row: Row, source: RowSource) -> bool:
        """Add a row with the source of an unchanged file, without opening the file.

        Args:
            row: as the state has it.
            source: to catalogue.

        Returns:
            False when the catalog meanwhile has another content or verdict for this URL.
        """
        prior = self._prior(row.url_md5)
        if prior is None or (prior.content_hash, prior.verdict) != (row.content_hash, row.verdict):
            return False
        seen_at = max(int(self._now() * 1e6), prior.seen_at + 1)
        self._rows[row.url_md5] = row._replace(source=source, seen_at=seen_at)
        self._note_knowledge_age()
        return True

    def supersede(self, rows: Iterable[Row]) -> None:
        """Add rows that replace the latest ones of their URLs, without reading a file."""
        self._rows.update((row.url_md5, row) for row in rows)

    def _note_knowledge_age(self) -> None:
        if self._oldest_knowledge is None:
            self._oldest_knowledge = self._known_at

    def _require_fresh_knowledge(self) -> None:
        """Refuse to commit by old knowledge: gc may have deleted objects that the rows name.

        Raises:
            CatalogError: the run stood still for longer than a writer may rely on what it knows.
        """
        if self._oldest_knowledge is None:
            return
        hours = (self._now() - self._oldest_knowledge) / 3600
        if hours > KNOWN_FOR.total_seconds() / 3600:
            raise CatalogError(
                f"This run last read the catalog {hours:.0f} hours ago and has not committed since "
                "(was the machine asleep?); run again, and the files that were not committed are "
                "read again."
            )

    def _prior(self, url_md5: bytes) -> Sighting | None:
        row = (
            self._rows.get(url_md5) or self._committing.get(url_md5) or self._committed.get(url_md5)
        )
        if row is None:
            return self.index.sighting(url_md5)
        return Sighting(
            row.content_hash, row.size, row.width, row.height, row.format, row.verdict,
            row.source.url is not None, row.seen_at,
        )  # fmt: skip

    async def commit(self) -> None:
        """Commit what was added: to the catalog, then to the state.

        Raises:
            CatalogError, StoreError: nothing of this batch is committed. It is kept, and may be
                retried unless it has become too old.
            StateError: the catalog has the batch and the state does not. The next run reads those
                files again and uploads nothing.
        """
        self._require_fresh_knowledge()
        seen, self._seen = self._seen, []
        oldest, self._oldest_knowledge = self._oldest_knowledge, None
        self._committing, self._rows = self._rows, {}
        try:
            if len(self._committed) >= _MAX_REMEMBERED:
                await self._read_catalog()
            if self._committing:
                await self._append()
        except BaseException:
            self._seen = seen + self._seen
            self._rows = {**self._committing, **self._rows}
            self._committing = {}
            self._oldest_knowledge = oldest
            raise
        self._committed.update(self._committing)
        self._committing = {}
        await asyncio.to_thread(self._state.record, seen)

    async def _append(self) -> None:
        """Commit after comparing the rows with what other machines have committed.

        Where others come first every time, commit unconditionally: a run must end, and the rows
        were compared a moment ago.
        """
        done = await commit_optimistically(self._append_after, self._read_catalog)
        if not done and self._committing:
            self._count(await asyncio.to_thread(self._catalog.append, await self._carried()))

    async def _append_after(self) -> bool:
        if not self._committing:
            return True
        rows = await self._carried()
        version = await asyncio.to_thread(self._catalog.append_after, self._version, rows)
        if version is None:
            return False
        self._version = version
        self._count(version)
        return True

    async def _carried(self) -> list[Row]:
        rows = await with_carried_sources(self._catalog, self.index, self._committing.values())
        self._committing = {row.url_md5: row for row in rows}
        return rows

    def _count(self, version: int) -> None:
        self.count.version = version
        self.count.commits += 1

    async def tidy(self) -> None:
        """Write a snapshot of the index for the next run, and compact the catalog if it is due."""
        with suppress(OSError, MirrorError):  # the snapshot is only a cache
            await self.refresh()
        with suppress(MirrorError):  # the next run that commits retries
            await asyncio.to_thread(self._catalog.compact)


def _is_row(prior: Sighting, row: Row) -> bool:
    """Whether the catalog has this very row already, from a commit whose answer was lost."""
    return (prior.seen_at, prior.content_hash, prior.verdict) == (
        row.seen_at,
        row.content_hash,
        row.verdict,
    )
