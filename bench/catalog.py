# ruff: noqa: INP001 - for the scripts beside it, not a package
"""The catalog at a million and at ten million rows: one more commit, and reading it into an index.

Each measurement is a separate process (`python bench/catalog.py WHAT ROWS`). The catalog is in a folder.
Its rows are those of a sync of distinct photographs, 50,000 a commit.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import BENCH, ROOT, Runs, alternately, by_name, printing_cost, say
from results import Part

sys.path.insert(0, str(ROOT))

from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import Index
from mirror.catalog.open_mirror import Location
from mirror.catalog.row import Row, RowSource
from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.sync.run_sync import sync

COMMIT = 50_000


def _home(rows: int) -> Path:
    return BENCH / "catalogs" / f"{rows}"


def _settings(home: Path) -> Settings:
    place = {
        "bucket": {"url": f"file://{home}/mirror"},
        "cache": {"dir": str(home / "cache")},
        "state": {"dir": str(home / "state")},
    }
    return merge([Layer("bench", place)])


def _catalog(home: Path) -> Catalog:
    return Catalog(Location(_settings(home)).store(), str(home / "mirror" / "catalog"), dict)


def _rows(first: int, count: int) -> Iterator[Row]:
    for number in range(first, first + count):
        content = hashlib.sha256(b"%d" % number).digest()
        url = f"https://inaturalist-open-data.s3.amazonaws.com/photos/{number}/medium.jpg"
        yield Row(
            hashlib.md5(url.encode()).digest(), content[:16], content, 45_000, "jpeg",  # noqa: S324
            500, 375, "ok", "", RowSource(url), number + 1,
        )  # fmt: skip


def prepare(rows: int) -> None:
    home = _home(rows)
    if (home / "ready").exists():
        return
    shutil.rmtree(home, ignore_errors=True)
    (home / "cache").mkdir(parents=True)
    say(f"making a catalog of {rows:,} rows …")
    sync(_settings(home))  # creates the mirror's root
    catalog = _catalog(home)
    for first in range(0, rows, COMMIT):
        catalog.append(list(_rows(first, COMMIT)))
    (home / "ready").touch()
    _refreshed(home, home / "snapshots")


def _refreshed(home: Path, snapshots: Path) -> Index:
    return asyncio.run(_catalog(home).refresh(Index.empty(), snapshots))


def append(rows: int) -> None:
    """Commit once more to a catalog with this number of rows."""
    home = _home(rows)
    more = list(_rows(0, COMMIT))
    catalog = _catalog(home)
    with printing_cost():
        catalog.append(more)


def read(rows: int) -> None:
    """Read the whole catalog into an index, as on a new machine."""
    with tempfile.TemporaryDirectory(dir=BENCH) as snapshots:
        with printing_cost():
            index = _refreshed(_home(rows), Path(snapshots))
        _check(index, rows)


def load(rows: int) -> None:
    """Load the index of an earlier run, and look up 10,000 URLs."""
    home = _home(rows)
    urls = [row.url_md5 for row in _rows(0, 10_000)]
    with printing_cost():
        index = Index.load(home / "snapshots")
        found = sum(index.sighting(url) is not None for url in urls)
    if found != len(urls):
        raise RuntimeError(f"{found} of {len(urls)} URLs were found")


def _check(index: Index, rows: int) -> None:
    if len(index) != rows:
        raise RuntimeError(f"an index of {len(index):,} URLs, not {rows:,}")


WHAT: dict[str, Callable[[int], None]] = {
    "append of 50,000 rows": append,
    "read into an index": read,
    "index kept, mapped; 10,000 look-ups": load,
}


def _part(name: str, rows: int) -> Part:
    def run(rounds: int) -> Runs:
        prepare(rows)
        return alternately(by_name(__file__, WHAT, f"{rows}"), rounds)

    return Part(name, f"a catalog of {rows:,} rows", run, ("deltalake",))


PARTS = [_part("catalog-1m", 1_000_000), _part("catalog-10m", 10_000_000)]

if __name__ == "__main__":
    WHAT[sys.argv[1]](int(sys.argv[2]))
