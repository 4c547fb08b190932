"""`mirror repair`: restore missing and damaged objects from any folder that still has the content.

    verify ──► find files by size, hash and compare ──► upload ──► flag the rows of lost objects

Objects that no folder has are catalogued as `corrupt`. `rewrite` and `fetch` no longer offer them,
and the first sync that meets the content again uploads it and makes its rows `ok`. Objects are
written before rows, as everywhere; a mark in format.json then makes other machines notice the loss.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

from mirror.cache.scan import display
from mirror.catalog.health import EXAMPLES, Problem
from mirror.catalog.index import FORMAT_NAMES, Index
from mirror.catalog.objects import NamedObjects, key_ranges, named_objects, sha256_of_named
from mirror.catalog.open_mirror import OpenMirror, open_mirror
from mirror.catalog.optimistic_commit import commit_optimistically, with_carried_sources
from mirror.catalog.root import mark_losses
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.catalog.upload import object_headers, upload_body, upload_large
from mirror.config.settings import Settings
from mirror.content import digest as digests
from mirror.content.digest import WHOLE_UP_TO, FileChanged
from mirror.errors import (
    AccessDenied,
    CacheError,
    ContentCollision,
    MirrorError,
    StoreError,
    UsageError,
)
from mirror.layout import FORMATS, parse_object_key
from mirror.run.lock import locked
from mirror.run.outcome import outcome_noted, timed
from mirror.run.progress import Progress, Stage
from mirror.run.signals import stopping_on_signals
from mirror.store.base import Headers
from mirror.store.bounded_tasks import BoundedTasks
from mirror.store.consecutive_failures import ConsecutiveFailures
from mirror.store.read_back import bytes_held
from mirror.system.files import replacing
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.damage_log import DamageLog
from mirror.upkeep.lost_contents import LostContents, LostObject, files_below
from mirror.upkeep.verify import (
    ProblemFile,
    Verification,
    VerifyOptions,
    VerifyReport,
    wrong_with,
)

# Rows that are flagged in one commit.
_COMMIT_ROWS: Final = 20_000
_LOOK_UP_BATCH: Final = 5_000
_FORMAT_OF: Final = {extension: name for name, (extension, _) in FORMATS.items()}

# The `reason` in the catalog, by the kind of the problem.
LOST: Final[dict[str, str]] = {
    "missing": "missing from the mirror",
    "mismatched": "damaged in the mirror",
}


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """Options of a repair.

    Attributes:
        verify: how thoroughly to look for damage first.
        folders: where to look for contents, in this order.
        limit: refuse to catalogue more objects than this as lost.
        dry_run: report what could be repaired; write nothing.
    """

    verify: VerifyOptions = field(default_factory=VerifyOptions)
    folders: Sequence[Path] = ()
    limit: ChangeLimit = field(default_factory=ChangeLimit)
    dry_run: bool = False


@dataclass
class RepairReport(VerifyReport):
    """The report of a repair; its base has what the verification found.

    Attributes:
        repairable: objects whose content was found; a dry run does not write them.
        healed: objects that were good again when they were to be repaired.
        lost: objects that no folder has.
        flagged_rows: rows that were flagged because their objects are lost.
        looked_at: files that were opened.
    """

    repairable: int = 0
    healed: int = 0
    lost: int = 0
    flagged_rows: int = 0
    looked_at: int = 0

    @property
    def has_problems(self) -> bool:
        mended = self.healed + (self.repairable if self.dry_run else self.repaired)
        return bool(self.lost or self.failed) or self.missing + self.mismatched > mended

    def extra_json(self) -> dict[str, Any]:
        names = ("repairable", "healed", "lost", "flagged_rows", "looked_at")
        return super().extra_json() | {name: getattr(self, name) for name in names}


def repair(
    settings: Settings,
    options: RepairOptions = RepairOptions(),
    *,
    progress: Progress = Progress(),
    now: Callable[[], float] = time.time,
) -> RepairReport:
    """Restore missing and damaged objects, and flag those that no folder has.

    Args:
        settings: where the bucket, the cache and the state are.
        options: how thoroughly to look, and where.
        progress: receives the progress of the run.
        now: seconds since 1970, for the rows of lost objects.

    Returns:
        The report; `report.error` has an error that came after the run had begun.

    Raises:
        MirrorError: the mirror cannot be read.
        UsageError: there is no folder to look in.
        CacheError: one of the folders is missing or empty.
        Busy: another verification or repair is running on this machine.
    """
    folders = list(options.folders)
    if settings.cache.dir is not None and Path(settings.cache.dir) not in folders:
        folders.insert(0, settings.cache_dir)
    _check(folders)
    report = RepairReport(share=options.verify.share, dry_run=options.dry_run)
    young_since = datetime.fromtimestamp(now(), UTC) - timedelta(days=settings.gc.grace_days)

    async def run() -> None:
        async with open_mirror(settings, retry=options.verify.retry) as mirror:
            report.requests = mirror.requests
            with locked(mirror.folder, "repair"), ExitStack() as stack:
                progress.started()
                log = DamageLog(mirror.folder)
                stack.callback(log.close)
                path = options.verify.report
                lines = ProblemFile(None if path is None else stack.enter_context(replacing(path)))
                verification = Verification(
                    mirror, log, settings, report=report, progress=progress, now=now
                )
                repairing = _Repair(mirror, log, settings, report=report, stop=verification.stop)
                with stopping_on_signals(verification.stop.set):
                    await repairing.settle_debt()
                    await verification.run(options.verify, young_since, lines)
                    verification.conclude(lines)
                    if report.error is None and not report.interrupted:
                        index = verification.index
                        await repairing.run(index, folders, options, progress=progress, now=now)

    with timed(report):
        asyncio.run(run())
    return report


def _check(folders: Sequence[Path]) -> None:
    if not folders:
        raise UsageError(
            "There is no folder to look in; name one that may have the contents, with --cache or "
            "--from."
        )
    for folder in folders:
        if not folder.is_dir():
            raise CacheError(f"The folder {folder} does not exist; check that its disk is mounted.")
        if next(files_below(os.fsencode(folder)), None) is None:
            raise CacheError(
                f"The folder {folder} has no file in it; check that its disk is mounted. Objects that no folder "
                "has would be catalogued as lost."
            )


class _Repair:
    def __init__(
        self,
        mirror: OpenMirror,
        log: DamageLog,
        settings: Settings,
        *,
        report: RepairReport,
        stop: asyncio.Event,
    ) -> None:
        self._mirror = mirror
        self._log = log
        self._concurrency = settings.sync.concurrency
        self._report = report
        self._stop = stop
        self._failures = ConsecutiveFailures()

    async def settle_debt(self) -> None:
        """Set the mark that a run owes when it was killed between its rows and the mark."""
        if self._log.owes_mark:
            await mark_losses(self._mirror.store)
            self._log.owes_mark = False

    async def run(
        self,
        index: Index,
        folders: Sequence[Path],
        options: RepairOptions,
        *,
        progress: Progress,
        now: Callable[[], float],
    ) -> None:
        report = self._report
        with outcome_noted(report, self._stop):
            lost = await asyncio.to_thread(LostContents, self._log.damage(), index)
            progress.begin(Stage("objects repaired", len(lost)))
            for folder in folders:
                if len(lost) and not self._stop.is_set():
                    await self._look_in(os.fsencode(folder), lost, options, progress)
            if not self._stop.is_set():
                await self._give_up(lost, options, now)

    async def _look_in(
        self, folder: bytes, lost: LostContents, options: RepairOptions, progress: Progress
    ) -> None:
        files = lost.candidates(folder)
        async with BoundedTasks(self._concurrency) as window:
            while not self._stop.is_set():
                found = await asyncio.to_thread(next, files, None)
                if found is None:
                    return
                path, size = found
                await window.start(bytes_held(size), self._try, path, lost, options, progress)

    async def _try(
        self, path: bytes, lost: LostContents, options: RepairOptions, progress: Progress
    ) -> None:
        """Read one file that has the size of a lost content, and restore the object if it matches."""
        report = self._report
        report.looked_at += 1
        try:
            read = await asyncio.to_thread(digests.read, path, keep_up_to=WHOLE_UP_TO)
        except (FileChanged, OSError):
            return  # another folder may have the content too
        for found in lost.match(read.digest):
            lost.settle(found)
            report.repairable += 1
            if not options.dry_run:
                await self._restore(path, read.body, found, progress)

    async def _restore(
        self, path: bytes, body: bytes | None, found: LostObject, progress: Progress
    ) -> None:
        report = self._report
        try:
            wrote = await self._upload(path, body, found)
        except (StoreError, ContentCollision, OSError) as error:
            # A bucket lock that protects one damaged object says nothing about the others.
            locked = found.kind == "mismatched" and isinstance(error, AccessDenied)
            if isinstance(error, StoreError) and not locked:
                self._failures.failed(error)
            report.failed += 1
            report.example(Problem("failed", found.key, f"{error} ({display(path)})"))
            return
        self._failures.succeeded()
        self._log.drop([found.key])
        if wrote:
            report.repaired += 1
            report.bytes += found.digest.size
        else:
            report.healed += 1
        progress.advance(1, found.digest.size)

    async def _upload(self, path: bytes, body: bytes | None, lost: LostObject) -> bool:
        headers = _headers(lost.key)
        store = self._mirror.store
        if body is not None:
            return await upload_body(store, lost.key, body, headers, named=True)
        return await upload_large(store, lost.key, path, lost.digest, headers, named=True)

    async def _give_up(
        self, lost: LostContents, options: RepairOptions, now: Callable[[], float]
    ) -> None:
        """Catalogue the objects as lost that no folder has, after a last check of each."""
        report = self._report
        if not len(lost):
            return
        index = await self._mirror.index()
        async with BoundedTasks(self._concurrency) as window:
            for item in lost.remaining():
                await window.start(bytes_held(item.digest.size), self._recheck, item, lost, index)
        report.lost = len(lost)
        for item in islice(lost.remaining(), EXAMPLES):
            report.example(Problem("flagged", item.key, LOST[item.kind]))
        if not options.limit.allows(report.lost, report.checked):
            raise MirrorError(
                f"{report.lost:,} of {report.checked:,} objects are in none of the folders and would "
                "be catalogued as lost, which is more than --max-lost allows. Name more folders with "
                f"--from, or allow it with --max-lost {report.lost}."
            )
        if report.lost and not options.dry_run:
            await self._flag(index, lost, int(now() * 1e6))

    async def _recheck(self, item: LostObject, lost: LostContents, index: Index) -> None:
        report = self._report
        content, sha256, size = item.digest
        wrong = None
        if sha256_of_named(index, item.key) == sha256:  # else no row names it any more
            try:
                wrong = await wrong_with(self._mirror.store, item.key, size, content, sha256)
            except StoreError as error:
                self._failures.failed(error)
                report.failed += 1
                report.example(Problem("unread", item.key, str(error)))
                lost.settle(item)
                return
        if wrong is None:
            report.healed += 1
            lost.settle(item)
            self._log.drop([item.key])
        else:
            lost.set_kind(item, wrong[0])

    async def _flag(self, index: Index, lost: LostContents, now: int) -> None:
        """Flag the rows of lost objects; a URL that has another image by now keeps it."""

        async def attempt() -> bool:
            return await self._flag_after(index, lost, now)

        async def refresh() -> None:
            nonlocal index
            index = await self._mirror.index()

        self._log.owes_mark = True
        try:
            if await commit_optimistically(attempt, refresh):
                self._log.drop(item.key for item in lost.remaining())
                return
        finally:
            await self.settle_debt()
        self._report.warnings.append(
            "Other machines' commits came first every time, so not all lost objects could be "
            "catalogued as lost; run mirror repair again."
        )

    async def _flag_after(self, index: Index, lost: LostContents, now: int) -> bool:
        """Flag the rows that the index has; returns False where another commit came first."""
        catalog, version = self._mirror.catalog, index.version
        rows = _flagged(index, lost, now)
        while batch := await asyncio.to_thread(lambda: list(islice(rows, _COMMIT_ROWS))):
            batch = await with_carried_sources(catalog, index, batch)
            committed = await asyncio.to_thread(catalog.append_after, version, batch)
            if committed is None:
                return False
            version = committed
            self._report.flagged_rows += len(batch)
        return True


def _flagged(index: Index, lost: LostContents, now: int) -> Iterator[Row]:
    """Rows that supersede the `ok` rows of lost objects."""
    for key_range in key_ranges(index):
        named = named_objects(index, key_range)
        remaining = lost.remaining()
        while batch := list(islice(remaining, _LOOK_UP_BATCH)):
            keys = [key for item in batch if (key := parse_object_key(item.key)) is not None]
            for at, item in zip(named.find(keys).tolist(), batch, strict=True):
                if at >= 0:
                    yield from _rows_of(index, named, at, LOST[item.kind], now)


def _rows_of(index: Index, named: NamedObjects, at: int, reason: str, now: int) -> Iterator[Row]:
    content = named.content_hash(at)
    sha256 = index.object_sha256(content)
    assert sha256 is not None  # an ok row names it
    columns = index.sightings
    rows = named.rows_of(at)
    for row, url in zip(rows.tolist(), index.url_md5s(rows), strict=True):
        yield Row(
            url.tobytes(), content, sha256, int(columns["size"][row]),
            FORMAT_NAMES[columns["format"][row]], int(columns["width"][row]),
            int(columns["height"][row]), "corrupt", reason, UNKNOWN_SOURCE,
            max(now, int(columns["seen_at"][row]) + 1),
        )  # fmt: skip


def _headers(key: str) -> Headers:
    return object_headers(_FORMAT_OF[key.rpartition(".")[2]])
