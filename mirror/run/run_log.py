"""The log of the last thousand runs, a table in a local state."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from mirror.errors import StateError
from mirror.run.report_json import encoded
from mirror.system.database import Database

# Part of the schema of every state that logs its runs.
RUNS_TABLE: Final = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, started_at REAL NOT NULL, seconds REAL NOT NULL, exit_status INTEGER,
    report TEXT NOT NULL
);
"""
RUNS_KEPT: Final = 1000

_KEEP: Final = (
    "DELETE FROM runs WHERE run_id NOT IN"
    " (SELECT run_id FROM runs ORDER BY started_at DESC LIMIT ?)"
)


class ReportToKeep(Protocol):
    """The report of a run that has ended."""

    run_id: str
    seconds: float

    @property
    def exit_status(self) -> int: ...

    def as_json(self) -> dict[str, Any]: ...


class RunRecord(NamedTuple):
    """A run that has ended. `started_at` is in seconds since 1970, and `report` is JSON."""

    run_id: str
    started_at: float
    seconds: float
    exit_status: int
    report: str

    @classmethod
    def of(cls, report: ReportToKeep, started_at: float) -> RunRecord:
        """The record of a run that ended with `report`."""
        text = encoded(report.as_json()).decode()
        return cls(report.run_id, started_at, report.seconds, report.exit_status, text)


class RunLog:
    """The runs in a database with `RUNS_TABLE`. Raises the errors of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, run: RunRecord) -> None:
        """Add a run, and drop the oldest beyond `RUNS_KEPT`."""
        self._database.execute_all(
            [
                ("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", [run]),
                (_KEEP, [(RUNS_KEPT,)]),
            ]
        )

    def remember(self, report: ReportToKeep, started_at: float) -> None:
        """Add a run that is done. A disk that is full by now does not undo the run."""
        with suppress(StateError):
            self.add(RunRecord.of(report, started_at))

    def last(self, count: int) -> list[RunRecord]:
        """The last runs, newest first."""
        query = (
            "SELECT run_id, started_at, seconds, exit_status, report FROM runs"
            " ORDER BY started_at DESC LIMIT ?"
        )
        with self._database.translated():
            found = self._database.connection.execute(query, (count,)).fetchall()
        return [RunRecord(*row) for row in found]
