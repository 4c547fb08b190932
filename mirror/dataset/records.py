"""The contract between readers of formats and the code that uses their records.

A reader gives `Batch`es: the URLs of records, the values of requested fields, and the records that
could not be read. A batch gives its records back, with new URLs, as a `Chunk`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import msgspec
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
NanRule = Literal["keep", "null", "reject"]

_NAMES_SHOWN: Final = 12


@dataclass(frozen=True)
class ReadOptions:
    """The fields to read of each record.

    Attributes:
        url: path of the field that holds a record's URL or URLs.
        source: the field beside it that takes the original URL; empty if none is rewritten.
        others: paths of further fields to read.
        nan: NaN and infinities in JSON, which JSON does not have. `keep` leaves them in the line,
            `null` replaces them, and `reject` makes the record invalid.

    Raises:
        UsageError: `source` is no possible name, or is the field of the new URL.
    """

    url: FieldPath = ("image_url",)
    source: str = SOURCE_FIELD
    others: tuple[FieldPath, ...] = ()
    nan: NanRule = "keep"

    def __post_init__(self) -> None:
        if check_name(self.source) == self.url[-1]:
            raise UsageError(
                f"The original URL cannot go to {self.source!r}, which holds the new one; "
                "name another field with --source-field."
            )

    @classmethod
    def of(cls, url: str, source: str = SOURCE_FIELD, *others: str | None) -> ReadOptions:
        """Parse dotted paths; None among the others is skipped.

        Raises:
            UsageError: a text is no path.
        """
        return cls(parse_path(url), source, tuple(parse_path(o) for o in others if o is not None))


def whole(path: FieldPath) -> tuple[FieldPath, FieldPath]:
    """The paths to read for `Batch.all_values`: a path through a list alone gives only its first value."""
    return path, path[:1]


def field_names(raw: bytes) -> str | None:
    """The names of a record's fields, for a message; None if the bytes are no JSON object."""
    try:
        names = list(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "") or "none"


class Rejected(NamedTuple):
    """A record that could not be read. `number` is its line or its position, from 1."""

    number: int
    reason: str
    raw: bytes


@dataclass
class Batch(ABC):
    """Records that were read together.

    Attributes:
        numbers: for each record its line or its position in the file, from 1.
        urls: the URLs of all records, end to end, as UTF-8.
        owners: for each URL the position of its record; None if each record has exactly one.
        others: for each path of `ReadOptions.others` one value per record, or MISSING.
        sourced: positions of records whose source field holds something other than their URL.
        rejected: what was read but is no valid record.
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
        """For each record all values at a path, through lists on the way and at its end.

        Each record has at least one value; MISSING if the field is absent.

        Args:
            path: `ReadOptions.others` must contain all of `whole(path)`.
        """
        firsts, tops = self.others[path], self.others[path[:1]]
        # In a flat table a dot is part of the column's name, and its first piece names no column.
        return [
            list(leaves_of(list(values_at(top, path[1:])))) or [MISSING]
            if isinstance(top, list | dict)
            else [first]
            for first, top in zip(firsts, tops, strict=True)
        ]

    @abstractmethod
    def rewritten(self, keep: Sequence[int], urls: Sequence[bytes | None]) -> Chunk:
        """The records at the positions `keep`, with new URLs. Called at most once.

        Args:
            keep: positions of records, ascending.
            urls: one for each of `self.urls`. None removes the URL from its list; each record of
                `keep` must retain a URL. A URL equal to the old one leaves the record unchanged.
                New URLs contain no character that JSON escapes.

        Raises:
            UsageError: the records cannot hold the original URLs.
        """

    @abstractmethod
    def unchanged(self, keep: Sequence[int]) -> Chunk:
        """The records at the positions `keep`, unchanged."""

    def sample(self, *, replaced: bool) -> Chunk:
        """At most one record as it would be written, to show the columns of a table.

        Only for a batch of which no record is written.

        Args:
            replaced: URLs are replaced, so the original ones get a field.
        """
        keep = range(len(self))[:1]
        return self.rewritten(keep, [b"-"] * len(self.urls)) if replaced else self.unchanged(keep)

    def raw(self, position: int) -> bytes:
        """One record as a line of JSON, as it was read."""
        return self.unchanged([position]).lines()[0]


Batches = Iterator[Batch]


@dataclass
class RowBatch(Batch):
    """A batch of Python objects, for formats whose records are decoded.

    `columns` has the names in the header of a table without rows.
    """

    rows: list[Row] = field(default_factory=list)
    url_path: FieldPath = ()
    source: str = SOURCE_FIELD
    columns: Sequence[str] = ()

    @classmethod
    def of(
        cls, numbered: Sequence[tuple[int, Row]], reading: ReadOptions, raw: Callable[[Row], bytes]
    ) -> RowBatch:
        """Make a batch of rows.

        Args:
            numbered: rows with their numbers.
            reading: the fields to read.
            raw: gives the bytes to show of a rejected row.
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
            position = len(numbers)
            numbers.append(number)
            batch.rows.append(row)
            found = urls_of(sites)
            batch.urls += found
            owners += [position] * len(found)
            if any(holds_other(site, reading.source) for site in sites):
                batch.sourced.add(position)
        batch.numbers = numbers
        if len(owners) != len(numbers):
            batch.owners = np.array(owners, np.intp)
        batch.others = {
            path: [value_at(row, path) for row in batch.rows] for path in reading.others
        }
        return batch

    def rewritten(self, keep: Sequence[int], urls: Sequence[bytes | None]) -> Chunk:
        check_source(self.source)
        for position, new in zip(keep, urls_by_record(self, keep, urls), strict=True):
            replace_urls(self.rows[position], self.url_path, self.source, iter(new))
        return self.unchanged(keep)

    def unchanged(self, keep: Sequence[int]) -> Chunk:
        return Rows([self.rows[position] for position in keep])

    def sample(self, *, replaced: bool) -> Chunk:
        if not self.columns:
            return super().sample(replaced=replaced)
        row: Row = dict.fromkeys(self.columns, "")
        if replaced:
            replace_urls(row, self.url_path, self.source, iter([b"-"]))
        return Rows([row])


def check_source(name: str) -> None:
    """Raise UsageError if no field is named for the original URLs."""
    if not name:
        raise UsageError("The original URLs need a field; name it with --source-field.")


def urls_of(sites: Sequence[UrlSite]) -> list[bytes]:
    """The URLs at these places, as UTF-8."""
    return [url_bytes(url) for site in sites for url in site.urls]


def urls_by_record(
    batch: Batch, keep: Sequence[int], urls: Sequence[bytes | None]
) -> Iterator[Sequence[bytes | None]]:
    """For each record of `keep` the part of `urls` that belongs to it."""
    if batch.owners is None:
        yield from ((urls[position],) for position in keep)
        return
    begins = np.searchsorted(batch.owners, np.asarray(keep, np.intp))
    ends = np.searchsorted(batch.owners, np.asarray(keep, np.intp), side="right")
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        yield urls[begin:end]
