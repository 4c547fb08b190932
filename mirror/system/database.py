"""SQLite files on this machine: `Database` for state that is kept, `ScratchDatabase` for one run.

Errors of SQLite become errors of this package.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from mirror.errors import StateDamaged, StateError

Statements = Iterable[tuple[str, Iterable[Any]]]


class Database:
    """An SQLite file with one schema. One process writes it at a time; see `mirror.run.lock`.

    Args:
        path: the file; created if it does not exist.
        schema: SQL that creates the tables.
        version: version of the schema; raised whenever a table changes its meaning.
        remedy: what to do about a file of another version, as the end of a sentence.
        damaged: what to do about a damaged file, as the end of a sentence.

    Attributes:
        path: the file.
        connection: for reading, within `translated`.

    Raises:
        StateDamaged: the file is not a database any more.
        StateError: the folder cannot be written, the disk is full, or the version differs.
    """

    def __init__(self, path: Path, schema: str, version: int, remedy: str, damaged: str) -> None:
        self.path = path
        self._damaged = damaged
        with self.translated():
            self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(schema, version, remedy)
            except BaseException:
                self.connection.close()
                raise

    def _prepare(self, schema: str, version: int, remedy: str) -> None:
        db = self.connection
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            db.executescript(f"BEGIN; {schema} PRAGMA user_version = {version}; COMMIT;")
        elif found != version:
            raise StateError(
                f"{self.path} was written by another version of dataset-mirror; {remedy}."
            )

    def execute_all(self, statements: Statements) -> None:
        """Run each statement for all its values, in one transaction.

        Raises:
            StateError: the disk is full or the file cannot be written.
        """
        with self.translated():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in statements:
                    self.connection.executemany(statement, values)
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Translate SQLite's errors to `StateError`."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._translation(error) from None

    def _translation(self, error: sqlite3.Error) -> StateError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return StateDamaged(f"The state {self.path} is damaged ({error}); {self._damaged}.")
        if name == "SQLITE_FULL":
            return StateError(
                f"The disk under {self.path.parent} is full; make room and run again: "
                "nothing that was acknowledged is lost."
            )
        return StateError(
            f"The state {self.path} cannot be used ({error}); make its folder writable for this "
            "user, or set state.dir."
        )

    def close(self) -> None:
        self.connection.close()


class ScratchDatabase:
    """A temporary SQLite database for one run. Use it as a context manager.

    SQLite unlinks the file right after opening it, so it disappears with the process. It has no
    journal: after an error its content is undefined.

    Args:
        schema: SQL that creates the tables.
        cache_kib: memory for pages, in KiB; the rest is on disk.
        need: how much room it takes, for the error message.

    Raises:
        StateError: from here on, whenever the temporary file cannot be written or read.
    """

    def __init__(self, schema: str, *, cache_kib: int = 2000, need: str = "") -> None:
        self._need = f" ({need})" if need else ""
        # "" names a temporary database in SQLite's own folder for temporary files.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        pragmas = ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{cache_kib}")
        self.execute_script("".join(f"PRAGMA {pragma};" for pragma in pragmas) + schema)

    def execute_script(self, statements: str) -> None:
        """Run several statements without values."""
        try:
            self._db.executescript(statements)
        except sqlite3.Error as error:
            raise self._translation(error) from None

    def execute(self, statement: str, values: Iterable[Any] = ()) -> None:
        """Run a statement that returns no rows."""
        try:
            self._db.execute(statement, tuple(values))
        except sqlite3.Error as error:
            raise self._translation(error) from None

    def execute_many(self, statement: str, values: Iterable[tuple[Any, ...]]) -> None:
        """Run a statement once for each tuple of values."""
        try:
            self._db.executemany(statement, values)
        except sqlite3.Error as error:
            raise self._translation(error) from None

    def row(self, query: str, values: Iterable[Any] = ()) -> Any:
        """Return the first row of a query, or None."""
        return next(self.rows(query, values), None)

    def rows(self, query: str, values: Iterable[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a query, reading them one by one."""
        try:
            yield from self._db.execute(query, tuple(values))
        except sqlite3.Error as error:
            raise self._translation(error) from None

    def _translation(self, error: sqlite3.Error) -> StateError:
        return StateError(
            f"A temporary database has no room in the folder for temporary files ({error}); make "
            f"room there{self._need}, or set SQLITE_TMPDIR to another folder."
        )

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
