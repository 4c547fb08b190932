"""Adds perceptual hashes to the catalog, of contents that rows have none of.

A mirror that was made before the catalog had hashes, or without looking at pixels, lacks them. A full
verification reads every object anyway, so it computes what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from mirror.catalog.index import FORMAT_NAMES, OK_CODE, Index
from mirror.catalog.open_mirror import OpenMirror
from mirror.catalog.optimistic_commit import commit_optimistically, with_carried_sources
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.content.image import inspect

# Hashes that are committed together.
_TOGETHER: Final = 10_000


class MissingHashes:
    """Collects hashes of contents and commits them.

    Attributes:
        added: hashes that were committed.

    Args:
        mirror: the mirror.
        index: of its catalog.
        now: seconds since 1970.
    """

    def __init__(self, mirror: OpenMirror, index: Index, now: Callable[[], float]) -> None:
        self.added = 0
        self._mirror = mirror
        self._index = index
        self._now = now
        self._found: dict[bytes, bytes] = {}

    def lacks(self, content: bytes) -> bool:
        """Whether a content has live `ok` rows and none of its rows has a hash."""
        stored = self._index.stored_object(content)
        return stored is not None and not stored.hashed

    async def add(self, content: bytes, body: bytes) -> None:
        """Compute the hash of a content from its bytes, in a thread."""
        found = await asyncio.to_thread(inspect, body)
        if found.verdict == "ok" and found.near is not None:
            self._found[content] = found.near

    @property
    def are_many(self) -> bool:
        """Whether there are enough for a commit."""
        return len(self._found) >= _TOGETHER

    async def commit(self) -> None:
        """Commit what was collected, as new rows that repeat the latest row of one URL each.

        Raises:
            MirrorError: nothing was committed, and what was collected is dropped.
        """
        found, self._found = self._found, {}
        if not found:
            return
        index = self._index

        async def attempt() -> bool:
            nonlocal index
            rows = _rows(index, found, int(self._now() * 1e6))
            if not rows:
                return True
            rows = await with_carried_sources(self._mirror.catalog, index, rows)
            append = self._mirror.catalog.append_after
            if await asyncio.to_thread(append, index.version, rows) is None:
                return False
            self.added += len(rows)
            return True

        async def refresh() -> None:
            nonlocal index
            index = await self._mirror.index()

        await refresh()
        await commit_optimistically(attempt, refresh)


def _rows(index: Index, found: Mapping[bytes, bytes], now: int) -> list[Row]:
    """Rows that repeat what the latest row of a URL of each content says, with the hash."""
    contents = list(found)
    positions = index.find_contents(b"".join(contents))
    columns = index.sightings
    known = np.flatnonzero(positions >= 0)
    urls = index.url_md5s(positions[known])
    rows = []
    for number, at, url in zip(known.tolist(), positions[known].tolist(), urls, strict=True):
        content = contents[number]
        stored = index.stored_object(content)
        if stored is None or stored.hashed or columns["verdict"][at] != OK_CODE:
            continue
        row = Row(
            url.tobytes(), content, stored.sha256, int(columns["size"][at]),
            FORMAT_NAMES[columns["format"][at]], int(columns["width"][at]),
            int(columns["height"][at]), "ok", "", UNKNOWN_SOURCE,
            max(now, int(columns["seen_at"][at]) + 1), found[content],
        )  # fmt: skip
        rows.append(row)
    return rows
