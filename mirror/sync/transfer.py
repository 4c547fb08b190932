"""The transfer stage of a sync: files pass through threads, decisions, uploads and commits.

    feed ──► prepare (threads) ──► decide ──► upload (threads) ──► add ──► commit (one at a time)

Files pass in batches, which share the cost of a hop between threads. When one file of a batch cannot
simply be written, it and those after it are uploaded each by itself.

A window bounds the files under way, by count and by bytes, so memory does not grow with the cache.
When one file fails, the run notes it and goes on. A failure that every file would meet (the key may
not write, the store is gone) ends the feeding, and the acknowledged files are committed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Container, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from mirror.cache.prepare import (
    BATCH_BYTES,
    BATCH_FILES,
    Prepared,
    Unprepared,
    batches,
    prepare_all,
)
from mirror.cache.scan import Entry, display
from mirror.catalog.upload import new_object, upload
from mirror.content.digest import WHOLE_UP_TO
from mirror.content.image import Level
from mirror.errors import (
    AlreadyExists,
    Busy,
    CatalogError,
    ContentCollision,
    MirrorError,
    StoreError,
)
from mirror.layout import object_key
from mirror.run.progress import Progress
from mirror.store.base import Store
from mirror.store.bounded_tasks import WINDOW_BYTES
from mirror.store.consecutive_failures import ConsecutiveFailures
from mirror.store.read_back import PART_BYTES
from mirror.sync.commit import Committer
from mirror.sync.decide import Claim, Decision, decide
from mirror.sync.plan import SyncPlan
from mirror.sync.sync_report import SyncReport
from mirror.sync.weigh import Basis

# Files in all sequences of uploads that are under way together. A near server gets few long
# sequences. A far one gets many short ones, because there uploads in flight matter more than hops.
_FILES_IN_SEQUENCES = 512
# After this many batches in a row that found half of the upload slots idle, another reader starts.
_STARVED_BATCHES = 64
# Contents that a run holds in memory before the index on disk takes them over.
_REFRESH_AFTER = 40_000
# A run reads the catalog again this often, because gc counts what rows named within its grace period.
_REFRESH_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How a transfer runs.

    Attributes:
        concurrency: uploads in flight, at most.
        level: how far files are inspected.
        include_flagged: upload flagged files too.
        fail_fast: the first failure ends the run.
        commit_rows: commit when this many files wait.
        commit_seconds: commit also when the oldest file has waited this long.
        readers: threads that read, hash and inspect, at most.
    """

    concurrency: int
    level: Level
    include_flagged: bool
    fail_fast: bool
    commit_rows: int
    commit_seconds: float
    readers: int = max(2, (os.cpu_count() or 2))


class _Upload(NamedTuple):
    """A file to upload.

    Attributes:
        planned: its entry in the plan, by which the window counts it.
        prepared: the file as it was read.
        claim: on its content.
    """

    planned: Entry
    prepared: Prepared
    claim: Claim


class Transfer:
    """Executes a plan. Use each instance once.

    Args:
        store: with retries and throttling.
        committer: with a fresh index.
        root: the cache's folder.
        placeholders: content hashes of known placeholders.
        options: how it runs.
        report: filled while the transfer runs.
        progress: receives the progress of the run.
        stop: once set, nothing more begins; uploads in flight are finished and committed.
        in_flight: returns how many uploads the store currently takes at once.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        root: bytes,
        *,
        placeholders: frozenset[bytes],
        options: TransferOptions,
        report: SyncReport,
        progress: Progress,
        stop: asyncio.Event,
        in_flight: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._committer = committer
        self._root = root
        self._placeholders = placeholders
        self._options = options
        self._report = report
        self._progress = progress
        self._stop = stop
        self._in_flight = in_flight
        self._clock = clock
        self._claims: dict[bytes, Claim] = {}
        self._flagged = self._contents_flagged()
        self._readers: list[ThreadPoolExecutor] = []
        self._starving = 0
        self._feeding: set[asyncio.Task[None]] = set()
        self._uploads: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(options.concurrency)
        self._broken: BaseException | None = None
        self._failures = ConsecutiveFailures()
        self._room = asyncio.Condition()
        self._files_under_way = 0
        self._bytes_under_way = 0
        self._oldest_at: float | None = None
        self._fed = asyncio.Event()
        self._due = asyncio.Event()

    async def run(self, plan: SyncPlan) -> None:
        """Transfer the plan's files; on return everything acknowledged is committed.

        An error that ends the run is in the report.
        """
        # Few files are spread over all upload slots; of many, none waits for a long sequence.
        share = -(-len(plan.order) // (4 * self._options.concurrency))
        feed = batches((plan.pending[at] for at in plan.order), max(1, min(BATCH_FILES, share)))
        committing = asyncio.create_task(self._commit_when_due())
        committing.add_done_callback(self._ended)
        # Where nothing is decoded one reader keeps up with all uploads, and a second one would only
        # compete with them for the interpreter's lock.
        for _ in range(self._options.readers if self._options.level == "decode" else 1):
            self._add_reader(feed)
        while under_way := self._feeding | self._uploads:
            await asyncio.wait(under_way)
        for reader in self._readers:
            reader.shutdown()
        self._fed.set()
        self._due.set()
        await asyncio.wait([committing])  # its exception is in `_broken`
        if self._broken is not None:  # a bug, and nothing that a store or a file can cause
            raise self._broken

    def _add_reader(self, feed: Iterator[list[Entry]]) -> None:
        """Start one more thread, with a batch to read and another one that waits."""
        self._starving = 0
        self._readers.append(ThreadPoolExecutor(1, "read"))
        for _ in range(2):
            self._start(self._feed(feed, self._readers[-1]), self._feeding)

    async def _feed(self, feed: Iterator[list[Entry]], reader: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        for batch in feed:
            size = sum(_window_bytes(entry) for entry in batch)
            await self._enter_window(len(batch), size)
            if self._stop.is_set():
                await self._leave_window(len(batch), size)
                return
            epoch = self._committer.epoch
            prepared = await loop.run_in_executor(
                reader,
                prepare_all,
                self._root,
                batch,
                self._options.level,
                self._placeholders,
                self._flagged,
            )
            # More readers help where the disk is slow.
            starved = len(self._uploads) < self._in_flight() / 2
            self._starving = self._starving + 1 if starved else 0
            if self._starving >= _STARVED_BATCHES and len(self._readers) < self._options.readers:
                self._add_reader(feed)
            uploads: list[_Upload] = []
            for entry, file in zip(batch, prepared, strict=True):
                pending = self._take(entry, file, epoch)
                if pending is not None:
                    uploads.append(pending)
                    size -= _window_bytes(entry)
            await self._leave_window(len(batch) - len(uploads), size)
            # The first answers show how far the store is; until then no upload waits for another.
            longest = (
                max(1, int(_FILES_IN_SEQUENCES / self._in_flight())) if self._report.uploaded else 1
            )
            for start in range(0, len(uploads), longest):
                self._start(self._upload_all(uploads[start : start + longest]), self._uploads)

    def _start(self, work: Coroutine[None, None, None], among: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = self._broken or error
            self._stop.set()
            # Feeders that wait for room must notice that nothing more begins.
            self._start(self._wake(), self._uploads)

    def _take(self, planned: Entry, prepared: Prepared | Unprepared, epoch: int) -> _Upload | None:
        """Decide on a file that was read; returns the upload that is left to do, or None.

        Args:
            planned: its entry in the plan.
            prepared: the file.
            epoch: of the committer when the file was about to be read.
        """
        if isinstance(prepared, Unprepared):
            self._fail(prepared.entry, prepared.reason)
        else:
            content = prepared.digest.content_hash
            claim = self._claims.get(content)
            known = self._committer.index.object_sha256(content)
            decision = decide(
                prepared,
                known,
                claim,
                include_flagged=self._options.include_flagged,
            )
            if decision is Decision.UPLOAD:
                claim = self._claims[content] = Claim(
                    prepared.digest.sha256, prepared.entry.path, epoch=epoch
                )
                return _Upload(planned, prepared, claim)
            if decision is Decision.FOLLOW:
                assert claim is not None
                claim.followers.append(
                    Prepared(prepared.entry, prepared.digest, prepared.inspection, None)
                )
            elif decision is Decision.COLLIDE:
                self._collide(prepared, self._name_of_other(content, claim))
            elif decision is Decision.FLAG:
                self._acknowledge(prepared, decision, Basis.FLAGGED, epoch)
            elif known is not None:
                self._acknowledge(prepared, decision, Basis.DUPLICATE, epoch)
            else:
                assert claim is not None
                self._acknowledge(prepared, decision, Basis.UPLOADED, min(epoch, claim.epoch))
        return None

    async def _upload_all(self, uploads: list[_Upload]) -> None:
        """Upload files in sequence up to the first problem, then each of the others by itself."""
        done, exists = 0, False
        if len(uploads) > 1 and all(file.prepared.body is not None for file in uploads):
            objects = [new_object(file.prepared) for file in uploads]
            async with self._slots:
                created = await self._store.create_in_turn(objects, self._stop.is_set)
            done, exists = created.written, isinstance(created.error, AlreadyExists)
            for file in uploads[:done]:
                self._acknowledge_upload(file, wrote=True)
            await self._leave_window(
                done, sum(_window_bytes(file.planned) for file in uploads[:done])
            )
        for number, file in enumerate(uploads[done:]):
            self._start(self._upload(file, exists=exists and not number), self._uploads)

    async def _upload(self, file: _Upload, *, exists: bool) -> None:
        try:
            async with self._slots:
                if self._stop.is_set():
                    # Read but not uploaded: it and its followers are left to the next run.
                    del self._claims[file.prepared.digest.content_hash]
                    return
                wrote = await upload(self._store, self._root, file.prepared, exists=exists)
        except ContentCollision:
            content = file.prepared.digest.content_hash
            del self._claims[content]
            key = object_key(content, file.prepared.inspection.format)
            for prepared in (file.prepared, *file.claim.followers):
                self._collide(prepared, f"the object {key}")
        except (MirrorError, OSError) as error:
            self._fail_upload(file, str(error))
            try:
                self._failures.failed(error)
            except (StoreError, Busy) as hopeless:
                self._end(hopeless)
        else:
            self._acknowledge_upload(file, wrote=wrote)
        finally:
            await self._leave_window(1, _window_bytes(file.planned))

    def _acknowledge_upload(self, file: _Upload, *, wrote: bool) -> None:
        _, prepared, claim = file
        self._failures.succeeded()
        claim.acknowledged = True
        if wrote:
            self._report.bytes_uploaded += prepared.digest.size
        decision = Decision.UPLOAD if wrote else Decision.DUPLICATE
        self._acknowledge(prepared, decision, Basis.UPLOADED, claim.epoch)
        for follower in claim.followers:
            self._acknowledge(follower, Decision.DUPLICATE, Basis.UPLOADED, claim.epoch)
        claim.followers.clear()

    def _fail_upload(self, file: _Upload, reason: str) -> None:
        del self._claims[file.prepared.digest.content_hash]
        for prepared in (file.prepared, *file.claim.followers):
            self._fail(prepared.entry, reason)

    def _acknowledge(
        self, prepared: Prepared, decision: Decision, basis: Basis, epoch: int
    ) -> None:
        verdict = prepared.inspection.verdict
        if verdict != "ok":
            self._report.flagged[verdict] += 1
        if decision is Decision.UPLOAD:
            self._report.uploaded += 1
        elif decision is Decision.DUPLICATE:
            self._report.deduplicated += 1
        self._committer.add(prepared, basis, epoch)
        if self._oldest_at is None:
            self._oldest_at = self._clock()
        if len(self._committer) >= self._options.commit_rows:
            self._due.set()
        self._progress.advance(1, prepared.entry.identity.size, decision.name.lower())

    def _name_of_other(self, content: bytes, claim: Claim | None) -> str:
        """The name of the file that this run or the catalog has under a content hash."""
        index = self._committer.index
        if index.object_sha256(content) is None and claim is not None:
            return display(claim.path)
        (url_md5,) = index.url_md5s(index.find_contents(content))
        return f"{url_md5.tobytes().hex()} (MD5 of its URL)"

    def _collide(self, prepared: Prepared, other: str) -> None:
        """Leave a file out, and say so in each run, until the user has removed one of the two."""
        entry = prepared.entry
        content = prepared.digest.content_hash
        self._progress.say(self._report.collide(display(entry.path), other, content), "warning")
        self._progress.advance(1, entry.identity.size, "collided")

    def _fail(self, entry: Entry, reason: str) -> None:
        self._report.fail(display(entry.path), reason)
        self._progress.advance(1, entry.identity.size, "failed")
        if self._options.fail_fast:
            self._stop.set()

    def _end(self, error: MirrorError | OSError) -> None:
        """End the run, because nothing more can succeed: finish uploads in flight and commit."""
        if isinstance(error, OSError):
            error = CatalogError(
                f"The catalog's index cannot be kept on this machine ({error}); nothing that was "
                "acknowledged is lost: make room and run again."
            )
        if self._report.error is None:
            self._report.error = error
        self._stop.set()

    async def _commit_when_due(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._until_due()):
                    await self._due.wait()
            except TimeoutError:
                if self._oldest_at is None or self._until_due() > 0:
                    continue
            last = self._fed.is_set()
            self._due.clear()
            self._oldest_at = None
            if len(self._committer):
                try:
                    await self._committer.commit()
                    if len(self._claims) >= _REFRESH_AFTER:
                        await self._refresh()
                    elif self._committer.knowledge_age > _REFRESH_SECONDS:
                        await self._refresh()
                        self._forget_acknowledged()
                except (MirrorError, OSError) as error:
                    self._end(error)  # the last commit retries it: by then it may succeed
                await self._wake()
            if last:
                return

    async def _refresh(self) -> None:
        """Refresh the index, and drop the claims that it knows: on disk they cost no memory."""
        await self._committer.refresh()
        self._flagged = self._contents_flagged()
        for content in [c for c, claim in self._claims.items() if claim.acknowledged]:
            if self._committer.index.object_sha256(content) is not None:
                del self._claims[content]

    def _contents_flagged(self) -> Container[bytes]:
        """Contents that the catalog flags, where new files are not fully decoded."""
        index, level = self._committer.index, self._options.level
        return () if level == "decode" else index.contents_judged("blank", "corrupt", "not_image")

    def _forget_acknowledged(self) -> None:
        """Drop acknowledged claims that the index does not have: gc may delete such old objects."""
        for content in [c for c, claim in self._claims.items() if claim.acknowledged]:
            del self._claims[content]

    def _until_due(self) -> float:
        """Seconds until the oldest uncommitted file has waited long enough."""
        if self._oldest_at is None:
            return self._options.commit_seconds
        return max(0.0, self._oldest_at + self._options.commit_seconds - self._clock())

    async def _enter_window(self, files: int, size: int) -> None:
        async with self._room:
            await self._room.wait_for(
                lambda: (
                    self._stop.is_set()
                    or (
                        self._has_room(files, size)
                        # Slow commits hold back the feeding instead of filling memory.
                        and len(self._committer) < 2 * self._options.commit_rows
                    )
                )
            )
            self._files_under_way += files
            self._bytes_under_way += size

    async def _leave_window(self, files: int, size: int) -> None:
        self._files_under_way -= files
        self._bytes_under_way -= size
        # Waking a feeder for every file is wasteful: wait until a whole batch fits.
        if self._stop.is_set() or self._has_room(BATCH_FILES, BATCH_BYTES):
            await self._wake()

    async def _wake(self) -> None:
        async with self._room:
            self._room.notify_all()

    def _has_room(self, files: int, size: int) -> bool:
        max_files = (
            _FILES_IN_SEQUENCES + self._options.concurrency + 2 * BATCH_FILES * len(self._readers)
        )
        return self._files_under_way == 0 or (
            self._files_under_way + files <= max_files
            and self._bytes_under_way + size <= WINDOW_BYTES
        )


def _window_bytes(entry: Entry) -> int:
    """Bytes that a file holds in memory while under way; a large one passes in parts."""
    size = entry.identity.size
    return size if size <= WHOLE_UP_TO else 4 * PART_BYTES
