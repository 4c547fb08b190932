"""One content under implausibly many photos is nobody's photograph: a placeholder.

A server that has lost or hidden a photo may answer with a replacement picture, under as many URLs as
it likes. Nothing in one file tells; the number of different photos that share its bytes does. That
evidence grows from run to run, so a verdict that was `ok` may become `placeholder` later: new rows
of the catalog say so, and the latest row wins. The other spellings of one photo's URL are one photo
where a dataset has told the URLs; where none has, every name in the cache counts as a photo.
"""

from __future__ import annotations

from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import Index, Sighting
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.content.photo import SIZE_BITS
from mirror.content.placeholder import distinct_photos, shared_reason


async def newly_found(
    index: Index, catalog: Catalog, least: int, since: int, seen_at: int
) -> list[Row]:
    """Rows that say `placeholder` for contents that the catalog names under too many photos.

    Args:
        index: of the catalog's newest version.
        catalog: is asked for the URLs that datasets have told.
        least: so many different photos under one content make it a placeholder.
        since: only contents that were seen under another URL since then; an earlier run has weighed
            the others, and 0 says that none has. Microseconds since 1970, as is
        seen_at: of the rows; later where the row that it supersedes is later.
    """
    suspects: dict[bytes, dict[bytes, Sighting]] = {}
    for content, urls in index.contents_under_many_urls(least):
        at = index.find(b"".join(urls))
        if index.sightings["seen_at"][at].max() < since:
            continue
        # One photo under many spellings is common, and the index tells it: when all of a catalog is
        # weighed, these sightings and their sources would take more memory than all else.
        keys = index.sightings["photo"][at]
        spelled = keys[keys != 0] >> SIZE_BITS
        if len(keys) - len(spelled) + len(set(spelled.tolist())) >= least:
            suspects[content] = {
                url: row for url in urls if (row := index.sighting(url)) is not None
            }
    sourced = [url for rows in suspects.values() for url, row in rows.items() if row.sourced]
    told = await catalog.sources_of(sourced)
    found: list[Row] = []
    for content, rows in suspects.items():
        known = [source.url for url in rows if (source := told.get(url)) and source.url]
        photos = distinct_photos(known) + len(rows) - len(known)
        sha256 = index.object_sha256(content)
        if photos < least or sha256 is None:
            continue
        for url, row in rows.items():
            seen = max(seen_at, row.seen_at + 1)
            found.append(
                Row(
                    url, content, sha256, row.size, row.format, row.width, row.height,
                    "placeholder", shared_reason(photos), told.get(url, UNKNOWN_SOURCE), seen,
                )
            )  # fmt: skip
    return found
