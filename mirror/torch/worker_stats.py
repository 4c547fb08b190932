"""The fetch statistics of a rank: the sum over its workers, each of which has its own fetcher."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

import numpy as np
from torch.utils.data import get_worker_info

from mirror.fetch.shared_memory import SharedFile
from mirror.fetch.statistics import FetchStats

# One row for the training process, the others for workers. Beyond that, workers overwrite rows.
_ROWS: Final = 512
_NAMES: Final = tuple(count.name for count in fields(FetchStats) if count.name != "latencies")
_COLUMNS: Final = len(_NAMES) + len(FetchStats().latencies)


class WorkerStats:
    """A shared array with a row of counts for each worker; a worker adds to its own row only."""

    def __init__(self, file: SharedFile | None = None) -> None:
        self._file = file or SharedFile()
        if file is None:
            self._file.append(bytes(8 * _ROWS * _COLUMNS))
        self._rows = self._file.mapped(np.float64).reshape(_ROWS, _COLUMNS)

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkerStats, (self._file,)

    def add(self, stats: FetchStats) -> None:
        """Add to the counts of this process."""
        worker = get_worker_info()
        row = 0 if worker is None else worker.id % (_ROWS - 1) + 1
        scalars = [getattr(stats, name) for name in _NAMES]
        self._rows[row] += np.array([*scalars, *stats.latencies])

    def total(self) -> FetchStats:
        """The sum over all workers and the training process."""
        numbers = self._rows.sum(axis=0).tolist()
        scalars = {
            name: number if name == "waited" else int(number)
            for name, number in zip(_NAMES, numbers, strict=False)
        }
        return FetchStats(**scalars, latencies=tuple(int(n) for n in numbers[len(_NAMES) :]))
