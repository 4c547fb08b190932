"""Commits of rows that depend on what the catalog says: each follows the version that they rest on.

A writer derives rows from the version that it knows and commits them as the next one. When another
writer's commit comes first, it reads that commit, derives its rows again, and retries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import Index
from mirror.catalog.row import Row

_ATTEMPTS: Final = 10


async def commit_optimistically(
    attempt: Callable[[], Awaitable[bool]],
    refresh: Callable[[], Awaitable[None]],
    attempts: int = _ATTEMPTS,
) -> bool:
    """Retry a conditional commit until no other writer's commit comes first.

    Args:
        attempt: commits directly after the known version; returns False, with nothing committed,
            when another commit has come first.
        refresh: reads what the other writers have committed. It is called after each attempt that
            failed, the last one included.
        attempts: at most.

    Returns:
        False when others came first in every attempt.
    """
    for _ in range(attempts):
        if await attempt():
            return True
        await refresh()
    return False


async def with_carried_sources(catalog: Catalog, index: Index, rows: Iterable[Row]) -> list[Row]:
    """Rows without a source take over the source of the row that they supersede.

    Args:
        catalog: asked for the sources; that reads all of it, so only when there are any to carry.
        index: of the version after which the rows are committed.
        rows: at most one for each URL.
    """
    rows = list(rows)
    unsourced = [
        row.url_md5
        for row in rows
        if row.source.url is None
        and (prior := index.sighting(row.url_md5)) is not None
        and prior.sourced
    ]
    if not unsourced:
        return rows
    carried = await catalog.sources_of(unsourced)
    return [row._replace(source=carried.get(row.url_md5, row.source)) for row in rows]
