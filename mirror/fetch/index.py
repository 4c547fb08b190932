"""The index that a fetcher looks URLs up in."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from mirror.catalog.index import Index
from mirror.catalog.reading import read_index, read_local_index
from mirror.config import Settings


def index_of(settings: Settings, *, offline: bool) -> Index:
    """The mirror's index: of its newest catalog, or as this machine last read it.

    Raises:
        MirrorError: there is no mirror, it cannot be read, or (offline) it never was.
    """
    if offline:
        return read_local_index(settings)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return read_index(settings)[1]
    with ThreadPoolExecutor(1) as pool:  # this thread's loop runs; the reading needs one of its own
        return pool.submit(read_index, settings).result()[1]
