"""The local state: which files of the cache the mirror has acknowledged (SQLite).

It is a cache of facts that the bucket and the cache folder hold themselves. It saves a million
requests and reading the disk again. Deleting it costs time and never an upload. `mirror_id` ties it
to one mirror; a state of another mirror is discarded.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, cast

from mirror.cache.scan import Entry
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.run.run_log import RUNS_TABLE, RunLog
from mirror.system.database import Database

SCHEMA_VERSION = 1
FILE_NAME = "state.sqlite"

_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE files (
    path BLOB PRIMARY KEY, signature BLOB NOT NULL, gone INTEGER NOT NULL DEFAULT 0,
    url_md5 BLOB NOT NULL, content_hash BLOB NOT NULL, sha256 BLOB NOT NULL,
    size INTEGER NOT NULL, format TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    verdict TEXT NOT NULL, reason TEXT NOT NULL, source_digest BLOB
) WITHOUT ROWID;
-- Covers the only query of a run without changes, and returns the signatures sorted.
CREATE UNIQUE INDEX files_by_signature ON files (gone, signature);
{RUNS_TABLE}"""

# For look-ups by path. SQLite does not know how few files are gone. Without the plus it would scan
# all of `files_by_signature`.
_PRESENT = "+gone = 0"
_LOOK_UP_BATCH = 500
# Rows in one statement: as many as every SQLite accepts (999 values). At the end of each statement
# SQLite releases the interpreter's lock, for which uploads are waiting.
_ROWS_A_STATEMENT = 999 // 13


class SeenFile(NamedTuple):
    """A file whose object the store has acknowledged, or which is flagged.

    Attributes:
        entry: the file.
        row: that was catalogued.
        source_digest: of the source that was catalogued with it; None when there was none.
    """

    entry: Entry
    row: Row
    source_digest: bytes | None


class State:
    """The state of one pair of cache and mirror. One process at a time: see `mirror.run.lock`.

    Attributes:
        runs: what earlier runs did.
    """

    def __init__(self, folder: Path) -> None:
        """Open the state in a folder, or create it.

        Raises:
            StateDamaged: the file is no longer a database; `set_aside` makes room for a new one.
            StateError: the folder cannot be written, or the disk is full.
        """
        remedy = "delete it, and the next run rebuilds it without uploading anything again"
        damaged = "move it away, and the next run reads the cache again"
        self._file = Database(folder / FILE_NAME, _SCHEMA, SCHEMA_VERSION, remedy, damaged)
        self._db = self._file.connection
        self.runs = RunLog(self._file)

    @property
    def path(self) -> Path:
        return self._file.path

    def get(self, key: str) -> str | None:
        with self._file.translated():
            found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else cast("str", found[0])

    def set(self, key: str, value: str) -> None:
        self._file.execute_all([("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, value)])])

    def forget_all_files(self) -> int:
        """Forget every file; returns how many were known."""
        with self._file.translated():
            count = int(self._db.execute("SELECT count(*) FROM files").fetchone()[0])
        self._file.execute_all([("DELETE FROM files", [()])])
        return count

    def signatures(self, *, gone: bool) -> bytes:
        """Signatures of all known files, sorted, end to end.

        Args:
            gone: True for the files that had vanished from the cache at the last run, False for
                those that were there.
        """
        query = "SELECT signature FROM files WHERE gone = ? ORDER BY signature"
        pieces: list[bytes] = []
        with self._file.translated():
            found = chain.from_iterable(self._db.execute(query, (int(gone),)))
            while piece := b"".join(islice(found, 10_000)):
                pieces.append(piece)
        return b"".join(pieces)

    def signatures_of(self, paths: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """`(path, signature)` of those of `paths` that are known and have not vanished."""
        for begin in range(0, len(paths), _LOOK_UP_BATCH):
            batch = paths[begin : begin + _LOOK_UP_BATCH]
            marks = ",".join("?" * len(batch))
            query = f"SELECT path, signature FROM files WHERE {_PRESENT} AND path IN ({marks})"  # noqa: S608
            with self._file.translated():
                found = self._db.execute(query, batch).fetchall()
            yield from found

    def record(self, files: Iterable[SeenFile]) -> None:
        """Record acknowledged files, all or none.

        Raises:
            StateError: the disk is full or the database cannot be written.
        """
        # Sorting brings neighbours in the table together, which halves the time to write them.
        rows = sorted(
            (
                seen.entry.path, seen.entry.signature, 0, *seen.row[:9], seen.source_digest,
            )
            for seen in files
        )  # fmt: skip
        whole = len(rows) - len(rows) % _ROWS_A_STATEMENT
        together = (
            list(chain.from_iterable(rows[at : at + _ROWS_A_STATEMENT]))
            for at in range(0, whole, _ROWS_A_STATEMENT)
        )
        self._file.execute_all(
            [(_insertion(_ROWS_A_STATEMENT), together), (_insertion(1), rows[whole:])]
        )

    def mark(self, *, vanished: Iterable[bytes] = (), returned: Iterable[bytes] = ()) -> None:
        """Record by signature which files left the cache, and which came back unchanged.

        Vanished files stay in the state: a disk that was not mounted must not cost a second reading.
        """
        self._file.execute_all(
            [
                ("UPDATE files SET gone = 1 WHERE gone = 0 AND signature = ?", _tuples(vanished)),
                ("UPDATE files SET gone = 0 WHERE gone = 1 AND signature = ?", _tuples(returned)),
            ]
        )

    def files(self) -> Iterator[tuple[bytes, Row, bytes | None]]:
        """`(path, row, source_digest)` of every file that is in the cache.

        The rows lack the source and `seen_at`, which the state does not keep.
        """
        columns = "url_md5, content_hash, sha256, size, format, width, height, verdict, reason"
        query = f"SELECT path, source_digest, {columns} FROM files WHERE {_PRESENT} ORDER BY path"  # noqa: S608
        with self._file.translated():
            for path, digest, *facts in self._db.execute(query):
                yield path, Row._make((*facts, UNKNOWN_SOURCE, 0, None)), digest

    def acknowledged(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """`(path, url_md5, content_hash)` of every `ok` file, vanished files included."""
        query = "SELECT path, url_md5, content_hash FROM files WHERE verdict = 'ok'"
        with self._file.translated():
            yield from self._db.execute(query)

    def forget(self, paths: Iterable[bytes]) -> None:
        """Forget files; the next run reads them again."""
        self._file.execute_all([("DELETE FROM files WHERE path = ?", _tuples(paths))])

    def take_files(self, other: State) -> None:
        """Replace all files by those of another state, in one transaction."""
        with self._file.translated():
            self._db.execute("ATTACH ? AS other", (str(other.path),))
        try:
            self._file.execute_all(
                [
                    ("DELETE FROM main.files", [()]),
                    ("INSERT INTO main.files SELECT * FROM other.files", [()]),
                ]
            )
        finally:
            with self._file.translated():
                self._db.execute("DETACH other")

    def set_sources(self, digests: Iterable[tuple[bytes, bytes]]) -> None:
        """Record `(source_digest, path)` of sources that are in the catalog now."""
        self._file.execute_all([("UPDATE files SET source_digest = ? WHERE path = ?", digests)])

    def close(self) -> None:
        self._file.close()


def set_aside(folder: Path) -> Path:
    """Move a damaged state out of the way; returns where it went."""
    aside = folder / f"{FILE_NAME}.damaged-{uuid.uuid4().hex[:8]}"
    (folder / FILE_NAME).replace(aside)
    for suffix in ("-wal", "-shm"):
        (folder / f"{FILE_NAME}{suffix}").unlink(missing_ok=True)
    return aside


def _insertion(rows: int) -> str:
    marks = ",".join("?" * 13)
    return f"INSERT OR REPLACE INTO files VALUES {','.join([f'({marks})'] * rows)}"  # noqa: S608


def _tuples(values: Iterable[bytes]) -> list[tuple[bytes]]:
    return [(value,) for value in values]
