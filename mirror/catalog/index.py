"""A memory-mapped, sorted snapshot of the catalog, for look-ups.

One file a column, sorted by `url_md5`; a second, smaller table of the objects that live rows name,
sorted by content hash. About 67 bytes a sighting and 48 an object, shared by all processes that map
it; never a dict of a million entries. Sixteen-byte keys are kept as two big-endian 64-bit halves,
so that a search is numpy's on integers.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mirror.content.image import VERDICTS, Verdict
from mirror.errors import CatalogError
from mirror.layout import FORMATS
from mirror.system.lazy import lazy

# Bumped whenever the files of a snapshot change their meaning: an old snapshot is then built anew.
SNAPSHOT: Final = 2

# How long to wait for another process that is writing a snapshot: it may be stopped, or its disk be
# slow. Ten million rows take about twenty seconds.
LOCK_SECONDS: Final = 60.0

# A format in a batch is a position in these, and a verdict one in `VERDICTS`.
FORMAT_NAMES: Final = tuple(FORMATS)
FORMAT_CODES: Final = {name: code for code, name in enumerate(FORMAT_NAMES)}
VERDICT_CODES: Final = {name: code for code, name in enumerate(VERDICTS)}
_OK: Final = VERDICTS.index("ok")

Batch = dict[str, NDArray[Any]]


class Sighting(NamedTuple):
    """What the latest row of a URL says. `sourced`: a dataset has told where it comes from."""

    content_hash: bytes
    size: int
    width: int
    height: int
    format: str
    verdict: Verdict
    sourced: bool
    seen_at: int


_SIGHTING_COLUMNS: Final = {
    "url_hi": "u8",
    "url_lo": "u8",
    "hash_hi": "u8",
    "hash_lo": "u8",
    "size": "i8",
    "width": "i4",
    "height": "i4",
    "format": "u1",
    "verdict": "u1",
    "sourced": "?",
    "seen_at": "i8",
    "photo": "u8",
}
_OBJECT_COLUMNS: Final = {"hash_hi": "u8", "hash_lo": "u8", "sha256": "V32"}


@dataclass(frozen=True)
class Index:
    """The latest row of every URL, and the objects that live rows name, at one catalog version.

    `sightings` are sorted by `url_md5`, a column each: `url_hi`, `url_lo`, `hash_hi`, `hash_lo`,
    `size`, `width`, `height`, `format` (a position in `FORMAT_NAMES`), `verdict` (in `VERDICTS`),
    `sourced`, `seen_at`, `photo` (a `photo_key`, 0 where no row has told the URL). `files` are the
    catalog's data files that it was made from; `path` is where it is mapped from.
    """

    version: int
    sightings: Batch = field(repr=False)
    objects: Batch = field(repr=False)
    files: frozenset[str] = field(default=frozenset(), repr=False)
    path: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A snapshot crosses processes as its path, an index in memory as its arrays."""
        if self.path is not None:
            return _reopened, (self.path,)
        return Index, (self.version, self.sightings, self.objects, self.files)

    @classmethod
    def empty(cls) -> Index:
        return cls(
            -1,
            {name: np.empty(0, kind) for name, kind in _SIGHTING_COLUMNS.items()},
            {name: np.empty(0, kind) for name, kind in _OBJECT_COLUMNS.items()},
        )

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
        at = _find(*self._urls, url_md5)
        if at < 0:
            return None
        return Sighting(
            _joined(int(columns["hash_hi"][at]), int(columns["hash_lo"][at])),
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

        The best one is `ok` if any is, then the latest, then that of the smallest `url_md5`.

        Args:
            keys: (n,) of `photo_key`.

        Returns:
            (n,) positions, -1 for a photo that no row's `source_url` tells of, and for key 0.
        """
        photos, best = self._photos
        keys = np.asarray(keys, np.uint64)  # of mixed kinds NumPy would compare floats
        at = np.searchsorted(photos, keys)
        found = np.full(len(keys), -1, np.intp)
        inside = np.flatnonzero(at < len(photos))
        known = inside[photos[at[inside]] == keys[inside]]
        found[known] = best[at[known]]
        return found

    @lazy
    def _photos(self) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
        """The photos that are known, sorted by key, and the position of each one's best sighting."""
        at = np.flatnonzero(self.sightings["photo"])
        photos = self.sightings["photo"][at]
        flagged = self.sightings["verdict"][at] != _OK
        # Stable: of two that are equally good the first in the order of `url_md5` stays first.
        order = np.lexsort((-self.sightings["seen_at"][at], flagged, photos))
        photos = photos[order]
        first = np.ones(len(photos), bool)
        first[1:] = photos[1:] != photos[:-1]
        return photos[first], at[order[first]]

    def find_contents(self, hashes: NDArray[np.uint8] | bytes) -> NDArray[np.intp]:
        """Positions in `sightings` of one row of each content, an `ok` one if any is.

        Args:
            hashes: of the contents: (n, 16) bytes.

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
        """Both halves of all contents' hashes, sorted, and the position of each one's best row."""
        hi, lo = self.sightings["hash_hi"], self.sightings["hash_lo"]
        order = np.lexsort((self.sightings["verdict"] == _OK, lo, hi))
        order = order[last_of_each(hi[order], lo[order])]
        return hi[order], lo[order], order

    def content_hashes(self, at: NDArray[np.intp]) -> NDArray[np.uint8]:
        """(n, 16) bytes: the content hashes of the rows at n positions, none of them -1."""
        both = np.empty((len(at), 2), ">u8")
        both[:, 0], both[:, 1] = self.sightings["hash_hi"][at], self.sightings["hash_lo"][at]
        return both.view(np.uint8)

    def url_md5s(self, at: NDArray[np.intp]) -> NDArray[np.uint8]:
        """(n, 16) bytes: the MD5s of the URLs of the rows at n positions, none of them -1."""
        both = np.empty((len(at), 2), ">u8")
        both[:, 0], both[:, 1] = self.sightings["url_hi"][at], self.sightings["url_lo"][at]
        return both.view(np.uint8)

    def object_sha256(self, content_hash: bytes) -> bytes | None:
        """SHA-256 of an object that a live row names, or None when no row does."""
        at = _find(*self._hashes, content_hash)
        return None if at < 0 else self.objects["sha256"][at].tobytes()

    def contents_judged(self, *verdicts: Verdict) -> set[bytes]:
        """Content hashes of the rows that have one of these verdicts."""
        codes = [VERDICT_CODES[verdict] for verdict in verdicts]
        at = np.flatnonzero(np.isin(self.sightings["verdict"], codes))
        hi, lo = self.sightings["hash_hi"][at], self.sightings["hash_lo"][at]
        return {_joined(int(high), int(low)) for high, low in zip(hi, lo, strict=True)}

    def contents_under_many_urls(self, least: int) -> Iterator[tuple[bytes, list[bytes]]]:
        """`(content_hash, [url_md5, …])` of each content that `least` or more `ok` rows name."""
        ok = np.flatnonzero(self.sightings["verdict"] == _OK)
        hi, lo = self.sightings["hash_hi"][ok], self.sightings["hash_lo"][ok]
        order = np.lexsort((lo, hi))
        hi, lo = hi[order], lo[order]
        ends = np.flatnonzero(last_of_each(hi, lo)) + 1
        counts = np.diff(ends, prepend=0)
        for end, count in zip(ends[counts >= least], counts[counts >= least], strict=True):
            rows = ok[order[end - count : end]]
            url_hi, url_lo = self.sightings["url_hi"][rows], self.sightings["url_lo"][rows]
            urls = [_joined(int(h), int(w)) for h, w in zip(url_hi, url_lo, strict=True)]
            yield _joined(int(hi[end - 1]), int(lo[end - 1])), urls

    def merged(
        self,
        new: Sequence[Batch],
        version: int,
        files: frozenset[str],
        folder: Path | None = None,
    ) -> Index:
        """This index with more rows of the catalog.

        Args:
            new: the rows; the batches are empty afterwards.
            version: the catalog's version that they make up.
            files: that version's data files.
            folder: where to keep the result, which is then memory-mapped and takes the place of
                older snapshots there; None keeps it in memory. Written a column at a time: at ten
                million rows a second copy of all of them would not fit.

        Several processes may do this in one folder at once: one writes, the others wait and take
        what it wrote if all their rows are in it. A snapshot is only a cache: where none can be
        written (no permission, no room, another writer that does not end) the result is in memory.
        """
        rows = _joined_batches(new or [_no_rows()])
        if folder is not None:
            with suppress(OSError, NotImplementedError), _writing(folder):
                kept = Index.load(folder)
                if files and files <= kept.files and version <= kept.version:
                    return kept
                return self._written(rows, version, files, folder)
        if not new:
            return Index(version, self.sightings, self.objects, files)
        columns = {name: taken.whole() for name, taken in self._merged_sightings(rows)}
        objects = {name: taken.whole() for name, taken in self._merged_objects(rows, columns)}
        return Index(version, columns, objects, files)

    def _written(self, rows: Batch, version: int, files: frozenset[str], folder: Path) -> Index:
        with _Snapshot(folder) as snapshot:
            snapshot.write("sightings", self._merged_sightings(rows))
            columns = snapshot.load("sightings", _SIGHTING_COLUMNS)
            snapshot.write("objects", self._merged_objects(rows, columns))
            return snapshot.finished(version, files)

    def _merged_sightings(self, rows: Batch) -> Iterator[tuple[str, _Taken]]:
        latest, telling = self._latest(rows)
        for name in _SIGHTING_COLUMNS:
            keep = telling if name == "photo" else latest
            yield name, _Taken(self._column("sightings", name), rows[name], keep)

    def _merged_objects(self, rows: Batch, sightings: Batch) -> Iterator[tuple[str, _Taken]]:
        """Columns of the objects that live rows name: of those known, and of new rows' own."""
        ok = np.flatnonzero(rows["verdict"] == _OK)
        known = len(self._column("objects", "hash_hi"))
        hi, lo = (
            np.concatenate([self._column("objects", name), rows[name][ok]])
            for name in ("hash_hi", "hash_lo")
        )
        order = np.lexsort((lo, hi))
        hi, lo = hi[order], lo[order]
        last = last_of_each(hi, lo)
        keep = order[last][_named_by(hi[last], lo[last], sightings)]
        new = keep >= known
        keep[new] = ok[keep[new] - known] + known
        return (
            (name, _Taken(self._column("objects", name), rows[name], keep))
            for name in _OBJECT_COLUMNS
        )

    def _latest(self, new: Batch) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Positions in this index followed by `new`, one for each URL, sorted by URL.

        Returns:
            The latest row of each URL; and the row to take its photo from: the same, or where that
            one does not tell it the latest that does. A later sighting by somebody who knows only
            the MD5 must not make it forgotten.
        """
        hi, lo, seen_at = (
            np.concatenate([self._column("sightings", name), new[name]])
            for name in ("url_hi", "url_lo", "seen_at")
        )
        order = np.lexsort((seen_at, lo, hi))
        del seen_at  # each of these is eight bytes a row
        hi = hi[order]
        lo = lo[order]
        last = last_of_each(hi, lo)
        del hi, lo
        latest = order[last]
        superseded = np.flatnonzero(~last)
        # How many of the latest rows stand before each: all that do, but for those superseded.
        heirs = superseded - np.arange(len(superseded))
        superseded = order[superseded]
        photos = self._column("sightings", "photo"), new["photo"]
        told = _Taken(*photos, superseded).whole() != 0
        forgotten = told & (_Taken(*photos, latest[heirs]).whole() == 0)
        if not forgotten.any():
            return latest, latest
        telling = latest.copy()
        telling[heirs[forgotten]] = superseded[forgotten]  # in the order of seen_at: the last stays
        return latest, telling

    def _column(self, table: str, name: str) -> NDArray[Any]:
        """A column for one pass, mapped anew: the pages that it touches go when it goes."""
        if self.path is not None:
            # Another process may have replaced the snapshot; what is mapped already is still good.
            with suppress(OSError, ValueError):
                return _mapped(self.path, table, name)
        return (self.sightings if table == "sightings" else self.objects)[name]

    @classmethod
    def load(cls, folder: Path) -> Index:
        """The newest readable snapshot below `folder`, memory-mapped; empty when there is none.

        Another process may put a new one in the place of the one that is being read: each failure
        is followed by another look, and no snapshot is tried twice.
        """
        tried: set[str] = set()
        while (name := _newest(folder, tried)) is not None:
            try:
                return _load(folder / name)
            except (OSError, EOFError, ValueError, KeyError, TypeError, msgspec.DecodeError):
                tried.add(name)  # a damaged snapshot is only a cache: the catalog is read instead
        return cls.empty()


_LOCK: Final = ".lock"
_WRITING: Final = ".writing-"
_IS_SNAPSHOT: Final = re.compile(r"v(\d+)-\w+").fullmatch


def _newest(folder: Path, tried: set[str]) -> str | None:
    """Name of the snapshot of the latest version that was not tried yet."""
    try:
        names = set(os.listdir(folder)) - tried
    except OSError:
        return None
    found = [(int(match[1]), match[0]) for match in map(_IS_SNAPSHOT, names) if match]
    return max(found)[1] if found else None


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Holds a folder of snapshots for one writer; the lock goes with the process, however it ends.

    Raises:
        OSError: the folder cannot be written, or another writer has not ended in `LOCK_SECONDS`.
        NotImplementedError: its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / _LOCK, timeout=LOCK_SECONDS):
        yield


class _Snapshot:
    """A snapshot being written: it appears whole or not at all, and older ones then go.

    Only for who holds the folder. A name is never used twice, so that no reader takes one column
    from this snapshot and the next from another; and who has an older one mapped keeps it: the
    files live until they are unmapped.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clear(lambda name: name.startswith(_WRITING))  # of writers that were killed
        self._path = Path(tempfile.mkdtemp(prefix=_WRITING, dir=folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)

    def _clear(self, is_stale: Callable[[str], object]) -> None:
        for name in filter(is_stale, os.listdir(self._folder)):
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def write(self, table: str, columns: Iterable[tuple[str, _Taken]]) -> None:
        for name, taken in columns:
            with _file(self._path, table, name).open("wb") as file:
                header = {
                    "descr": np.lib.format.dtype_to_descr(taken.base.dtype),
                    "fortran_order": False,
                    "shape": (len(taken.positions),),
                }
                np.lib.format.write_array_header_1_0(file, header)
                for piece in taken.pieces():
                    file.write(piece.tobytes())

    def load(self, table: str, columns: Iterable[str]) -> Batch:
        return _load_table(self._path, table, columns)

    def finished(self, version: int, files: frozenset[str]) -> Index:
        meta = {"snapshot": SNAPSHOT, "version": version, "files": sorted(files)}
        (self._path / "meta.json").write_bytes(msgspec.json.encode(meta))
        target = self._folder / self._path.name.replace(_WRITING, f"v{version}-")
        self._path.rename(target)
        index = _load(target)
        self._clear(lambda name: _IS_SNAPSHOT(name) and name != target.name)
        return index


def _load(snapshot: Path) -> Index:
    """Raises: OSError, ValueError, KeyError, TypeError or DecodeError for a damaged snapshot."""
    meta = msgspec.json.decode((snapshot / "meta.json").read_bytes())
    if meta["snapshot"] != SNAPSHOT:
        raise ValueError("a snapshot of another version of dataset-mirror")
    return Index(
        meta["version"],
        _load_table(snapshot, "sightings", _SIGHTING_COLUMNS),
        _load_table(snapshot, "objects", _OBJECT_COLUMNS),
        frozenset(meta["files"]),
        snapshot,
    )


def _reopened(snapshot: Path) -> Index:
    """The index that was mapped from this snapshot, or a later one that has taken its place."""
    with suppress(OSError, ValueError, KeyError, TypeError, msgspec.DecodeError):
        return _load(snapshot)
    index = Index.load(snapshot.parent)
    if index.path is None:
        raise CatalogError(
            f"The snapshot of the index at {snapshot} is gone; keep state.dir where all processes "
            "of a training can read it."
        )
    return index


def _file(snapshot: Path, table: str, column: str) -> Path:
    return snapshot / f"{table}.{column}.npy"


def _mapped(snapshot: Path, table: str, column: str) -> NDArray[Any]:
    """Raises: OSError or ValueError when it is not there, or damaged."""
    mapped = np.load(_file(snapshot, table, column), mmap_mode="r", allow_pickle=False)
    # np.memmap's own class makes every slice of it cost more.
    plain: NDArray[Any] = mapped.view(np.ndarray)
    return plain


def _load_table(snapshot: Path, table: str, columns: Iterable[str]) -> Batch:
    loaded = {name: _mapped(snapshot, table, name) for name in columns}
    if len({len(values) for values in loaded.values()}) > 1:
        raise ValueError("columns of unequal length")
    return loaded


def halves(keys: NDArray[np.uint8] | bytes) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """16-byte keys, in one buffer or (n, 16), as two columns of 64-bit integers, each (n,)."""
    buffer = keys if isinstance(keys, bytes) else np.ascontiguousarray(keys, np.uint8)
    both = np.frombuffer(buffer, ">u8").reshape(-1, 2).astype(np.uint64)
    return both[:, 0], both[:, 1]


def _joined(high: int, low: int) -> bytes:
    return (high << 64 | low).to_bytes(16, "big")


def _find(hi: memoryview, lo: memoryview, key: bytes) -> int:
    """Position of a 16-byte key in sorted halves, or -1.

    Bisection over memoryviews and not numpy's search: for one key it is no slower, and numpy lets
    go of the interpreter at every call, which costs a busy event loop ten times the search.
    """
    high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
    at = bisect_left(hi, high)
    while at < len(hi) and hi[at] == high:
        if lo[at] == low:
            return at
        at += 1
    return -1


def _no_rows() -> Batch:
    return {n: np.empty(0, kind) for n, kind in (_SIGHTING_COLUMNS | _OBJECT_COLUMNS).items()}


def _joined_batches(batches: Sequence[Batch]) -> Batch:
    """One batch of all, which are empty afterwards: at ten million rows both would take 2 GB."""
    return {name: np.concatenate([one.pop(name) for one in batches]) for name in list(batches[0])}


_PIECE: Final = 1 << 16


class _Taken(NamedTuple):
    """`np.concatenate([base, new])[positions]`, a piece at a time."""

    base: NDArray[Any]
    new: NDArray[Any]
    positions: NDArray[np.intp]

    def pieces(self) -> Iterator[NDArray[Any]]:
        for begin in range(0, len(self.positions), _PIECE):
            at = self.positions[begin : begin + _PIECE]
            piece = np.empty(len(at), self.base.dtype)
            from_base = at < len(self.base)
            piece[from_base] = self.base[at[from_base]]
            piece[~from_base] = self.new[at[~from_base] - len(self.base)]
            yield piece

    def whole(self) -> NDArray[Any]:
        return np.concatenate([np.empty(0, self.base.dtype), *self.pieces()])


def last_of_each(hi: NDArray[Any], lo: NDArray[Any]) -> NDArray[np.bool_]:
    """Of sorted halves, which is the last of those equal to it."""
    last = np.ones(len(hi), bool)
    last[:-1] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    return last


def _named_by(hash_hi: NDArray[Any], hash_lo: NDArray[Any], sightings: Batch) -> NDArray[np.bool_]:
    """Which objects a live `ok` row names: gc may take the others, so nothing may rely on them."""
    ok = sightings["verdict"] == _OK
    hi, lo = sightings["hash_hi"][ok], sightings["hash_lo"][ok]
    order = np.lexsort((lo, hi))
    hi, lo = hi[order], lo[order]
    named = np.zeros(len(hash_hi), bool)
    for begin in range(0, len(hash_hi), _PIECE):
        piece = slice(begin, begin + _PIECE)
        named[piece] = positions_of(hash_hi[piece], hash_lo[piece], hi, lo) >= 0
    return named


def positions_of(
    key_hi: NDArray[Any], key_lo: NDArray[Any], hi: NDArray[Any], lo: NDArray[Any]
) -> NDArray[np.intp]:
    """Position of each key in the sorted halves `hi`, `lo`, or -1."""
    at = np.searchsorted(hi, key_hi)
    found = np.full(len(key_hi), -1, np.intp)
    pending = np.flatnonzero(at < len(hi))
    # Equal high halves with different low ones are a curiosity of 64-bit chance; step over them.
    while len(pending):
        here = at[pending]
        same_hi = hi[here] == key_hi[pending]
        same = same_hi & (lo[here] == key_lo[pending])
        found[pending[same]] = here[same]
        pending = pending[same_hi & ~same]
        at[pending] += 1
        pending = pending[at[pending] < len(hi)]
    return found
