"""Writes the tables of docs/reliability.md from the record of `make chaos`.

    python -m tests.chaos.report RECORD DOCUMENT

RECORD has a line of JSON for each test (tests/support/chaos_tally.py). Tables stand between
`<!-- chaos:NAME -->` and `<!-- end -->`. The exit status is 1 if a test failed, and the tables show it.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mirror import __version__
from tests.support.chaos_tally import SEED

Cells = Sequence[object]

# Columns of the table of interleavings, by the prefix of their counts.
INTERLEAVED = {
    "let in": "commands let in",
    "disturbed": "requests disturbed",
    "lost": "losses",
    "dangling": "dangling rows",
}


@dataclass
class Part:
    """The sums over all tests of a part."""

    tests: int = 0
    failed: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    def of(self, prefix: str) -> dict[str, int]:
        """The counts whose names begin with `prefix`, by the rest of the name."""
        return {
            name.removeprefix(prefix): number
            for name, number in sorted(self.counts.items())
            if name.startswith(prefix)
        }


def parts_of(lines: Iterable[str]) -> dict[str, Part]:
    parts: defaultdict[str, Part] = defaultdict(Part)
    for line in lines:
        told = json.loads(line)
        part = parts[told["part"]]
        part.tests += 1
        part.failed += not told["passed"]
        part.seconds += told["seconds"]
        part.counts.update(told["counts"])
    return dict(sorted(parts.items()))


def run_line(parts: dict[str, Part]) -> str:
    tests, failed = (sum(getattr(part, n) for part in parts.values()) for n in ("tests", "failed"))
    minutes = sum(part.seconds for part in parts.values()) / 60
    return (
        f"{datetime.now(UTC):%-d %B %Y}, version {__version__}, seed {SEED}, Python "
        f"{platform.python_version()}: {tests} tests, {minutes:.0f} minutes of testing, {failed} failed."
    )


def table(head: Cells, rows: Iterable[Cells], *, abreast: int = 1) -> str:
    """A table in Markdown.

    Args:
        head: the names of the columns. The first holds words, the others numbers.
        rows: their cells.
        abreast: how many rows stand side by side, in a table of short rows.
    """
    shown = [[f"{one:,}" if isinstance(one, int) else str(one) for one in row] for row in rows]
    height = -(-len(shown) // abreast)
    shown += [[""] * len(head)] * (height * abreast - len(shown))
    beside = [[cell for row in shown[at::height] for cell in row] for at in range(height)]
    lines: list[Cells] = [
        [*head] * abreast,
        ["---", *["---:"] * (len(head) - 1)] * abreast,
        *beside,
    ]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def kills(parts: dict[str, Part]) -> str:
    rows = [
        (name, part.counts["kills"], part.tests, part.failed)
        for name, part in parts.items()
        if part.counts["kills"]
    ]
    return table(("killed by SIGKILL", "kills", "tests", "losses"), rows)


def faults(parts: dict[str, Part]) -> str:
    total: Counter[str] = Counter()
    for part in parts.values():
        total.update(part.of("fault "))
    failed = sum(part.failed for part in parts.values() if part.of("fault "))
    rows = [(name, number) for name, number in total.most_common()]
    return table(("fault of a request", "times"), [*rows, ("**losses**", failed)], abreast=2)


def inputs(parts: dict[str, Part]) -> str:
    rows = [
        (name, number, part.failed)
        for part in parts.values()
        for name, number in part.of("inputs ").items()
    ]
    return table(("invented inputs", "tried", "failed"), rows)


def steps(parts: dict[str, Part]) -> str:
    part = parts.get("machine", Part())
    rows: list[Cells] = [("stories", part.counts["examples"]), *part.of("step ").items()]
    return table(("step", "times"), [*rows, ("**losses**", part.failed)], abreast=2)


def together(parts: dict[str, Part]) -> str:
    rows = [(name, part.failed) for part in parts.values() for name in part.of("together ")]
    return table(("at the same time", "losses"), rows)


def interleavings(parts: dict[str, Part]) -> str:
    part = parts.get("interleavings", Part())
    rows = [
        (place, stories, *(part.counts[f"{what} {place}"] for what in INTERLEAVED))
        for place, stories in part.of("story ").items()
    ]
    return table(("mirror in", "stories", *INTERLEAVED.values()), rows)


TABLES: dict[str, Callable[[dict[str, Part]], str]] = {
    "run": run_line,
    "kills": kills,
    "faults": faults,
    "inputs": inputs,
    "steps": steps,
    "together": together,
    "interleavings": interleavings,
}


def filled(document: str, parts: dict[str, Part]) -> str:
    """The document with new tables."""
    for name, make in TABLES.items():
        between = re.compile(rf"(<!-- chaos:{name} -->\n).*?(<!-- end -->)", re.DOTALL)
        document, found = between.subn(rf"\g<1>{make(parts)}\n\g<2>", document)
        if found != 1:
            raise SystemExit(f"The document has {found} places for the table {name}.")
    return document


def main(record: str, document: str) -> int:
    parts = parts_of(Path(record).read_text().splitlines())
    path = Path(document)
    path.write_text(filled(path.read_text(), parts))
    return int(any(part.failed for part in parts.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
