"""Acknowledged files → catalog, then local state, in that order, in batches.

The order is the promise: an object is acknowledged before a catalog row names it, and the row is
committed before the state says that nothing is left to do. A kill between any two steps leaves work
that the next run finds undone and finishes without uploading an object again.
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
from mirror.sync.decide import gives_up_good, supersedes
from mirror.sync.row_sources import Sources, source_digest
from mirror.sync.state import SeenFile, State

# Rows that were committed since the index was made are remembered. A transfer has the index made anew
# for as many contents sooner, but not where most files are duplicates.
_REMEMBERED: Final = 60_000


@dataclass
class CommitCount:
    commits: int = 0
    version: int | None = None


class Committer:
    """Turns acknowledged files into rows, and commits them.

    Lives on the event loop; only what blocks (deltalake's commit, SQLite) is handed to a thread.
    One `commit` at a time.

    Args:
        catalog: the mirror's.
        state: this cache's.
        snapshots: where the index keeps its files.
        sources: what a dataset told of the URLs.
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
        self._version = 0  # the catalog's, of which all rows are known; it is made without any
        self._known_at = now()
        self._oldest_knowledge: float | None = None
        self.index = Index.empty()  # until `refresh`, which finds the snapshots

    async def refresh(self) -> None:
        """Learn what the catalog says by now: this run's rows, and other machines'."""
        asked_at = self._now()
        await self._learn()
        self._known_at = asked_at

    async def _learn(self) -> None:
        """`refresh`, but that what a run has known for long gets no younger by it.

        Rows that wait were weighed against what was known before, and are weighed again; those that
        are being committed stay earlier than those that wait.
        """
        self.index = await self._catalog.refresh(self.index, self._snapshots)
        self._version = max(self.index.version, 0)
        self._committed.clear()
        for number, rows in enumerate((self._committing, self._rows), 1):
            for url, row in list(rows.items()):
                prior = self.index.sighting(url)
                if prior is None or _is_of(prior, row):
                    continue
                if gives_up_good(row, prior):
                    del rows[url]
                else:
                    rows[url] = row._replace(seen_at=max(row.seen_at, prior.seen_at + number))

    @property
    def knows_since(self) -> float:
        """How many seconds ago the catalog was last asked."""
        return self._now() - self._known_at

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, prepared: Prepared) -> None:
        """A file whose content the mirror has acknowledged, or has flagged."""
        entry, digest, judged = prepared.entry, prepared.digest, prepared.inspection
        source = self._sources.get(entry.url_md5) if self._sources is not None else None
        row = Row(
            entry.url_md5, digest.content_hash, digest.sha256, digest.size, judged.format,
            judged.width, judged.height, judged.verdict, judged.reason,
            source or UNKNOWN_SOURCE, int(self._now() * 1e6),
        )  # fmt: skip
        prior = self._prior(entry.url_md5)
        if prior is not None:
            # A clock that went back, or another machine's that runs ahead, must not make
            # yesterday's row the latest.
            row = row._replace(seen_at=max(row.seen_at, prior.seen_at + 1))
        if supersedes(row, prior):
            self._rows[row.url_md5] = row
            self._note_knowledge()
        self._seen.append(SeenFile(entry, row, source_digest(source) if source else None))

    def describe(self, path: bytes, row: Row, source: RowSource) -> bool:
        """An unchanged file whose source has become known: a new row, without opening it.

        Returns:
            False when the catalog meanwhile says something else of this URL.
        """
        prior = self._prior(row.url_md5)
        if prior is None or (prior.content_hash, prior.verdict) != (row.content_hash, row.verdict):
            return False
        seen_at = max(int(self._now() * 1e6), prior.seen_at + 1)
        self._rows[row.url_md5] = row._replace(source=source, seen_at=seen_at)
        self._note_knowledge()
        return True

    def supersede(self, rows: Iterable[Row]) -> None:
        """Rows that say something new of URLs without a file having been read."""
        self._rows.update((row.url_md5, row) for row in rows)

    def _note_knowledge(self) -> None:
        if self._oldest_knowledge is None:
            self._oldest_knowledge = self._known_at

    def _require_fresh_knowledge(self) -> None:
        """What a row names may have been removed since this run last saw that it is there.

        Raises:
            CatalogError: this run stood still for longer than a writer may rely on what it knows.
        """
        if self._oldest_knowledge is None:
            return
        hours = (self._now() - self._oldest_knowledge) / 3600
        if hours > KNOWN_FOR.total_seconds() / 3600:
            raise CatalogError(
                f"This run learned {hours:.0f} hours ago what the mirror has, and has not committed "
                "since (was the machine asleep?); run again: what was not committed is looked at "
                "anew."
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
        """Catalog, then state.

        Raises:
            CatalogError, StoreError: nothing of this batch is committed; it is kept, and may be
                tried again unless it has become too old.
            StateError: the catalog has the batch, the state does not: the next run reads those
                files again and uploads nothing.
        """
        self._require_fresh_knowledge()
        seen, self._seen = self._seen, []
        oldest, self._oldest_knowledge = self._oldest_knowledge, None
        self._committing, self._rows = self._rows, {}
        try:
            if len(self._committed) >= _REMEMBERED:
                await self._learn()
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
        """Commit after weighing what other machines have committed about the same URLs.

        Where others come first every time, commit without that condition: a run must end, and the
        rows were weighed a moment ago.
        """
        done = await commit_optimistically(self._append_after, self._learn)
        if not done and self._committing:
            self._note(await asyncio.to_thread(self._catalog.append, await self._carried()))

    async def _append_after(self) -> bool:
        if not self._committing:
            return True
        rows = await self._carried()
        version = await asyncio.to_thread(self._catalog.append_after, self._version, rows)
        if version is None:
            return False
        self._version = version
        self._note(version)
        return True

    async def _carried(self) -> list[Row]:
        rows = await with_carried_sources(self._catalog, self.index, self._committing.values())
        self._committing = {row.url_md5: row for row in rows}
        return rows

    def _note(self, version: int) -> None:
        self.count.version = version
        self.count.commits += 1

    async def tidy(self) -> None:
        """Keep an index of what was committed for the next run, and merge many small files."""
        with suppress(OSError, MirrorError):  # the snapshot is a convenience
            await self.refresh()
        with suppress(MirrorError):  # the next run that commits tries again
            await asyncio.to_thread(self._catalog.compact)


def _is_of(prior: Sighting, row: Row) -> bool:
    """Whether the catalog has this very row: by a commit whose answer was lost."""
    return (prior.seen_at, prior.content_hash, prior.verdict) == (
        row.seen_at,
        row.content_hash,
        row.verdict,
    )
