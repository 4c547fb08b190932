"""What this machine found wrong with a mirror, and how far it has read it (SQLite).

A pass over a terabyte takes hours: its place is kept, and what it found, so that a run that is
interrupted is gone on with, and a repair need not read everything again. It is only a notebook:
what stands in it is looked at once more before anything is done about it.
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

# Found by comparing a listing, which every run does anew; or by reading, which few do.
# "before" are those of a listing that the one under way has not met yet.
Source = Literal["listing", "before", "reading"]


class ReadPass(msgspec.Struct, kw_only=True):
    """A reading of many objects that is under way.

    Attributes:
        share: of all objects; 1 is all of them.
        seed: chooses which, where it is not all.
        after: the key of the last object that was read, with all before it.
        read: how many so far,
        bytes: and how much.
        version: of the catalog when it began.
    """

    share: Annotated[float, msgspec.Meta(gt=0, le=1)]
    seed: int
    after: str = ""
    read: int = 0
    bytes: int = 0
    version: int = -1


class DamageLog:
    """The notebook of one mirror. One process at a time: see `mirror.run.lock`.

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
        """The reading that was begun and is not done."""
        with self._file.translated():
            found = self._db.execute("SELECT value FROM meta WHERE key = 'pass'").fetchone()
        if found is None:
            return None
        try:
            return msgspec.json.decode(found[0], type=ReadPass)
        except msgspec.DecodeError:
            return None

    def keep(self, under_way: ReadPass | None, found: Iterable[Problem] = ()) -> None:
        """Note how far a reading is, and what it has found: both or neither."""
        self._file.execute_all(
            [
                (_INSERT, [_values(problem, "reading") for problem in found]),
                ("DELETE FROM meta WHERE key = 'pass'", [()]),
                (
                    "INSERT INTO meta VALUES ('pass', ?)",
                    [] if under_way is None else [(msgspec.json.encode(under_way).decode(),)],
                ),
            ]
        )

    @property
    def owes_mark(self) -> bool:
        """Rows were, or were about to be, flagged as lost, and the mirror's mark not yet set."""
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
        """What an earlier listing has found goes when this one is through, or is found once more."""
        self._file.execute_all(
            [("UPDATE damage SET source = 'before' WHERE source = 'listing'", [()])]
        )

    def end_listing(self) -> None:
        self._file.execute_all([("DELETE FROM damage WHERE source = 'before'", [()])])

    def add_listing(self, found: Iterable[Problem]) -> None:
        """Note what a listing shows, which says more of a key than an earlier reading."""
        batch: list[tuple[object, ...]] = []
        for problem in found:
            batch.append(_values(problem, "listing"))
            if len(batch) >= _BATCH:
                self._file.execute_all([(_INSERT, batch)])
                batch = []
        self._file.execute_all([(_INSERT, batch)])

    def note(self, found: Iterable[Problem]) -> None:
        """Note what reading shows, in place of what it showed before."""
        self._file.execute_all([(_INSERT, [_values(problem, "reading") for problem in found])])

    def drop(self, keys: Iterable[str]) -> None:
        """What is well again, or not named any more."""
        self._file.execute_all([("DELETE FROM damage WHERE key = ?", [(key,) for key in keys])])

    def damage(self, source: Source | None = None) -> Iterator[Problem]:
        """All that is known to be wrong, in the order of keys."""
        where = "" if source is None else "WHERE source = ?"
        last = ""
        while True:  # by pages, so that others may write between them
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
        """Keys of what a listing showed to be wrong, of a range."""
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
