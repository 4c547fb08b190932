"""`mirror status`: what the mirror holds, this machine's last runs, unsynced files, and costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np

from mirror.catalog.cost import epoch_usd, requests_usd, storage_usd_month, sync_estimate
from mirror.catalog.index import Index
from mirror.catalog.open_mirror import read_index
from mirror.config.settings import PriceSettings, Settings
from mirror.content.image import VERDICTS
from mirror.errors import MirrorError
from mirror.run.run_log import RunRecord
from mirror.sync.run_sync import SyncOptions, sync
from mirror.sync.state import FILE_NAME, State
from mirror.sync.sync_report import SyncReport

# The state keeps this many, which covers more than a month of hourly runs.
_RUNS: Final = 1000
_SHOWN_RUNS: Final = 5


@dataclass(frozen=True, slots=True)
class MirrorContents:
    """Counts over the latest row of each URL.

    Attributes:
        files: URLs that the mirror knows.
        verdicts: the number of URLs with each verdict.
        objects: distinct contents with an `ok` row.
        bytes: the size of these objects together.
        bytes_named: the size if each `ok` URL had its own object.
    """

    files: int
    verdicts: dict[str, int]
    objects: int
    bytes: int
    bytes_named: int

    @property
    def bytes_saved(self) -> int:
        """Bytes that are saved because equal contents are stored once."""
        return self.bytes_named - self.bytes


def contents_of(index: Index) -> MirrorContents:
    """Count an index's rows. Takes about 40 bytes of memory for each URL."""
    verdicts = np.bincount(index.sightings["verdict"], minlength=len(VERDICTS))
    ok = np.flatnonzero(index.sightings["verdict"] == VERDICTS.index("ok"))
    hi, lo = index.sightings["hash_hi"][ok], index.sightings["hash_lo"][ok]
    sizes = index.sightings["size"][ok]
    order = np.lexsort((lo, hi))
    hi, lo = hi[order], lo[order]
    first = np.ones(len(order), bool)
    first[1:] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    return MirrorContents(
        files=len(index),
        verdicts={name: int(n) for name, n in zip(VERDICTS, verdicts, strict=True)},
        objects=int(first.sum()),
        bytes=int(sizes[order[first]].sum()),
        bytes_named=int(sizes.sum()),
    )


@dataclass(frozen=True, slots=True)
class MonthlyCost:
    """Costs in US dollars by one provider's price list.

    Attributes:
        storage_month: storing all objects for a month.
        requests_month: the requests of this machine's runs since the month began.
        epoch: reading every `ok` image once over the internet.
        sync: at most, the requests to upload unsynced files; None where the cache was not scanned.
    """

    storage_month: float
    requests_month: float
    epoch: float
    sync: float | None


@dataclass(frozen=True)
class Status:
    """The result of `mirror status`.

    Attributes:
        url: where the mirror is.
        mirror_id: the mirror's id.
        created_at: when the mirror was made, as ISO 8601.
        catalog_version: of the Delta table; None while there is no catalog.
        ignored_rows: rows of the catalog that do not count, because they break its format.
        contents: counts over the catalog.
        prices: the price list that applies to this bucket: `s3` or `r2`.
        costs: by price list.
        runs: this machine's runs, the newest first; empty without a cache.
        pending: a sync's dry run; None where the cache was not scanned.
        not_looked: why the cache was not scanned; else empty.
    """

    url: str
    mirror_id: str
    created_at: str
    catalog_version: int | None
    ignored_rows: int
    contents: MirrorContents
    prices: str
    costs: dict[str, MonthlyCost]
    runs: list[RunRecord] = field(default_factory=list)
    pending: SyncReport | None = None
    not_looked: str = ""

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        pending = self.pending
        return {
            "url": self.url,
            "mirror_id": self.mirror_id,
            "created_at": self.created_at,
            "catalog_version": self.catalog_version,
            "ignored_rows": self.ignored_rows,
            "files": self.contents.files,
            "verdicts": self.contents.verdicts,
            "objects": self.contents.objects,
            "bytes": self.contents.bytes,
            "bytes_saved": self.contents.bytes_saved,
            "unsynced": None
            if pending is None
            else {
                "new": pending.new,
                "changed": pending.changed,
                "bytes": pending.estimate.bytes if pending.estimate else 0,
            },
            "last_runs": [
                {
                    "run_id": report["run_id"],
                    "started_at": _shown_time(run.started_at),
                    "seconds": round(run.seconds, 3),
                    "exit_status": run.exit_status,
                    "uploaded": report["uploaded"],
                    "failed": report["failed"],
                }
                for run, report in self.shown_runs()
            ],
            "prices": self.prices,
            "cost": {
                name: {
                    "storage_usd_month": round(cost.storage_month, 4),
                    "requests_usd_month": round(cost.requests_month, 4),
                    "epoch_usd": round(cost.epoch, 4),
                    "sync_usd": None if cost.sync is None else round(cost.sync, 4),
                }
                for name, cost in self.costs.items()
            },
        }

    def shown_runs(self) -> list[tuple[RunRecord, dict[str, Any]]]:
        """The last few runs, each with its report."""
        return [(run, msgspec.json.decode(run.report)) for run in self.runs[:_SHOWN_RUNS]]


def _shown_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def status(
    settings: Settings, *, scan: bool = True, now: Callable[[], float] = time.time
) -> Status:
    """Read the mirror's catalog and this machine's state, and scan the cache.

    Args:
        settings: where they are; the cache is optional.
        scan: scan the cache for unsynced files. It takes seconds for a million files.
        now: seconds since 1970.

    Raises:
        NotFound: there is no mirror.
        MirrorError: the mirror cannot be read.
    """
    root, index = read_index(settings)
    contents = contents_of(index)
    runs: list[RunRecord] = []
    pending, not_looked = None, "--no-scan"
    if not settings.cache.dir:
        not_looked = "no cache is configured"
    else:
        runs = _runs(settings)
        if scan:
            try:
                pending, not_looked = sync(settings, SyncOptions(dry_run=True)), ""
            except MirrorError as error:  # such as a disk that is not mounted
                not_looked = str(error)
    lists: dict[str, PriceSettings] = {"s3": settings.prices.s3, "r2": settings.prices.r2}
    sent = _requests_since(runs, _month_start(now()))
    files = 0 if pending is None else pending.new + pending.changed
    return Status(
        url=str(settings.bucket_url),
        mirror_id=root.id,
        created_at=root.created_at,
        catalog_version=index.version if index.version >= 0 else None,
        ignored_rows=sum(index.ignored.values()),
        contents=contents,
        prices="r2" if settings.price_list is settings.prices.r2 else "s3",
        costs={
            name: MonthlyCost(
                storage_month=storage_usd_month(contents.bytes, prices),
                requests_month=requests_usd(sent, prices),
                epoch=epoch_usd(contents.verdicts["ok"], contents.bytes_named, prices),
                sync=None
                if pending is None or pending.estimate is None
                else sync_estimate(
                    files, pending.estimate.bytes, prices, settings.sync.commit_rows, None
                ).request_usd,
            )
            for name, prices in lists.items()
        },
        runs=runs,
        pending=pending,
        not_looked=not_looked,
    )


def _runs(settings: Settings) -> list[RunRecord]:
    if not (settings.state_dir / FILE_NAME).exists():
        return []
    state = State(settings.state_dir)
    try:
        return state.runs.last(_RUNS)
    finally:
        state.close()


def _month_start(now: float) -> float:
    """The first second of the month in UTC, by which providers bill."""
    today = datetime.fromtimestamp(now, UTC)
    return datetime(today.year, today.month, 1, tzinfo=UTC).timestamp()


def _requests_since(runs: list[RunRecord], since: float) -> dict[str, int]:
    """Requests of the runs that began after `since`, by operation."""
    total: dict[str, int] = {}
    for run in runs:
        if run.started_at >= since:
            for name, number in msgspec.json.decode(run.report)["requests"].items():
                total[name] = total.get(name, 0) + number
    return total
