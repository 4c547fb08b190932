"""`mirror prefetch`: read a dataset's images into the fetch cache before a training starts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from mirror.config.settings import Settings
from mirror.dataset.inputs import Input, read, total_size
from mirror.dataset.records import ReadOptions
from mirror.errors import EXIT_DONE, EXIT_SOME_FAILED, ConfigError, FetchError
from mirror.fetch.client import Fetcher
from mirror.fetch.image_lookup import reason, shown
from mirror.fetch.statistics import FetchStats
from mirror.fetch.stream import kind_of
from mirror.run.failures import Failures
from mirror.run.progress import Progress, Stage
from mirror.system.files import replacing

# URLs to look up together.
_BATCH: Final = 4096


@dataclass
class PrefetchReport:
    """The result of `mirror prefetch`. A URL counts as often as the dataset has it.

    Attributes:
        urls: URLs in the dataset.
        cached: URLs whose image was on this machine already.
        from_cache: of the cached, URLs whose image is in the URL-keyed cache (`cache.dir`).
        fetched: URLs read from the mirror, and kept if there was room.
        not_mirrored: URLs that the mirror has never seen.
        flagged: URLs with no good image.
        absent: with `check`, URLs that are mirrored but not on this machine.
        failed: URLs that could not be read.
        no_room: URLs that the cache does not hold because it is full or cannot be written.
        invalid: records of the dataset without a URL.
        bytes: bytes fetched.
        failures: the first URLs that are not on this machine now, as `(URL, reason)`.
        stats: the fetcher's statistics.
        seconds: wall time.
    """

    urls: int = 0
    cached: int = 0
    from_cache: int = 0
    fetched: int = 0
    not_mirrored: int = 0
    flagged: int = 0
    absent: int = 0
    failed: int = 0
    no_room: int = 0
    invalid: int = 0
    bytes: int = 0
    failures: Failures = field(default_factory=Failures)
    stats: FetchStats = field(default_factory=FetchStats)
    seconds: float = 0.0

    @property
    def missing(self) -> int:
        """URLs without an image for a training."""
        return self.not_mirrored + self.flagged + self.absent

    @property
    def lacking(self) -> int:
        """URLs and records without an image, for whatever reason."""
        return self.missing + self.failed + self.invalid

    @property
    def exit_status(self) -> int:
        return EXIT_SOME_FAILED if self.lacking else EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        names = (
            "urls", "cached", "from_cache", "fetched", "missing", "not_mirrored", "flagged", "absent", "failed",
            "no_room", "invalid", "bytes",
        )  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            "failures": [{"url": url, "reason": reason} for url, reason in self.failures],
            "retries": self.stats.retries,
            "throttled": self.stats.throttled,
            "seconds": round(self.seconds, 3),
        }


def prefetch(
    settings: Settings,
    inputs: Sequence[Input],
    reading: ReadOptions,
    *,
    check: bool = False,
    lacking: Path | None = None,
    progress: Progress = Progress(),
) -> PrefetchReport:
    """Read the images of datasets into the fetch cache of this machine.

    Args:
        settings: where the mirror and the fetch cache are. With `fetch.offline`, nothing is fetched.
        inputs: the datasets.
        reading: where a record holds its URL.
        check: only report which images are not on this machine.
        lacking: a file that lists the URLs that are not on this machine at the end, one a line.
        progress: receives the progress.

    Raises:
        ConfigError: there is no fetch cache to read into.
        UsageError: a dataset cannot be read, or the file cannot be written.
        MirrorError: no image can be fetched.
    """
    check = check or settings.fetch.offline
    if settings.fetch.cache_dir is None and not check:
        raise ConfigError(
            "No fetch cache is configured: set fetch.cache_dir in mirror.toml, "
            "MIRROR_FETCH__CACHE_DIR, or --fetch-cache DIR."
        )
    for source in inputs:
        source.check()
    with ExitStack() as stack:
        listed = None if lacking is None else stack.enter_context(replacing(lacking))
        fetch = stack.enter_context(Fetcher(settings))
        return Prefetch(fetch, check=check, lacking=listed, progress=progress).run(inputs, reading)


class Prefetch:
    """One run of `mirror prefetch`.

    Args:
        fetch: a fetcher with a fetch cache.
        check: only report which images are not on this machine.
        lacking: an open file for the URLs that are not on this machine at the end, one a line.
        progress: receives the progress of the run.
    """

    def __init__(
        self,
        fetch: Fetcher,
        *,
        check: bool = False,
        lacking: TextIO | None = None,
        progress: Progress = Progress(),
    ) -> None:
        self._fetch = fetch
        self._check = check
        self._lacking = lacking
        self._progress = progress
        self._recounted = self._seen_full = False
        self._not_kept = fetch.stats().not_kept
        self.report = PrefetchReport()

    def run(self, inputs: Sequence[Input], reading: ReadOptions) -> PrefetchReport:
        """Read all images of the datasets that are not on this machine.

        Raises:
            UsageError: a dataset cannot be read.
            MirrorError: no image can be read: wrong credentials, no bucket, …
        """
        started = time.monotonic()
        report = self.report
        self._progress.begin(Stage("URLs", nbytes=total_size(inputs)))
        fetched: list[str] = []
        for url, result in self._fetch.many(self._urls_to_fetch(inputs, reading)):
            if isinstance(result, bytes):
                report.fetched += 1
                report.bytes += len(result)
                self._progress.advance(1, outcome="fetched")
                fetched.append(url)
                if len(fetched) == _BATCH:
                    self._count_not_kept(fetched)
                    fetched.clear()
            else:
                self._failed(url, result)
        self._count_not_kept(fetched)
        report.stats = self._fetch.stats()
        report.seconds = time.monotonic() - started
        return report

    def _urls_to_fetch(self, inputs: Iterable[Input], reading: ReadOptions) -> Iterator[str]:
        """Yield the URLs to fetch, and count the others."""
        for urls in self._batches(inputs, reading):
            self.report.urls += len(urls)
            cached = 0
            tiers = self._fetch._local_tiers(urls)  # noqa: SLF001 - for this package only
            for url, known in zip(urls, tiers, strict=True):
                if isinstance(known, FetchError):
                    self._failed(url, known)
                elif known is not None:
                    cached += 1
                    self.report.from_cache += known == "cache"
                elif self._check:
                    self.report.absent += 1
                    self._progress.advance(1, outcome="absent")
                    self._note(url, "not on this machine")
                elif self._has_room():
                    yield url
                else:
                    self._no_room(url)
                    self._progress.advance(1, outcome="no room")
            if cached:
                self.report.cached += cached
                self._progress.advance(cached, outcome="here already")

    def _has_room(self) -> bool:
        """Whether the cache would keep another image.

        The cache's number of bytes may be too high. So its files are recounted before the first
        image is fetched, and before the cache is reported as full.
        """
        engine = self._fetch._open_engine()  # noqa: SLF001 - for this package only
        if not self._recounted:
            engine.recount()
            self._recounted = True
        if engine.has_room:
            return True
        if not self._seen_full:
            engine.recount()
            self._seen_full = True
        return engine.has_room

    def _count_not_kept(self, fetched: Sequence[str]) -> None:
        if self._fetch.stats().not_kept > self._not_kept:
            for url, known in zip(fetched, self._fetch.cached(fetched), strict=True):
                if known is not True:
                    self._no_room(url)

    def _no_room(self, url: str) -> None:
        self.report.no_room += 1
        self._list(url)

    def _batches(self, inputs: Iterable[Input], reading: ReadOptions) -> Iterator[Sequence[str]]:
        for source in inputs:
            for batch in read(source, reading, self._progress):
                self.report.invalid += len(batch.rejected)
                for rejected in batch.rejected:
                    record = f"{source.shown}, record {rejected.number}"
                    self.report.failures.note(record, rejected.reason)
                texts = [url.decode() for url in batch.urls]
                for begin in range(0, len(texts), _BATCH):
                    yield texts[begin : begin + _BATCH]

    def _failed(self, url: str, error: FetchError) -> None:
        kind = kind_of(error)
        if kind in ("not_mirrored", "flagged"):
            setattr(self.report, kind, getattr(self.report, kind) + 1)
        else:
            kind = "failed"
            self.report.failed += 1
        self._progress.advance(1, outcome=kind.replace("_", " "))
        self._note(url, reason(error))

    def _note(self, url: str, why: str) -> None:
        self.report.failures.note(shown(url), why)
        self._list(url)

    def _list(self, url: str) -> None:
        if self._lacking is not None:
            self._lacking.write(f"{url}\n")
