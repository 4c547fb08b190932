"""The URLs of a dataset, by the MD5 that a cache knows them by: on disk, not in memory."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mirror.catalog.row import Source
from mirror.dataset.records import read_records
from mirror.errors import UsageError
from mirror.layout import url_md5

_BATCH = 20_000


class Fields(NamedTuple):
    """Names of the fields of a record that hold its URL, licence and attribution."""

    url: str = "image_url"
    license: str = "license"
    attribution: str = "attribution"


class DatasetUrls:
    """A mapping from `url_md5` to `Source`, in a temporary SQLite file that goes when it is closed."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    @classmethod
    @contextmanager
    def read(cls, path: Path, fields: Fields) -> Iterator[DatasetUrls]:
        """Read a dataset's URLs.

        Args:
            path: JSON lines, plain or gzip.
            fields: where a record holds what.

        Raises:
            UsageError: the file is not JSON lines, or no record has the URL field.
        """
        # "" names a temporary database that SQLite spills to disk and deletes by itself.
        with tempfile.TemporaryDirectory(prefix="mirror-dataset-") as folder:
            db = sqlite3.connect(f"{folder}/urls.sqlite", isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode = OFF")
                db.execute("PRAGMA synchronous = OFF")
                db.execute(
                    "CREATE TABLE urls (url_md5 BLOB PRIMARY KEY, url TEXT, license TEXT,"
                    " attribution TEXT) WITHOUT ROWID"
                )
                urls = cls(db)
                urls._fill(path, fields)
                yield urls
            finally:
                db.close()

    def _fill(self, path: Path, fields: Fields) -> None:
        insert = "INSERT OR REPLACE INTO urls VALUES (?, ?, ?, ?)"
        self._db.execute("BEGIN")
        batch: list[tuple[bytes, str, str | None, str | None]] = []
        for record in read_records(path):
            rights = _text(record.get(fields.license)), _text(record.get(fields.attribution))
            batch += [(url_md5(url), url, *rights) for url in _urls(record.get(fields.url))]
            if len(batch) >= _BATCH:
                self._db.executemany(insert, batch)
                batch.clear()
        self._db.executemany(insert, batch)
        self._db.execute("COMMIT")
        if not len(self):
            raise UsageError(
                f"No record of {path} has a URL in the field {fields.url!r}; name it with --url-field."
            )

    def get(self, url_md5: bytes) -> Source | None:
        found = self._db.execute(
            "SELECT url, license, attribution FROM urls WHERE url_md5 = ?", (url_md5,)
        ).fetchone()
        return Source(*found) if found else None

    def __contains__(self, url_md5: bytes) -> bool:
        return self.get(url_md5) is not None

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM urls").fetchone()[0])


def _urls(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
