"""What the fetchers of a rank's workers have counted, summed up: each has its own, in its process."""

from __future__ import annotations

import os
from dataclasses import astuple, fields
from typing import Any, Final

import numpy as np
from torch.utils.data import get_worker_info

from mirror.fetch.shared import SharedFile
from mirror.fetch.statistics import FetchStats

# Rows for the process that trains and for so many workers; those beyond write over others' rows.
_ROWS: Final = 512
_SCALARS: Final = len(fields(FetchStats)) - 1
_COLUMNS: Final = _SCALARS + len(FetchStats().latencies)


class WorkerStats:
    """A row of numbers for each worker, in which it writes what has come to its counts."""

    def __init__(self, file: SharedFile | None = None) -> None:
        self._file = file or SharedFile()
        if file is None:
            self._file.append(bytes(8 * _ROWS * _COLUMNS))
        self._rows = self._file.mapped(np.float64).reshape(_ROWS, _COLUMNS)
        self._told = os.getpid(), FetchStats()

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkerStats, (self._file,)

    def tell(self, stats: FetchStats) -> None:
        """The counts of this process's fetcher, as they are now."""
        process, before = self._told
        if process != os.getpid():  # what was told before a fork is another process's
            before = FetchStats()
        self._told = os.getpid(), stats
        worker = get_worker_info()
        row = 0 if worker is None else worker.id % (_ROWS - 1) + 1
        *scalars, latencies = astuple(stats - before)
        self._rows[row] += np.array([*scalars, *latencies])

    def total(self) -> FetchStats:
        """Of all workers and this process."""
        numbers = self._rows.sum(axis=0).tolist()
        names = [one.name for one in fields(FetchStats)][:_SCALARS]
        scalars = {
            name: number if name == "waited" else int(number)
            for name, number in zip(names, numbers, strict=False)
        }
        return FetchStats(**scalars, latencies=tuple(int(n) for n in numbers[_SCALARS:]))
