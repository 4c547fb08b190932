"""`mirror pull`: restore the md5-named cache, or a part of it, from the mirror.

Each object is read once, compared with the catalog, and written under the name of every URL that
has it: to a part file, flushed, then renamed. Files that are already there are not written again, so
a run that was killed can be resumed. Other files under such a name are kept unless the user asks to
replace them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.cache.cache_writer import (
    ABSENT,
    SAME,
    CacheWriter,
    TargetName,
    WriteResult,
    cache_name,
)
from mirror.cache.safe_folder import SafeFolder
from mirror.catalog.health import Problem, UpkeepReport
from mirror.catalog.index import Index, halves
from mirror.catalog.lookup import UrlLookup, digests_of
from mirror.catalog.objects import NamedObjects, key_ranges, named_objects
from mirror.catalog.open_mirror import OpenMirror, open_mirror
from mirror.config.settings import Settings
from mirror.content.digest import WHOLE_UP_TO, Digest, Hasher
from mirror.content.image import VERDICTS
from mirror.dataset.inputs import Input, read
from mirror.dataset.records import ReadOptions
from mirror.errors import CacheError, NotFound, StoreError
from mirror.run.lock import locked
from mirror.run.outcome import outcome_noted, timed
from mirror.run.progress import Progress, Stage
from mirror.run.signals import stopping_on_signals
from mirror.store.bounded_tasks import BoundedTasks
from mirror.store.consecutive_failures import ConsecutiveFailures
from mirror.store.read_back import bytes_held, hashed, parts_of
from mirror.store.retry import RetryPolicy
from mirror.system.display_text import plural

_OK: Final = VERDICTS.index("ok")
# Objects whose files are checked in one hop to a thread.
_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class PullOptions:
    """Options of a pull.

    Attributes:
        prefix: only URLs whose MD5 begins with these hex digits.
        datasets: only URLs that these refer to; all URLs when empty.
        url_field: dotted path of the URL in their records.
        verify: read files that are already there, and compare them.
        force: replace other files that have the name of an image.
        hardlink: link the names of all URLs with one content to one file, instead of copying it.
        dry_run: only report what would be written.
        retry: how often and how soon to retry a failed request.
    """

    prefix: str = ""
    datasets: Sequence[Input] = ()
    url_field: str = "image_url"
    verify: bool = False
    force: bool = False
    hardlink: bool = False
    dry_run: bool = False
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass
class PullReport(UpkeepReport):
    """The report of a pull; `checked` counts the files that belong in the cache.

    Attributes:
        already: files that were already there.
        kept: other files under the name of an image that were kept.
        replaced: other files that were replaced.
        flagged: selected URLs that have no good image.
        not_mirrored: URLs of the datasets that the mirror has never seen.
    """

    already: int = 0
    kept: int = 0
    replaced: int = 0
    flagged: int = 0
    not_mirrored: int = 0

    @property
    def has_problems(self) -> bool:
        return super().has_problems or self.kept > 0

    def extra_json(self) -> dict[str, Any]:
        names = ("already", "kept", "replaced", "flagged", "not_mirrored")
        return {name: getattr(self, name) for name in names}


def pull(
    settings: Settings,
    options: PullOptions = PullOptions(),
    *,
    progress: Progress = Progress(),
) -> PullReport:
    """Write the mirror's images into the cache's folder, as `<md5 of the URL>.jpg` without sub-folders.

    Args:
        settings: where the bucket, the cache and the state are.
        options: which images, and what to do about existing files.
        progress: receives the progress of the run.

    Returns:
        The report; `report.error` has an error that came after the run had begun.

    Raises:
        MirrorError: the mirror cannot be read, or the folder cannot be used.
        Busy: another run is writing to the folder, on this machine or another.
        UsageError: a dataset cannot be read.
    """
    settings.require_apart()
    report = PullReport(dry_run=options.dry_run)
    folder = settings.cache_dir
    identity = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:12]
    for source in options.datasets:
        source.check()

    async def run() -> None:
        async with open_mirror(settings, retry=options.retry) as mirror:
            report.requests = mirror.requests
            with ExitStack() as stack:
                if not options.dry_run:
                    stack.enter_context(locked(mirror.folder / f"pull-{identity}", "pull"))
                progress.started()
                tree = _opened(folder, make=not options.dry_run)
                writer = None
                if tree is not None:
                    stack.enter_context(tree)
                    writer = CacheWriter(tree, os.fsencode(folder), hardlink=options.hardlink)
                    if not options.dry_run:
                        stack.enter_context(writer.alone("pull"))
                pulling = _Pull(
                    mirror, writer, settings=settings, options=options, report=report,
                    progress=progress,
                )  # fmt: skip
                with stopping_on_signals(pulling.stop.set):
                    await pulling.run()

    with timed(report):
        asyncio.run(run())
    return report


def _opened(folder: Path, *, make: bool) -> SafeFolder | None:
    """Open the cache's folder; None if it does not exist and is not to be made."""
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        elif not os.path.lexists(folder):
            return None
        return SafeFolder(os.fsencode(folder))
    except OSError as error:
        raise CacheError(
            f"The cache folder {folder} cannot be used ({error.strerror}); create it, or set "
            "cache.dir to a folder that this user may write."
        ) from None


class _Download(NamedTuple):
    """An object to read: its position, and the names to write it under."""

    at: int
    names: list[TargetName]


class _Pull:
    """One run. `writer` is None in a dry run if there is no cache folder yet."""

    def __init__(
        self,
        mirror: OpenMirror,
        writer: CacheWriter | None,
        *,
        settings: Settings,
        options: PullOptions,
        report: PullReport,
        progress: Progress,
    ) -> None:
        self.stop = asyncio.Event()
        self._mirror = mirror
        self._writer = writer
        self._settings = settings
        self._options = options
        self._report = report
        self._progress = progress
        self._failures = ConsecutiveFailures()
        self._index = Index.empty()

    async def run(self) -> None:
        with outcome_noted(self._report, self.stop):
            self._index = await self._mirror.index()
            chosen = await asyncio.to_thread(self._chosen)
            self._progress.begin(Stage("files", self._report.checked))
            for key_range in key_ranges(self._index):
                if self.stop.is_set():
                    break
                await self._pull(
                    await asyncio.to_thread(named_objects, self._index, key_range), chosen
                )

    def _chosen(self) -> NDArray[np.bool_]:
        """Mark the sightings to pull: one byte each."""
        sightings = self._index.sightings
        chosen = np.ones(len(self._index), bool)
        if prefix := self._options.prefix.lower():
            first, last = (bytes.fromhex(prefix.ljust(32, digit)) for digit in "0f")
            (first_hi, first_lo), (last_hi, last_lo) = (
                (hi[0], lo[0]) for hi, lo in (halves(first), halves(last))
            )
            hi, lo = sightings["url_hi"], sightings["url_lo"]
            chosen &= (hi >= first_hi) & (hi <= last_hi)
            if first_hi == last_hi:  # the prefix has all of the first half and a part of the second
                chosen &= (lo >= first_lo) & (lo <= last_lo)
        if self._options.datasets:
            chosen &= self._of_datasets()
        good = sightings["verdict"] == _OK
        self._report.flagged = int(np.count_nonzero(chosen & ~good))
        chosen &= good
        self._report.checked = int(np.count_nonzero(chosen))
        return chosen

    def _of_datasets(self) -> NDArray[np.bool_]:
        lookup = UrlLookup(self._index)
        referred = np.zeros(len(self._index), bool)
        rejected = 0
        for source in self._options.datasets:
            for batch in read(source, ReadOptions.of(self._options.url_field)):
                at = lookup.find(batch.urls, digests_of(batch.urls)).positions
                referred[at[at >= 0]] = True
                self._report.not_mirrored += int(np.count_nonzero(at < 0))
                rejected += len(batch.rejected)
        if rejected:
            self._report.warnings.append(
                f"{plural(rejected, 'record', 'have')} no URL in the field that --url-field names, and "
                f"{'was' if rejected == 1 else 'were'} skipped."
            )
        return referred

    async def _pull(self, named: NamedObjects, chosen: NDArray[np.bool_]) -> None:
        for begin in range(0, len(named), _BATCH):
            if self.stop.is_set():
                return
            batch = range(begin, min(begin + _BATCH, len(named)))
            downloads = await asyncio.to_thread(self._plan_batch, named, batch, chosen)
            async with BoundedTasks(self._settings.sync.concurrency) as window:
                for download in downloads:
                    if self.stop.is_set():
                        break
                    held = bytes_held(int(named.size[download.at]))
                    await window.start(held, self._pull_object, named, download)
            if downloads and self._writer is not None:
                await asyncio.to_thread(self._writer.flush)

    def _plan_batch(
        self, named: NamedObjects, batch: range, chosen: NDArray[np.bool_]
    ) -> list[_Download]:
        """What of a batch to write. Runs in a thread, one call at a time.

        | under the name               | plan                                        |
        |------------------------------|---------------------------------------------|
        | nothing                      | write                                       |
        | a file of the right size     | already there; with `verify` read, compared |
        | another file, or other bytes | kept and listed; with `force` replaced      |
        | not a regular file           | kept and listed; with `force` tried         |
        """
        downloads: list[_Download] = []
        for at in batch:
            rows = named.rows_of(at)
            rows = rows[chosen[rows]]
            names: list[TargetName] = []
            for url in self._index.url_md5s(rows):
                name = cache_name(url.tobytes())
                found = self._found(name, self._expected(named, at))
                if found == SAME:
                    self._report.already += 1
                    self._progress.advance(1)
                elif found == ABSENT or self._options.force:
                    names.append(TargetName(name, found != ABSENT))
                else:
                    self._keep(name, found)
            if names and self._options.dry_run:
                self._progress.advance(len(names))
                self._report.pulled += len(names)
                self._report.bytes += len(names) * int(named.size[at])
            elif names:
                downloads.append(_Download(at, names))
        return downloads

    def _found(self, name: bytes, expected: Digest) -> str:
        if self._writer is None:
            return ABSENT
        return self._writer.compare(name, expected, verify=self._options.verify)

    def _keep(self, name: bytes, reason: str) -> None:
        self._report.kept += 1
        self._report.example(Problem("kept", os.fsdecode(name), reason))

    def _expected(self, named: NamedObjects, at: int) -> Digest:
        content = named.content_hash(at)
        sha256 = self._index.object_sha256(content)
        assert sha256 is not None  # an ok row names it
        return Digest(content, sha256, int(named.size[at]))

    async def _pull_object(self, named: NamedObjects, download: _Download) -> None:
        key, expected = named.key(download.at), self._expected(named, download.at)
        report = self._report
        try:
            results = await self._transfer(key, expected, download.names)
        except NotFound:
            report.missing += 1
            report.example(Problem("missing", key, "there is no such object"))
        except StoreError as error:
            self._failures.failed(error)
            report.failed += len(download.names)
            report.example(Problem("failed", key, str(error)))
            return
        else:
            if results is None:
                report.mismatched += 1
                report.example(
                    Problem("mismatched", key, "its bytes are not what the catalog says")
                )
            for result in results or ():
                self._note(result, expected.size)
        self._failures.succeeded()

    async def _transfer(
        self, key: str, expected: Digest, names: Sequence[TargetName]
    ) -> list[WriteResult] | None:
        """Read an object and write it; None when it is not what was expected.

        Raises:
            StoreError: it could not be read.
            CacheError: no file can be written.
        """
        writer, pieces = self._writer, parts_of(self._mirror.store, key, expected.size)
        assert writer is not None  # a dry run transfers nothing
        body = await anext(pieces, b"")
        if len(body) == expected.size:
            good = await hashed(body) == expected
            return await asyncio.to_thread(writer.write, body, names) if good else None
        if expected.size <= WHOLE_UP_TO:
            return None
        hasher = Hasher()
        with writer.begin(names[0].name) as part:
            while body:
                hasher.update(body)
                await asyncio.to_thread(writer.append, part, body)
                body = await anext(pieces, b"")
            good = hasher.digest() == expected
            return await asyncio.to_thread(writer.publish, part, names) if good else None

    def _note(self, result: WriteResult, size: int) -> None:
        report, target = self._report, result.target
        if result.outcome == "written":
            report.pulled += 1
            report.replaced += target.replace
            report.bytes += size
            self._progress.advance(1, size)
        elif result.outcome == "kept":
            self._keep(target.name, result.reason)
        else:
            report.failed += 1
            report.example(Problem("failed", os.fsdecode(target.name), result.reason))
