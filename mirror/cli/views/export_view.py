"""What is said of an export while it runs."""

from __future__ import annotations

from mirror.cli import output
from mirror.cli.progress import Meter
from mirror.dataset.export import ExportObserver
from mirror.dataset.formats.mongo import Break


class ExportProgress(ExportObserver):
    """Documents, of about how many."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._total: int | None = None
        self._documents = 0

    def counted(self, documents: int | None) -> None:
        self._total = documents
        self._meter.begin(documents)

    def written(self, documents: int) -> None:
        self._documents += documents
        self._meter.moved(documents, self._line)

    def broke(self, what: Break) -> None:
        self._meter.say(str(what))

    def _line(self, seconds: float) -> str:
        rate = self._documents / seconds
        of = left = ""
        if self._total is not None:
            of = f" of {self._total:,}"
            left = f", {output.duration(max(0, self._total - self._documents) / rate)} left"
        return f"{self._documents:,}{of} documents, {rate:,.0f}/s{left}"
