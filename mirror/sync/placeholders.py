"""Detects placeholders: a content that implausibly many photos share is no photograph.

A server that has lost or hidden a photo may answer with a replacement picture, under any number of
URLs. One file alone does not show it; the number of different photos with the same bytes does. That
evidence grows from run to run, so a verdict may change from `ok` to `placeholder` later. New rows of
the catalog then say so, and the latest row wins.

Where a dataset has given the URLs, several spellings of one photo's URL count as one photo. Where
none has, every name in the cache counts as a photo.
"""

from __future__ import annotations

from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import Index, Sighting
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.content.photo import SIZE_BITS
from mirror.content.placeholder import distinct_photos, shared_reason


async def new_placeholders(
    index: Index, catalog: Catalog, least: int, since: int, seen_at: int
) -> list[Row]:
    """New rows with the verdict `placeholder`, for contents that too many photos share.

    Args:
        index: of the catalog's newest version.
        catalog: asked for the URLs that datasets have given.
        least: a content with this many different photos is a placeholder.
        since: skip contents without a row since then, in microseconds since 1970: an earlier run
            has examined them. 0 examines all.
        seen_at: of the new rows, in microseconds since 1970; later where that is needed to
            supersede the latest row.
    """
    suspects: dict[bytes, dict[bytes, Sighting]] = {}
    for content, urls in index.contents_under_many_urls(least):
        at = index.find(b"".join(urls))
        if index.sightings["seen_at"][at].max() < since:
            continue
        # One photo under many spellings is common, and the index alone shows it. When a whole
        # catalog is examined, these sightings and their sources would take most of the memory.
        keys = index.sightings["photo"][at]
        known_photos = keys[keys != 0] >> SIZE_BITS
        if len(keys) - len(known_photos) + len(set(known_photos.tolist())) >= least:
            suspects[content] = {
                url: row for url in urls if (row := index.sighting(url)) is not None
            }
    sourced = [url for rows in suspects.values() for url, row in rows.items() if row.sourced]
    sources = await catalog.sources_of(sourced)
    found: list[Row] = []
    for content, rows in suspects.items():
        known_urls = [source.url for url in rows if (source := sources.get(url)) and source.url]
        photos = distinct_photos(known_urls) + len(rows) - len(known_urls)
        sha256 = index.object_sha256(content)
        if photos < least or sha256 is None:
            continue
        for url, row in rows.items():
            seen = max(seen_at, row.seen_at + 1)
            found.append(
                Row(
                    url, content, sha256, row.size, row.format, row.width, row.height,
                    "placeholder", shared_reason(photos), sources.get(url, UNKNOWN_SOURCE), seen,
                )
            )  # fmt: skip
    return found
