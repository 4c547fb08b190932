"""A memory-mapped, sorted snapshot of the catalog, for look-ups.

One file a column, sorted by `url_md5`; a second, smaller table of the objects that live rows name,
sorted by content hash. About 58 bytes a sighting and 48 an object, shared by all processes that map
it; never a dict of a million entries. Sixteen-byte keys are kept as two big-endian 64-bit halves,
so that a search is numpy's on integers.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import arro3.core as arrow
import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror.content.image import VERDICTS, Verdict
from mirror.layout import FORMATS

# Bumped whenever the files of a snapshot change their meaning: an old snapshot is then built anew.
SNAPSHOT: Final = 1

# The catalog's columns that an index reads, and how each is kept.
COLUMNS: Final = (
    ("url_md5", "key"),
    ("content_hash", "key"),
    ("sha256", "bytes32"),
    ("size", "i8"),
    ("width", "i4"),
    ("height", "i4"),
    ("format", "code"),
    ("verdict", "code"),
    ("source_url", "known"),
    ("seen_at", "i8"),
)

_FORMAT_CODES: Final = {name: code for code, name in enumerate(FORMATS)}
_FORMAT_NAMES: Final = tuple(FORMATS)
_VERDICT_CODES: Final = {name: code for code, name in enumerate(VERDICTS)}
_OK: Final = _VERDICT_CODES["ok"]

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
}
_OBJECT_COLUMNS: Final = {"hash_hi": "u8", "hash_lo": "u8", "sha256": "V32"}


@dataclass(frozen=True)
class Index:
    """The latest row of every URL, and the objects that live rows name, at one catalog version.

    `files` are the catalog's data files that it was made from; `path` is where it is mapped from.
    """

    version: int
    sightings: Batch = field(repr=False)
    objects: Batch = field(repr=False)
    files: frozenset[str] = field(default=frozenset(), repr=False)
    path: Path | None = None

    @classmethod
    def empty(cls) -> Index:
        return cls(
            -1,
            {name: np.empty(0, kind) for name, kind in _SIGHTING_COLUMNS.items()},
            {name: np.empty(0, kind) for name, kind in _OBJECT_COLUMNS.items()},
        )

    def __len__(self) -> int:
        return len(self.sightings["url_hi"])

    @cached_property
    def _urls(self) -> tuple[memoryview, memoryview]:
        return self.sightings["url_hi"].data, self.sightings["url_lo"].data

    @cached_property
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
            _FORMAT_NAMES[columns["format"][at]],
            VERDICTS[columns["verdict"][at]],
            bool(columns["sourced"][at]),
            int(columns["seen_at"][at]),
        )

    def object_sha256(self, content_hash: bytes) -> bytes | None:
        """SHA-256 of an object that a live row names, or None when no row does."""
        at = _find(*self._hashes, content_hash)
        return None if at < 0 else self.objects["sha256"][at].tobytes()

    def contents_judged(self, verdict: Verdict) -> set[bytes]:
        """Content hashes of the rows that have this verdict."""
        at = np.flatnonzero(self.sightings["verdict"] == _VERDICT_CODES[verdict])
        hi, lo = self.sightings["hash_hi"][at], self.sightings["hash_lo"][at]
        return {_joined(int(high), int(low)) for high, low in zip(hi, lo, strict=True)}

    def contents_under_many_urls(self, least: int) -> Iterator[tuple[bytes, list[bytes]]]:
        """`(content_hash, [url_md5, …])` of each content that `least` or more `ok` rows name."""
        ok = np.flatnonzero(self.sightings["verdict"] == _OK)
        hi, lo = self.sightings["hash_hi"][ok], self.sightings["hash_lo"][ok]
        order = np.lexsort((lo, hi))
        hi, lo = hi[order], lo[order]
        ends = np.flatnonzero(_last_of_each(hi, lo)) + 1
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
            new: the rows.
            version: the catalog's version that they make up.
            files: that version's data files.
            folder: where to write the result, which is then memory-mapped and takes the place of
                older snapshots there; None keeps it in memory. Written a column at a time: at ten
                million rows a second copy of all of them would not fit.
        """
        if not new and folder is None:
            return Index(version, self.sightings, self.objects, files)
        new = new or [_no_rows()]
        rows = {name: np.concatenate([batch[name] for batch in new]) for name in new[0]}
        keep = self._latest(rows)
        sightings = (
            (name, _Taken(self._column("sightings", name), rows[name], keep))
            for name in _SIGHTING_COLUMNS
        )
        if folder is None:
            columns = {name: taken.whole() for name, taken in sightings}
            objects = {n: taken.whole() for n, taken in self._merged_objects(rows, columns)}
            return Index(version, columns, objects, files)
        with _Snapshot(folder) as snapshot:
            snapshot.write("sightings", sightings)
            columns = snapshot.load("sightings", _SIGHTING_COLUMNS)
            snapshot.write("objects", self._merged_objects(rows, columns))
            return snapshot.finished(version, files)

    def _merged_objects(self, rows: Batch, sightings: Batch) -> Iterator[tuple[str, _Taken]]:
        """Columns of the objects that live rows name: of those known, and of new rows' own."""
        ok = rows["verdict"] == _OK
        new = {name: rows[name][ok] for name in _OBJECT_COLUMNS}
        hi, lo = (
            np.concatenate([self._column("objects", name), new[name]])
            for name in ("hash_hi", "hash_lo")
        )
        order = np.lexsort((lo, hi))
        hi, lo = hi[order], lo[order]
        last = _last_of_each(hi, lo)
        keep = order[last][_named_by(hi[last], lo[last], sightings)]
        return (
            (name, _Taken(self._column("objects", name), new[name], keep))
            for name in _OBJECT_COLUMNS
        )

    def _latest(self, new: Batch) -> NDArray[np.intp]:
        """Positions in this index followed by `new` of each URL's latest row, sorted by URL."""
        hi, lo, seen_at = (
            np.concatenate([self._column("sightings", name), new[name]])
            for name in ("url_hi", "url_lo", "seen_at")
        )
        order = np.lexsort((seen_at, lo, hi))
        del seen_at  # each of these is eight bytes a row
        hi = hi[order]
        lo = lo[order]
        return order[_last_of_each(hi, lo)]

    def _column(self, table: str, name: str) -> NDArray[Any]:
        """A column for one pass, mapped anew: the pages that it touches go when it goes."""
        if self.path is None:
            return (self.sightings if table == "sightings" else self.objects)[name]
        mapped: NDArray[Any] = np.load(
            _file(self.path, table, name), mmap_mode="r", allow_pickle=False
        )
        return mapped

    @classmethod
    def load(cls, folder: Path) -> Index:
        """The newest readable snapshot below `folder`, memory-mapped; empty when there is none."""
        found = [path for path in folder.glob("v*") if _IS_SNAPSHOT(path.name)]
        for snapshot in sorted(found, key=lambda path: int(path.name[1:]), reverse=True):
            try:
                return _load(snapshot)
            except (OSError, EOFError, ValueError, KeyError, TypeError, msgspec.DecodeError):
                continue  # a damaged snapshot is only a cache: the catalog is read instead
        return cls.empty()


_WRITING: Final = ".writing-"
_IS_SNAPSHOT: Final = re.compile(r"v\d+").fullmatch
_MADE_BY_US: Final = re.compile(rf"v\d+|{re.escape(_WRITING)}.+").fullmatch


class _Snapshot:
    """A snapshot being written: it appears whole or not at all, and older ones then go.

    A process that has an older one mapped keeps it: the files live until they are unmapped.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._path = Path(tempfile.mkdtemp(prefix=_WRITING, dir=folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)

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
        target = self._folder / f"v{version}"
        if (
            target.exists()
        ):  # of the same version, perhaps damaged: the new one is known to be whole
            target.rename(self._path.with_name(f"{self._path.name}-replaced"))
        self._path.rename(target)
        index = _load(target)
        for stale in self._folder.iterdir():
            if stale != target and _MADE_BY_US(stale.name):
                shutil.rmtree(stale, ignore_errors=True)
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


def _file(snapshot: Path, table: str, column: str) -> Path:
    return snapshot / f"{table}.{column}.npy"


def _load_table(snapshot: Path, table: str, columns: Iterable[str]) -> Batch:
    loaded: Batch = {}
    for name in columns:
        loaded[name] = np.load(_file(snapshot, table, name), mmap_mode="r", allow_pickle=False)
    if len({len(values) for values in loaded.values()}) > 1:
        raise ValueError("columns of unequal length")
    return loaded


def batch_from_arrow(batch: arrow.RecordBatch) -> Batch:
    """A record batch with `COLUMNS` (and perhaps others) as the arrays that an index keeps."""
    arrays: Batch = {}
    names = batch.schema.names
    for name, kind in COLUMNS:
        column = batch.column(names.index(name))
        if kind == "key":
            joined = b"".join(column.to_pylist())
            halves = np.frombuffer(joined, ">u8").astype("u8").reshape(-1, 2)
            short = "url" if name == "url_md5" else "hash"
            arrays[f"{short}_hi"], arrays[f"{short}_lo"] = halves[:, 0], halves[:, 1]
        elif kind == "bytes32":
            arrays[name] = np.frombuffer(b"".join(column.to_pylist()), "V32")
        elif kind == "code":
            codes = _FORMAT_CODES if name == "format" else _VERDICT_CODES
            arrays[name] = np.array([codes[value] for value in column.to_pylist()], "u1")
        elif kind == "known":
            known = [value is not None for value in column.to_pylist()]
            arrays["sourced"] = np.array(known, "?")
        elif name == "seen_at":
            arrays[name] = column.cast(arrow.DataType.int64()).to_numpy().astype("i8")
        else:
            arrays[name] = column.to_numpy().astype(kind)
    return arrays


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


def _last_of_each(hi: NDArray[Any], lo: NDArray[Any]) -> NDArray[np.bool_]:
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
        named[piece] = _among(hash_hi[piece], hash_lo[piece], hi, lo)
    return named


def _among(
    key_hi: NDArray[Any], key_lo: NDArray[Any], hi: NDArray[Any], lo: NDArray[Any]
) -> NDArray[np.bool_]:
    """Which keys stand in the sorted halves `hi`, `lo`."""
    found = np.zeros(len(key_hi), bool)
    at = np.searchsorted(hi, key_hi)
    pending = np.flatnonzero(at < len(hi))
    # Equal high halves with different low ones are a curiosity of 64-bit chance; step over them.
    while len(pending):
        here = at[pending]
        same_hi = hi[here] == key_hi[pending]
        same = same_hi & (lo[here] == key_lo[pending])
        found[pending[same]] = True
        pending = pending[same_hi & ~same]
        at[pending] += 1
        pending = pending[at[pending] < len(hi)]
    return found
