"""What is said of a sync while it runs."""

from __future__ import annotations

from collections import Counter

from mirror.cache.scan import Entry
from mirror.cli import output
from mirror.cli.progress import Meter
from mirror.sync.plan import SyncPlan
from mirror.sync.run_sync import SyncObserver
from mirror.sync.sync_report import SyncReport


class SyncProgress(SyncObserver):
    """Bytes; files and what became of them beside. There is no bar before there is a plan."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def planned(self, plan: SyncPlan, report: SyncReport) -> None:
        if not plan.order or report.dry_run:
            return
        # Here, because a run whose state turns out to be damaged plans once more.
        self._outcomes: Counter[str] = Counter()
        self._bytes = 0
        self._files, self._total = len(plan.order), plan.pending_bytes
        self._meter.begin(
            self._total,
            f"{plan.scanned:,} files scanned; {self._files:,} to read ({output.size(self._total)})",
        )

    def done(self, entry: object, outcome: str) -> None:
        assert isinstance(entry, Entry)
        self._outcomes[outcome] += 1
        self._bytes += entry.identity.size
        self._meter.moved(entry.identity.size, self._line, self._beside)

    def warned(self, sentence: str) -> None:
        self._meter.say(sentence, "warning")

    def _beside(self) -> tuple[str, str]:
        failed = f" failed {self._outcomes['failed']:,}" if self._outcomes["failed"] else ""
        return (
            f"{self._outcomes.total():,}/{self._files:,} files",
            f"dup {self._outcomes['duplicate']:,} flagged {self._outcomes['flag']:,}{failed}",
        )

    def _line(self, seconds: float) -> str:
        rate = self._bytes / seconds
        left = (self._total - self._bytes) / rate if rate else 0.0
        counts = ", ".join(f"{name} {n:,}" for name, n in sorted(self._outcomes.items()))
        return (
            f"{self._outcomes.total():,}/{self._files:,} files, {output.size(self._bytes)}, "
            f"{output.size(rate)}/s, {output.duration(left)} left ({counts})"
        )
