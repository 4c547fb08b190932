"""What is said of a warming while it runs."""

from __future__ import annotations

from mirror.cli import output
from mirror.cli.progress import Meter
from mirror.fetch.prefetch import PrefetchObserver, PrefetchReport


class PrefetchProgress(PrefetchObserver):
    """Bytes of the datasets, of `total` if that is known, with the images beside them."""

    def __init__(self, meter: Meter, total: int | None) -> None:
        self._meter = meter
        meter.begin(total)

    def read(self, size: int) -> None:
        self._meter.moved(size)

    def done(self, report: PrefetchReport) -> None:
        def line(seconds: float) -> str:
            rate = output.size(report.bytes / seconds)
            return f"{report.urls:,} URLs read; {_counts(report)}, {rate}/s"

        self._meter.moved(0, line, lambda: ("", _counts(report)))


def _counts(report: PrefetchReport) -> str:
    """How many images are where."""
    text = f"{report.cached:,} here, {report.fetched:,} fetched ({output.size(report.bytes)})"
    lacking = report.lacking + report.no_room
    return f"{text}, {lacking:,} not" if lacking else text
