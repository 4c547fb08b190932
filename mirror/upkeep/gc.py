"""`mirror gc`: delete unreferenced objects from the bucket, after showing the plan.

It deletes these, once they are older than the grace period by the store's own clock:

- objects that no live row has, and that no live `ok` row has named within the grace period: a writer
  or a reader may still rely on what the catalog said then;
- data files of the catalog that no version within the grace period has;
- uploads that were never completed.

It leaves alone keys that are not an object's, and everything outside the prefix.
`mirror.catalog.gc_lease` explains how it keeps out of the way of a sync at the same moment.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from mirror.catalog.comparison import Comparison, ListedObjects
from mirror.catalog.gc_lease import SHORTEST_GRACE, HeldLease
from mirror.catalog.health import Problem, UpkeepReport
from mirror.catalog.history import RecentCatalog, recent_catalog, recently_named
from mirror.catalog.index import Index, halves
from mirror.catalog.open_mirror import OpenMirror, open_mirror
from mirror.config.settings import Settings
from mirror.errors import (
    AccessDenied,
    MirrorError,
    NotFound,
    PreconditionFailed,
    StateError,
    StoreError,
    Transient,
)
from mirror.layout import CATALOG, parse_object_key
from mirror.run.lock import locked
from mirror.run.outcome import outcome_noted, timed
from mirror.run.progress import Progress, Stage
from mirror.run.signals import stopping_on_signals
from mirror.store.base import ObjectInfo, Store, list_all
from mirror.store.bounded_tasks import BoundedTasks
from mirror.store.retry import RetryPolicy, retried
from mirror.store.unfinished import Unfinished, UnfinishedWrites
from mirror.system.boot_id import boot_id
from mirror.system.clock import since_boot
from mirror.system.database import ScratchDatabase
from mirror.system.display_text import format_size, plural
from mirror.upkeep.change_limit import ChangeLimit

# Objects that are checked again and then deleted together.
_BATCH: Final = 500
_HASHES_AT_ONCE: Final = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GcOptions:
    """Options of a collection.

    Attributes:
        dry_run: show the plan; delete and write nothing.
        limit: refuse a plan that deletes more.
        flagged: delete objects that only flagged rows have, too.
        retry: how often and how soon to retry a failed request.
    """

    dry_run: bool = False
    limit: ChangeLimit = field(default_factory=ChangeLimit)
    flagged: bool = False
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass
class GcReport(UpkeepReport):
    """The report of a collection; `checked` counts the objects that were listed.

    Attributes:
        planned: objects to be deleted.
        planned_bytes: their bytes.
        young: unreferenced objects that are younger than the grace period.
        named_recently: unreferenced objects that a row has named within the grace period.
        flagged: objects that only flagged rows have.
        strangers: keys below `objects/` that no mirror writes; they are left alone.
        spared: planned objects that were rewritten, or named again, before they could be deleted.
        catalog_files: the catalog's data files that are deleted, or in a dry run would be.
        catalog_bytes: their bytes.
        uploads: uploads that were never completed; None where the server or the key does not
            permit a listing of them.
    """

    planned: int = 0
    planned_bytes: int = 0
    young: int = 0
    named_recently: int = 0
    flagged: int = 0
    strangers: int = 0
    spared: int = 0
    catalog_files: int = 0
    catalog_bytes: int = 0
    uploads: int | None = 0

    def extra_json(self) -> dict[str, Any]:
        names = (
            "planned", "planned_bytes", "young", "named_recently", "flagged", "strangers",
            "spared", "catalog_files", "catalog_bytes", "uploads",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def gc(
    settings: Settings,
    options: GcOptions = GcOptions(),
    *,
    progress: Progress = Progress(),
    now: Callable[[], float] = time.time,
    clock: Callable[[], float] = since_boot,
) -> GcReport:
    """Delete unreferenced objects.

    Args:
        settings: where the bucket and the state are, and the grace period.
        options: what is deleted, and whether.
        progress: receives the progress of the run; its stage begins when the plan is made, before
            anything is deleted.
        now: seconds since 1970. Ages are computed from it only in a dry run, else from the store's
            clock.
        clock: seconds that go on while the machine sleeps, by which a run notices that it stood
            still.

    Returns:
        The report; `report.error` has an error that came after the run had begun.

    Raises:
        MirrorError: the mirror cannot be read.
        Busy: another collection is running on this machine.
    """
    report = GcReport(dry_run=options.dry_run)
    grace = timedelta(days=settings.gc.grace_days)
    if grace < SHORTEST_GRACE:
        report.warnings.append(
            f"gc.grace_days is below {SHORTEST_GRACE.days}: objects that a sync on any machine is "
            "uploading at this moment may be deleted before they are catalogued."
        )

    async def run() -> None:
        async with open_mirror(settings, retry=options.retry) as mirror:
            report.requests = mirror.requests
            with ExitStack() as stack:
                stack.enter_context(locked(mirror.folder / "gc", "gc"))
                deletions = stack.enter_context(_Deletions())
                collection = _Collection(mirror, deletions, grace, options, report=report)
                with stopping_on_signals(collection.stop.set):
                    await collection.run(progress, now, clock)

    with timed(report):
        asyncio.run(run())
    return report


class _Deletions(ScratchDatabase):
    """The objects to be deleted, by key, in a scratch database."""

    def __init__(self) -> None:
        super().__init__("CREATE TABLE objects (key TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID")

    def add(self, key: str, size: int) -> None:
        self.execute("INSERT OR REPLACE INTO objects VALUES (?, ?)", (key, size))

    def spare(self, keys: Sequence[str]) -> None:
        self.execute_many("DELETE FROM objects WHERE key = ?", [(key,) for key in keys])

    def totals(self) -> tuple[int, int]:
        count, size = self.row("SELECT count(*), sum(size) FROM objects")
        return count, size or 0

    def pages(self, length: int) -> Iterator[list[tuple[str, int]]]:
        """`(key, size)` in the order of keys."""
        last = ""
        query = "SELECT key, size FROM objects WHERE key > ? ORDER BY key LIMIT ?"
        while page := list(self.rows(query, (last, length))):
            yield page
            last = page[-1][0]


class _Collection:
    def __init__(
        self,
        mirror: OpenMirror,
        deletions: _Deletions,
        grace: timedelta,
        options: GcOptions,
        *,
        report: GcReport,
    ) -> None:
        self.stop = asyncio.Event()
        self._mirror = mirror
        self._store = mirror.store
        self._deletions = deletions
        self._grace = grace
        self._options = options
        self._report = report
        self._catalog_files: list[ObjectInfo] = []
        self._uploads: list[Unfinished] = []
        self._unfinished: UnfinishedWrites = mirror.location.unfinished_writes()
        self._missing = 0
        self._jitter = random.random

    async def run(
        self,
        progress: Progress,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        report = self._report
        lease: HeldLease | None = None
        with outcome_noted(report, self.stop):
            try:
                if self._options.dry_run:
                    at = datetime.fromtimestamp(now(), UTC)
                else:
                    holder = _holder(self._mirror.folder / "gc" / "lock")
                    run = secrets.token_hex(8)
                    lease = await HeldLease.acquire(self._store, run, holder, clock)
                    at = lease.server_time
                progress.started()
                await self._plan(at - self._grace)
                if report.planned and not report.dry_run:
                    size = format_size(report.planned_bytes)
                    sentence = f"{plural(report.planned, 'object')} to delete ({size})"
                    progress.begin(Stage("objects", report.planned, sentence=sentence))
                if lease is not None and not self.stop.is_set() and self._is_something_planned:
                    await self._execute(lease, progress)
            finally:
                if lease is not None:
                    with suppress(MirrorError):  # the lease lapses by itself in an hour
                        await lease.write("idle")

    @property
    def _is_something_planned(self) -> bool:
        return bool(self._report.planned or self._catalog_files or self._uploads)

    async def _plan(self, since: datetime) -> None:
        """Find what to delete, all of it written before `since`."""
        report = self._report
        index = await self._mirror.index()
        listed = await self._list(index, since)
        report.checked = listed.compared + listed.orphaned + listed.flagged - self._missing
        report.orphaned, report.flagged = listed.orphaned, listed.flagged
        report.strangers = listed.strangers
        past = await recent_catalog(self._store, self._mirror.catalog, since)
        await self._spare_recently_named(past)
        report.planned, report.planned_bytes = self._deletions.totals()
        await self._find_catalog_files(past, since)
        uploads = await self._find_uploads(since)
        self._uploads = uploads or []
        report.uploads = None if uploads is None else len(uploads)
        for page in self._deletions.pages(_BATCH):
            for key, size in page:
                report.example(Problem("orphaned", key, "no row names it", size=size))
            break
        if not self._options.limit.allows(report.planned, report.checked):
            share = 100 * report.planned / max(1, report.checked)
            raise MirrorError(
                f"{report.planned:,} of {report.checked:,} objects ({share:.0f} %) would be deleted, "
                "which is more than --max-delete allows. Check the plan with mirror gc --dry-run; if "
                f"it is right, allow it with --max-delete {report.planned}."
            )

    async def _list(self, index: Index, since: datetime) -> ListedObjects:
        report = self._report

        def count_missing(found: Iterator[Problem]) -> None:
            self._missing += sum(problem.kind == "missing" for problem in found)

        def plan_deletion(info: ObjectInfo, flagged: bool) -> None:
            if parse_object_key(info.key) is None or (flagged and not self._options.flagged):
                return
            if info.last_modified < since:
                self._deletions.add(info.key, info.size)
            else:
                report.young += 1

        return await Comparison(
            self._store,
            index,
            since,
            count_missing,
            on_unnamed=plan_deletion,
            stopped=self.stop.is_set,
        ).run()

    async def _spare_recently_named(self, past: RecentCatalog) -> None:
        for page in self._deletions.pages(_HASHES_AT_ONCE):
            keys = [key for key, _ in page]
            contents = [parsed[0] for key in keys if (parsed := parse_object_key(key))]
            named = await recently_named(self._mirror.catalog, past, halves(b"".join(contents)))
            spared = [keys[at] for at in np.flatnonzero(named)]
            self._deletions.spare(spared)
            self._report.named_recently += len(spared)

    async def _find_catalog_files(self, past: RecentCatalog, since: datetime) -> None:
        """Find data files that no version within the grace period has."""
        if not past.kept:
            return  # there is no catalog by which to tell its files from others
        async for info in list_all(self._store, f"{CATALOG}/"):
            name = info.key.removeprefix(f"{CATALOG}/")
            is_data = "/" not in name and name.endswith(".parquet")
            if is_data and name not in past.kept and info.last_modified < since:
                self._catalog_files.append(info)
        self._report.catalog_files = len(self._catalog_files)
        self._report.catalog_bytes = sum(info.size for info in self._catalog_files)

    async def _find_uploads(self, since: datetime) -> list[Unfinished] | None:
        try:
            return await self._retried(lambda: asyncio.to_thread(self._unfinished.find, since))
        except AccessDenied:
            self._report.warnings.append(
                "This key may not list uploads that were never completed, so none of them were "
                "deleted; grant it s3:ListBucketMultipartUploads."
            )
            return None

    async def _execute(self, lease: HeldLease, progress: Progress) -> None:
        await lease.write("deleting")
        report = self._report
        index = await self._mirror.index()
        for page in self._deletions.pages(_BATCH):
            if self.stop.is_set():
                return
            unnamed = {key: size for key, size in page if _is_unnamed(key, index)}
            report.spared += len(page) - len(unnamed)
            batch = _Batch(self._store, lease, self._grace, unnamed)
            try:
                await self._delete(batch)
            finally:
                size = sum(unnamed[key] for key in batch.deleted)
                report.deleted += len(batch.deleted)
                report.spared += batch.spared
                report.bytes += size
                progress.advance(len(batch.deleted), size)
        for begin in range(0, len(self._catalog_files), _BATCH):
            files = self._catalog_files[begin : begin + _BATCH]
            sizes = {info.key: info.size for info in files}
            await self._delete(_Batch(self._store, lease, self._grace, sizes))
        for upload in self._uploads:
            await self._retried(partial(asyncio.to_thread, self._unfinished.remove, upload))

    async def _retried(self, request: Callable[[], Awaitable[T]]) -> T:
        """The result of a request that bypasses the store and its retries."""
        return await retried(
            request,
            self._options.retry,
            sleep=asyncio.sleep,
            jitter=self._jitter,
            retrying=lambda: None,
        )

    async def _delete(self, batch: _Batch) -> None:
        """Delete a batch, with a bounded number of attempts and pauses between them.

        Raises:
            AccessDenied: the key may not delete, or a bucket lock forbids it.
            StoreError: the lease may soon lapse, or objects failed at every attempt.
        """
        policy = self._options.retry
        for failures in range(1, policy.attempts + 1):
            error = await batch.attempt()
            if error is None:
                return
            if isinstance(error, AccessDenied):
                raise AccessDenied(
                    f"{str(error).rstrip('.')}; or, if a bucket lock forbids it, set gc.grace_days "
                    "to at least the duration of the lock."
                )
            if not isinstance(error, Transient) or failures == policy.attempts:
                raise error
            self._mirror.store.retries += 1
            await asyncio.sleep(policy.pause(failures, error.retry_after, self._jitter()))


def _is_unnamed(key: str, index: Index) -> bool:
    parsed = parse_object_key(key)
    return parsed is not None and index.object_sha256(parsed[0]) is None


class _Batch:
    """Objects that are deleted together. An attempt is repeated only for those that failed.

    The answer to a DELETE may be lost after it worked. Another machine may then write the same key,
    and a blind retry would delete its object. So each attempt renews the lease if it is due, checks
    every object again, and deletes only what has not changed since the first check.

    Args:
        store: the mirror's.
        lease: of this run.
        grace: nothing younger is deleted.
        sizes: the objects, by key, with the size that the plan knows.

    Attributes:
        deleted: keys that are gone.
        spared: how many were rewritten since the plan, or since an earlier attempt.
    """

    def __init__(
        self, store: Store, lease: HeldLease, grace: timedelta, sizes: Mapping[str, int]
    ) -> None:
        self._store = store
        self._lease = lease
        self._grace = grace
        self._remaining = dict(sizes)
        self._etags: dict[str, str] = {}
        self.deleted: list[str] = []
        self.spared = 0

    async def attempt(self) -> StoreError | None:
        """Try to delete what remains. Returns an error of the store that left some.

        Raises:
            StoreError: the lease may soon lapse, or an object could not be checked.
        """
        # The lease is renewed before the check, never between the check and the deletion.
        await self._lease.keep_alive()
        await self._check(self._lease.server_time - self._grace)
        if not self._remaining:
            return None
        self._lease.require_alive()
        keys = list(self._remaining)
        try:
            failures = await self._store.delete(keys, [self._etags[key] for key in keys])
        except StoreError as error:
            return error
        for key in keys:
            failure = failures.get(key)
            if failure is None:
                self._settle(key)
            elif isinstance(failure, PreconditionFailed):
                self._settle(key, is_spared=True)
        # An error that no attempt can change comes first.
        left = [failures[key] for key in self._remaining]
        return min(left, key=lambda error: isinstance(error, Transient), default=None)

    async def _check(self, since: datetime) -> None:
        """Drop the objects that are gone, and those that were rewritten."""

        async def check(key: str, size: int) -> None:
            try:
                info = await self._store.head(key)
            except NotFound:
                # Deleted by an earlier attempt, whose answer was lost; or by another program.
                self._settle(key, is_spared=key not in self._etags)
                return
            is_unchanged = self._etags.setdefault(key, info.etag) == info.etag
            if not is_unchanged or info.last_modified >= since or info.size != size:
                self._settle(key, is_spared=True)

        async with BoundedTasks(_BATCH) as window:
            for key, size in list(self._remaining.items()):
                await window.start(0, check, key, size)

    def _settle(self, key: str, *, is_spared: bool = False) -> None:
        del self._remaining[key]
        if is_spared:
            self.spared += 1
        else:
            self.deleted.append(key)


def _holder(lock: Path) -> str:
    """An id of the lock that this process holds, which no other process can have at this moment.

    It is bound to the machine, its last start, and the lock file itself. A copy of the state folder
    therefore has another one. After a restart, or where the machine has no such id, another run
    takes a dead one's lease over only when it lapses.

    Raises:
        StateError: the lock file cannot be read.
    """
    machine = boot_id()
    if machine is None:
        return secrets.token_hex(16)
    try:
        found = lock.stat()
    except OSError as error:
        raise StateError(
            f"{lock} cannot be read ({error.strerror}); make its folder writable for this user, or "
            "set state.dir."
        ) from None
    return f"{machine}-{found.st_dev:x}-{found.st_ino:x}"
