"""`mirror sync`: scan → plan → inspect → upload → commit, for a first run and for every later one."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import field

import msgspec

from mirror.cache.scan import Entries, ScanCount, require_cache_files, walk
from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import Index
from mirror.catalog.open_mirror import Location, first_attempts
from mirror.catalog.root import Root, open_root, read_root
from mirror.config.settings import Settings, parse_rate
from mirror.content.image import Level
from mirror.content.placeholder import load_known_bad
from mirror.errors import Interrupted, MirrorError, StateDamaged, StoreError
from mirror.layout import FORMAT
from mirror.run.lock import locked
from mirror.run.progress import Progress, Stage
from mirror.run.run_id import new_run_id
from mirror.run.signals import leaving_at_once_on_ctrl_c, stopping_on_signals
from mirror.store.base import Store
from mirror.store.retry import Retrying, RetryPolicy
from mirror.store.throttle import (
    MAX_PUTS_PER_SECOND,
    AdaptiveLimit,
    BandwidthLimit,
    ConcurrencyGate,
    Counting,
    Throttling,
)
from mirror.sync.catalog_memory import (
    CatalogMemory,
    Look,
    identified,
    latest_version,
    look_for,
)
from mirror.sync.commit import Committer
from mirror.sync.placeholders import WeighedContents, new_placeholders
from mirror.sync.plan import FileSelection, SyncPlan, estimate, make_plan
from mirror.sync.row_sources import Sources, source_digest
from mirror.sync.state import FILE_NAME, State, set_aside
from mirror.sync.sync_report import SyncReport
from mirror.sync.transfer import Transfer, TransferOptions
from mirror.sync.weigh import Basis
from mirror.system.display_text import format_size, plural

_SOURCE_BATCH = 20_000
# Fewer files may all have been written again.
_MANY_CHANGED = 10
# Key in the state: not empty while runs of this state have committed rows that none has weighed for
# placeholders; absent where the state knows nothing of earlier runs.
_UNWEIGHED = "unweighed_since"
# Key in the state: what the last weighing has left, as JSON.
_WEIGHED = "weighed_contents"


@dataclasses.dataclass(frozen=True, slots=True)
class SyncOptions:
    """Options of one run, beyond the settings.

    Attributes:
        dry_run: plan and estimate; touch nothing and send nothing.
        prefix: only URLs whose MD5 begins with these hex digits.
        max_files: at most this many new or changed files.
        include_flagged: upload flagged files too.
        fail_fast: the first failure ends the run.
        inspect: overrides `sync.inspect`.
        retry: how often and how soon to retry a failed request.
        run_id: names the run in the report and the state; None for a new one.
    """

    dry_run: bool = False
    prefix: str = ""
    max_files: int | None = None
    include_flagged: bool = False
    fail_fast: bool = False
    inspect: Level | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    run_id: str | None = None


def sync(
    settings: Settings,
    options: SyncOptions = SyncOptions(),
    *,
    sources: Sources | None = None,
    progress: Progress = Progress(),
    now: Callable[[], float] = time.time,
) -> SyncReport:
    """Bring the mirror up to date with the cache.

    Args:
        settings: where the cache, the bucket and the state are.
        options: what this run does.
        sources: a dataset's URLs. Only files that it refers to are synced, and their URL, licence
            and attribution go into the catalog.
        progress: receives the progress of the run.
        now: seconds since 1970, for the catalog's `seen_at`.

    Returns:
        The report. `report.error` has an error that came after the plan; the counts then say what
        was done before it.

    Raises:
        MirrorError: the run could not begin: a missing folder, a wrong key, another run's lock.
    """
    return _SyncRun(settings, options, sources, progress, now).run()


class _SyncRun:
    def __init__(
        self,
        settings: Settings,
        options: SyncOptions,
        sources: Sources | None,
        progress: Progress,
        now: Callable[[], float],
    ) -> None:
        settings.require_apart()
        self._now = now
        self._settings = settings
        self._options = options
        self._sources = sources
        self._progress = progress
        self._root = os.fsencode(settings.cache_dir)
        self._folder = settings.state_dir
        self._location = Location(settings)
        self._level = options.inspect or settings.sync.inspect
        self._started_at, self._clock_at_start = now(), time.monotonic()
        self._report = SyncReport(
            run_id=options.run_id or new_run_id(),
            dry_run=options.dry_run,
        )

    def run(self) -> SyncReport:
        if self._options.dry_run:
            return self._dry_run()
        with locked(self._folder, "sync"):
            self._progress.started()
            if not (self._folder / FILE_NAME).exists():
                require_cache_files(self._root, self._settings.cache.extensions)
            state = self._open_state()
            try:
                try:
                    asyncio.run(self._sync(state))
                    ended_by = self._report.error
                except StateDamaged as error:
                    ended_by = error
                # Opening the state did not detect the damage. An interrupted run leaves it to the next.
                if isinstance(ended_by, StateDamaged) and not self._report.interrupted:
                    state.close()
                    state = self._renew_state()
                    self._report = SyncReport(
                        run_id=self._report.run_id,
                        warnings=self._report.warnings,
                        requests=self._report.requests,
                    )
                    asyncio.run(self._sync(state))
                self._finish()
                state.runs.remember(self._report, self._started_at)
            finally:
                state.close()
        return self._report

    def _finish(self) -> None:
        self._report.seconds = time.monotonic() - self._clock_at_start

    def _dry_run(self) -> SyncReport:
        state: State | _NothingKnown = _NothingKnown()
        if (self._folder / FILE_NAME).exists():
            state = State(self._folder)
        else:
            require_cache_files(self._root, self._settings.cache.extensions)
        plan = self._plan(state)
        rate = _last_rate(state) if isinstance(state, State) else None
        self._report.estimate = estimate(
            plan, self._settings.price_list, self._settings.sync.commit_rows, rate
        )
        self._finish()
        return self._report

    def _open_state(self) -> State:
        try:
            return State(self._folder)
        except StateDamaged:
            return self._renew_state()

    def _renew_state(self) -> State:
        aside = set_aside(self._folder)
        self._warn(
            f"The state {self._folder / FILE_NAME} is damaged. It was moved to {aside} and a new one "
            "begun; every file is read again, and nothing is uploaded twice."
        )
        return State(self._folder)

    def _warn(self, sentence: str) -> None:
        self._report.warnings.append(sentence)
        self._progress.say(sentence, "warning")

    def _plan(self, known: State | _NothingKnown) -> SyncPlan:
        count = ScanCount()
        selection = FileSelection(
            prefix=self._options.prefix.lower(),
            members=None if self._sources is None else self._sources.__contains__,
            max_files=self._options.max_files,
        )
        cache = self._settings.cache
        files = walk(self._root, cache.extensions, count, trust_inode=cache.trust_inode)
        plan = make_plan(files, count, known, selection)
        self._report.take_plan(plan)
        if count.links:
            self._warn(count.links_warning)
        if plan.emptied_of:
            self._warn(
                f"The cache folder is empty, and {plan.emptied_of:,} files were there before: is its "
                "disk mounted? Nothing is deleted from the mirror."
            )
        return plan

    async def _sync(self, state: State) -> None:
        counting = Counting(self._location.store())
        counting.requests = self._report.requests  # a second attempt adds to it: all are billed
        try:
            await _unless_stopped(self._open_mirror(counting, state))
            await self._forget_lost_files(counting, state)
            # Nothing needs the event loop yet: a walk of a million files may block it.
            with leaving_at_once_on_ctrl_c():
                plan = self._plan(state)
            if plan.order:
                self._progress.begin(_stage_of(plan))
            try:
                state.mark(vanished=plan.vanished_signatures, returned=plan.returned_signatures)
                has_unexamined = self._level != "off" and state.get(_UNWEIGHED) != ""
                if plan.order or self._sources is not None or has_unexamined:
                    await self._transfer(counting, state, plan)
                self._warn_of_new_inodes()
            except MirrorError as error:
                self._report.error = self._report.error or error
        finally:
            await counting.aclose()

    def _warn_of_new_inodes(self) -> None:
        """Warn if every file looked changed, and none had other bytes."""
        report = self._report
        looked = report.changed >= _MANY_CHANGED and not report.unchanged and not report.failed
        if looked and self._settings.cache.trust_inode and not report.catalog_commits:
            self._warn(
                f"All {report.changed:,} known files looked changed, and none has other bytes. If the "
                "cache's disk gives its files new inodes at each mount (SMB, sshfs, FAT), set "
                "cache.trust_inode = false."
            )

    async def _open_mirror(self, store: Store, state: State) -> None:
        """Check that the mirror is the state's, and that it has what the state relies on.

        Where nothing has changed since the last run, one listing of the catalog's log shows it.
        Otherwise format.json is read as well, and at least once a day.
        """
        retrying = Retrying(store, first_attempts(self._options.retry))
        url = self._location.url
        place = f"{url} {self._settings.bucket.endpoint or ''}"
        proven = state.get("conditional_put_proven") == place
        known, memory = state.get("mirror_id"), CatalogMemory.load(state)
        look: Look | None = None
        try:
            if known and memory is not None and memory.knows_root_of(place, self._started_at):
                look = await look_for(retrying, memory)
            if known and look is not None and look.found == "same" and proven:
                root = Root(format=FORMAT, id=known, losses=state.get("losses") or "")
            else:
                root = await open_root(retrying, proven=proven)
                if known == root.id:
                    look = look or await self._look(retrying, state, memory)
        except StoreError as error:
            raise self._location.explained(error) from None
        if known is not None and known != root.id:
            forgotten = self._forget_everything(state)
            self._warn(
                f"{url} is another mirror than the one that this state belongs to (it was emptied or "
                f"replaced); {forgotten} files are read and compared again."
            )
        elif look is not None and look.found == "lost":
            forgotten = self._forget_everything(state)
            self._warn(
                f"The catalog of {url} lacks what this state relies on (was the mirror restored from a "
                f"backup, or its catalog deleted?); {forgotten} files are read and compared again."
            )
        elif look is not None:
            latest = look.latest
            if (
                look.found == "later"
                or not memory
                or not memory.knows_root_of(place, self._started_at)
            ):
                latest = latest.with_root(place, self._started_at)
            latest.save(state)
        if known != root.id:
            state.set(_UNWEIGHED, "1")
            state.set(_WEIGHED, "")
            state.set("mirror_id", root.id)
        if not proven:
            state.set("conditional_put_proven", place)
        self._snapshots = self._location.snapshots(root)
        self._losses, self._place = root.losses, place

    async def _look(self, store: Store, state: State, memory: CatalogMemory | None) -> Look | None:
        """Look for what the state relies on; None where that is nothing."""
        if memory is not None:
            return await look_for(store, memory)
        if not state.signatures(gone=False):
            return None
        # A state of an earlier version remembers no version. It relies on some catalog, though.
        latest = await latest_version(store)
        if latest is None:
            return Look("lost", CatalogMemory(version=0))
        return Look("same", await identified(store, CatalogMemory(version=latest)))

    def _forget_everything(self, state: State) -> int:
        """Forget the state's files and what is known of the catalog; returns how many files."""
        CatalogMemory.forget(state)
        state.set(_UNWEIGHED, "1")
        state.set(_WEIGHED, "")
        return state.forget_all_files()

    async def _remember(self, store: Store, state: State, version: int) -> None:
        """Remember the catalog's version at the end of a run, and whether a repair came meanwhile.

        Without this the next run reads format.json.
        """
        with suppress(StoreError):
            memory = await identified(store, CatalogMemory(version=version))
            if (await read_root(store)).losses == self._losses:
                memory = memory.with_root(self._place, self._now())
            memory.save(state)

    async def _forget_lost_files(self, counting: Counting, state: State) -> None:
        """After a repair has given up objects, forget good files whose URL is flagged, to offer them.

        The lost object may have had another content, from another cache that has the URL too. A bad
        file of that cache may have come after it.
        """
        if self._losses == (state.get("losses") or ""):
            return
        retry = self._options.retry
        catalog = self._location.catalog(Retrying(counting, retry), retry)
        index = await catalog.refresh(Index.empty(), self._snapshots)
        lost = [
            path
            for path, url_md5, _ in state.acknowledged()
            if (row := index.sighting(url_md5)) is not None and row.verdict != "ok"
        ]
        state.forget(lost)
        state.set("losses", self._losses)

    async def _transfer(self, counting: Counting, state: State, plan: SyncPlan) -> None:
        sync = self._settings.sync
        retry = self._options.retry
        catalog = self._location.catalog(Retrying(counting, retry), retry)
        committer = Committer(
            catalog,
            state,
            self._snapshots,
            self._sources,
            self._now,
        )
        await committer.refresh()
        # Before the first commit: however this run ends, the next one weighs the rows it committed.
        state.set(_UNWEIGHED, "1")
        known_bad = load_known_bad(self._settings.inspect.known_bad)
        bandwidth = BandwidthLimit(parse_rate(sync.limit_rate)) if sync.limit_rate else None
        gate = ConcurrencyGate(AdaptiveLimit(sync.concurrency, rate=MAX_PUTS_PER_SECOND))
        retrying = Retrying(Throttling(counting, gate, bandwidth), retry)
        stop = asyncio.Event()
        transfer = Transfer(
            retrying,
            committer,
            self._root,
            placeholders=known_bad | committer.index.contents_judged("placeholder"),
            options=TransferOptions(
                concurrency=sync.concurrency,
                level=self._level,
                include_flagged=self._options.include_flagged,
                fail_fast=self._options.fail_fast,
                commit_rows=sync.commit_rows,
                commit_seconds=sync.commit_seconds,
            ),
            report=self._report,
            progress=self._progress,
            stop=stop,
            in_flight=lambda: gate.limit.limit,
        )
        try:
            with stopping_on_signals(self._interrupt(stop)):
                await transfer.run(plan)
            plan.pending, plan.order = Entries(), ()  # frees much memory at a million files
            if self._sources is not None and self._report.error is None and not stop.is_set():
                await self._add_sources(state, committer)
            if self._level != "off" and self._report.error is None and not stop.is_set():
                await self._flag_placeholders(catalog, committer, state)
                state.set(_UNWEIGHED, "")
        finally:
            self._report.retries = retrying.retries
            self._report.catalog_commits = committer.count.commits
            self._report.catalog_version = committer.count.version
            self._report.described += committer.count.sources
            self._report.flagged["placeholder"] += (
                committer.count.evidence + committer.count.rejudged
            )
            self._report.deduplicated -= committer.count.left[Basis.DUPLICATE]
            if left := committer.count.left_files:
                self._warn(
                    f"Other machines changed the catalog while {plural(left, 'file')} waited to be "
                    "committed; run again to read what was left."
                )
        await committer.tidy()
        if committer.index.version >= 0:
            await self._remember(retrying, state, await asyncio.to_thread(catalog.version))

    def _interrupt(self, stop: asyncio.Event) -> Callable[[], None]:
        def interrupt() -> None:
            self._report.interrupted = True
            self._progress.say(
                "Stopping: uploads in flight are finished and committed. A second signal exits at once.",
                "warning",
            )
            stop.set()

        return interrupt

    async def _add_sources(self, state: State, committer: Committer) -> None:
        """Catalogue the sources of files that were synced before their dataset was known."""
        assert self._sources is not None
        for path, row, known in state.files():
            source = self._sources.get(row.url_md5)
            if source is None or source_digest(source) == known:
                continue
            committer.add_source(path, row, source)
            if len(committer) >= _SOURCE_BATCH:
                await committer.commit()
        await committer.commit()

    async def _flag_placeholders(
        self, catalog: Catalog, committer: Committer, state: State
    ) -> None:
        """Flag the contents that too many photos share by now, whichever machine's rows show it."""
        await committer.refresh()
        least = self._settings.inspect.placeholder_photos
        kept = state.get(_WEIGHED)
        earlier = msgspec.json.decode(kept, type=WeighedContents) if kept else WeighedContents()
        if (earlier.version, earlier.least) == (committer.index.version, least):
            return
        found = await new_placeholders(
            committer.index, catalog, least, earlier, int(self._now() * 1e6)
        )
        if found.rows:
            committer.add_evidence(found.rows)
            await committer.commit()
        state.set(_WEIGHED, msgspec.json.encode(found.weighed).decode())


def _stage_of(plan: SyncPlan) -> Stage:
    files, nbytes = len(plan.order), plan.pending_bytes
    sentence = f"{plural(plan.scanned, 'file')} scanned; {files:,} to read ({format_size(nbytes)})"
    return Stage("files", files, nbytes, sentence=sentence)


async def _unless_stopped(beginning: Coroutine[None, None, None]) -> None:
    """Await the beginning of a run; a signal cancels it, since there is nothing to finish yet.

    Raises:
        Interrupted: a signal came.
    """
    task = asyncio.ensure_future(beginning)
    try:
        with stopping_on_signals(task.cancel):
            await task
    except asyncio.CancelledError:
        raise Interrupted("Interrupted before anything was begun.") from None


class _NothingKnown:
    """The state of a cache that was never synced."""

    def signatures(self, *, gone: bool) -> bytes:
        return b""

    def signatures_of(self, paths: object) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


def _last_rate(state: State) -> float | None:
    """Bytes a second of the last run that uploaded more than 1 MiB; None where there is none."""
    for run in state.runs.last(50):
        report = msgspec.json.decode(run.report)
        if report["bytes_uploaded"] > 1 << 20 and report["seconds"] > 0:
            return float(report["bytes_uploaded"] / report["seconds"])
    return None
