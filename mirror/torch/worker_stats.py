"""What the fetchers of a rank's workers have counted, summed up: each has its own, in its process."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

import numpy as np
from torch.utils.data import get_worker_info

from mirror.fetch.shared_memory import SharedFile
from mirror.fetch.statistics import FetchStats

# Rows for the process that trains and for so many workers; those beyond write over others' rows.
_ROWS: Final = 512
_NAMES: Final = tuple(one.name for one in fields(FetchStats) if one.name != "latencies")
_COLUMNS: Final = len(_NAMES) + len(FetchStats().latencies)


class WorkerStats:
    """A row of numbers for each worker, in which it writes what has come to its counts."""

    def __init__(self, file: SharedFile | None = None) -> None:
        self._file = file or SharedFile()
        if file is None:
            self._file.append(bytes(8 * _ROWS * _COLUMNS))
        self._rows = self._file.mapped(np.float64).reshape(_ROWS, _COLUMNS)

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkerStats, (self._file,)

    def add(self, stats: FetchStats) -> None:
        """So much has come to the counts of this process."""
        worker = get_worker_info()
        row = 0 if worker is None else worker.id % (_ROWS - 1) + 1
        scalars = [getattr(stats, name) for name in _NAMES]
        self._rows[row] += np.array([*scalars, *stats.latencies])

    def total(self) -> FetchStats:
        """Of all workers and this process."""
        numbers = self._rows.sum(axis=0).tolist()
        scalars = {
            name: number if name == "waited" else int(number)
            for name, number in zip(_NAMES, numbers, strict=False)
        }
        return FetchStats(**scalars, latencies=tuple(int(n) for n in numbers[len(_NAMES) :]))
