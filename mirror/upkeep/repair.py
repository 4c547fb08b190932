"""`mirror repair`: what is missing or damaged, back from any folder that still has the content.

    verify ──► look for the contents by size, hash, compare ──► upload ──► flag what is lost

What no folder has is catalogued as `corrupt`: `rewrite` and `fetch` then offer it no more, and the
first sync that meets the content again uploads it and makes its rows `ok`. The order is the
promise's: objects before rows; and other machines are told after the rows, by a mark in format.json.
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
from mirror.catalog.objects import NamedObjects, named_objects, spans
from mirror.catalog.open_mirror import OpenMirror, open_mirror
from mirror.catalog.optimistic_commit import commit_optimistically, with_carried_sources
from mirror.catalog.root import mark_losses
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.catalog.upload import put_large, upload_body
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
from mirror.layout import CACHE_CONTROL, FORMATS, content_type, parse_object_key
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
_LOOK_UP: Final = 5_000
_FORMAT_OF: Final = {extension: name for name, (extension, _) in FORMATS.items()}

LOST: Final[dict[str, str]] = {
    "missing": "missing from the mirror",
    "mismatched": "damaged in the mirror",
}


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """What a repair is asked to do.

    Attributes:
        verify: how far to look for damage first.
        folders: where to look for contents, in this order.
        limit: of objects that may be catalogued as lost; a plan that gives up more is refused.
        dry_run: say what could be repaired; write nothing.
    """

    verify: VerifyOptions = field(default_factory=VerifyOptions)
    folders: Sequence[Path] = ()
    limit: ChangeLimit = field(default_factory=ChangeLimit)
    dry_run: bool = False


@dataclass
class RepairReport(VerifyReport):
    """As its base says of what was found, and:

    Attributes:
        repairable: objects whose content was found; in a dry run they are not written.
        healed: that were well when they were to be repaired.
        lost: objects that no folder has,
        flagged_rows: and the rows that were flagged for it.
        looked_at: files that were opened.
    """

    repairable: int = 0
    healed: int = 0
    lost: int = 0
    flagged_rows: int = 0
    looked_at: int = 0

    @property
    def wrong(self) -> bool:
        mended = self.healed + (self.repairable if self.dry_run else self.repaired)
        return bool(self.lost or self.failed) or self.missing + self.mismatched > mended

    def more(self) -> dict[str, Any]:
        names = ("repairable", "healed", "lost", "flagged_rows", "looked_at")
        return super().more() | {name: getattr(self, name) for name in names}


def repair(
    settings: Settings,
    options: RepairOptions = RepairOptions(),
    *,
    progress: Progress = Progress(),
    now: Callable[[], float] = time.time,
) -> RepairReport:
    """Write again what is missing or damaged.

    Args:
        settings: where the bucket, the cache and the state are.
        options: how far to look, and where.
        progress: receives the progress of the run.
        now: seconds since 1970, for the rows of what is lost.

    Returns:
        The report; an error that came after the beginning is in `report.error`.

    Raises:
        MirrorError: the mirror cannot be read.
        UsageError: there is no folder to look in.
        CacheError: one of them is not there, or empty.
        Busy: another verification or repair is at work on this machine.
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
            with locked(mirror.folder), ExitStack() as stack:
                progress.started()
                ledger = DamageLog(mirror.folder)
                stack.callback(ledger.close)
                path = options.verify.report
                lines = ProblemFile(None if path is None else stack.enter_context(replacing(path)))
                verification = Verification(
                    mirror, ledger, settings, report=report, progress=progress
                )
                repairing = _Repair(mirror, ledger, settings, report=report, stop=verification.stop)
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
            "There is no folder to look in: name one that may have the contents, with --cache or "
            "--from."
        )
    for folder in folders:
        if not folder.is_dir():
            raise CacheError(f"The folder {folder} is not there; is its disk mounted?")
        if next(files_below(os.fsencode(folder)), None) is None:
            raise CacheError(
                f"The folder {folder} has no file in it; is its disk mounted? What no folder has "
                "would be given up for lost."
            )


class _Repair:
    def __init__(
        self,
        mirror: OpenMirror,
        ledger: DamageLog,
        settings: Settings,
        *,
        report: RepairReport,
        stop: asyncio.Event,
    ) -> None:
        self._mirror = mirror
        self._ledger = ledger
        self._concurrency = settings.sync.concurrency
        self._report = report
        self._stop = stop
        self._failures = ConsecutiveFailures()

    async def settle_debt(self) -> None:
        """A run that was killed between its rows and the mark owes the mark."""
        if self._ledger.owes_mark:
            await mark_losses(self._mirror.store)
            self._ledger.owes_mark = False

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
        progress.begin(Stage("objects repaired"))
        with outcome_noted(report, self._stop):
            wanted = await asyncio.to_thread(LostContents, self._ledger.damage(), index)
            for folder in folders:
                if len(wanted) and not self._stop.is_set():
                    await self._look_in(os.fsencode(folder), wanted, options, progress)
            if not self._stop.is_set():
                await self._give_up(wanted, options, now)

    async def _look_in(
        self, folder: bytes, wanted: LostContents, options: RepairOptions, progress: Progress
    ) -> None:
        files = wanted.candidates(folder)
        async with BoundedTasks(self._concurrency) as window:
            while not self._stop.is_set():
                found = await asyncio.to_thread(next, files, None)
                if found is None:
                    return
                path, size = found
                await window.start(bytes_held(size), self._try, path, wanted, options, progress)

    async def _try(
        self, path: bytes, wanted: LostContents, options: RepairOptions, progress: Progress
    ) -> None:
        """One file, which has the size of something that is wanted."""
        report = self._report
        report.looked_at += 1
        try:
            read = await asyncio.to_thread(digests.read, path, keep_up_to=WHOLE_UP_TO)
        except (FileChanged, OSError):
            return  # it may be elsewhere too
        one = wanted.match(read.digest)
        if one is None:
            return
        wanted.settle(one)
        report.repairable += 1
        if options.dry_run:
            return
        try:
            wrote = await self._upload(path, read.body, one)
        except (StoreError, ContentCollision, OSError) as error:
            # One that a lock of the bucket keeps from being overwritten says nothing of the others.
            locked = one.kind == "mismatched" and isinstance(error, AccessDenied)
            if isinstance(error, StoreError) and not locked:
                self._failures.failed(error)
            report.failed += 1
            report.example(Problem("failed", one.key, f"{error} ({display(path)})"))
            return
        self._failures.succeeded()
        self._ledger.drop([one.key])
        if wrote:
            report.repaired += 1
            report.bytes += one.digest.size
        else:
            report.healed += 1
        progress.advance(1, one.digest.size)

    async def _upload(self, path: bytes, body: bytes | None, one: LostObject) -> bool:
        headers = _headers(one.key)
        store = self._mirror.store
        if body is not None:
            return await upload_body(store, one.key, body, headers)
        await put_large(store, one.key, path, one.digest, headers)
        return True

    async def _give_up(
        self, wanted: LostContents, options: RepairOptions, now: Callable[[], float]
    ) -> None:
        """Catalogue as lost what no folder has, and is not there at a last look."""
        report = self._report
        if not len(wanted):
            return
        index = await self._mirror.index()
        async with BoundedTasks(self._concurrency) as window:
            for one in wanted.left():
                await window.start(
                    bytes_held(one.digest.size), self._look_once_more, one, wanted, index
                )
        report.lost = len(wanted)
        for one in islice(wanted.left(), EXAMPLES):
            report.example(Problem("flagged", one.key, LOST[one.kind]))
        if not options.limit.allows(report.lost, report.checked):
            raise MirrorError(
                f"{report.lost:,} of {report.checked:,} objects are in no folder that was looked in, "
                "and would be catalogued as lost, which is more than --max-lost allows. Name more "
                f"folders with --from, or allow it with --max-lost {report.lost}."
            )
        if report.lost and not options.dry_run:
            await self._flag(index, wanted, int(now() * 1e6))

    async def _look_once_more(self, one: LostObject, wanted: LostContents, index: Index) -> None:
        report = self._report
        content, sha256, size = one.digest
        wrong = None
        if index.object_sha256(content) == sha256:  # else no row names it any more
            try:
                wrong = await wrong_with(self._mirror.store, one.key, size, content, sha256)
            except StoreError as error:
                self._failures.failed(error)
                report.failed += 1
                report.example(Problem("unread", one.key, str(error)))
                wanted.settle(one)
                return
        if wrong is None:
            report.healed += 1
            wanted.settle(one)
            self._ledger.drop([one.key])
        else:
            wanted.is_still(one, wrong[0])

    async def _flag(self, index: Index, wanted: LostContents, now: int) -> None:
        """Commit next after what is known: a URL that has another image by now keeps it."""

        async def attempt() -> bool:
            return await self._flag_after(index, wanted, now)

        async def refresh() -> None:
            nonlocal index
            index = await self._mirror.index()

        self._ledger.owes_mark = True
        try:
            if await commit_optimistically(attempt, refresh):
                self._ledger.drop(one.key for one in wanted.left())
                return
        finally:
            await self.settle_debt()
        self._report.warnings.append(
            "Other machines' commits came first, again and again, so that not all that is lost could "
            "be catalogued as such; run mirror repair again."
        )

    async def _flag_after(self, index: Index, wanted: LostContents, now: int) -> bool:
        """Whether all was flagged that the index says; False where another commit came first."""
        catalog, version = self._mirror.catalog, index.version
        rows = _flagged(index, wanted, now)
        while batch := await asyncio.to_thread(lambda: list(islice(rows, _COMMIT_ROWS))):
            batch = await with_carried_sources(catalog, index, batch)
            committed = await asyncio.to_thread(catalog.append_after, version, batch)
            if committed is None:
                return False
            version = committed
            self._report.flagged_rows += len(batch)
        return True


def _flagged(index: Index, wanted: LostContents, now: int) -> Iterator[Row]:
    """Rows that take the place of the `ok` ones that name what is lost."""
    for span in spans(index):
        named = named_objects(index, span)
        lost = wanted.left()
        while some := list(islice(lost, _LOOK_UP)):
            parsed = [parse_object_key(one.key) for one in some]
            found = named.find([one for one in parsed if one is not None])
            for at, one in zip(found.tolist(), some, strict=True):
                if at >= 0:
                    yield from _rows_of(index, named, at, LOST[one.kind], now)


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
    return Headers(content_type(_FORMAT_OF[key.rpartition(".")[2]]), CACHE_CONTROL)
