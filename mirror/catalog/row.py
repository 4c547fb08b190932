"""A row of the catalog: one sighting of a URL's content. docs/format.md specifies its columns."""

from __future__ import annotations

from typing import NamedTuple

from mirror.content.image import Verdict


class RowSource(NamedTuple):
    """Where a URL's content comes from, and its licence; None where unknown."""

    url: str | None = None
    license: str | None = None
    attribution: str | None = None


UNKNOWN_SOURCE = RowSource()


class Row(NamedTuple):
    """One sighting.

    Attributes:
        url_md5: MD5 of the URL, 16 bytes; in hex the file's name in the cache.
        content_hash: xxh3-128 of the bytes, 16 bytes; in hex the object's key.
        sha256: SHA-256 of the bytes, 32 bytes.
        size: bytes.
        format: a name of `mirror.layout.FORMATS`.
        width: pixels, 0 where unknown.
        height: pixels, 0 where unknown.
        verdict: a row that is not `ok` has no object unless the user chose to upload it.
        reason: of the verdict, in a few words.
        source: URL, licence and attribution, where a dataset has given them.
        seen_at: microseconds since 1970-01-01 UTC; the row with the greatest one is the latest.
    """

    url_md5: bytes
    content_hash: bytes
    sha256: bytes
    size: int
    format: str
    width: int
    height: int
    verdict: Verdict
    reason: str
    source: RowSource
    seen_at: int
