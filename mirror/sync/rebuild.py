"""`mirror rebuild-state`: rebuild the local state from the bucket and the cache.

The rebuilt state knows exactly the files for which a sync has nothing left to do. It reads and
inspects files as a sync does, and decides by the same functions, but uploads and commits nothing. A
file stays unknown when the catalog does not know its content or the bucket lacks its object.

The new state is built beside the old one and replaces it in one step, so a run that was killed can
be resumed. A half-built state that is older than a day is discarded: a state is rebuilt because it
is in doubt, and an old half of one soon is too.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from mirror.cache.prepare import Prepared, Unprepared, prepare_all, read_batches
from mirror.cache.scan import Entry, ScanCount, display, misnamed, walk
from mirror.catalog.comparison import Comparison
from mirror.catalog.gc_lease import KNOWN_FOR
from mirror.catalog.health import Problem, UpkeepReport
from mirror.catalog.index import Index, halves, positions_of
from mirror.catalog.open_mirror import OpenMirror, open_mirror
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.config.settings import Settings
from mirror.content.image import Level
from mirror.content.placeholder import load_known_bad
from mirror.errors import CacheError, StateDamaged
from mirror.layout import parse_object_key
from mirror.run.lock import locked
from mirror.run.outcome import outcome_noted, timed
from mirror.run.progress import Progress, Stage
from mirror.run.signals import stopping_on_signals
from mirror.store.retry import RetryPolicy
from mirror.sync.catalog_memory import CatalogMemory, identified
from mirror.sync.decide import Decision, adds_hash, decide, supersedes
from mirror.sync.plan import FileSelection, make_plan
from mirror.sync.state import SeenFile, State, set_aside

FOLDER: Final = "rebuild"
_RECORD_BATCH: Final = 2_000


@dataclass
class RebuildReport(UpkeepReport):
    """The report of a rebuild; `checked` counts files of the cache.

    Attributes:
        read: files that this run has read; an interrupted run had read the others.
        known: files that the state now knows.
        unknown: files that the next sync will read.
        ignored: other files in the folder.
    """

    read: int = 0
    known: int = 0
    unknown: int = 0
    ignored: int = 0

    def extra_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("read", "known", "unknown", "ignored")}


def rebuild_state(
    settings: Settings,
    *,
    level: Level | None = None,
    retry: RetryPolicy | None = None,
    progress: Progress = Progress(),
    restart: bool = False,
    now: Callable[[], float] = time.time,
) -> RebuildReport:
    """Rebuild the state of a cache and a mirror. Writes nothing to the mirror or the cache.

    Args:
        settings: where the bucket, the cache and the state are.
        level: how far to inspect; overrides `sync.inspect`.
        retry: how often and how soon to retry a failed request.
        progress: receives the progress of the run.
        restart: discard what an interrupted run has built.
        now: seconds since 1970, by which the work of an interrupted run is too old.

    Returns:
        The report; `report.error` has an error that came after the run had begun.

    Raises:
        MirrorError: the mirror cannot be read.
        CacheError: the cache cannot be read, or has no image in it.
        Busy: a sync is using the same state.
    """
    settings.require_apart()
    report = RebuildReport()
    folder = settings.state_dir

    async def run() -> None:
        async with open_mirror(settings, retry=retry) as mirror:
            report.requests = mirror.requests
            with locked(folder, "rebuild-state"):
                progress.started()
                (folder / FOLDER).mkdir(exist_ok=True)
                with closing(_opened(folder / FOLDER)) as state:
                    rebuilding = _Rebuild(mirror, settings, state, report, progress)
                    with stopping_on_signals(rebuilding.stop.set):
                        await rebuilding.run(level or settings.sync.inspect, now(), restart)
                    if report.error is None and not report.interrupted:
                        _put_in_place(folder, state)

    with timed(report):
        asyncio.run(run())
    return report


def _opened(folder: Path) -> State:
    try:
        return State(folder)
    except StateDamaged:
        set_aside(folder)
        return State(folder)


def _put_in_place(folder: Path, rebuilt: State) -> None:
    with closing(_opened(folder)) as state:
        state.take_files(rebuilt)
        for key in ("mirror_id", "losses", CatalogMemory.KEY):
            state.set(key, rebuilt.get(key) or "")
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


class _Rebuild:
    def __init__(
        self,
        mirror: OpenMirror,
        settings: Settings,
        state: State,
        report: RebuildReport,
        progress: Progress,
    ) -> None:
        self.stop = asyncio.Event()
        self._mirror = mirror
        self._settings = settings
        self._state = state
        self._report = report
        self._progress = progress
        self._index = Index.empty()
        self._absent = halves(b"")

    async def run(self, level: Level, now: float, restart: bool) -> None:
        report = self._report
        with outcome_noted(report, self.stop):
            self._begin(now, restart)
            self._index = await self._mirror.index()
            CatalogMemory.forget(self._state)
            if self._index.version >= 0:
                memory = CatalogMemory(version=self._index.version)
                (await identified(self._mirror.store, memory)).save(self._state)
            await self._list()
            if not self.stop.is_set():
                await asyncio.to_thread(self._read_cache, level)

    def _begin(self, now: float, restart: bool) -> None:
        """Resume a rebuild of the same mirror that is less than a day old; else begin one."""
        root, state = self._mirror.root, self._state
        age = now - float(state.get("begun_at") or 0)
        built_of = state.get("mirror_id"), state.get("losses")
        if (
            restart
            or built_of != (root.id, root.losses)
            or not 0 <= age < KNOWN_FOR.total_seconds()
        ):
            state.forget_all_files()
            state.set("mirror_id", root.id)
            state.set("losses", root.losses)
            state.set("begun_at", repr(now))

    async def _list(self) -> None:
        """Find the objects that the catalog names and the bucket does not have as it says."""
        report = self._report
        absent = bytearray()

        def note_damage(found: Iterator[Problem]) -> None:
            for problem in found:
                parsed = parse_object_key(problem.key)
                if parsed is not None:
                    absent.extend(parsed[0])
                report.missing += problem.kind == "missing"
                report.mismatched += problem.kind == "mismatched"
                report.example(problem)

        never = datetime.fromtimestamp(0, UTC)
        listed = await Comparison(
            self._mirror.store, self._index, never, note_damage, stopped=self.stop.is_set
        ).run()
        report.orphaned = listed.orphaned
        hi, lo = halves(bytes(absent))
        order = np.lexsort((lo, hi))
        self._absent = hi[order], lo[order]

    def _forget_absent(self) -> None:
        """Forget files that an interrupted run has read and whose objects are missing or damaged."""
        acknowledged = self._state.acknowledged()
        absent: list[bytes] = []
        while batch := list(islice(acknowledged, _RECORD_BATCH)):
            contents = halves(b"".join(content for _, _, content in batch))
            at = positions_of(*contents, *self._absent)
            absent.extend(batch[number][0] for number in np.flatnonzero(at >= 0))
        self._state.forget(absent)

    def _read_cache(self, level: Level) -> None:
        report, state = self._report, self._state
        self._forget_absent()
        root = os.fsencode(self._settings.cache_dir)
        count = ScanCount()
        cache = self._settings.cache
        files = walk(root, cache.extensions, count, trust_inode=cache.trust_inode)
        plan = make_plan(files, count, state, FileSelection())
        if not plan.scanned and count.ignored:
            raise misnamed(root, count)
        if not plan.scanned:
            raise CacheError(
                f"The cache folder {display(root)} has no image in it; check that its disk is mounted. The "
                "state stays as it was."
            )
        state.mark(vanished=plan.vanished_signatures, returned=plan.returned_signatures)
        report.checked, report.ignored = plan.scanned, plan.ignored
        report.known = plan.unchanged
        for path, reason in plan.unreadable:
            self._fail(path, reason)
        placeholders = load_known_bad(self._settings.inspect.known_bad)
        placeholders |= self._index.contents_judged("placeholder")
        self._progress.begin(Stage("files", len(plan.order), plan.pending_bytes))
        seen: list[SeenFile] = []
        flagged = self._index.contents_judged("blank", "corrupt", "not_image")

        def read(batch: list[Entry]) -> list[Prepared | Unprepared]:
            return prepare_all(root, batch, level, placeholders, flagged)

        entries = (plan.pending[at] for at in plan.order)
        for file in chain.from_iterable(read_batches(read, entries, stopped=self.stop.is_set)):
            if isinstance(file, Unprepared):
                self._fail(display(file.entry.path), file.reason)
                continue
            if (known := self._known(file)) is None:
                report.unknown += 1
            else:
                report.known += 1
                seen.append(known)
            report.read += 1
            report.bytes += file.digest.size
            self._progress.advance(1, file.digest.size)
            if len(seen) >= _RECORD_BATCH:
                state.record(seen)
                seen.clear()
        state.record(seen)

    def _known(self, prepared: Prepared) -> SeenFile | None:
        """The state's entry of a file for which a sync has nothing left to do; else None."""
        entry, digest, judged = prepared.entry, prepared.digest, prepared.inspection
        prior = self._index.sighting(entry.url_md5)
        sha256 = self._index.object_sha256(digest.content_hash)
        decision = decide(prepared, sha256, None, include_flagged=False)
        if prior is None or decision not in (Decision.FLAG, Decision.DUPLICATE):
            return None
        row = Row(
            entry.url_md5, digest.content_hash, digest.sha256, digest.size, judged.format,
            judged.width, judged.height, judged.verdict, judged.reason, UNKNOWN_SOURCE,
            prior.seen_at + 1, judged.near,
        )  # fmt: skip
        stored = self._index.stored_object(digest.content_hash)
        if supersedes(row, prior) or adds_hash(row, prior, stored):
            return None
        (absent,) = positions_of(*halves(digest.content_hash), *self._absent)
        if decision is Decision.DUPLICATE and absent >= 0:
            return None
        return SeenFile(entry, row, None)

    def _fail(self, path: str, reason: str) -> None:
        self._report.failed += 1
        self._report.example(Problem("failed", path, reason))
