"""A memory-mapped, sorted snapshot of the catalog, for look-ups."""

from mirror.catalog.index.catalog_index import Index, Sighting, StoredObject
from mirror.catalog.index.index_columns import (
    FORMAT_CODES,
    FORMAT_NAMES,
    OK_CODE,
    VERDICT_CODES,
    Batch,
)
from mirror.catalog.index.snapshot_files import SNAPSHOT
from mirror.catalog.index.sorted_keys import halves, last_of_each, positions_of

__all__ = [
    "FORMAT_CODES",
    "FORMAT_NAMES",
    "OK_CODE",
    "SNAPSHOT",
    "VERDICT_CODES",
    "Batch",
    "Index",
    "Sighting",
    "StoredObject",
    "halves",
    "last_of_each",
    "positions_of",
]
