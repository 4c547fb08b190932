"""Commits acknowledged files in batches: to the catalog, then to the local state.

The order keeps the promise. The store acknowledges an object before a catalog row names it, and the
row is committed before the state records the file as done. After a kill between any two steps the
next run finds the work undone, and finishes it without uploading an object again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mirror.cache.prepare import Prepared
from mirror.catalog.delta_table import Catalog
from mirror.catalog.gc_lease import KNOWN_FOR
from mirror.catalog.index import Index, Sighting
from mirror.catalog.optimistic_commit import commit_optimistically, with_carried_sources
from mirror.catalog.row import UNKNOWN_SOURCE, Row, RowSource
from mirror.errors import CatalogError, MirrorError
from mirror.sync.catalog_memory import remember
from mirror.sync.row_sources import Sources, source_digest
from mirror.sync.state import SeenFile, State
from mirror.sync.weigh import Basis, ContentFacts, Waiting, newly_flagged, weigh

# Rows committed since the index was read that are kept in memory; then the index is read again. A
# transfer refreshes it earlier by itself, but not where most files are duplicates.
_MAX_REMEMBERED: Final = 60_000
# A clock that runs ahead must not take all later rows with it: they follow it by this much at most.
_FOLLOWED: Final = 86_400.0
# Attempts at a commit that others' commits come before: at each, some machine's commit succeeds.
_ATTEMPTS: Final = 50


@dataclass
class CommitCount:
    """What a run's commits did.

    Attributes:
        commits: how many there were.
        version: the catalog's version after the last one.
        sources: sources that were catalogued for unchanged files.
        evidence: rows that were flagged because too many photos share their content.
        left: rows that no longer held when they were weighed, by what they rested on.
        rejudged: files that were flagged because others had found their content a placeholder.
    """

    commits: int = 0
    version: int | None = None
    sources: int = 0
    evidence: int = 0
    left: Counter[Basis] = field(default_factory=Counter)
    rejudged: int = 0

    @property
    def left_files(self) -> int:
        """Files that were left to the next run."""
        return self.left[Basis.UPLOADED] + self.left[Basis.DUPLICATE] + self.left[Basis.FLAGGED]


class Committer:
    """Turns acknowledged files into rows, and commits them.

    Runs on the event loop; only blocking calls (deltalake's commit, SQLite) go to a thread. The
    caller awaits one `commit` before it starts the next.

    Attributes:
        count: what the commits did so far.
        index: the catalog as last read; empty until the first `refresh`.
        epoch: how often the run has learned a new version of the catalog.

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
        self.index = Index.empty()
        self.epoch = 0
        self._catalog = catalog
        self._state = state
        self._snapshots = snapshots
        self._sources = sources
        self._now = now
        self._waiting: list[Waiting] = []
        self._batch: list[Waiting] = []  # those that are being committed
        self._rows: dict[bytes, Row] = {}
        self._committing: dict[bytes, Row] = {}
        self._committed: dict[bytes, Row] = {}
        self._placeholders: set[bytes] = set()
        self._flagged_at: dict[bytes, int] = {}
        self._earliest = 0  # `seen_at` of rows from here on: after all rows that the index has
        self._version = 0  # newest catalog version whose rows are all known; version 0 has none
        self._mark = ""  # of this run's commit of that version
        self._known_at = now()
        self._oldest_knowledge: float | None = None

    async def refresh(self) -> None:
        """Read the newest catalog, with the rows of this run and of other machines."""
        requested_at = self._now()
        await self._read_catalog()
        self._known_at = requested_at

    async def _read_catalog(self) -> None:
        """Refresh the index, but leave the age of the run's knowledge as it is.

        Waiting rows were decided on the old index, so they are weighed again on the new one.
        """
        earlier, self.index = self.index, await self._catalog.refresh(self.index, self._snapshots)
        if self.index.version != self._version:
            self._version, self._mark = max(self.index.version, 0), ""
        self._committed.clear()
        if self.index is earlier:
            return
        self.epoch += 1
        self._placeholders = self.index.contents_judged("placeholder")
        followed = int((self._now() + _FOLLOWED) * 1e6)
        self._earliest = min(self.index.latest_seen_at() + 1, followed)
        if self.epoch > 1:
            for content in newly_flagged(earlier, self.index):
                self._flagged_at[content] = self.epoch
        self._committing, self._rows = {}, {}
        self._batch = self._weigh_all(self._batch, self._committing)
        self._waiting = self._weigh_all(self._waiting, self._rows)

    def _weigh_all(self, waiting: list[Waiting], rows: dict[bytes, Row]) -> list[Waiting]:
        """Weigh rows in their order, and add those to be written to `rows`; returns those that hold."""
        return [held for one in waiting if (held := self._weigh(one, rows)) is not None]

    def _weigh(self, waiting: Waiting, rows: dict[bytes, Row]) -> Waiting | None:
        row = waiting.row
        content = ContentFacts(
            self.index.stored_object(row.content_hash),
            row.content_hash in self._placeholders,
            self._flagged_at.get(row.content_hash, 0),
        )
        weighed = weigh(waiting, self._prior(row.url_md5), content, self._earliest)
        if not weighed.holds:
            self.count.left[waiting.basis] += 1
            return None
        if weighed.waiting.row.verdict != row.verdict:
            self.count.rejudged += 1
        if weighed.write:
            rows[row.url_md5] = weighed.waiting.row
        return weighed.waiting

    @property
    def knowledge_age(self) -> float:
        """Seconds since the last `refresh`."""
        return self._now() - self._known_at

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, prepared: Prepared, basis: Basis, epoch: int) -> None:
        """Add a file whose object the store has acknowledged, or which is flagged.

        Args:
            prepared: the file.
            basis: what its row rests on.
            epoch: when the file was judged, or the upload began that it relies on, if that is earlier.
        """
        entry, digest, judged = prepared.entry, prepared.digest, prepared.inspection
        source = self._sources.get(entry.url_md5) if self._sources is not None else None
        row = Row(
            entry.url_md5, digest.content_hash, digest.sha256, digest.size, judged.format,
            judged.width, judged.height, judged.verdict, judged.reason,
            source or UNKNOWN_SOURCE, int(self._now() * 1e6), judged.near,
        )  # fmt: skip
        known = source_digest(source) if source else None
        self._add(Waiting(row, basis, epoch, entry, source_digest=known))

    def add_source(self, path: bytes, row: Row, source: RowSource) -> None:
        """Add a row with the source of an unchanged file, without opening the file.

        Nothing is added when the catalog meanwhile has another content or verdict for this URL.

        Args:
            path: of the file.
            row: as the state has it.
            source: to catalogue.
        """
        row = row._replace(source=source, seen_at=int(self._now() * 1e6))
        known = source_digest(source)
        self._add(Waiting(row, Basis.SOURCE, self.epoch, path=path, source_digest=known))

    def add_evidence(self, rows: Iterable[Row]) -> None:
        """Add rows that judge the contents of their URLs placeholders, without reading a file."""
        for row in rows:
            self._add(Waiting(row, Basis.EVIDENCE, self.epoch))

    def _add(self, waiting: Waiting) -> None:
        held = self._weigh(waiting, self._rows)
        if held is not None:
            self._waiting.append(held)
            if held.row.url_md5 in self._rows:
                self._note_knowledge_age()

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
        self._batch, self._waiting = self._waiting, []
        self._committing, self._rows = self._rows, {}
        oldest, self._oldest_knowledge = self._oldest_knowledge, None
        try:
            if len(self._committed) >= _MAX_REMEMBERED:
                await self._read_catalog()
            if self._committing:
                await self._append()
        except BaseException:
            self._waiting = self._batch + self._waiting
            self._rows = {**self._committing, **self._rows}
            self._batch, self._committing = [], {}
            self._oldest_knowledge = oldest
            raise
        batch, self._batch = self._batch, []
        self._committed.update(self._committing)
        self._committing = {}
        self.count.sources += sum(one.basis is Basis.SOURCE for one in batch)
        self.count.evidence += sum(one.basis is Basis.EVIDENCE for one in batch)
        await asyncio.to_thread(self._record, batch)

    def _record(self, batch: Sequence[Waiting]) -> None:
        # Before the files: they may be acknowledged only as long as the catalog has this version.
        remember(self._state, self._version, self._mark)
        self._state.record(
            [
                SeenFile(one.entry, one.row, one.source_digest)
                for one in batch
                if one.entry is not None
            ]
        )
        if sources := [
            (one.source_digest, one.path)
            for one in batch
            if one.basis is Basis.SOURCE and one.source_digest is not None
        ]:
            self._state.set_sources(sources)

    async def _append(self) -> None:
        """Commit directly after the version on which every row was decided.

        Raises:
            CatalogError: other machines' commits came first every time. An unconditional commit
                would write rows that the newest version may contradict.
        """
        if not await commit_optimistically(self._append_after, self._read_catalog, _ATTEMPTS):
            raise CatalogError(
                f"Other machines' commits came first {_ATTEMPTS} times in a row; nothing that was "
                "acknowledged is lost, run again when fewer machines sync at once."
            )

    async def _append_after(self) -> bool:
        if not self._committing:
            # All rows are known by now, perhaps by a commit of this run whose answer was lost.
            self.count.version = self._version
            return True
        rows = await with_carried_sources(self._catalog, self.index, self._committing.values())
        # All rows of a commit are seen at once: which thread was first must not decide a split.
        seen_at = max(row.seen_at for row in rows)
        rows = [row._replace(seen_at=seen_at) for row in rows]
        mark = uuid.uuid4().hex
        version = await asyncio.to_thread(self._catalog.append_after, self._version, rows, mark)
        if version is None:
            return False
        self._committing = {row.url_md5: row for row in rows}
        self._version, self._mark = version, mark
        self._earliest = max(self._earliest, seen_at + 1)
        self._count(version)
        return True

    def _count(self, version: int) -> None:
        self.count.version = version
        self.count.commits += 1

    async def tidy(self) -> None:
        """Write a snapshot of the index for the next run, and compact the catalog if it is due."""
        with suppress(OSError, MirrorError):  # the snapshot is only a cache
            await self.refresh()
        with suppress(MirrorError):  # the next run that commits retries
            await asyncio.to_thread(self._catalog.compact)
