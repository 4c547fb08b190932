"""The contract between datasets' formats and what is done with their records.

A reader gives `Batch`es: where the URLs are, what the other fields asked for hold, and what could
not be read. A batch gives its records back, with new URLs, as a `Chunk`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.chunks import Chunk, Row, Rows
from mirror.dataset.fields import (
    MISSING,
    BadRecord,
    FieldPath,
    UrlSite,
    check_name,
    holds_other,
    leaves_of,
    parse_path,
    replace_urls,
    sites_of,
    url_bytes,
    value_at,
    values_at,
)
from mirror.errors import UsageError

SOURCE_FIELD: Final = "source_url"


@dataclass(frozen=True)
class ReadOptions:
    """What is wanted of a dataset.

    Attributes:
        url: path of the field that holds a record's URL, or its URLs.
        source: the field beside it that the original URL goes to; empty where none is rewritten.
        others: paths of further fields whose values are asked for.

    Raises:
        UsageError: no field can have that name, or the original would go where the new URL is.
    """

    url: FieldPath = ("image_url",)
    source: str = SOURCE_FIELD
    others: tuple[FieldPath, ...] = ()

    def __post_init__(self) -> None:
        if check_name(self.source) == self.url[-1]:
            raise UsageError(
                f"The original URL cannot go to {self.source!r}, where the new one is; "
                "name another field with --source-field."
            )

    @classmethod
    def of(cls, url: str, source: str = SOURCE_FIELD, *others: str | None) -> ReadOptions:
        """The same of dotted texts; None among the others says nothing.

        Raises:
            UsageError: one of them is no path.
        """
        return cls(parse_path(url), source, tuple(parse_path(o) for o in others if o is not None))


def whole(path: FieldPath) -> tuple[FieldPath, FieldPath]:
    """What has to be read for `Batch.all_values`: of a path through a list readers give the first."""
    return path, path[:1]


class Rejected(NamedTuple):
    """A record that could not be read. `number`: its line, or its place, from 1 on."""

    number: int
    reason: str
    raw: bytes


@dataclass
class Batch(ABC):
    """Records that were read together.

    Attributes:
        numbers: line of each in its file, or its place there, from 1 on.
        urls: of all records end to end, as UTF-8.
        owners: for each URL the position of its record; None where each record has exactly one.
        others: for each path of `ReadOptions.others`, a value a record, or MISSING.
        sourced: positions of records whose source field holds something other than their URL.
        rejected: what was read and is no record.
    """

    numbers: Sequence[int] = ()
    urls: list[bytes] = field(default_factory=list)
    owners: NDArray[np.intp] | None = None
    others: dict[FieldPath, list[Any]] = field(default_factory=dict)
    sourced: set[int] = field(default_factory=set)
    rejected: list[Rejected] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.numbers)

    def all_values(self, path: FieldPath) -> list[Sequence[Any]]:
        """For each record every value at a path, those of lists on the way and at its end.

        At least one each: MISSING where there is none.

        Args:
            path: all of `whole(path)` are among `ReadOptions.others`.
        """
        firsts, tops = self.others[path], self.others[path[:1]]
        # A dot in a column's name is only a dot, and nothing stands at its first piece.
        return [
            list(leaves_of(list(values_at(top, path[1:])))) or [MISSING]
            if isinstance(top, list | dict)
            else [first]
            for first, top in zip(firsts, tops, strict=True)
        ]

    @abstractmethod
    def rewritten(self, keep: Sequence[int], urls: Sequence[bytes | None]) -> Chunk:
        """The records at the positions `keep`, with new URLs; called once.

        Args:
            keep: positions of records, ascending.
            urls: one for each of `self.urls`: None takes it out of its list; a record of `keep` has
                one at least that is not None. Equal to the old one, it leaves the record as it is.
                New ones hold nothing that JSON escapes.

        Raises:
            UsageError: the records cannot hold the originals.
        """

    @abstractmethod
    def unchanged(self, keep: Sequence[int]) -> Chunk:
        """The records at the positions `keep`, as they were read."""

    def raw(self, at: int) -> bytes:
        """What was read of one record."""
        return self.unchanged([at]).lines()[0]


Batches = Iterator[Batch]


@dataclass
class RowBatch(Batch):
    """A batch of Python objects: of CSV, of documents, of what has to be taken apart."""

    rows: list[Row] = field(default_factory=list)
    url_path: FieldPath = ()
    source: str = SOURCE_FIELD

    @classmethod
    def of(
        cls, numbered: Sequence[tuple[int, Row]], reading: ReadOptions, raw: Callable[[Row], bytes]
    ) -> RowBatch:
        """A batch of rows.

        Args:
            numbered: rows with their numbers.
            reading: what is wanted of them.
            raw: what to show of a row that is rejected.
        """
        batch = cls(url_path=reading.url, source=reading.source)
        numbers: list[int] = []
        owners: list[int] = []
        for number, row in numbered:
            try:
                sites = sites_of(row, reading.url)
            except BadRecord as bad:
                batch.rejected.append(Rejected(number, str(bad), raw(row)))
                continue
            at = len(numbers)
            numbers.append(number)
            batch.rows.append(row)
            found = urls_of(sites)
            batch.urls += found
            owners += [at] * len(found)
            if any(holds_other(site, reading.source) for site in sites):
                batch.sourced.add(at)
        batch.numbers = numbers
        if len(owners) != len(numbers):
            batch.owners = np.array(owners, np.intp)
        batch.others = {
            path: [value_at(row, path) for row in batch.rows] for path in reading.others
        }
        return batch

    def rewritten(self, keep: Sequence[int], urls: Sequence[bytes | None]) -> Chunk:
        check_source(self.source)
        for at, new in zip(keep, urls_by_record(self, keep, urls), strict=True):
            replace_urls(self.rows[at], self.url_path, self.source, iter(new))
        return self.unchanged(keep)

    def unchanged(self, keep: Sequence[int]) -> Chunk:
        return Rows([self.rows[at] for at in keep])


def check_source(name: str) -> None:
    """Raises: UsageError: there is no field for the originals."""
    if not name:
        raise UsageError("Originals of URLs need a field to go to; name it with --source-field.")


def urls_of(sites: Sequence[UrlSite]) -> list[bytes]:
    return [url_bytes(url) for site in sites for url in site.urls]


def urls_by_record(
    batch: Batch, keep: Sequence[int], urls: Sequence[bytes | None]
) -> Iterator[Sequence[bytes | None]]:
    """For each record of `keep` its part of `urls`."""
    if batch.owners is None:
        yield from ((urls[at],) for at in keep)
        return
    begins = np.searchsorted(batch.owners, np.asarray(keep, np.intp))
    ends = np.searchsorted(batch.owners, np.asarray(keep, np.intp), side="right")
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        yield urls[begin:end]
