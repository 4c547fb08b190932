"""The index of one catalog version: the latest row of each URL, and the objects that rows name.

Its columns are sorted, by `url_md5` and by content hash, and usually mapped from a snapshot on
disk. So all processes share the memory, and none holds a dict of a million entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.index.index_columns import (
    FORMAT_NAMES,
    OBJECT_COLUMNS,
    OK_CODE,
    SIGHTING_COLUMNS,
    VERDICT_CODES,
    Batch,
    empty_columns,
    join_batches,
)
from mirror.catalog.index.index_merge import IndexMerge
from mirror.catalog.index.snapshot_files import (
    DAMAGED,
    SnapshotWriter,
    load_newest_snapshot,
    load_snapshot,
    locked_snapshots,
    map_column,
)
from mirror.catalog.index.sorted_keys import (
    halves,
    key_of_halves,
    keys_of_halves,
    last_of_each,
    position_of,
    positions_of,
)
from mirror.content.image import VERDICTS, Verdict
from mirror.errors import CatalogError
from mirror.system.lazy import lazy


class Sighting(NamedTuple):
    """What the latest row of a URL says.

    Attributes:
        content_hash: xxh3-128 of the bytes, 16 bytes.
        size: bytes.
        width: pixels, 0 where unknown.
        height: pixels, 0 where unknown.
        format: a name of `mirror.layout.FORMATS`.
        verdict: of the content.
        sourced: whether the row has the URL, from a dataset.
        seen_at: microseconds since 1970.
    """

    content_hash: bytes
    size: int
    width: int
    height: int
    format: str
    verdict: Verdict
    sourced: bool
    seen_at: int


class StoredObject(NamedTuple):
    """An object that live `ok` rows name.

    Attributes:
        sha256: of its bytes, 32 bytes.
        format: that its key has: a name of `mirror.layout.FORMATS`.
        hashed: whether a row has its perceptual hash.
    """

    sha256: bytes
    format: str
    hashed: bool


@dataclass(frozen=True)
class Index:
    """The latest row of every URL, and the objects that live rows name, at one catalog version.

    Attributes:
        version: of the catalog; -1 in an empty index.
        sightings: columns sorted by `url_md5`: `url_hi`, `url_lo`, `hash_hi`, `hash_lo`, `size`,
            `width`, `height`, `format` (a position in `FORMAT_NAMES`), `verdict` (a position in
            `VERDICTS`), `sourced`, `seen_at`, `first_seen` (of the first row of the URL since when
            its content is the same), `photo` (a `photo_key`, 0 where no row has the URL).
        objects: columns sorted by content hash: `hash_hi`, `hash_lo`, `sha256`, `format` (of one of
            the live `ok` rows that name it), `near` (the stored perceptual hash, zeros if unknown).
        files: the catalog's data files that it was built from.
        path: the snapshot that it is mapped from; None when it is in memory.
        ignored: how many rows of each data file do not count, where some do not (`catalog.row`).
    """

    version: int
    sightings: Batch = field(repr=False)
    objects: Batch = field(repr=False)
    files: frozenset[str] = field(default=frozenset(), repr=False)
    path: Path | None = None
    ignored: dict[str, int] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """A snapshot crosses processes as its path, an index in memory as its columns."""
        if self.path is not None:
            return _reopen, (self.path,)
        columns = self.sightings, self.objects
        return Index, (self.version, *columns, self.files, None, self.ignored)

    @classmethod
    def empty(cls) -> Index:
        return cls(-1, empty_columns(SIGHTING_COLUMNS), empty_columns(OBJECT_COLUMNS))

    @classmethod
    def load(cls, folder: Path) -> Index:
        """Map the newest readable snapshot in `folder`; an empty index where there is none."""
        snapshot = load_newest_snapshot(folder)
        return cls.empty() if snapshot is None else cls(*snapshot)

    def __len__(self) -> int:
        return len(self.sightings["url_hi"])

    @lazy
    def _urls(self) -> tuple[memoryview, memoryview]:
        return self.sightings["url_hi"].data, self.sightings["url_lo"].data

    @lazy
    def _hashes(self) -> tuple[memoryview, memoryview]:
        return self.objects["hash_hi"].data, self.objects["hash_lo"].data

    def sighting(self, url_md5: bytes) -> Sighting | None:
        """The latest row of a URL, or None when the mirror has never seen it."""
        columns = self.sightings
        at = position_of(*self._urls, url_md5)
        if at < 0:
            return None
        return Sighting(
            key_of_halves(int(columns["hash_hi"][at]), int(columns["hash_lo"][at])),
            int(columns["size"][at]),
            int(columns["width"][at]),
            int(columns["height"][at]),
            FORMAT_NAMES[columns["format"][at]],
            VERDICTS[columns["verdict"][at]],
            bool(columns["sourced"][at]),
            int(columns["seen_at"][at]),
        )

    def find(self, digests: NDArray[np.uint8] | bytes) -> NDArray[np.intp]:
        """Positions in `sightings` of many URLs at once.

        Args:
            digests: the URLs' MD5s: (n, 16) bytes.

        Returns:
            (n,) positions, -1 for each URL that the mirror has never seen.
        """
        hi, lo = halves(digests)
        # In the index's order, so that one search begins where the last one has left the caches.
        order = np.argsort(hi)
        found = np.empty(len(hi), np.intp)
        columns = self.sightings["url_hi"], self.sightings["url_lo"]
        found[order] = positions_of(hi[order], lo[order], *columns)
        return found

    def find_photos(self, keys: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Positions in `sightings` of the best sighting of each photo.

        An `ok` sighting is better than a flagged one, then a later one is better, then the one with
        the smaller `url_md5`.

        Args:
            keys: (n,) of `photo_key`.

        Returns:
            (n,) positions, -1 for a photo that no row's `source_url` has, and for key 0.
        """
        photos, best = self._photos
        keys = np.asarray(keys, np.uint64)  # with mixed kinds NumPy would compare floats
        at = np.searchsorted(photos, keys)
        found = np.full(len(keys), -1, np.intp)
        inside = np.flatnonzero(at < len(photos))
        known = inside[photos[at[inside]] == keys[inside]]
        found[known] = best[at[known]]
        return found

    @lazy
    def _photos(self) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
        """The known photos, sorted by key, and the position of each one's best sighting."""
        at = np.flatnonzero(self.sightings["photo"])
        photos = self.sightings["photo"][at]
        flagged = self.sightings["verdict"][at] != OK_CODE
        # The sort is stable: of two equally good sightings the smaller `url_md5` stays first.
        order = np.lexsort((-self.sightings["seen_at"][at], flagged, photos))
        photos = photos[order]
        first = np.ones(len(photos), bool)
        first[1:] = photos[1:] != photos[:-1]
        return photos[first], at[order[first]]

    def find_contents(self, hashes: NDArray[np.uint8] | bytes) -> NDArray[np.intp]:
        """Positions in `sightings` of one row of each content, an `ok` one if there is any.

        Args:
            hashes: content hashes: (n, 16) bytes.

        Returns:
            (n,) positions, -1 for each content that no row has.
        """
        hi, lo = halves(hashes)
        known_hi, known_lo, best = self._by_content
        found = positions_of(hi, lo, known_hi, known_lo)
        found[found >= 0] = best[found[found >= 0]]
        return found

    @lazy
    def _by_content(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.intp]]:
        """Both halves of all content hashes, sorted, and the position of each one's best row."""
        hi, lo = self.sightings["hash_hi"], self.sightings["hash_lo"]
        order = np.lexsort((self.sightings["verdict"] == OK_CODE, lo, hi))
        order = order[last_of_each(hi[order], lo[order])]
        return hi[order], lo[order], order

    def content_hashes(self, at: NDArray[np.intp]) -> NDArray[np.uint8]:
        """(n, 16) bytes: the content hashes of the rows at n positions, none of them -1."""
        return keys_of_halves(self.sightings["hash_hi"][at], self.sightings["hash_lo"][at])

    def url_md5s(self, at: NDArray[np.intp]) -> NDArray[np.uint8]:
        """(n, 16) bytes: the MD5s of the URLs of the rows at n positions, none of them -1."""
        return keys_of_halves(self.sightings["url_hi"][at], self.sightings["url_lo"][at])

    def object_sha256(self, content_hash: bytes) -> bytes | None:
        """SHA-256 of an object that a live row names, or None when no row does."""
        at = position_of(*self._hashes, content_hash)
        return None if at < 0 else self.objects["sha256"][at].tobytes()

    def object_sha256s(self, at: NDArray[np.intp]) -> bytes:
        """SHA-256 of the objects of the `ok` rows at n positions, end to end: 32 n bytes."""
        hi, lo = self.sightings["hash_hi"][at], self.sightings["hash_lo"][at]
        objects = positions_of(hi, lo, self.objects["hash_hi"], self.objects["hash_lo"])
        return self.objects["sha256"][objects].tobytes()

    def stored_object(self, content_hash: bytes) -> StoredObject | None:
        """The object of a content that a live `ok` row names, or None when no row does.

        Where rows name one content under two formats, it is one of the objects that they name.
        """
        at = position_of(*self._hashes, content_hash)
        if at < 0:
            return None
        objects = self.objects
        return StoredObject(
            objects["sha256"][at].tobytes(),
            FORMAT_NAMES[objects["format"][at]],
            objects["near"][at].tobytes()[0] != 0,
        )

    def flagged_contents(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
        """Contents that rows judge blank, corrupt or no image: (n,) each, sorted by hash.

        Returns:
            Both halves of the content hashes, and when the latest of those rows were seen.
        """
        verdict = self.sightings["verdict"]
        at = np.flatnonzero((verdict != OK_CODE) & (verdict != VERDICT_CODES["placeholder"]))
        hi, lo, seen_at = (self.sightings[name][at] for name in ("hash_hi", "hash_lo", "seen_at"))
        order = np.lexsort((seen_at, lo, hi))
        order = order[last_of_each(hi[order], lo[order])]
        return hi[order], lo[order], seen_at[order]

    def latest_seen_at(self) -> int:
        """The greatest `seen_at` of all rows; 0 in an empty index."""
        return int(self.sightings["seen_at"].max(initial=0))

    def contents_judged(self, *verdicts: Verdict) -> set[bytes]:
        """Content hashes of the rows that have one of these verdicts."""
        codes = [VERDICT_CODES[verdict] for verdict in verdicts]
        at = np.flatnonzero(np.isin(self.sightings["verdict"], codes))
        hi, lo = self.sightings["hash_hi"][at], self.sightings["hash_lo"][at]
        return {key_of_halves(int(high), int(low)) for high, low in zip(hi, lo, strict=True)}

    def contents_under_many_urls(self, least: int) -> Iterator[tuple[bytes, NDArray[np.intp]]]:
        """Each content that `least` or more `ok` rows name, with the positions of these rows."""
        ok = np.flatnonzero(self.sightings["verdict"] == OK_CODE)
        return self._by_hash(ok, least)

    def ok_rows_of_placeholders(self) -> Iterator[tuple[bytes, NDArray[np.intp]]]:
        """Each content that a row judges a placeholder, with the positions of its `ok` rows if any."""
        verdict = self.sightings["verdict"]
        flagged = np.flatnonzero(verdict == VERDICT_CODES["placeholder"])
        hi, lo = self.sightings["hash_hi"], self.sightings["hash_lo"]
        order = flagged[np.lexsort((lo[flagged], hi[flagged]))]
        ok = np.flatnonzero(verdict == OK_CODE)
        known = positions_of(hi[ok], lo[ok], hi[order], lo[order]) >= 0
        return self._by_hash(ok[known], 1)

    def _by_hash(
        self, rows: NDArray[np.intp], least: int
    ) -> Iterator[tuple[bytes, NDArray[np.intp]]]:
        hi, lo = self.sightings["hash_hi"][rows], self.sightings["hash_lo"][rows]
        order = np.lexsort((lo, hi))
        hi, lo, rows = hi[order], lo[order], rows[order]
        ends = np.flatnonzero(last_of_each(hi, lo)) + 1
        counts = np.diff(ends, prepend=0)
        for end, count in zip(ends[counts >= least], counts[counts >= least], strict=True):
            yield key_of_halves(int(hi[end - 1]), int(lo[end - 1])), rows[end - count : end]

    def merged(
        self,
        new: Sequence[Batch],
        version: int,
        files: frozenset[str],
        folder: Path | None = None,
        *,
        rejected: Path | None = None,
        ignored: Mapping[str, int] = {},
    ) -> Index:
        """This index with more rows of the catalog.

        Several processes may merge in one folder at once: one writes, the others wait and take its
        snapshot if that has all their rows. A snapshot is only a cache. Where none can be written
        (no permission, no room, another writer that does not end) the result is in memory.

        Args:
            new: the rows; the batches are empty afterwards.
            version: the catalog's version that has them all.
            files: that version's data files.
            folder: where to write the result as a snapshot, which is then mapped and replaces older
                ones there; None keeps it in memory. It is written a column at a time: at ten
                million rows a second copy of all columns would not fit.
            rejected: a snapshot there of another catalog, which has the same files and more if the
                catalog was rolled back.
            ignored: how many rows of each new data file do not count.
        """
        ignored = {f: n for f, n in {**self.ignored, **ignored}.items() if f in files}
        merge = IndexMerge(self._column, join_batches(new))
        if folder is not None:
            with suppress(OSError, NotImplementedError), locked_snapshots(folder):
                kept = Index.load(folder)
                newer = files and files <= kept.files and version <= kept.version
                if newer and kept.path != rejected:
                    return kept
                with SnapshotWriter(folder) as writer:
                    writer.write("sightings", merge.sightings())
                    writer.write("objects", merge.objects(writer.map_sightings()))
                    return Index(*writer.finish(version, files, ignored))
        if not new:
            return Index(version, self.sightings, self.objects, files, ignored=ignored)
        sightings = {name: selection.whole() for name, selection in merge.sightings()}
        objects = {name: selection.whole() for name, selection in merge.objects(sightings)}
        return Index(version, sightings, objects, files, ignored=ignored)

    def _column(self, table: str, name: str) -> NDArray[Any]:
        """A column for one pass, mapped again, so that the pages it touches go with it."""
        if self.path is not None:
            # Another process may have replaced the snapshot; the columns mapped before still work.
            with suppress(OSError, ValueError):
                return map_column(self.path, table, name)
        return (self.sightings if table == "sightings" else self.objects)[name]


def _reopen(snapshot: Path) -> Index:
    """Map this snapshot, or a later one that has replaced it."""
    with suppress(*DAMAGED):
        return Index(*load_snapshot(snapshot))
    index = Index.load(snapshot.parent)
    if index.path is None:
        raise CatalogError(
            f"The snapshot of the index at {snapshot} is gone; keep state.dir where all processes "
            "of a training can read it."
        )
    return index
