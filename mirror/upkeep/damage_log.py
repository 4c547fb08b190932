"""The damage that this machine found in a mirror, and how far a read pass has come (SQLite).

Reading a terabyte takes hours. So the log keeps the position of a pass and what it found: an
interrupted run can be resumed, and a repair need not read everything again. The log is only a hint:
every problem in it is checked again before a command acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from mirror.catalog.health import Problem
from mirror.errors import StateDamaged
from mirror.system.database import Database

FILE_NAME = "ledger.sqlite"
_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE damage (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, reason TEXT NOT NULL, rows INTEGER NOT NULL,
    urls BLOB NOT NULL, size INTEGER NOT NULL, source TEXT NOT NULL
) WITHOUT ROWID;
"""
_COLUMNS = "kind, key, reason, rows, urls, size"
_BATCH = 5_000

# How a problem was found: by a listing, which every run repeats, or by reading, which few runs do.
# "before" marks problems of an earlier listing that the current one has not found yet.
Source = Literal["listing", "before", "reading"]


class ReadPass(msgspec.Struct, kw_only=True):
    """A pass over many objects, to read them back.

    Attributes:
        share: of all objects, above 0; 1 means all of them.
        seed: chooses the objects where it is not all.
        after: key of the last object that was read; all before it have been read too.
        read: objects read so far.
        bytes: bytes read so far.
        version: of the catalog when the pass began.
    """

    share: Annotated[float, msgspec.Meta(gt=0, le=1)]
    seed: int
    after: str = ""
    read: int = 0
    bytes: int = 0
    version: int = -1


class DamageLog:
    """The damage log of one mirror. One process at a time: see `mirror.run.lock`.

    Args:
        folder: where its file is; a damaged file is replaced by an empty one.

    Raises:
        StateError: it cannot be opened or written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._file = self._opened(folder)
        except StateDamaged:
            for suffix in ("", "-wal", "-shm"):
                (folder / f"{FILE_NAME}{suffix}").unlink(missing_ok=True)
            self._file = self._opened(folder)
        self._db = self._file.connection

    def _opened(self, folder: Path) -> Database:
        remedy = "delete it, and run mirror verify again"
        return Database(folder / FILE_NAME, _SCHEMA, _VERSION, remedy, remedy)

    def close(self) -> None:
        self._file.close()

    def current_pass(self) -> ReadPass | None:
        """The pass that has begun and is not complete; None where there is none."""
        with self._file.translated():
            found = self._db.execute("SELECT value FROM meta WHERE key = 'pass'").fetchone()
        if found is None:
            return None
        try:
            return msgspec.json.decode(found[0], type=ReadPass)
        except msgspec.DecodeError:
            return None

    def save_pass(self, current: ReadPass | None, found: Iterable[Problem] = ()) -> None:
        """Record how far a pass is and what it has found, in one transaction."""
        self._file.execute_all(
            [
                (_INSERT, [_values(problem, "reading") for problem in found]),
                ("DELETE FROM meta WHERE key = 'pass'", [()]),
                (
                    "INSERT INTO meta VALUES ('pass', ?)",
                    [] if current is None else [(msgspec.json.encode(current).decode(),)],
                ),
            ]
        )

    @property
    def owes_mark(self) -> bool:
        """Whether a repair flagged rows as lost, or was about to, and has not set the mirror's mark."""
        with self._file.translated():
            found = self._db.execute("SELECT 1 FROM meta WHERE key = 'owes mark'").fetchone()
        return found is not None

    @owes_mark.setter
    def owes_mark(self, owes: bool) -> None:
        self._file.execute_all(
            [
                ("DELETE FROM meta WHERE key = 'owes mark'", [()]),
                ("INSERT INTO meta VALUES ('owes mark', '')", [()] if owes else []),
            ]
        )

    def begin_listing(self) -> None:
        """Begin a listing: problems of an earlier one stay until `end_listing`, or are found again."""
        self._file.execute_all(
            [("UPDATE damage SET source = 'before' WHERE source = 'listing'", [()])]
        )

    def end_listing(self) -> None:
        """End a complete listing: drop the problems that it has not found again."""
        self._file.execute_all([("DELETE FROM damage WHERE source = 'before'", [()])])

    def add_listing(self, found: Iterable[Problem]) -> None:
        """Record what a listing shows; it replaces what an earlier pass found about the same key."""
        batch: list[tuple[object, ...]] = []
        for problem in found:
            batch.append(_values(problem, "listing"))
            if len(batch) >= _BATCH:
                self._file.execute_all([(_INSERT, batch)])
                batch = []
        self._file.execute_all([(_INSERT, batch)])

    def add_read(self, found: Iterable[Problem]) -> None:
        """Record what reading shows, in place of what it showed before."""
        self._file.execute_all([(_INSERT, [_values(problem, "reading") for problem in found])])

    def drop(self, keys: Iterable[str]) -> None:
        """Remove objects that are good again, or that no row names any more."""
        self._file.execute_all([("DELETE FROM damage WHERE key = ?", [(key,) for key in keys])])

    def damage(self, source: Source | None = None) -> Iterator[Problem]:
        """All known problems, or those found in one way, in the order of keys."""
        where = "" if source is None else "WHERE source = ?"
        last = ""
        while True:  # in pages, so that the caller may write between them
            clause = f"{where} AND key > ?" if where else "WHERE key > ?"
            values = (last,) if source is None else (source, last)
            query = f"SELECT {_COLUMNS} FROM damage {clause} ORDER BY key LIMIT {_BATCH}"  # noqa: S608
            with self._file.translated():
                page = self._db.execute(query, values).fetchall()
            if not page:
                return
            yield from map(Problem._make, page)
            last = page[-1][1]

    def damaged_between(self, first: str, last: str) -> set[str]:
        """Keys between two keys, both included, that a listing showed to be damaged."""
        query = "SELECT key FROM damage WHERE source = 'listing' AND key BETWEEN ? AND ?"
        with self._file.translated():
            return {row[0] for row in self._db.execute(query, (first, last))}

    def counts(self) -> dict[str, tuple[int, int]]:
        """`(objects, rows)` of each kind."""
        query = "SELECT kind, count(*), sum(rows) FROM damage GROUP BY kind"
        with self._file.translated():
            return {kind: (objects, rows) for kind, objects, rows in self._db.execute(query)}


_INSERT = "INSERT OR REPLACE INTO damage VALUES (?, ?, ?, ?, ?, ?, ?)"


def _values(problem: Problem, source: Source) -> tuple[object, ...]:
    return (
        problem.key, problem.kind, problem.reason, problem.rows, problem.urls, problem.size, source,
    )  # fmt: skip
