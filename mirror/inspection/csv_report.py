"""Write all files of an inspection as CSV."""

from __future__ import annotations

import csv
from typing import Final, TextIO

from mirror.cache.scan import display
from mirror.inspection.inspect_cache import Findings

COLUMNS: Final = (
    "path", "verdict", "reason", "format", "width", "height", "size", "content_hash", "sha256",
)  # fmt: skip


def write_csv(out: TextIO, findings: Findings) -> None:
    """Write one line a file, ordered by path, with hexadecimal hashes."""
    write = csv.writer(out, lineterminator="\n").writerow
    write(COLUMNS)
    for file in findings.files():
        write(
            (
                no_formula(display(file.path)), file.verdict, file.reason, file.format,
                file.width or "", file.height or "", file.size,
                file.content_hash.hex(), file.sha256.hex(),
            )
        )  # fmt: skip


def no_formula(path: str) -> str:
    """Keep spreadsheets from reading a path as a formula; a leading `./` is the same path."""
    return f"./{path}" if path.startswith(("=", "+", "-", "@", "\t", "\r")) else path
