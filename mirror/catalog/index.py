"""A memory-mapped, sorted snapshot of the catalog, for look-ups.

One file a column, sorted by `url_md5`; a second, smaller table of the objects that live rows name,
sorted by content hash. About 58 bytes a sighting and 48 an object, shared by all processes that map
it; never a dict of a million entries. Sixteen-byte keys are kept as two big-endian 64-bit halves,
so that a search is numpy's on integers.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

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

    `files` are the catalog's data files that it was made from.
    """

    version: int
    sightings: Batch = field(repr=False)
    objects: Batch = field(repr=False)
    files: frozenset[str] = field(default=frozenset(), repr=False)

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
        content = (int(columns["hash_hi"][at]) << 64) | int(columns["hash_lo"][at])
        return Sighting(
            content.to_bytes(16, "big"),
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

    def merged(self, new: Sequence[Batch], version: int, files: frozenset[str]) -> Index:
        """This index with more rows of the catalog, as of `version`, whose data files are `files`."""
        if not new:
            return Index(version, self.sightings, self.objects, files)
        rows = {name: np.concatenate([batch[name] for batch in new]) for name in new[0]}
        sightings = _latest(
            {name: np.concatenate([self.sightings[name], rows[name]]) for name in _SIGHTING_COLUMNS}
        )
        ok = rows["verdict"] == _OK
        objects = _unique_objects(
            {name: np.concatenate([self.objects[name], rows[name][ok]]) for name in _OBJECT_COLUMNS}
        )
        return Index(version, sightings, _named_by(objects, sightings), files)

    def save(self, folder: Path) -> None:
        """Write a snapshot that appears whole or not at all; readers of an older one keep theirs."""
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
        try:
            for table, columns in (("sightings", self.sightings), ("objects", self.objects)):
                for name, values in columns.items():
                    np.save(temporary / f"{table}.{name}.npy", values, allow_pickle=False)
            meta = {
                "snapshot": SNAPSHOT,
                "version": self.version,
                "files": sorted(self.files),
            }
            (temporary / "meta.json").write_bytes(msgspec.json.encode(meta))
            target = folder / f"v{self.version}"
            if not target.exists():
                os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for stale in folder.iterdir():
            if stale.name != f"v{self.version}" and not stale.name.startswith(".writing-"):
                shutil.rmtree(stale, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> Index:
        """The newest readable snapshot below `folder`, memory-mapped; empty when there is none."""
        found = sorted(folder.glob("v*"), key=lambda path: int(path.name[1:] or 0), reverse=True)
        for snapshot in found:
            try:
                meta = msgspec.json.decode((snapshot / "meta.json").read_bytes())
                if meta["snapshot"] != SNAPSHOT:
                    continue
                return cls(
                    meta["version"],
                    _load_table(snapshot, "sightings", _SIGHTING_COLUMNS),
                    _load_table(snapshot, "objects", _OBJECT_COLUMNS),
                    frozenset(meta["files"]),
                )
            except (OSError, ValueError, KeyError, TypeError, msgspec.DecodeError):
                continue  # a damaged snapshot is only a cache: the catalog is read instead
        return cls.empty()


def _load_table(snapshot: Path, table: str, columns: dict[str, str]) -> Batch:
    loaded: Batch = {}
    for name in columns:
        path = snapshot / f"{table}.{name}.npy"
        loaded[name] = np.load(path, mmap_mode="r", allow_pickle=False)
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


def _latest(columns: Batch) -> Batch:
    """Rows sorted by URL, keeping of each the one with the greatest `seen_at`."""
    order = np.lexsort((columns["seen_at"], columns["url_lo"], columns["url_hi"]))
    hi, lo = columns["url_hi"][order], columns["url_lo"][order]
    keep = order[_last_of_each(hi, lo)]
    return {name: values[keep] for name, values in columns.items()}


def _unique_objects(columns: Batch) -> Batch:
    order = np.lexsort((columns["hash_lo"], columns["hash_hi"]))
    hi, lo = columns["hash_hi"][order], columns["hash_lo"][order]
    keep = order[_last_of_each(hi, lo)]
    return {name: values[keep] for name, values in columns.items()}


def _last_of_each(hi: NDArray[Any], lo: NDArray[Any]) -> NDArray[np.bool_]:
    last = np.ones(len(hi), bool)
    last[:-1] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    return last


def _named_by(objects: Batch, sightings: Batch) -> Batch:
    """The objects that a live `ok` row names: gc may take the others, so nothing may rely on them."""
    ok = sightings["verdict"] == _OK
    pairs = np.empty(int(ok.sum()), [("hi", "u8"), ("lo", "u8")])
    pairs["hi"], pairs["lo"] = sightings["hash_hi"][ok], sightings["hash_lo"][ok]
    order = np.lexsort((pairs["lo"], pairs["hi"]))
    hi, lo = pairs["hi"][order], pairs["lo"][order]
    at = np.searchsorted(hi, objects["hash_hi"])
    named = np.zeros(len(objects["hash_hi"]), bool)
    # Equal high halves with different low ones are a curiosity of 64-bit chance; step over them.
    pending = np.flatnonzero(at < len(hi))
    while len(pending):
        here = at[pending]
        same_hi = hi[here] == objects["hash_hi"][pending]
        same = same_hi & (lo[here] == objects["hash_lo"][pending])
        named[pending[same]] = True
        pending = pending[same_hi & ~same]
        at[pending] += 1
        pending = pending[at[pending] < len(hi)]
    return {name: values[named] for name, values in objects.items()}
