# ruff: noqa: INP001 - a script, not a package
"""Rewrite the tables of docs/benchmarks.md and the charts from bench/results.json.

    python bench/report.py

The text between `<!-- bench NAME -->` and `<!-- end -->` in the document is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from charts import growth, overview
from measure import ROOT
from results import Result, load
from tables import bars, conditions, table

DOCUMENT = ROOT / "docs" / "benchmarks.md"
OVERVIEW = ROOT / "docs" / "benchmarks.svg"
GROWTH = ROOT / "docs" / "benchmarks-growth.svg"
_MARKED = re.compile(r"(<!-- bench ([a-z0-9 -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(document: str, results: Mapping[str, Result]) -> dict[Path, str]:
    """The new content of every file that is made from the results.

    Args:
        document: the current docs/benchmarks.md, with markers.
        results: by workload.
    """

    def filled(found: re.Match[str]) -> str:
        return f"{found[1]}\n{_block(found[2], results)}\n\n{found[3]}"

    return {
        DOCUMENT: _MARKED.sub(filled, document),
        OVERVIEW: overview(results),
        GROWTH: growth(results),
    }


def _block(names: str, results: Mapping[str, Result]) -> str:
    if names == "bars":
        return bars(results)
    if names == "conditions":
        return conditions(results)
    tables = [table(name, results[name]) for name in names.split() if name in results]
    return "\n\n".join(tables) or "Not measured."


def write() -> None:
    for path, text in written(DOCUMENT.read_text(), load()).items():
        path.write_text(text)


if __name__ == "__main__":
    write()
