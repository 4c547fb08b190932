"""SQLite files of this machine: made or opened, written all or none, their errors in our words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mirror.errors import StateDamaged, StateError

Statements = Iterable[tuple[str, Iterable[Any]]]


class Database:
    """An SQLite file with one schema. One process writes it at a time: see `mirror.run.lock`.

    Args:
        path: the file; made when it is not there.
        schema: what it is made with.
        version: of the schema; bumped whenever a table changes its meaning.
        remedy: what to do with a file of another version, as the end of a sentence.
        damaged: what to do with one that is damaged, as the end of a sentence.

    Attributes:
        path: the file.
        connection: for reading, within `translated`.

    Raises:
        StateDamaged: the file is not a database any more.
        StateError: the folder cannot be written, the disk is full, or the version is another one.
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
        """Run statements, each for all of its values: all or none.

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
        """SQLite's errors, as errors of ours."""
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
