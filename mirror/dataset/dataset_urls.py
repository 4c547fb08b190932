"""The URLs of a dataset by their MD5, on disk because a dataset may not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from mirror.catalog.lookup import digests_of
from mirror.catalog.row import RowSource
from mirror.dataset.fields import parse_path
from mirror.dataset.inputs import Input, read
from mirror.dataset.records import Batch, ReadOptions
from mirror.errors import UsageError
from mirror.system.database import ScratchDatabase


class FieldNames(NamedTuple):
    """Dotted paths of a record's URL, licence and attribution."""

    url: str = "image_url"
    license: str = "license"
    attribution: str = "attribution"


class DatasetUrls:
    """A mapping from `url_md5` to `RowSource`, in a temporary database."""

    def __init__(self, db: ScratchDatabase) -> None:
        self._db = db

    @classmethod
    @contextmanager
    def read(cls, sources: Sequence[Input], fields: FieldNames) -> Iterator[DatasetUrls]:
        """Read the URLs of datasets; the last record of a URL counts.

        Args:
            sources: files of any format that `mirror rewrite` reads, or MongoDB collections.
            fields: paths of the fields to read.

        Raises:
            UsageError: the dataset cannot be read, or one of its records has no URL.
            StateError: there is no room for the temporary database.
        """
        for source in sources:
            source.check()
        schema = """
            CREATE TABLE urls (url_md5 BLOB PRIMARY KEY, url TEXT, license TEXT, attribution TEXT)
                WITHOUT ROWID;
        """
        with ScratchDatabase(schema) as db:
            urls = cls(db)
            for source in sources:
                urls._fill(source, fields)
            if not len(urls):
                raise UsageError(f"{', '.join(s.shown for s in sources)} has no records.")
            yield urls

    def _fill(self, source: Input, fields: FieldNames) -> None:
        rights = parse_path(fields.license), parse_path(fields.attribution)
        reading = ReadOptions(parse_path(fields.url), source="", others=rights)
        self._db.execute("BEGIN")
        for batch in read(source, reading):
            for rejected in batch.rejected:
                raise UsageError(
                    f"{source.shown}, record {rejected.number}: {rejected.reason}; name the URL's "
                    "field with --url-field, or have such records set aside by mirror rewrite."
                )
            self._db.execute_many("INSERT OR REPLACE INTO urls VALUES (?, ?, ?, ?)", _rows(batch))
        self._db.execute("COMMIT")

    def get(self, url_md5: bytes) -> RowSource | None:
        found = self._db.row(
            "SELECT url, license, attribution FROM urls WHERE url_md5 = ?", (url_md5,)
        )
        return RowSource(*found) if found else None

    def __contains__(self, url_md5: bytes) -> bool:
        return self.get(url_md5) is not None

    def __len__(self) -> int:
        return int(self._db.row("SELECT count(*) FROM urls")[0])


def _rows(batch: Batch) -> Iterator[tuple[bytes, str, str | None, str | None]]:
    digests = digests_of(batch.urls)
    owners = range(len(batch)) if batch.owners is None else batch.owners.tolist()
    rights = [[_text(value) for value in values] for values in batch.others.values()]
    # There is one column if licence and attribution are the same field.
    licenses, attributions = rights[0], rights[-1]
    for number, (url, owner) in enumerate(zip(batch.urls, owners, strict=True)):
        digest = digests[16 * number : 16 * number + 16]
        yield digest, url.decode(), licenses[owner], attributions[owner]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
