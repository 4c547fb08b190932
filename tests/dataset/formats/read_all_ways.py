"""Reads bytes as a dataset, in every way that bytes may arrive, and collects the results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mirror.dataset.compression import TolerantStream, decompressed
from mirror.dataset.fields import FieldPath
from mirror.dataset.records import Batch, Batches, ReadOptions, Rejected

New = Callable[[bytes], bytes | None]

READING = ReadOptions()


class Trickle:
    """A stream that gives a few bytes at a time, and an error at the end if one is given."""

    def __init__(self, data: bytes, size: int = 1 << 30, error: Exception | None = None) -> None:
        self._data = data
        self._at = 0
        self._size = size
        self._error = error

    def read1(self, size: int = -1, /) -> bytes:
        size = self._size if size < 0 else min(size, self._size)
        part = self._data[self._at : self._at + size]
        self._at += len(part)
        if not part and self._error is not None:
            raise self._error
        return part


def stream(data: bytes, size: int = 1 << 30, error: Exception | None = None) -> TolerantStream:
    return decompressed(Trickle(data, size, error))


def renamed(url: bytes) -> bytes:
    """A new URL for each URL, from which the old one can be recognised."""
    return b"https://m.example/" + hashlib.md5(url).hexdigest().encode() + b".jpg"


@dataclass
class Result:
    """The records as read, and as written with new URLs. `urls` has the URLs of each record."""

    numbers: list[int] = field(default_factory=list)
    urls: list[list[bytes]] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    others: dict[FieldPath, list[Any]] = field(default_factory=dict)
    sourced: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def reasons(self) -> list[tuple[int, str]]:
        return [(one.number, one.reason) for one in self.rejected]


def urls_of_records(batch: Batch) -> list[list[bytes]]:
    owners: Iterable[int] = range(len(batch)) if batch.owners is None else batch.owners.tolist()
    found: list[list[bytes]] = [[] for _ in range(len(batch))]
    for owner, url in zip(owners, batch.urls, strict=True):
        found[owner].append(url)
    assert all(found)
    return found


def result_of(batches: Batches, new: New = renamed) -> Result:
    """The records of all batches; those that retain a URL are rewritten."""
    result = Result()
    for batch in batches:
        result.numbers += batch.numbers
        result.urls += urls_of_records(batch)
        result.kept += batch.unchanged(range(len(batch))).lines() if len(batch) else []
        result.sourced += [batch.numbers[at] for at in sorted(batch.sourced)]
        result.rejected += batch.rejected
        for path, values in batch.others.items():
            assert len(values) == len(batch)
            result.others.setdefault(path, []).extend(values)
        keep = [at for at, urls in enumerate(urls_of_records(batch)) if any(map(new, urls))]
        if keep:
            result.lines += batch.rewritten(keep, [new(url) for url in batch.urls]).lines()
    return result


def rows(result: Result) -> list[dict[str, Any]]:
    """The rewritten records, decoded."""
    return [msgspec.json.decode(line) for line in result.lines]
