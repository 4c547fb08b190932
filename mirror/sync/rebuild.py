"""`mirror rebuild-state`: the local state anew, from the bucket and the cache.

The state then knows exactly those files with which a sync has nothing left to do: it reads and
judges as a sync does, decides by the same functions, and uploads and commits nothing. A file whose
content the catalog does not know, or whose object is not in the bucket, stays unknown.

The new state is built beside the old one, so that a run that is killed goes on, and takes its place
in one step. What was read more than a day ago is read again: a state is rebuilt because it is in
doubt, and what is half built soon is as well.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from mirror.cache.prepare import Prepared, Unprepared, batches, prepare_all
from mirror.cache.scan import Entry, ScanCount, display, walk
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
from mirror.sync.decide import Decision, decide, supersedes
from mirror.sync.plan import FileSelection, make_plan
from mirror.sync.state import SeenFile, State, set_aside

FOLDER: Final = "rebuild"
_RECORDED: Final = 2_000
_READERS: Final = max(2, os.cpu_count() or 2)
# How many batches of files wait for each thread.
_BATCHES_A_READER: Final = 4


@dataclass
class RebuildReport(UpkeepReport):
    """As its base says, where `checked` are files of the cache, and:

    Attributes:
        read: files that were read; the others had been by a run that was interrupted.
        known: files that the state now knows,
        unknown: and those that the next sync will look at.
        ignored: other files in the folder.
    """

    read: int = 0
    known: int = 0
    unknown: int = 0
    ignored: int = 0

    def more(self) -> dict[str, Any]:
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
    """Make the state of a cache and a mirror anew. Nothing is written to the mirror or the cache.

    Args:
        settings: where the bucket, the cache and the state are.
        level: how far to inspect; overrides `sync.inspect`.
        retry: how often and how soon a request that failed is tried again.
        progress: receives the progress of the run.
        restart: begin anew, even if a run was interrupted.
        now: seconds since 1970, by which what an interrupted run has read is too old to go by.

    Returns:
        The report; an error that came after the beginning is in `report.error`.

    Raises:
        MirrorError: the mirror cannot be read.
        CacheError: the cache cannot be read, or has no file in it.
        Busy: a sync is at work on the same state.
    """
    settings.require_apart()
    report = RebuildReport()
    folder = settings.state_dir

    async def run() -> None:
        async with open_mirror(settings, retry=retry) as mirror:
            report.requests = mirror.requests
            with locked(folder):
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
        for key in ("mirror_id", "losses"):
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
            await self._list()
            if not self.stop.is_set():
                await asyncio.to_thread(self._read_cache, level)

    def _begin(self, now: float, restart: bool) -> None:
        """Go on with what was built of this mirror, as it is, within a day; or begin."""
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
        """Which objects are in the bucket, as the catalog has them."""
        report = self._report
        absent = bytearray()

        def damage(found: Iterator[Problem]) -> None:
            for problem in found:
                parsed = parse_object_key(problem.key)
                if parsed is not None:
                    absent.extend(parsed[0])
                report.missing += problem.kind == "missing"
                report.mismatched += problem.kind == "mismatched"
                report.example(problem)

        never = datetime.fromtimestamp(0, UTC)
        listed = await Comparison(
            self._mirror.store, self._index, never, damage, stopped=self.stop.is_set
        ).run()
        report.orphaned = listed.orphaned
        hi, lo = halves(bytes(absent))
        order = np.lexsort((lo, hi))
        self._absent = hi[order], lo[order]

    def _forget_absent(self) -> None:
        """What an interrupted run has read, and whose object is not as it should be by now."""
        acknowledged = self._state.acknowledged()
        absent: list[bytes] = []
        while some := list(islice(acknowledged, _RECORDED)):
            contents = halves(b"".join(content for _, _, content in some))
            at = positions_of(*contents, *self._absent)
            absent.extend(some[one][0] for one in np.flatnonzero(at >= 0))
        self._state.forget(absent)

    def _read_cache(self, level: Level) -> None:
        report, state = self._report, self._state
        self._forget_absent()
        root = os.fsencode(self._settings.cache_dir)
        count = ScanCount()
        files = walk(root, self._settings.cache.extensions, count)
        plan = make_plan(files, count, state, FileSelection())
        if not plan.scanned:
            raise CacheError(
                f"The cache folder {display(root)} has no image in it; is its disk mounted? The "
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
        for one in self._prepared(root, (plan.pending[at] for at in plan.order), level):
            if isinstance(one, Unprepared):
                self._fail(display(one.entry.path), one.reason)
                continue
            judged = one.judged_again(placeholders)
            if (known := self._known(judged)) is None:
                report.unknown += 1
            else:
                report.known += 1
                seen.append(known)
            report.read += 1
            report.bytes += one.digest.size
            self._progress.advance(1, one.digest.size)
            if len(seen) >= _RECORDED:
                state.record(seen)
                seen.clear()
        state.record(seen)

    def _prepared(
        self, root: bytes, entries: Iterator[Entry], level: Level
    ) -> Iterator[Prepared | Unprepared]:
        """Files as threads have read them, as many under way as keep them busy and no more."""
        flagged = self._index.contents_judged("blank", "corrupt", "not_image")
        under_way: deque[Future[list[Prepared | Unprepared]]] = deque()
        with ThreadPoolExecutor(_READERS, "read") as pool:
            for batch in batches(entries):
                if self.stop.is_set():
                    break
                under_way.append(pool.submit(prepare_all, root, batch, level, flagged))
                if len(under_way) >= _READERS * _BATCHES_A_READER:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()

    def _known(self, prepared: Prepared) -> SeenFile | None:
        """What the state says of a file with which a sync has nothing left to do."""
        entry, digest, judged = prepared.entry, prepared.digest, prepared.inspection
        prior = self._index.sighting(entry.url_md5)
        sha256 = self._index.object_sha256(digest.content_hash)
        decision = decide(prepared, sha256, None, include_flagged=False)
        if prior is None or decision not in (Decision.FLAG, Decision.DUPLICATE):
            return None
        row = Row(
            entry.url_md5, digest.content_hash, digest.sha256, digest.size, judged.format,
            judged.width, judged.height, judged.verdict, judged.reason, UNKNOWN_SOURCE,
            prior.seen_at + 1,
        )  # fmt: skip
        if supersedes(row, prior):
            return None
        (absent,) = positions_of(*halves(digest.content_hash), *self._absent)
        if decision is Decision.DUPLICATE and absent >= 0:
            return None
        return SeenFile(entry, row, None)

    def _fail(self, path: str, reason: str) -> None:
        self._report.failed += 1
        self._report.example(Problem("failed", path, reason))
