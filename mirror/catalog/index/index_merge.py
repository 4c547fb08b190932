"""The columns of an index after more rows of the catalog are merged into it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.index.index_columns import (
    OBJECT_COLUMNS,
    OK_CODE,
    PIECE,
    SIGHTING_COLUMNS,
    Batch,
    ColumnSelection,
)
from mirror.catalog.index.sorted_keys import last_of_each, positions_of


@dataclass(frozen=True)
class IndexMerge:
    """An index and the rows to merge into it.

    Attributes:
        column: gives a column of the index by its table and name. Called for each pass, so that the
            pages of a mapped column can go between two passes.
        new: the rows, which have the columns of both tables.
    """

    column: Callable[[str, str], NDArray[Any]]
    new: Batch

    def sightings(self) -> Iterator[tuple[str, ColumnSelection]]:
        """Name and content of each column of the sightings: the latest row of each URL."""
        latest, photo_rows, first_rows = self._latest()
        for name in SIGHTING_COLUMNS:
            positions = {"photo": photo_rows, "first_seen": first_rows}.get(name, latest)
            yield (
                name,
                ColumnSelection(self.column("sightings", name), self.new[name], positions),
            )

    def objects(self, sightings: Batch) -> Iterator[tuple[str, ColumnSelection]]:
        """Name and content of each column of the objects that live rows name.

        Args:
            sightings: the merged ones.
        """
        new = self.new
        ok = np.flatnonzero(new["verdict"] == OK_CODE)
        known = len(self.column("objects", "hash_hi"))
        hi, lo = (
            np.concatenate([self.column("objects", name), new[name][ok]])
            for name in ("hash_hi", "hash_lo")
        )
        order = np.lexsort((lo, hi))
        hashed = self._most_hashed(hi, lo, ok)
        hi, lo = hi[order], lo[order]
        last = last_of_each(hi, lo)
        naming = _naming_rows(hi[last], lo[last], sightings)
        kept = order[last][naming >= 0], hashed[naming >= 0]
        for keep in kept:
            from_new = keep >= known
            keep[from_new] = ok[keep[from_new] - known] + known
        rows, near_rows = kept
        # An object keeps the format of a live row: that of an older row may have been deleted.
        nothing = np.empty(0, sightings["format"].dtype)
        formats = ColumnSelection(sightings["format"], nothing, naming[naming >= 0])
        return (
            (
                name,
                formats
                if name == "format"
                else ColumnSelection(
                    self.column("objects", name), new[name], near_rows if name == "near" else rows
                ),
            )
            for name in OBJECT_COLUMNS
        )

    def _most_hashed(
        self, hi: NDArray[np.uint64], lo: NDArray[np.uint64], ok: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """For each content, sorted, the row to take its perceptual hash from.

        Rows of one content may lack the hash. Two decoders may give hashes that differ in a bit; the
        smaller one is taken, so that every machine takes the same.

        Args:
            hi: first halves of the content hashes of the index's objects, then of the new `ok` rows.
            lo: second halves.
            ok: positions of these rows among the new ones.

        Returns:
            Positions in `hi`, one for each distinct content.
        """
        near = np.concatenate([self.column("objects", "near"), self.new["near"][ok]])
        leading = near.view(np.uint8).reshape(len(near), near.dtype.itemsize)
        lacks = leading[:, 0] == 0
        bits = np.ascontiguousarray(leading[:, -32:]).view(">u8")[:, 0].astype(np.uint64)
        order = np.lexsort((bits, lacks, lo, hi))
        first = np.ones(len(order), bool)
        first[1:] = last_of_each(hi[order], lo[order])[:-1]
        return order[first]

    def _latest(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Positions in the index followed by the new rows, one for each URL, sorted by URL.

        Returns:
            The latest row of each URL. The row to take its photo from: the same one, or the latest
            that has a photo where that one has none, because a later sighting by a writer that
            knows only the MD5 must not erase the photo. The row to take `first_seen` from: the
            first of the rows without a break that say the same content as the latest.
        """
        hi, lo, seen_at = (
            np.concatenate([self.column("sightings", name), self.new[name]])
            for name in ("url_hi", "url_lo", "seen_at")
        )
        order = np.lexsort((seen_at, lo, hi))
        del seen_at  # each of these takes eight bytes a row
        hi = hi[order]
        lo = lo[order]
        last = last_of_each(hi, lo)
        first_rows = self._first_of_runs(order, last)
        del hi, lo
        latest = order[last]
        superseded = np.flatnonzero(~last)
        # Position in `latest` of the row that supersedes each: all rows before it are in `latest`,
        # except those that are superseded themselves.
        successors = superseded - np.arange(len(superseded))
        superseded = order[superseded]
        photos = self.column("sightings", "photo"), self.new["photo"]
        has_photo = ColumnSelection(*photos, superseded).whole() != 0
        erased = has_photo & (ColumnSelection(*photos, latest[successors]).whole() == 0)
        if not erased.any():
            return latest, latest, first_rows
        photo_rows = latest.copy()
        photo_rows[successors[erased]] = superseded[erased]  # by `seen_at`: the last one stays
        return latest, photo_rows, first_rows

    def _first_of_runs(self, order: NDArray[np.intp], last: NDArray[np.bool_]) -> NDArray[np.intp]:
        """For each URL the row of the least `first_seen` in the run of one content that ends its rows.

        Args:
            order: all rows by URL, and by time within a URL.
            last: marks the latest row of each URL, in that order.
        """
        first = order[last]
        several = ~last
        several[1:] |= ~last[:-1]
        rows, ends = order[several], last[several]
        if not len(rows):
            return first
        hi, lo, first_seen = (
            ColumnSelection(self.column("sightings", name), self.new[name], rows).whole()
            for name in ("hash_hi", "hash_lo", "first_seen")
        )
        starts = np.ones(len(rows), bool)
        starts[1:] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1]) | ends[:-1]
        run = np.cumsum(starts)
        # A row that a compaction wrote again says less than the index does: `first_seen` decides.
        by_time = np.lexsort((first_seen, run))
        first[several[last]] = rows[by_time[np.flatnonzero(starts)]][run[ends] - 1]
        return first


def _naming_rows(
    hash_hi: NDArray[Any], hash_lo: NDArray[Any], sightings: Batch
) -> NDArray[np.intp]:
    """For each object the position of a live `ok` row that names it, or -1.

    gc may delete the objects that no such row names: nothing relies on them.
    """
    rows = np.flatnonzero(sightings["verdict"] == OK_CODE)
    hi, lo = sightings["hash_hi"][rows], sightings["hash_lo"][rows]
    order = np.lexsort((lo, hi))
    hi, lo, rows = hi[order], lo[order], rows[order]
    naming = np.full(len(hash_hi), -1, np.intp)
    for begin in range(0, len(hash_hi), PIECE):
        piece = slice(begin, begin + PIECE)
        at = positions_of(hash_hi[piece], hash_lo[piece], hi, lo)
        found = np.flatnonzero(at >= 0)
        naming[begin + found] = rows[at[found]]
    return naming
