"""Snapshots of an index on disk: a folder with one .npy file a column, written once, then mapped.

About 75 bytes a sighting and 84 an object, shared by all processes that map it. A snapshot is only
a cache of the catalog.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mirror.catalog.index.index_columns import (
    OBJECT_COLUMNS,
    SIGHTING_COLUMNS,
    Batch,
    ColumnSelection,
)

# Increased whenever the files of a snapshot change their meaning; older snapshots are then rebuilt.
SNAPSHOT: Final = 5

# How long to wait for another process that is writing a snapshot: it may be stopped, or its disk
# slow. Ten million rows take about twenty seconds.
LOCK_SECONDS: Final = 60.0

_LOCK: Final = ".lock"
_WRITING: Final = ".writing-"
_IS_SNAPSHOT: Final = re.compile(r"v(\d+)-\w+").fullmatch
# What reading a damaged snapshot raises.
DAMAGED: Final = (OSError, EOFError, ValueError, KeyError, TypeError, msgspec.DecodeError)


_COLUMNS: Final = {"sightings": SIGHTING_COLUMNS, "objects": OBJECT_COLUMNS}
# After the magic string, two bytes of a version and two of a length.
_HEADER_LENGTH_ENDS_AT: Final = 10


class Snapshot(NamedTuple):
    """A snapshot that is mapped.

    Attributes:
        version: of the catalog.
        sightings: the columns of the latest rows.
        objects: the columns of the objects that live rows name.
        files: the catalog's data files that it was built from.
        path: its folder.
        ignored: how many rows of each data file do not count, where some do not.
    """

    version: int
    sightings: Batch
    objects: Batch
    files: frozenset[str]
    path: Path
    ignored: dict[str, int]


def load_snapshot(path: Path) -> Snapshot:
    """Map a snapshot. Raises: one of `DAMAGED` when it is not there or damaged."""
    meta = msgspec.json.decode((path / "meta.json").read_bytes())
    if meta["snapshot"] != SNAPSHOT:
        raise ValueError("a snapshot of another version of dataset-mirror")
    return Snapshot(
        meta["version"],
        _load_table(path, "sightings"),
        _load_table(path, "objects"),
        frozenset(meta["files"]),
        path,
        dict(meta["ignored"]),
    )


def load_newest_snapshot(folder: Path) -> Snapshot | None:
    """Map the newest readable snapshot in a folder; None where there is none.

    Another process may replace the snapshot while this one reads it. So after each failure the
    folder is listed again, and no snapshot is tried twice.
    """
    tried: set[str] = set()
    while (name := _newest(folder, tried)) is not None:
        try:
            return load_snapshot(folder / name)
        except DAMAGED:
            tried.add(name)
    return None


def map_column(snapshot: Path, table: str, column: str) -> NDArray[Any]:
    """Map one column. Raises: OSError or ValueError when it is not there or damaged.

    `np.load` would read the header as Python code. In Python 3.11 that fails where two threads do so
    at once ("AST constructor recursion depth mismatch").
    """
    path, kind = _file(snapshot, table, column), np.dtype(_COLUMNS[table][column])
    with path.open("rb") as file:
        prefix = file.read(_HEADER_LENGTH_ENDS_AT)
        header = file.read(int.from_bytes(prefix[-2:], "little"))
        begin, end = file.tell(), file.seek(0, os.SEEK_END)
    length, rest = divmod(end - begin, kind.itemsize)
    if rest or (prefix[:8] + header).split() != _header_words(kind, length):
        raise ValueError("not a column of an index")
    mapped = np.memmap(path, kind, "r", begin, (length,))
    # np.memmap's own class makes every slice of it slower.
    plain: NDArray[Any] = mapped.view(np.ndarray)
    return plain


@contextmanager
def locked_snapshots(folder: Path) -> Iterator[None]:
    """Hold a folder of snapshots for one writer; the lock ends with the process, however it ends.

    Raises:
        OSError: the folder cannot be written, or another writer has not ended in `LOCK_SECONDS`.
        NotImplementedError: its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / _LOCK, timeout=LOCK_SECONDS):
        yield


class SnapshotWriter:
    """Writes a snapshot that appears whole or not at all; older ones are then removed.

    Use it only inside `locked_snapshots`. A name is never used twice, so that no reader mixes
    columns of two snapshots. A process that has mapped an older one keeps it: the files live until
    they are unmapped.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._remove(lambda name: name.startswith(_WRITING))  # left by writers that were killed
        self._path = Path(tempfile.mkdtemp(prefix=_WRITING, dir=folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)

    def _remove(self, is_stale: Callable[[str], object]) -> None:
        for name in filter(is_stale, os.listdir(self._folder)):
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def write(self, table: str, columns: Iterable[tuple[str, ColumnSelection]]) -> None:
        for name, selection in columns:
            with _file(self._path, table, name).open("wb") as file:
                file.write(_header(selection.base.dtype, len(selection.positions)))
                for piece in selection.pieces():
                    file.write(piece.tobytes())

    def map_sightings(self) -> Batch:
        """Map the sightings that were written."""
        return _load_table(self._path, "sightings")

    def finish(self, version: int, files: frozenset[str], ignored: Mapping[str, int]) -> Snapshot:
        """Give the snapshot its name, and map it."""
        meta = {
            "snapshot": SNAPSHOT, "version": version, "files": sorted(files), "ignored": ignored,
        }  # fmt: skip
        (self._path / "meta.json").write_bytes(msgspec.json.encode(meta))
        target = self._folder / self._path.name.replace(_WRITING, f"v{version}-")
        self._path.rename(target)
        snapshot = load_snapshot(target)
        self._remove(lambda name: _IS_SNAPSHOT(name) and name != target.name)
        return snapshot


def _newest(folder: Path, tried: set[str]) -> str | None:
    """Name of the snapshot of the latest version that was not tried yet."""
    try:
        names = set(os.listdir(folder)) - tried
    except OSError:
        return None
    found = [(int(match[1]), match[0]) for match in map(_IS_SNAPSHOT, names) if match]
    return max(found)[1] if found else None


def _header(kind: np.dtype[Any], length: int) -> bytes:
    """The beginning of a .npy file."""
    out = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(kind)
    header = {"descr": descr, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()


def _header_words(kind: np.dtype[Any], length: int) -> list[bytes]:
    """A header without its length and its padding, which versions of NumPy choose."""
    header = _header(kind, length)
    return (header[:8] + header[_HEADER_LENGTH_ENDS_AT:]).split()


def _file(snapshot: Path, table: str, column: str) -> Path:
    return snapshot / f"{table}.{column}.npy"


def _load_table(snapshot: Path, table: str) -> Batch:
    loaded = {name: map_column(snapshot, table, name) for name in _COLUMNS[table]}
    if len({len(values) for values in loaded.values()}) > 1:
        raise ValueError("columns of unequal length")
    return loaded
