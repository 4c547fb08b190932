"""What earlier runs did: a table in a local state, the last thousand of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from mirror.errors import StateError
from mirror.run.report_json import encoded
from mirror.system.database import Database

# Part of the schema of every state that has runs.
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
    """What a run says of itself when it has ended."""

    run_id: str
    seconds: float

    @property
    def exit_status(self) -> int: ...

    def as_json(self) -> dict[str, Any]: ...


class RunRecord(NamedTuple):
    """A run that has ended. `started_at` in seconds since 1970; `report` is its JSON."""

    run_id: str
    started_at: float
    seconds: float
    exit_status: int
    report: str

    @classmethod
    def of(cls, report: ReportToKeep, started_at: float) -> RunRecord:
        """What is remembered of a run that has ended with `report`."""
        text = encoded(report.as_json()).decode()
        return cls(report.run_id, started_at, report.seconds, report.exit_status, text)


class RunLog:
    """The runs in a database that has `RUNS_TABLE`. Its errors are the database's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, run: RunRecord) -> None:
        """Remember a run; the oldest beyond `RUNS_KEPT` go."""
        self._database.execute_all(
            [
                ("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", [run]),
                (_KEEP, [(RUNS_KEPT,)]),
            ]
        )

    def remember(self, report: ReportToKeep, started_at: float) -> None:
        """Remember a run that is done. A disk that is full by now does not undo the run."""
        with suppress(StateError):
            self.add(RunRecord.of(report, started_at))

    def last(self, count: int) -> list[RunRecord]:
        """The last runs, the newest first."""
        query = (
            "SELECT run_id, started_at, seconds, exit_status, report FROM runs"
            " ORDER BY started_at DESC LIMIT ?"
        )
        with self._database.translated():
            found = self._database.connection.execute(query, (count,)).fetchall()
        return [RunRecord(*row) for row in found]
