"""Report an inspection: as JSON, as a CSV file, as a contact sheet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TextIO

from mirror.cache.scan import display
from mirror.errors import EXIT_DONE, EXIT_SOME_FAILED, UsageError
from mirror.inspection.inspect_cache import Findings
from mirror.run.failures import LISTED
from mirror.system.files import folders_made, replacing


@dataclass(frozen=True)
class InspectionReport:
    """The object of `mirror inspect --json`, and the exit status.

    Files that are flagged are results, not failures; files that could not be read are failures.
    """

    values: dict[str, Any]
    exit_status: int

    @classmethod
    def of(cls, findings: Findings, seconds: float) -> Self:
        """Args: findings, still open; seconds, the wall time of the inspection."""
        flagged = [
            {
                "path": display(file.path),
                "verdict": file.verdict,
                "reason": file.reason,
                "size": file.size,
                "width": file.width,
                "height": file.height,
            }
            for file in findings.flagged_files(LISTED)
        ]
        values = {
            "checked": findings.checked,
            **{str(verdict): number for verdict, number in findings.counts.items()},
            "ignored": findings.ignored,
            "failed": findings.failed,
            "failures": findings.failures.as_json(),
            "flagged": flagged,
            "flagged_listed": len(flagged),
            "seconds": round(seconds, 3),
        }
        return cls(values, EXIT_SOME_FAILED if findings.failed else EXIT_DONE)

    def as_json(self) -> dict[str, Any]:
        return self.values


@contextmanager
def opened_page(path: Path | None, *endings: str) -> Iterator[TextIO | None]:
    """Open a page of an inspection, before the work: an unwritable file should not cost an hour.

    Args:
        path: of the file, whose folder is made; None gives None.
        endings: that its name may have. A name without an ending, such as a device's, is accepted.

    Raises:
        UsageError: the file cannot be created, or its ending says another format.
    """
    if path is None:
        yield None
        return
    if path.suffix and path.suffix.lower() not in endings:
        raise UsageError(
            f"{path} ends in {path.suffix}, but {endings[0]} is written; give it that ending."
        )
    with folders_made(path), replacing(path) as file:
        yield file


def write_findings(
    findings: Findings, cache: Path, level: str, csv: TextIO | None, sheet: TextIO | None
) -> None:
    """Write an inspection to the files that were asked for.

    Args:
        findings: still open.
        cache: the folder that was inspected; the sheet shows its name.
        level: how far each image was inspected; the sheet says it.
        csv: lists every file with its verdict, where given.
        sheet: gets an HTML page with a thumbnail of everything flagged, where given.
    """
    if csv is not None:
        from mirror.inspection.csv_report import write_csv

        write_csv(csv, findings)
    if sheet is not None:
        from mirror.inspection.contact_sheet import Heading, write_sheet

        write_sheet(
            sheet, findings, Heading(os.fsencode(cache.absolute()), level, datetime.now(UTC))
        )
