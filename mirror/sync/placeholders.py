"""Detects placeholders: a content that implausibly many photos share is no photograph.

A server that has lost or hidden a photo may answer with a replacement picture, under any number of
URLs. One file alone does not show it; the number of different photos with the same bytes does. That
evidence grows from run to run, so a verdict may change from `ok` to `placeholder` later. New rows of
the catalog then say so, and the latest row wins.

Where a dataset has given the URLs, several spellings of one photo's URL count as one photo. Where
none has, every name in the cache counts as a photo.

Evidence also comes from machines that do not inspect, at any time and by any clock. So a run weighs all
contents, except those whose rows it has weighed before: the state keeps a digest of their rows.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import FORMAT_NAMES, Index
from mirror.catalog.row import UNKNOWN_SOURCE, Row, RowSource
from mirror.content.photo import SIZE_BITS
from mirror.content.placeholder import KNOWN_BAD, distinct_photos, shared_reason


class WeighedContents(msgspec.Struct, frozen=True):
    """What the last weighing of a catalog has left.

    Attributes:
        version: of the catalog that was weighed; -1 before the first.
        least: with how many photos a content was a placeholder.
        contents: contents that many rows share and that are no placeholders, with a digest of these
            rows, both in hexadecimal.
    """

    version: int = -1
    least: int = 0
    contents: dict[str, str] = {}


class Weighing(NamedTuple):
    """The outcome of a weighing.

    Attributes:
        rows: new rows with the verdict `placeholder`.
        weighed: for the next weighing.
    """

    rows: list[Row]
    weighed: WeighedContents


async def new_placeholders(
    index: Index, catalog: Catalog, least: int, earlier: WeighedContents, seen_at: int
) -> Weighing:
    """New rows with the verdict `placeholder`, for contents that too many photos share.

    A row that still says `ok` of a content that another row calls a placeholder gets one too: its
    writer did not know that row.

    Args:
        index: of the catalog's newest version.
        catalog: asked for the URLs that datasets have given.
        least: a content with this many different photos is a placeholder.
        earlier: what the last weighing has left.
        seen_at: of the new rows, in microseconds since 1970; later where that is needed to
            supersede the latest row.
    """
    known = earlier.contents if earlier.least == least else {}
    suspects: dict[bytes, NDArray[np.intp]] = {}
    weighed: dict[str, str] = {}
    for content, at in index.contents_under_many_urls(least):
        # One photo under many spellings is common, and the index alone shows it. When a whole
        # catalog is examined, these sightings and their sources would take most of the memory.
        keys = index.sightings["photo"][at]
        known_photos = keys[keys != 0] >> SIZE_BITS
        if len(keys) - len(known_photos) + len(set(known_photos.tolist())) < least:
            continue
        digest = _digest_of(index, at)
        if known.get(content.hex()) == digest:
            weighed[content.hex()] = digest
        else:
            suspects[content] = at
    named = dict(index.ok_rows_of_placeholders())
    sources = await catalog.sources_of(
        url for at in (suspects | named).values() for url in _sourced_urls(index, at)
    )
    found: list[Row] = []
    for content, at in suspects.items():
        if content in named:
            continue
        urls = _urls(index, at)
        known_urls = [source.url for url in urls if (source := sources.get(url)) and source.url]
        photos = distinct_photos(known_urls) + len(urls) - len(known_urls)
        if photos < least:
            weighed[content.hex()] = _digest_of(index, at)
        else:
            found += _flagged(
                index, content, at, shared_reason(photos), sources=sources, seen_at=seen_at
            )
    for content, at in named.items():
        found += _flagged(index, content, at, KNOWN_BAD, sources=sources, seen_at=seen_at)
    return Weighing(found, WeighedContents(index.version, least, weighed))


def _flagged(
    index: Index,
    content: bytes,
    at: NDArray[np.intp],
    reason: str,
    *,
    sources: dict[bytes, RowSource],
    seen_at: int,
) -> list[Row]:
    """Rows that call the content of the rows at these positions a placeholder."""
    sha256 = index.object_sha256(content)
    assert sha256 is not None  # ok rows name it
    columns = index.sightings
    return [
        Row(
            url, content, sha256, int(columns["size"][row]),
            FORMAT_NAMES[columns["format"][row]], int(columns["width"][row]),
            int(columns["height"][row]), "placeholder", reason, sources.get(url, UNKNOWN_SOURCE),
            max(seen_at, int(columns["seen_at"][row]) + 1),
        )
        for url, row in zip(_urls(index, at), at.tolist(), strict=True)
    ]  # fmt: skip


def _urls(index: Index, at: NDArray[np.intp]) -> list[bytes]:
    return [url.tobytes() for url in index.url_md5s(at)]


def _sourced_urls(index: Index, at: NDArray[np.intp]) -> list[bytes]:
    return _urls(index, at[index.sightings["sourced"][at]])


def _digest_of(index: Index, at: NDArray[np.intp]) -> str:
    """A digest of rows: of their URLs, and of what is known of their photos."""
    columns = index.sightings
    facts = (index.url_md5s(at), columns["photo"][at], columns["sourced"][at])
    return xxhash.xxh3_128_hexdigest(b"".join(fact.tobytes() for fact in facts))
