"""A row of the catalog: one sighting of a URL's content. docs/format.md specifies its columns.

A thief of a writer's key can commit rows of any shape. A row that breaks the format is ignored by
every reader, and so is a row from a distant future: its time could never be exceeded, so no later row
of its URL would count. `mirror verify`, `status` and `doctor` name the data files that have such rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from mirror.content.image import VERDICTS, Verdict
from mirror.layout import FORMATS

# Clocks of machines are wrong by hours, and rarely by years.
AHEAD: Final = timedelta(days=3652)
# A machine without a battery for its clock may believe that it is 1970. It must not ignore all rows.
BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
_BYTES: Final = {"url_md5": 16, "content_hash": 16, "sha256": 32}
_WITHOUT_SIGN: Final = ("size", "width", "height")


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
        near: stored form of the perceptual hash; None where the pixels were not decoded.
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
    near: bytes | None = None


def latest_seen_at(now: float) -> int:
    """The greatest `seen_at` that counts, in microseconds since 1970.

    Args:
        now: seconds since 1970, by the reader's clock.
    """
    return int((max(now, BEGINNING.timestamp()) + AHEAD.total_seconds()) * 1e6)


def is_sound(latest: int) -> str:
    """The condition in SQL that a row of the catalog meets if it counts; others may give null.

    Args:
        latest: the greatest `seen_at` that counts.
    """
    # DataFusion has no length of binary values.
    conditions = [
        f"octet_length(encode({name}, 'hex')) = {2 * length}" for name, length in _BYTES.items()
    ]
    conditions += [f"{name} >= 0" for name in _WITHOUT_SIGN]
    for name, values in (("format", FORMATS), ("verdict", VERDICTS)):
        words = ", ".join(f"'{value}'" for value in values)
        conditions.append(f"{name} IN ({words})")
    conditions.append(f"arrow_cast(seen_at, 'Int64') BETWEEN 0 AND {latest}")
    return " AND ".join(conditions)


def about_ignored(ignored: Mapping[str, int]) -> tuple[str, str]:
    """What is wrong with rows that do not count, and what to do.

    Args:
        ignored: how many such rows each data file has; at least one file.
    """
    file, rows = max(ignored.items(), key=lambda item: item[1])
    more = f" and {len(ignored) - 1:,} other files" if len(ignored) > 1 else ""
    wrong = (
        f"{sum(ignored.values()):,} rows of the catalog break its format or are from the future, so "
        f"they are ignored ({rows:,} in catalog/{file}{more})"
    )
    fix = (
        "change the writer's key if you do not know who wrote them, and delete them as "
        'docs/security.md says, under "Rows that are ignored".'
    )
    return wrong, fix
