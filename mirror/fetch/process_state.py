"""The state of a fetcher in one process: an engine, open streams, and the counts of both.

A forked child makes its own state, and never touches that of its parent.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

from mirror.fetch.engine import Engine
from mirror.fetch.statistics import FetchStats
from mirror.fetch.stream import FetchStream

OnStats = Callable[[FetchStats], object]


class ProcessState:
    """A fetcher's life in one process. Safe for threads.

    Attributes:
        pid: the process that made it.
        engine: the open engine; None before the first use and after `close`.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.engine: Engine | None = None
        self._mutex = threading.Lock()
        self._streams: dict[FetchStream, OnStats | None] = {}
        self._counts: Counter[str] = Counter()  # of streams that have ended
        self._waited = 0.0
        self._engines: list[Engine] = []
        self._closed_engines = FetchStats()
        self._engines_reported = FetchStats()
        self._finalizer: weakref.finalize[..., Any] | None = None

    def adopt(self, engine: Engine, owner: object) -> None:
        """Use an engine, and close it with its owner or at the end of the process.

        Closing loses no image that has come: the mirror thread writes each one as it arrives.
        """
        with self._mutex:
            self._finalizer = weakref.finalize(owner, _close, engine, self.pid)
            self._engines.append(engine)
            self.engine = engine

    def add(self, stream: FetchStream, on_stats: OnStats | None) -> None:
        """Count a stream from now on."""
        with self._mutex:
            if on_stats is not None and not any(self._streams.values()):
                # Earlier engine counts belong to streams that report nothing.
                self._engines_reported = self._engine_stats()
            self._streams[stream] = on_stats

    def report(self, stream: FetchStream) -> None:
        """Call a stream's `on_stats` with the statistics since its last call, if it has one.

        The engines count for all streams together. Whichever stream reports first gets those counts,
        so that the sum over all streams is right.
        """
        on_stats = self._streams[stream]
        if on_stats is None:
            return
        with self._mutex:
            taken, engines = stream.stats, self._engine_stats()
            news = (taken - stream.reported) + (engines - self._engines_reported)
            stream.reported, self._engines_reported = taken, engines
        on_stats(news)

    def remove(self, stream: FetchStream) -> None:
        """Report a stream for the last time, and keep its counts."""
        self.report(stream)
        with self._mutex:
            del self._streams[stream]
            self._counts.update(stream.counts)
            self._waited += stream.waited

    def stats(self) -> FetchStats:
        with self._mutex:
            values: dict[str, Any] = self._counts
            ended = FetchStats(**values, waited=self._waited)
            return sum((stream.stats for stream in self._streams), ended + self._engine_stats())

    def _engine_stats(self) -> FetchStats:
        open_engines = (FetchStats(**engine.counts()) for engine in self._engines)
        return sum(open_engines, self._closed_engines)

    def close(self) -> None:
        with self._mutex:  # another thread may close it, too, or open the next engine
            engine, finalizer = self.engine, self._finalizer
            self.engine = self._finalizer = None
        if engine is None or finalizer is None:
            return
        finalizer()
        with self._mutex:
            self._engines.remove(engine)
            self._closed_engines += FetchStats(**engine.counts())


def _close(engine: Engine, pid: int) -> None:
    if os.getpid() == pid:
        engine.close()
