"""Compares one listing of the objects with the catalog, without a request for any single object.

Both are in the order of keys, and are compared a part of the key space at a time. Memory holds only
that part of the catalog and a page of the listing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.health import Kind, Problem
from mirror.catalog.index import Index
from mirror.catalog.objects import KeyRange, NamedObjects, key_ranges, named_objects
from mirror.layout import OBJECTS, parse_object_key
from mirror.run.progress import Progress
from mirror.store.base import ObjectInfo, Store
from mirror.store.bounded_tasks import BoundedTasks

# Parts of the key space that are listed at once.
_RANGES_AT_ONCE: Final = 4
# URLs that a problem lists of an object's rows.
_URLS: Final = 64
# The size of an object that no page of the listing has.
_NOT_THERE: Final = -1


@dataclass
class ListedObjects:
    """What a listing showed.

    Attributes:
        compared: objects that live `ok` rows name.
        flagged: objects that only flagged rows have: a user chose to keep them.
        flagged_bytes: their bytes.
        orphaned: objects that no live row has.
        orphaned_bytes: their bytes.
        old_orphans: orphaned objects that were written before the grace period began.
        strangers: keys below `objects/` that no mirror writes; they count as orphaned too.
    """

    compared: int = 0
    flagged: int = 0
    flagged_bytes: int = 0
    orphaned: int = 0
    orphaned_bytes: int = 0
    old_orphans: int = 0
    strangers: int = 0


@dataclass
class Comparison:
    """Compares a listing with an index.

    Attributes:
        store: the mirror's.
        index: of the catalog, read before the listing begins: a writer puts an object before its
            row, so every object of an older index is listed.
        young_since: an orphan that was written later may belong to a running sync.
        on_damage: called for each part of the key space with the objects that are missing or have
            another size.
        on_unnamed: called for each object that no live `ok` row names, with whether a flagged row has
            its content.
        stopped: returns whether to stop before the next page.
    """

    store: Store
    index: Index
    young_since: datetime
    on_damage: Callable[[Iterator[Problem]], None]
    on_unnamed: Callable[[ObjectInfo, bool], None] = lambda _info, _flagged: None
    stopped: Callable[[], bool] = lambda: False
    progress: Progress = Progress()

    async def run(self) -> ListedObjects:
        """Compare everything. Raises: StoreError."""
        listed = ListedObjects()
        async with BoundedTasks(_RANGES_AT_ONCE) as window:
            for key_range in key_ranges(self.index):
                await window.start(0, self._compare, key_range, listed)
        return listed

    async def _compare(self, key_range: KeyRange, listed: ListedObjects) -> None:
        named = await asyncio.to_thread(named_objects, self.index, key_range)
        ok = named.ok
        size = np.full(len(named), _NOT_THERE, np.int64)
        async for page in pages(self.store, key_range):
            parsed = [parse_object_key(info.key) for info in page]
            found = np.full(len(page), -1, np.intp)
            ours = [at for at, key in enumerate(parsed) if key is not None]
            found[ours] = named.find([key for key in parsed if key is not None])
            listed.strangers += len(page) - len(ours)
            known = found >= 0
            size[found[known]] = np.array([info.size for info in page], np.int64)[known]
            named_by_ok = np.zeros(len(page), bool)
            named_by_ok[known] = ok[found[known]]
            for at in np.flatnonzero(~named_by_ok).tolist():
                self._note_unnamed(page[at], listed, flagged=bool(known[at]))
            self.progress.advance(len(page))
            if self.stopped():
                return  # an object that was not listed yet may be there
        listed.compared += int(np.count_nonzero(ok))
        self.on_damage(self._damage(named, size))

    def _note_unnamed(self, info: ObjectInfo, listed: ListedObjects, *, flagged: bool) -> None:
        if flagged:
            listed.flagged += 1
            listed.flagged_bytes += info.size
        else:
            listed.orphaned += 1
            listed.orphaned_bytes += info.size
            listed.old_orphans += info.last_modified < self.young_since
        self.on_unnamed(info, flagged)

    def _damage(self, named: NamedObjects, size: NDArray[np.int64]) -> Iterator[Problem]:
        wrong = named.ok & (size != named.size)
        for at in np.flatnonzero(wrong).tolist():
            if size[at] == _NOT_THERE:
                yield problem_of(self.index, named, at, "missing", "there is no such object")
            else:
                words = f"{size[at]:,} bytes, where the catalog says {named.size[at]:,}"
                yield problem_of(self.index, named, at, "mismatched", words)


def problem_of(index: Index, named: NamedObjects, at: int, kind: Kind, reason: str) -> Problem:
    """A problem of an object that the catalog names, with the rows that name it."""
    rows = named.rows_of(at)
    urls = index.url_md5s(rows[:_URLS]).tobytes()
    return Problem(kind, named.key(at), reason, len(rows), urls, int(named.size[at]))


async def pages(store: Store, key_range: KeyRange) -> AsyncIterator[list[ObjectInfo]]:
    """The listing of a part of the key space, a page at a time."""
    after, until = key_range.after, key_range.until
    while page := await store.list_page(OBJECTS, after):
        after = page[-1].key
        if until is None:
            yield page
        else:
            yield [info for info in page if info.key <= until]
            if after > until:
                return
