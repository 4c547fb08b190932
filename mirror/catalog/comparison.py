"""One listing of the objects against the catalog: no object is opened, none is asked for alone.

Both are in the order of keys, and are compared a part of the key space at a time: what is held in
memory is a part of the catalog and a page of the listing.
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
from mirror.catalog.objects import KeyRange, NamedObjects, named_objects, spans
from mirror.layout import OBJECTS, parse_object_key
from mirror.run.progress import Progress
from mirror.store.base import ObjectInfo, Store
from mirror.store.bounded_tasks import BoundedTasks

# Parts of the key space that are listed at once.
_SPANS_AT_ONCE: Final = 4
# URLs of an object's rows that a problem tells.
_URLS: Final = 64
# The size of what no page has shown.
_NOT_THERE: Final = -1


@dataclass
class ListedObjects:
    """What a listing showed.

    Attributes:
        compared: objects that live `ok` rows name.
        flagged: objects whose content only flagged rows have: somebody asked for them to be kept.
        orphaned: objects that no live row tells of.
        orphaned_bytes: of them.
        old_orphans: those of them that were written before the grace period began.
        strangers: keys below `objects/` that no mirror writes; they are among the orphaned.
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
        index: of a catalog that was read before the listing begins: an object may come before its
            row, but not after it.
        young_since: an orphan that was written later may be a running sync's.
        damage: is told of objects that are missing or have another size, span by span.
        unnamed: is told of each object that no live `ok` row names, and whether a flagged row has
            its content.
        stopped: whether to begin no other page.
    """

    store: Store
    index: Index
    young_since: datetime
    damage: Callable[[Iterator[Problem]], None]
    unnamed: Callable[[ObjectInfo, bool], None] = lambda _info, _flagged: None
    stopped: Callable[[], bool] = lambda: False
    progress: Progress = Progress()

    async def run(self) -> ListedObjects:
        """Raises: StoreError."""
        listed = ListedObjects()
        async with BoundedTasks(_SPANS_AT_ONCE) as window:
            for span in spans(self.index):
                await window.start(0, self._compare, span, listed)
        return listed

    async def _compare(self, span: KeyRange, listed: ListedObjects) -> None:
        named = await asyncio.to_thread(named_objects, self.index, span)
        ok = named.ok
        size = np.full(len(named), _NOT_THERE, np.int64)
        async for page in pages(self.store, span):
            parsed = [parse_object_key(info.key) for info in page]
            found = np.full(len(page), -1, np.intp)
            ours = [at for at, one in enumerate(parsed) if one is not None]
            found[ours] = named.find([one for one in parsed if one is not None])
            listed.strangers += len(page) - len(ours)
            known = found >= 0
            size[found[known]] = np.array([info.size for info in page], np.int64)[known]
            named_by_ok = np.zeros(len(page), bool)
            named_by_ok[known] = ok[found[known]]
            for at in np.flatnonzero(~named_by_ok).tolist():
                self._note_unnamed(page[at], listed, flagged=bool(known[at]))
            self.progress.advance(len(page))
            if self.stopped():
                return  # what was not listed is not missing
        listed.compared += int(np.count_nonzero(ok))
        self.damage(self._damage(named, size))

    def _note_unnamed(self, info: ObjectInfo, listed: ListedObjects, *, flagged: bool) -> None:
        if flagged:
            listed.flagged += 1
            listed.flagged_bytes += info.size
        else:
            listed.orphaned += 1
            listed.orphaned_bytes += info.size
            listed.old_orphans += info.last_modified < self.young_since
        self.unnamed(info, flagged)

    def _damage(self, named: NamedObjects, size: NDArray[np.int64]) -> Iterator[Problem]:
        wrong = named.ok & (size != named.size)
        for at in np.flatnonzero(wrong).tolist():
            if size[at] == _NOT_THERE:
                yield problem_of(self.index, named, at, "missing", "there is no such object")
            else:
                words = f"{size[at]:,} bytes, where the catalog says {named.size[at]:,}"
                yield problem_of(self.index, named, at, "mismatched", words)


def problem_of(index: Index, named: NamedObjects, at: int, kind: Kind, reason: str) -> Problem:
    """What is wrong with an object that the catalog names, with the rows that name it."""
    rows = named.rows_of(at)
    urls = index.url_md5s(rows[:_URLS]).tobytes()
    return Problem(kind, named.key(at), reason, len(rows), urls, int(named.size[at]))


async def pages(store: Store, span: KeyRange) -> AsyncIterator[list[ObjectInfo]]:
    """The listing of a part of the key space, a page at a time."""
    after, until = span.after, span.until
    while page := await store.list_page(OBJECTS, after):
        after = page[-1].key
        if until is None:
            yield page
        else:
            yield [info for info in page if info.key <= until]
            if after > until:
                return
