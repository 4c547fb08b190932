"""`mirror verify`: compare the bucket with the catalog.

    exists   compare a listing with the catalog: missing objects, other sizes, unreferenced objects
    sample   also read back and hash a share of the objects, chosen by their hashes and a seed
    full     also read back and hash all of them

Each level reads again what an earlier run found damaged. None changes an object. A full reading adds
perceptual hashes to the catalog where rows have none.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self, TextIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror.catalog.comparison import Comparison, problem_of
from mirror.catalog.health import Kind, Problem, UpkeepReport
from mirror.catalog.history import recent_catalog, recently_named
from mirror.catalog.index import Index, halves
from mirror.catalog.objects import NamedObjects, key_ranges, named_objects, sha256_of_named
from mirror.catalog.open_mirror import OpenMirror, open_mirror
from mirror.catalog.row import about_ignored
from mirror.config.settings import Settings
from mirror.content.digest import WHOLE_UP_TO, Digest
from mirror.content.splitmix64 import mix
from mirror.errors import MirrorError, NotFound, StoreError, UsageError
from mirror.layout import CATALOG, parse_object_key
from mirror.run.lock import locked
from mirror.run.outcome import outcome_noted, timed
from mirror.run.progress import Progress, Stage
from mirror.run.signals import stopping_on_signals
from mirror.store.base import ObjectInfo, Store, list_all
from mirror.store.bounded_tasks import BoundedTasks
from mirror.store.consecutive_failures import ConsecutiveFailures
from mirror.store.read_back import bytes_held, digest_in, hashed
from mirror.store.retry import RetryPolicy
from mirror.system.files import replacing
from mirror.upkeep.damage_log import DamageLog, ReadPass
from mirror.upkeep.missing_hashes import MissingHashes

# Objects that are read before the log records it: the most that a kill costs.
_BATCH: Final = 1_000

Wrong = tuple[Kind, str]
_MISSING: Final[Wrong] = ("missing", "there is no such object")


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """Options of a verification.

    Attributes:
        share: of the objects to read back: 0 only compares listings, 1 reads everything.
        seed: chooses the objects to read; None resumes an unfinished pass or draws a new seed.
        restart: begin a new pass, even if one was interrupted.
        report: a file for all problems, one JSON object a line.
        retry: how often and how soon to retry a failed request.
    """

    share: float = 0.0
    seed: int | None = None
    restart: bool = False
    report: Path | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    @classmethod
    def of(
        cls, *, exists: bool = False, sample: float | None = None, full: bool = False, **others: Any
    ) -> Self:
        """Options from the three depths, of which at most one may be chosen.

        Args:
            exists: compare listings only; the default.
            sample: the share of the objects to read back.
            full: read everything back.
            others: the other attributes.

        Raises:
            UsageError: more than one depth is chosen.
        """
        if sum((exists, full, sample is not None)) > 1:
            raise UsageError("Choose one of --exists, --sample and --full.")
        return cls(share=1.0 if full else sample or 0.0, **others)


@dataclass
class VerifyReport(UpkeepReport):
    """The report of a verification.

    Attributes:
        read: objects that were read back, by this run and the runs that it resumes.
        resumed: how many of them earlier runs had read.
        share: of the objects to read.
        seed: that chose them.
        flagged: objects in the bucket that only flagged rows have.
        orphaned_bytes: bytes of the orphaned objects.
        old_orphans: orphans that gc would delete: written, and last named by a row, before the grace
            period.
        catalog_version: that was verified.
        hashed: contents whose perceptual hash was added to the catalog.
    """

    read: int = 0
    resumed: int = 0
    share: float = 0.0
    seed: int | None = None
    flagged: int = 0
    orphaned_bytes: int = 0
    old_orphans: int = 0
    catalog_version: int = -1
    hashed: int = 0

    @property
    def has_problems(self) -> bool:
        return super().has_problems or self.old_orphans > 0

    def extra_json(self) -> dict[str, Any]:
        names = (
            "read", "resumed", "share", "seed", "flagged", "orphaned_bytes", "old_orphans",
            "catalog_version", "hashed",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def verify(
    settings: Settings,
    options: VerifyOptions = VerifyOptions(),
    *,
    progress: Progress = Progress(),
    now: Callable[[], float] = time.time,
) -> VerifyReport:
    """Compare a mirror's objects with its catalog.

    Args:
        settings: where the bucket and the state are, and the grace period.
        options: how thoroughly.
        progress: receives the progress of the run.
        now: seconds since 1970, for the age of orphans.

    Returns:
        The report; `report.error` has an error that came after the run had begun.

    Raises:
        MirrorError: the mirror cannot be read.
        Busy: another verification or repair of it is running on this machine.
        UsageError: the file for the report cannot be written.
    """
    report = VerifyReport(share=options.share)
    young_since = datetime.fromtimestamp(now(), UTC) - timedelta(days=settings.gc.grace_days)

    async def run() -> None:
        async with open_mirror(settings, retry=options.retry) as mirror:
            report.requests = mirror.requests
            with locked(mirror.folder, "verify"), ExitStack() as stack:
                progress.started()
                log = DamageLog(mirror.folder)
                stack.callback(log.close)
                path = options.report
                lines = ProblemFile(None if path is None else stack.enter_context(replacing(path)))
                verification = Verification(
                    mirror, log, settings, report=report, progress=progress, now=now
                )
                with stopping_on_signals(verification.stop.set):
                    await verification.run(options, young_since, lines)
                verification.conclude(lines)

    with timed(report):
        asyncio.run(run())
    return report


class ProblemFile:
    """The file that `--report` names, if there is one."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def write(self, problem: Problem) -> None:
        if self._file is not None:
            self._file.write(msgspec.json.encode(problem.as_json()).decode() + "\n")


class Verification:
    """One verification, or the part of a repair that finds the damage.

    Args:
        mirror: the mirror to verify.
        log: this machine's damage log; the caller holds its lock.
        settings: how many requests may be in flight.
        report: filled while it runs.
        progress: receives the progress of the run.
        now: seconds since 1970.
    """

    def __init__(
        self,
        mirror: OpenMirror,
        log: DamageLog,
        settings: Settings,
        *,
        report: VerifyReport,
        progress: Progress,
        now: Callable[[], float],
    ) -> None:
        self.stop = asyncio.Event()
        self.index = Index.empty()
        self._mirror = mirror
        self._log = log
        self._concurrency = settings.sync.concurrency
        self._report = report
        self._progress = progress
        self._failures = ConsecutiveFailures()
        self._hashes: MissingHashes | None = None
        self._now = now

    async def run(self, options: VerifyOptions, young_since: datetime, lines: ProblemFile) -> None:
        """Verify as far as the options say, and record the problems in the log."""
        with outcome_noted(self._report, self.stop):
            self.index = await self._mirror.index()
            self._report.catalog_version = self.index.version
            if ignored := self.index.ignored:
                self._report.warnings.append("; ".join(about_ignored(ignored)))
            await self._compare(young_since, lines)
            if not self.stop.is_set():
                await self._recheck()
            if options.share and not self.stop.is_set():
                if options.share == 1:
                    self._hashes = MissingHashes(self._mirror, self.index, self._now)
                try:
                    await self._read(self._pass_of(options))
                finally:
                    await self._add_hashes()

    def conclude(self, lines: ProblemFile) -> None:
        """Fill the report with the counts and examples of all known problems."""
        report = self._report
        counts = self._log.counts()
        report.missing, report.rows_without_object = counts.get("missing", (0, 0))
        report.mismatched = counts.get("mismatched", (0, 0))[0]
        report.failed = counts.get("unread", (0, 0))[0]
        for problem in self._log.damage():
            report.example(problem)
            lines.write(problem)

    async def _compare(self, young_since: datetime, lines: ProblemFile) -> None:
        report, log = self._report, self._log

        old: list[bytes] = []
        self._progress.begin(Stage("objects listed", len(self.index.objects["hash_hi"])))

        def note_unnamed(info: ObjectInfo, flagged: bool) -> None:
            if flagged:
                return
            problem = Problem("orphaned", info.key, "no row names it", size=info.size)
            report.example(problem)
            lines.write(problem)
            if info.last_modified < young_since and (parsed := parse_object_key(info.key)):
                old.append(parsed[0])

        # Until this listing is complete, problems of an earlier one are not known to be solved.
        log.begin_listing()
        log.add_listing([problem async for problem in self._catalog_files()])
        comparison = Comparison(
            self._mirror.store,
            self.index,
            young_since,
            on_damage=log.add_listing,
            on_unnamed=note_unnamed,
            stopped=self.stop.is_set,
            progress=self._progress,
        )
        listed = await comparison.run()
        report.checked, report.flagged = listed.compared, listed.flagged
        report.orphaned, report.old_orphans = listed.orphaned, listed.old_orphans
        report.orphaned_bytes = listed.orphaned_bytes
        if not self.stop.is_set():
            log.end_listing()
            report.old_orphans -= await self._named_lately(sorted(old), young_since)

    async def _named_lately(self, contents: Sequence[bytes], since: datetime) -> int:
        """How many of these a row has named within the grace period; gc keeps them that long."""
        if not contents:
            return 0
        catalog = self._mirror.catalog
        past = await recent_catalog(self._mirror.store, catalog, since)
        named = await recently_named(catalog, past, halves(b"".join(contents)))
        return int(np.count_nonzero(named))

    async def _catalog_files(self) -> AsyncIterator[Problem]:
        """Data files of the catalog that are missing or have another size.

        Other machines cannot read their rows, even if this one has them in its index.
        """
        expected = await asyncio.to_thread(self._mirror.catalog.data_files)
        async for info in list_all(self._mirror.store, f"{CATALOG}/"):
            name = info.key.removeprefix(f"{CATALOG}/")
            if name in expected and expected[name] == info.size:
                del expected[name]
        for name, size in expected.items():
            reason = "a data file of the catalog is missing or has another size"
            yield Problem("missing", f"{CATALOG}/{name}", reason, size=size)

    async def _recheck(self) -> None:
        """Read again what earlier runs found damaged or could not read."""
        solved: list[str] = []
        damaged: list[Problem] = []
        async with BoundedTasks(self._concurrency) as window:
            for problem in self._log.damage("reading"):
                parsed = parse_object_key(problem.key)
                sha256 = sha256_of_named(self.index, problem.key)
                if sha256 is None or parsed is None:
                    solved.append(problem.key)  # no row names it any more: gc will delete it
                    continue
                held = bytes_held(problem.size)
                await window.start(
                    held, self._recheck_object, problem, parsed[0], sha256, solved, damaged
                )
        self._log.drop(solved)
        self._log.add_read(damaged)

    async def _recheck_object(
        self,
        problem: Problem,
        content: bytes,
        sha256: bytes,
        solved: list[str],
        damaged: list[Problem],
    ) -> None:
        found = await self._check(problem.key, problem.size, content, sha256)
        if found is None:
            solved.append(problem.key)
        elif found[0] != "unread":  # an object that cannot be read keeps its earlier problem
            damaged.append(problem._replace(kind=found[0], reason=found[1]))

    def _pass_of(self, options: VerifyOptions) -> ReadPass:
        """The pass to resume, or a new one."""
        found = self._log.current_pass()
        if (
            found is not None
            and not options.restart
            and found.share == options.share
            and options.seed in (None, found.seed)
        ):
            self._report.resumed = found.read
            return found
        seed = random.getrandbits(32) if options.seed is None else options.seed
        return ReadPass(share=options.share, seed=seed, version=self.index.version)

    async def _read(self, current: ReadPass) -> None:
        report, log = self._report, self._log
        report.read, report.bytes, report.seed = current.read, current.bytes, current.seed
        # A share is drawn by hashes, so the number is not exact.
        objects = round(len(self.index.objects["hash_hi"]) * current.share)
        self._progress.begin(Stage("objects read back", max(objects, current.read)))
        self._progress.advance(current.read, current.bytes)
        for key_range in key_ranges(self.index):
            if key_range.until is not None and key_range.until <= current.after:
                continue
            named = await asyncio.to_thread(named_objects, self.index, key_range)
            chosen = _chosen(named, current)
            for begin in range(0, len(chosen), _BATCH):
                batch = chosen[begin : begin + _BATCH]
                found: list[Problem] = []
                done = await self._read_batch(named, batch, found)
                if not done:
                    log.save_pass(current, found)
                    return
                current.after = named.key(int(batch[-1]))
                current.read, current.bytes = report.read, report.bytes
                if self._hashes is not None and self._hashes.are_many:
                    await self._add_hashes()
                log.save_pass(current, found)
        log.save_pass(None)
        await self._drop_unreferenced()

    async def _add_hashes(self) -> None:
        """Commit the hashes that were computed. A key that may only read is no error."""
        if (hashes := self._hashes) is None:
            return
        try:
            await hashes.commit()
        except MirrorError as error:
            self._hashes = None  # the next commit would fail, too
            self._report.warnings.append(
                f"Perceptual hashes could not be added to the catalog: {error} Copies of the images "
                "without one are not found; run mirror verify --full with a writer's key."
            )
        self._report.hashed = hashes.added

    async def _read_batch(
        self, named: NamedObjects, batch: NDArray[np.intp], found: list[Problem]
    ) -> bool:
        """Read a batch; returns False when it was interrupted."""
        first, last = named.key(int(batch[0])), named.key(int(batch[-1]))
        known = self._log.damaged_between(first, last)
        async with BoundedTasks(self._concurrency) as window:
            for at in batch.tolist():
                if self.stop.is_set():
                    return False
                if named.key(at) not in known:
                    size = bytes_held(int(named.size[at]))
                    await window.start(size, self._read_object, named, at, found)
        return True

    async def _read_object(self, named: NamedObjects, at: int, found: list[Problem]) -> None:
        content, size = named.content_hash(at), int(named.size[at])
        sha256 = self.index.object_sha256(content)
        assert sha256 is not None
        wrong = await self._check(named.key(at), size, content, sha256, self._hashes)
        if wrong is not None:
            found.append(problem_of(self.index, named, at, wrong[0], wrong[1]))
        self._report.read += 1
        self._report.bytes += size
        self._progress.advance(1, size)

    async def _check(
        self,
        key: str,
        size: int,
        content: bytes,
        sha256: bytes,
        hashes: MissingHashes | None = None,
    ) -> Wrong | None:
        """What is wrong with an object: `(kind, reason)`, or None. A missing hash is computed.

        Raises:
            StoreError: no other object could be read either.
        """
        try:
            if hashes is None or size > WHOLE_UP_TO or not hashes.lacks(content):
                wrong = await wrong_with(self._mirror.store, key, size, content, sha256)
            else:
                body = await self._mirror.store.get(key)
                wrong = _difference(await hashed(body), size, content, sha256)
                if wrong is None:
                    await hashes.add(content, body)
        except NotFound:
            wrong = _MISSING
        except StoreError as error:
            self._failures.failed(error)
            return "unread", str(error)
        self._failures.succeeded()
        return wrong

    async def _drop_unreferenced(self) -> None:
        """Drop problems of objects that no row names any more: a pass takes hours."""
        index = await self._mirror.index()
        gone = [
            problem.key
            for problem in self._log.damage("reading")
            if sha256_of_named(index, problem.key) is None
        ]
        self._log.drop(gone)


async def wrong_with(
    store: Store, key: str, size: int, content: bytes, sha256: bytes
) -> Wrong | None:
    """Read an object back; returns what is wrong with it, `(kind, reason)`, or None.

    Args:
        store: the mirror's.
        key: of the object.
        size: bytes, by the catalog.
        content: XXH3-128 by the catalog, 16 bytes.
        sha256: SHA-256 by the catalog, 32 bytes.

    Raises:
        StoreError: it could not be read.
    """
    try:
        digest = await digest_in(store, key, size)
    except NotFound:
        return _MISSING
    return _difference(digest, size, content, sha256)


def _difference(digest: Digest, size: int, content: bytes, sha256: bytes) -> Wrong | None:
    if digest == (content, sha256, size):
        return None
    if digest.size != size:
        return "mismatched", f"{digest.size:,} bytes, where the catalog says {size:,}"
    which = "SHA-256 is" if digest.content_hash == content else "bytes are"
    return "mismatched", f"its {which} not what the catalog says"


def _chosen(named: NamedObjects, current: ReadPass) -> NDArray[np.intp]:
    """Positions of the objects that a pass has still to read, in the order of keys."""
    ok = named.ok.copy()
    ok[: named.after(current.after)] = False
    if current.share < 1:
        # Mixed, so that contents that were chosen by their hash are sampled like all others.
        mixed = mix(named.hash_lo ^ np.uint64(current.seed & (2**64 - 1)))
        ok &= mixed < np.uint64(int(current.share * 2**64))
    return np.flatnonzero(ok)
