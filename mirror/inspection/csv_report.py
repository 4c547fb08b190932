"""All files of an inspection as CSV."""

from __future__ import annotations

import csv
from typing import Final, TextIO

from mirror.cache.scan import display
from mirror.inspection.inspect_cache import Findings

COLUMNS: Final = (
    "path", "verdict", "reason", "format", "width", "height", "size", "content_hash", "sha256",
)  # fmt: skip


def write_csv(out: TextIO, findings: Findings) -> None:
    """One line a file, in the order of paths; hashes in hexadecimal."""
    write = csv.writer(out, lineterminator="\n").writerow
    write(COLUMNS)
    for one in findings.files():
        write(
            (
                _no_formula(display(one.path)), one.verdict, one.reason, one.format,
                one.width or "", one.height or "", one.size,
                one.content_hash.hex(), one.sha256.hex(),
            )
        )  # fmt: skip


def _no_formula(path: str) -> str:
    """A path that no spreadsheet takes for a formula; `./` changes nothing about a path."""
    return f"./{path}" if path.startswith(("=", "+", "-", "@", "\t", "\r")) else path
