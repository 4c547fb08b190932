"""`mirror backfill`: plan, request images as each source's pace allows, store them in the cache.

queue ──► pace says Go ──► one request, recorded before it is sent ──► its result, in one
  ▲                        (each redirect waits for its own Go)         transaction
  └──── try again later ◄───────────────────────────────────────────────────┘
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
from mirror.backfill.download_plan import DownloadSelection, make_plan
from mirror.backfill.estimate import DurationEstimate, estimate, mean_size, mean_sizes
from mirror.backfill.fetch_one import ImageRequester
from mirror.backfill.pacing import Go, Limits, Wait
from mirror.backfill.request_log import QueueItem, RequestLog
from mirror.backfill.results import ResultRecorder
from mirror.backfill.scheduler import RunClock, Scheduler, Sleep, Stopped
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
from mirror.system.display_text import plural

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

# Seconds. A run ends if only URLs with longer pauses are left; the next run requests those.
_LONGEST_WAIT_FOR_LAST: Final = 60.0


@dataclass(frozen=True)
class BackfillOptions:
    """Options of one run, beyond the settings.

    Attributes:
        selection: the part of the dataset to download. Settings provide its `known_bad` and
            `placeholder_photos`.
        match: with `photo`, an iNaturalist photo counts as mirrored under any spelling of its URL.
        use_bucket: False ignores a configured mirror: only the cache counts.
        seconds: start no request later than this after the start of the run.
        max_bytes: start no request when this many bytes have come.
        max_images: end when this many images are downloaded.
        dry_run: plan and estimate only; request nothing and store nothing.
        run_id: names the run in the report and the request log; a new one when None.
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
    """The limits of every source.

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
    clock: Callable[[Any], RunClock] = BackfillClock,
    sleep: Sleep = asyncio.sleep,
    wall: Callable[[], float] = time.time,
    resolver: AbstractResolver | None = None,
) -> BackfillReport:
    """Download the images that neither the mirror nor the cache has, within each source's limits.

    Args:
        settings: where the cache, the mirror and the request log are, and the limits.
        inputs: the dataset.
        options: of this run.
        progress: receives the progress of the run.
        clock: makes the run's clock from what the last run saved.
        sleep: waits for a number of seconds by that clock.
        wall: seconds since 1970, to compare with servers' dates.
        resolver: looks up host names; the system when None. Its addresses are checked in any case.

    Returns:
        The report. An error after the plan is in `report.error`, and the counts cover what was done
        before it.

    Raises:
        MirrorError: the run could not start: a missing folder, no contact, another run's lock.
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
    """One run: its plan, its downloads and its report."""

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
        self._policy = UrlPolicy(backfill.hosts, backfill.allow_private)
        self._limits = limits_of(backfill)
        self._agent = user_agent(backfill.contact)  # in a dry run too, so that the run finds it
        self._root = os.fsencode(os.path.realpath(settings.cache_dir))
        self._known_bad = load_known_bad(settings.inspect.known_bad)
        self._started_at, self._started_clock = wall(), time.monotonic()
        self._report = BackfillReport(options.run_id or new_run_id(), dry_run=options.dry_run)
        self._mean_sizes: dict[int, float] = {}  # of the mirror's images
        self._queued: dict[str, int] = {}  # URLs of the queue, by source
        self._running: dict[asyncio.Task[None], str] = {}  # the source of each attempt
        self._failure: BaseException | None = None

    def run(self, clock: Callable[[Any], RunClock]) -> BackfillReport:
        folder = self._settings.backfill_dir
        if self._options.dry_run:
            return self._with_request_log(folder, clock)
        with locked(folder, "backfill"), backfill_writer(self._root) as self._writer:
            self._progress.started()
            return self._with_request_log(folder, clock)

    def _with_request_log(self, folder: Path, clock: Callable[[Any], RunClock]) -> BackfillReport:
        cache = hashlib.sha256(self._root).digest()[:8]
        report = self._report
        self._request_log = request_log = open_request_log(folder, cache)
        try:
            self._scheduler = Scheduler(
                request_log,
                self._limits,
                clock(request_log.get("clock")),
                self._sleep,
                self._progress.wait,
            )
            if self._options.seconds is not None:
                self._scheduler.ends_at = self._scheduler.clock() + self._options.seconds
            if report.dry_run:
                request_log.use_temporary_verdicts()
            else:
                self._scheduler.abandon_in_flight()
            self._plan()
            if not report.dry_run:
                try:
                    asyncio.run(self._download())
                except MirrorError as error:
                    report.error = error
                self._add_failures()
            report.seconds = time.monotonic() - self._started_clock
            if not report.dry_run:
                request_log.runs.remember(report, self._started_at)
        finally:
            request_log.close()
        return report

    def _warn(self, sentence: str) -> None:
        self._report.warnings.append(sentence)
        self._progress.say(sentence, "warning")

    # --- the plan ---

    def _plan(self) -> None:
        report = self._report
        lookup = self._mirror_lookup()
        self._known_bad |= self._request_log.placeholders()
        plan = report.plan = make_plan(
            self._request_log,
            self._inputs,
            replace(
                self._options.selection,
                placeholder_photos=self._settings.inspect.placeholder_photos,
                known_bad=self._known_bad,
            ),
            self._policy,
            lookup,
            root=self._root,
            cache=self._settings.cache,
            now=self._scheduler.clock(),
            progress=self._progress,
        )
        self._known_bad |= plan.placeholders
        self._queued = dict(plan.queued)
        report.failed["not_allowed"] = plan.not_allowed
        report.estimate = self._estimate(plan.to_request)
        for sentence in plan.sentences():
            self._warn(sentence)
        already = f"{plural(plan.already, 'image', 'are')} there already"
        if report.estimate is None:
            self._progress.say(f"{already}; there is nothing to fetch.")
        elif not report.dry_run:  # a dry run's report has the estimate
            self._progress.say(f"{already}. To be fetched: {report.estimate.arithmetic}")
            self._progress.begin(Stage("images", plan.to_request, seconds=report.estimate.seconds))

    def _mirror_lookup(self) -> UrlLookup | None:
        """The lookup of mirrored images; None without a mirror."""
        if not self._options.use_bucket or not self._settings.bucket.url:
            return None
        try:
            _, index = read_index(self._settings)
        except NotFound as error:
            self._warn(f"{error} Until then only the cache counts.")
            return None
        self._known_bad |= index.contents_judged("placeholder")
        self._mean_sizes = mean_sizes(index.sightings)
        return UrlLookup(index, self._options.match)

    def _estimate(self, images: int) -> DurationEstimate | None:
        if not images:
            return None
        pace_status = self._scheduler.pace_status(source for source, n in self._queued.items() if n)
        size = mean_size(self._report.plan.sizes, self._mean_sizes)
        return estimate(images, self._limits, pace_status, size or self._request_log.mean_size())

    # --- downloads ---

    async def _download(self) -> None:
        backfill, report = self._settings.backfill, self._report
        self._results = ResultRecorder(
            self._writer,
            self._request_log,
            self._scheduler,
            report,
            self._known_bad,
            self._settings.inspect.placeholder_photos,
            self._warn,
        )
        async with OriginClient(
            self._policy,
            self._agent,
            largest=self._limits.largest,
            stall=backfill.stall_seconds,
            deadline=backfill.deadline_seconds,
            resolver=self._resolver,
        ) as client:
            self._requester = ImageRequester(
                client,
                self._policy,
                self._scheduler,
                self._request_log,
                report,
                lambda sentence: self._progress.say(sentence, "warning"),
                self._wall,
            )
            with stopping_on_signals(self._interrupt):
                try:
                    report.stopped = await self._attempt_all()
                finally:
                    # Finish requests in flight, because the server has already counted them.
                    await asyncio.gather(*self._running, return_exceptions=True)
        if self._failure is not None:
            raise self._failure

    def _interrupt(self) -> None:
        self._report.interrupted = True
        self._progress.say(
            "Stopping after the requests in flight. Interrupt again to stop at once.", "warning"
        )
        self._scheduler.stopping = True
        self._scheduler.wake()

    async def _attempt_all(self) -> str:
        """Start attempts as the paces allow, until the queue is empty or the run must end.

        Returns:
            Why the run ended early; empty if the queue is empty.
        """
        while not (reason := self._end_reason()):
            now = self._scheduler.clock()
            ready = [
                source
                for source, count in self._queued.items()
                if count and isinstance(self._may_attempt(source, now), Go)
            ]
            item = self._request_log.take(now, ready)
            if item is not None:
                self._queued[item.source] -= 1
                task = asyncio.create_task(self._attempt(item))
                self._running[task] = item.source
                task.add_done_callback(self._attempt_ended)
                continue
            wait, is_postponed = self._next_wait(now)
            if not self._running:
                if wait is None:
                    return ""
                if is_postponed and wait.seconds > _LONGEST_WAIT_FOR_LAST:
                    self._report.next_try = wait.seconds
                    return "all URLs that are left must wait before their next try"
                if now + wait.seconds > self._scheduler.ends_at:
                    return f"its time would be up before the next request ({wait.reason})"
            await self._scheduler.wait(wait)
        return reason

    def _end_reason(self) -> str:
        """Why no further attempt starts; empty if one may."""
        options, report, scheduler = self._options, self._report, self._scheduler
        if scheduler.stopping:
            return "it was interrupted"
        if self._failure is not None:
            return "it failed"
        if scheduler.clock() >= scheduler.ends_at:
            return "its time was up"
        if options.max_bytes is not None and report.bytes >= options.max_bytes:
            return f"{report.bytes:,} bytes had come"
        if options.max_images is not None and report.downloaded >= options.max_images:
            return f"{plural(report.downloaded, 'image', 'were')} downloaded"
        return ""

    def _may_attempt(self, source: str, now: float) -> Go | Wait:
        """Whether an attempt may start. The pace does not know attempts without a request so far."""
        running = Counter(self._running.values())
        wanted = self._options.max_images
        enough = wanted is not None and self._report.downloaded + running.total() >= wanted
        if enough or running[source] >= self._limits.concurrency:
            return Wait(math.inf, "an image is being downloaded")
        return self._scheduler.pace(source).may_start(now)

    def _next_wait(self, now: float) -> tuple[Wait | None, bool]:
        """How long until the next attempt, and whether only a URL's own pause delays it.

        The wait is None if the queue is empty.
        """
        waits: list[tuple[Wait, bool]] = []
        for source, count in self._queued.items():
            due = self._request_log.next_due(source) if count else None
            if due is None:
                continue
            allowed = self._may_attempt(source, now)
            seconds = 0.0 if isinstance(allowed, Go) else allowed.seconds
            if due - now > seconds or isinstance(allowed, Go):
                waits.append((Wait(max(due - now, 0.0), "a pause before the next try"), True))
            else:
                waits.append((allowed, False))
        return min(waits, key=lambda found: found[0].seconds, default=(None, False))

    def _attempt_ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._failure = self._failure or task.exception()
        self._scheduler.wake()

    async def _attempt(self, item: QueueItem) -> None:
        """Download one image, unless the cache has a file in its place by now."""
        path = item.path or cache_name(item.url_md5)
        known_bad = self._results.known_bad
        found = await asyncio.to_thread(judge_place, self._root, path, known_bad)
        if found in ("good", "unreadable"):
            self._skip(item, path, is_good=found == "good")
            return
        try:
            outcome, reply, source = await self._requester.fetch(item.url, known_bad)
        except Stopped:
            return
        kind, state = await self._results.record(item, path, outcome, reply, source)
        if state == "waiting":
            self._queued[item.source] += 1
        self._progress.advance(int(kind != "throttled"), reply.received, kind)

    def _skip(self, item: QueueItem, path: bytes, *, is_good: bool) -> None:
        """Leave the file in an image's place: a good one, or one that cannot be read."""
        report, kind = self._report, "overtaken"
        self._request_log.clear_failure(item.url_md5, report.run_id)
        if is_good:
            report.overtaken += 1
        else:
            kind = UNREADABLE
            report.failed[kind] += 1
            if len(report.failures) < LISTED:
                what = f"{display(path)} of the cache is not a readable file: move it away"
                report.failures.append((item.url, kind, what))
        self._progress.advance(1, 0, kind)

    def _add_failures(self) -> None:
        """Complete the report from the request log at the end of a run."""
        report, request_log = self._report, self._request_log
        for kind, number in request_log.failures(report.run_id).items():
            report.failed[kind] += number
        report.failures += request_log.failed_urls(report.run_id, LISTED - len(report.failures))
        report.left_estimate = self._estimate(report.left)


def open_request_log(folder: Path, cache: bytes) -> RequestLog:
    """Open the request log, and make it if there is none.

    Raises:
        StateError: the log is damaged, or cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"The state folder {folder} cannot be made ({error.strerror}); set state.dir."
        ) from None
    return RequestLog(folder, cache)
