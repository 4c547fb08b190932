"""`mirror backfill`: plan → ask, as each source's pace allows → keep, until all is had or it is time.

queue ──► pace says Go ──► one request, written down before it is sent ──► its end, in one
  ▲                        (a redirect's next hop waits for its own Go)      transaction
  └──── again later ◄──────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from mirror.backfill.backfill_clock import BackfillClock
from mirror.backfill.backfill_report import UNREADABLE, BackfillReport
from mirror.backfill.download import OriginClient, user_agent
from mirror.backfill.download_plan import (
    DownloadSelection,
    make_plan,
)
from mirror.backfill.estimate import DurationEstimate, estimate
from mirror.backfill.fetch_one import ImageRequester
from mirror.backfill.pacing import Go, Limits, Wait
from mirror.backfill.request_log import QueueItem, RequestLog
from mirror.backfill.results import Results
from mirror.backfill.scheduler import Scheduler, Sleep, Stopped, Timeline
from mirror.backfill.url_policy import UrlPolicy, configured_licenses
from mirror.cache.cache_writer import backfill_writer, cache_name
from mirror.cache.prepare import judge_place
from mirror.cache.scan import display
from mirror.catalog.lookup import Match, UrlLookup
from mirror.catalog.open_mirror import read_index
from mirror.config.settings import BackfillSettings, Settings, parse_size
from mirror.content.placeholder import load_known_bad
from mirror.dataset.fields import parse_path
from mirror.dataset.inputs import Input
from mirror.dataset.licenses import license_names
from mirror.errors import MirrorError, NotFound, StateError, UsageError
from mirror.run.failures import LISTED
from mirror.run.lock import locked
from mirror.run.progress import Progress, Stage
from mirror.run.run_id import new_run_id
from mirror.run.signals import stopping_on_signals

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

# A run does not wait longer than this for the last few whose pause is not over; the next one asks.
PATIENCE: Final = 60.0


@dataclass(frozen=True)
class BackfillOptions:
    """What one run is asked to do, beyond the settings.

    Attributes:
        selection: what of the dataset; its `known_bad` and `placeholder_photos` come from settings.
        match: `photo` also takes an iNaturalist photo for mirrored that is so under another spelling.
        use_bucket: False leaves a mirror that is configured aside: only the cache counts.
        seconds: begin no request later than this after the run's beginning.
        max_bytes: begin none when so many have come.
        max_images: end when so many images are had.
        dry_run: find out what is wanted and how long it takes; ask nobody and keep nothing.
        run_id: names the run in the report and the ledger; a new one where None.
    """

    selection: DownloadSelection = field(default_factory=DownloadSelection)
    match: Match = "url"
    use_bucket: bool = True
    seconds: float | None = None
    max_bytes: int | None = None
    max_images: int | None = None
    dry_run: bool = False
    run_id: str | None = None

    @classmethod
    def of(
        cls,
        settings: BackfillSettings,
        *,
        url_field: str = "image_url",
        license_field: str = "license",
        licenses: Sequence[str] = (),
        balance_by: str | None = None,
        max_bytes: str | None = None,
        retry_failed: bool = False,
        from_empty: bool = False,
        **others: Any,
    ) -> Self:
        """Options from values as people write them.

        Args:
            settings: which licences may be fetched, where `licenses` names none.
            url_field: the dataset's field of URLs; dotted for nested ones.
            license_field: its field of licences.
            licenses: names of licences that may be fetched, some of them with commas between.
            balance_by: the field of a class; classes with the fewest records come first.
            max_bytes: a size, such as `2G`.
            retry_failed: ask again for what was given up.
            from_empty: an empty cache is no mistake.
            others: the other attributes.

        Raises:
            UsageError: no licence, field or size is meant by a value.
            ConfigError: `backfill.licenses` holds something else than licences.
        """
        allowed = license_names(licenses)
        if licenses and not allowed:
            raise UsageError("No licence is named that there is; write such as cc-by or cc0.")
        allowed = allowed or configured_licenses(settings.licenses)
        return cls(
            selection=DownloadSelection(
                url=parse_path(url_field),
                license=parse_path(license_field) if allowed else None,
                allowed=allowed,
                balance=None if balance_by is None else parse_path(balance_by),
                retry_failed=retry_failed,
                from_empty=from_empty,
            ),
            max_bytes=None if max_bytes is None else parse_size(max_bytes, "--max-bytes"),
            **others,
        )


def limits_of(settings: BackfillSettings) -> Limits:
    """What every source may be asked for.

    Raises:
        ConfigError: the limits contradict each other.
    """
    return Limits(
        per_second=settings.per_second,
        per_hour=settings.per_hour,
        per_day=settings.per_day,
        bytes_per_hour=parse_size(settings.bytes_per_hour, "backfill.bytes_per_hour"),
        bytes_per_day=parse_size(settings.bytes_per_day, "backfill.bytes_per_day"),
        concurrency=settings.concurrency,
        largest=parse_size(settings.max_size, "backfill.max_size"),
    )


def backfill(
    settings: Settings,
    inputs: Sequence[Input],
    options: BackfillOptions = BackfillOptions(),
    *,
    progress: Progress = Progress(),
    clock: Callable[[Any], Timeline] = BackfillClock,
    sleep: Sleep = asyncio.sleep,
    wall: Callable[[], float] = time.time,
    resolver: AbstractResolver | None = None,
) -> BackfillReport:
    """Download what the cache lacks, politely.

    Args:
        settings: where the cache, the mirror and the ledger are, and the limits.
        inputs: the dataset.
        options: what this run is asked to do.
        progress: receives the progress of the run.
        clock: makes the time of the run from what the last one kept.
        sleep: waits so many seconds of that time.
        wall: seconds since 1970, for dates that others write.
        resolver: looks up names; the system when None. What it finds is checked all the same.

    Returns:
        The report. An error that came after the plan is in `report.error`, with the counts of what
        was done before it.

    Raises:
        MirrorError: the run could not begin: a missing folder, no contact, another run's lock.
    """
    for source in inputs:
        source.check()
    run = _BackfillRun(
        settings,
        inputs,
        options,
        progress=progress,
        sleep=sleep,
        wall=wall,
        resolver=resolver,
    )
    return run.run(clock)


class _BackfillRun:
    def __init__(
        self,
        settings: Settings,
        inputs: Sequence[Input],
        options: BackfillOptions,
        *,
        progress: Progress,
        sleep: Sleep,
        wall: Callable[[], float],
        resolver: AbstractResolver | None,
    ) -> None:
        self._settings = settings
        self._inputs = inputs
        self._options = options
        self._progress = progress
        self._sleep = sleep
        self._wall = wall
        self._resolver = resolver
        backfill = settings.backfill
        self._rules = UrlPolicy(backfill.hosts, backfill.allow_private)
        self._limits = limits_of(backfill)
        self._agent = "" if options.dry_run else user_agent(backfill.contact)
        self._root = os.fsencode(os.path.realpath(settings.cache_dir))
        self._known_bad = load_known_bad(settings.inspect.known_bad)
        self._started_at, self._began = wall(), time.monotonic()
        self._report = BackfillReport(options.run_id or new_run_id(), dry_run=options.dry_run)
        self._left: dict[str, int] = {}
        self._running: dict[asyncio.Task[None], str] = {}
        self._failure: BaseException | None = None

    def run(self, clock: Callable[[Any], Timeline]) -> BackfillReport:
        folder = self._settings.backfill_dir
        if self._options.dry_run:
            return self._with_ledger(folder, clock)
        with locked(folder), backfill_writer(self._root) as self._writer:
            self._progress.started()
            return self._with_ledger(folder, clock)

    def _with_ledger(self, folder: Path, clock: Callable[[Any], Timeline]) -> BackfillReport:
        cache = hashlib.sha256(self._root).digest()[:8]
        report = self._report
        self._ledger = ledger = open_ledger(folder, cache)
        try:
            self._turns = Scheduler(
                ledger,
                self._limits,
                clock(ledger.get("clock")),
                self._sleep,
                self._progress.wait,
            )
            if self._options.seconds is not None:
                self._turns.ends_at = self._turns.clock() + self._options.seconds
            if report.dry_run:
                ledger.keep_no_verdicts()
            else:
                self._turns.abandon()
            self._plan()
            if not report.dry_run:
                try:
                    asyncio.run(self._ask())
                except MirrorError as error:
                    report.error = error
                self._count()
            report.seconds = time.monotonic() - self._began
            if not report.dry_run:
                ledger.runs.remember(report, self._started_at)
        finally:
            ledger.close()
        return report

    def _warn(self, sentence: str) -> None:
        self._report.warnings.append(sentence)
        self._progress.say(sentence, "warning")

    # --- what is wanted ---

    def _plan(self) -> None:
        report = self._report
        resolver = self._mirror()
        self._known_bad |= self._ledger.placeholders()
        plan = report.plan = make_plan(
            self._ledger,
            self._inputs,
            replace(
                self._options.selection,
                placeholder_photos=self._settings.inspect.placeholder_photos,
                known_bad=self._known_bad,
            ),
            self._rules,
            resolver,
            root=self._root,
            extensions=self._settings.cache.extensions,
            now=self._turns.clock(),
            progress=self._progress,
        )
        self._known_bad |= plan.placeholders
        self._left = dict(plan.queued)
        report.failed["not_allowed"] = plan.not_allowed
        report.estimate = self._estimate(plan.to_ask)
        for sentence in plan.sentences():
            self._warn(sentence)
        already = f"{plan.already:,} images are there already"
        if report.estimate is None:
            self._progress.say(f"{already}; nothing is to be fetched.")
        else:
            self._progress.say(f"{already}. To be fetched: {report.estimate.arithmetic}")
            self._progress.begin(Stage("images", plan.to_ask, seconds=report.estimate.seconds))

    def _mirror(self) -> UrlLookup | None:
        """What finds a mirrored image, where there is a mirror."""
        if not self._options.use_bucket or not self._settings.bucket.url:
            return None
        try:
            _, index = read_index(self._settings)
        except NotFound as error:
            self._warn(f"{error} Until then only the cache counts as what is there.")
            return None
        self._known_bad |= index.contents_judged("placeholder")
        return UrlLookup(index, self._options.match)

    def _estimate(self, images: int) -> DurationEstimate | None:
        if not images:
            return None
        situation = self._turns.situation(source for source, n in self._left.items() if n)
        return estimate(images, self._limits, situation, self._ledger.mean_size())

    # --- asking ---

    async def _ask(self) -> None:
        backfill, report = self._settings.backfill, self._report
        turns = self._turns
        self._results = Results(
            self._writer,
            self._ledger,
            turns,
            report,
            self._known_bad,
            self._settings.inspect.placeholder_photos,
            self._warn,
        )
        async with OriginClient(
            self._rules,
            self._agent,
            largest=self._limits.largest,
            stall=backfill.stall_seconds,
            deadline=backfill.deadline_seconds,
            resolver=self._resolver,
        ) as origin:
            self._asking = ImageRequester(
                origin,
                self._rules,
                turns,
                self._ledger,
                report,
                lambda sentence: self._progress.say(sentence, "warning"),
                self._wall,
            )
            with stopping_on_signals(self._interrupt):
                try:
                    report.stopped = await self._start_what_may()
                finally:
                    # What is in flight is finished: what it brings is paid for.
                    await asyncio.gather(*self._running, return_exceptions=True)
        if self._failure is not None:
            raise self._failure

    def _interrupt(self) -> None:
        self._report.interrupted = True
        self._progress.say(
            "Stopping: what is in flight is finished. Once more leaves at once.", "warning"
        )
        self._turns.stopping = True
        self._turns.changed()

    async def _start_what_may(self) -> str:
        """Start attempts as the paces allow; returns why it ended, empty when all is asked for."""
        while not (over := self._over()):
            now = self._turns.clock()
            ready = [
                source
                for source, count in self._left.items()
                if count and isinstance(self._ready(source, now), Go)
            ]
            item = self._ledger.take(now, ready)
            if item is not None:
                self._left[item.source] -= 1
                task = asyncio.create_task(self._attempt(item))
                self._running[task] = item.source
                task.add_done_callback(self._ended)
                continue
            wait, is_postponed = self._next(now)
            if not self._running:
                if wait is None:
                    return ""
                if is_postponed and wait.seconds > PATIENCE:
                    self._report.next_try = wait.seconds
                    return "what is left is to be tried again later"
                if now + wait.seconds > self._turns.ends_at:
                    return f"its time would be up before the next request ({wait.reason})"
            await self._turns.pause(wait)
        return over

    def _over(self) -> str:
        """Why nothing more is begun; empty while something may be."""
        options, report, turns = self._options, self._report, self._turns
        if turns.stopping:
            return "it was interrupted"
        if self._failure is not None:
            return "it failed"
        if turns.clock() >= turns.ends_at:
            return "its time was up"
        if options.max_bytes is not None and report.bytes >= options.max_bytes:
            return f"{report.bytes:,} bytes had come"
        if options.max_images is not None and report.downloaded >= options.max_images:
            return f"{report.downloaded:,} images were had"
        return ""

    def _ready(self, source: str, now: float) -> Go | Wait:
        """Whether an attempt may begin: the pace knows of requests, not of what is on its way to one."""
        running = Counter(self._running.values())
        most = self._options.max_images
        enough = most is not None and self._report.downloaded + running.total() >= most
        if enough or running[source] >= self._limits.concurrency:
            return Wait(math.inf, "an image is under way")
        return self._turns.pace(source).may_start(now)

    def _next(self, now: float) -> tuple[Wait | None, bool]:
        """How long until something may be asked, and whether that is for the URL's sake alone."""
        waits: list[tuple[Wait, bool]] = []
        for source, count in self._left.items():
            due = self._ledger.next_due(source) if count else None
            if due is None:
                continue
            ready = self._ready(source, now)
            seconds = 0.0 if isinstance(ready, Go) else ready.seconds
            if due - now > seconds or isinstance(ready, Go):
                waits.append((Wait(max(due - now, 0.0), "a pause before the next try"), True))
            else:
                waits.append((ready, False))
        return min(waits, key=lambda one: one[0].seconds, default=(None, False))

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._failure = self._failure or task.exception()
        self._turns.changed()

    async def _attempt(self, item: QueueItem) -> None:
        """One image, unless somebody else has put it there meanwhile."""
        path = item.path or cache_name(item.url_md5)
        known_bad = self._results.known_bad
        found = await asyncio.to_thread(judge_place, self._root, path, known_bad)
        if found in ("good", "unreadable"):
            self._leave(item, path, is_good=found == "good")
            return
        try:
            fate, reply, source = await self._asking.fetch(item.url, known_bad)
        except Stopped:
            return
        kind, state = await self._results.take(item, path, fate, reply, source)
        if state == "waiting":
            self._left[item.source] += 1
        self._progress.advance(int(kind != "throttled"), reply.received, kind)

    def _leave(self, item: QueueItem, path: bytes, *, is_good: bool) -> None:
        """What stands at an image's place stays: a good file, or what cannot be read."""
        report, kind = self._report, "overtaken"
        self._ledger.ended_otherwise(item.url_md5, report.run_id)
        if is_good:
            report.overtaken += 1
        else:
            kind = UNREADABLE
            report.failed[kind] += 1
            if len(report.failures) < LISTED:
                what = f"{display(path)} of the cache cannot be read, or is no file: move it away"
                report.failures.append((item.url, kind, what))
        self._progress.advance(1, 0, kind)

    def _count(self) -> None:
        """What is known only when all is done."""
        report, ledger = self._report, self._ledger
        for kind, number in ledger.failures(report.run_id).items():
            report.failed[kind] += number
        report.failures += ledger.failed_urls(report.run_id, LISTED - len(report.failures))
        report.left_estimate = self._estimate(report.left)


def open_ledger(folder: Path, cache: bytes) -> RequestLog:
    """The ledger, made when there is none.

    Raises:
        StateError: it is damaged, or cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"The state folder {folder} cannot be made ({error.strerror}); set state.dir."
        ) from None
    return RequestLog(folder, cache)
