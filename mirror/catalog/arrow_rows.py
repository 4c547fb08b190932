"""Rows of the catalog as Arrow columns: its schema, and the conversions to and from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import arro3.core as arrow
import numpy as np
from numpy.typing import NDArray

from mirror.catalog.index import FORMAT_CODES, VERDICT_CODES, Batch, halves
from mirror.catalog.row import Row
from mirror.content.perceptual_hash import STORED_BYTES, VERSION
from mirror.content.photo import photo_key

# Name and Delta type of each column, in the order of docs/format.md.
FIELDS: Final = (
    ("url_md5", "binary"),
    ("content_hash", "binary"),
    ("sha256", "binary"),
    ("size", "long"),
    ("format", "string"),
    ("width", "integer"),
    ("height", "integer"),
    ("verdict", "string"),
    ("reason", "string"),
    ("source_url", "string"),
    ("license", "string"),
    ("attribution", "string"),
    ("seen_at", "timestamp"),
    ("near", "binary"),
)
NULLABLE: Final = {"source_url", "license", "attribution", "near"}
# Columns that tables made by an earlier version lack, and the value in SQL that stands for them.
ADDED: Final = {"near": "arrow_cast(NULL, 'Binary')"}

# The columns that `batch_from_arrow` needs.
INDEXED: Final = (
    "url_md5", "content_hash", "sha256", "size", "width", "height", "format", "verdict",
    "source_url", "seen_at", "near",
)  # fmt: skip

_ARROW: Final = {
    "binary": arrow.DataType.binary(),
    "long": arrow.DataType.int64(),
    "integer": arrow.DataType.int32(),
    "string": arrow.DataType.string(),
}


def to_arrow(rows: Sequence[Row]) -> arrow.Table:
    """Rows as a table with the catalog's schema."""
    columns = list(zip(*rows, strict=True))
    sources = list(zip(*columns[9], strict=True))
    values = [*columns[:9], *sources, *columns[10:]]
    arrays: dict[str, arrow.Array] = {}
    for (name, kind), column in zip(FIELDS, values, strict=True):
        if kind == "timestamp":
            micros = arrow.Array(column, arrow.DataType.int64())
            arrays[name] = micros.cast(arrow.DataType.timestamp("us", tz="UTC"))
        else:
            arrays[name] = arrow.Array(column, _ARROW[kind])
    schema = arrow.Schema(
        [arrow.Field(n, arrays[n].type, nullable=n in NULLABLE) for n, _ in FIELDS]
    )
    return arrow.Table.from_arrays(list(arrays.values()), schema=schema)


def batch_from_arrow(batch: arrow.RecordBatch) -> Batch:
    """The `INDEXED` columns of a record batch of sound rows as the columns that an index keeps."""
    column = {name: batch.column(at) for at, name in enumerate(batch.schema.names)}
    url_hi, url_lo = halves(b"".join(column["url_md5"].to_pylist()))
    hash_hi, hash_lo = halves(b"".join(column["content_hash"].to_pylist()))
    formats, verdicts = column["format"].to_pylist(), column["verdict"].to_pylist()
    urls = column["source_url"].to_pylist()
    seen_at = column["seen_at"].cast(arrow.DataType.int64()).to_numpy().astype("i8")
    return {
        "url_hi": url_hi,
        "url_lo": url_lo,
        "hash_hi": hash_hi,
        "hash_lo": hash_lo,
        "sha256": np.frombuffer(b"".join(column["sha256"].to_pylist()), "V32"),
        "size": column["size"].to_numpy().astype("i8"),
        "width": column["width"].to_numpy().astype("i4"),
        "height": column["height"].to_numpy().astype("i4"),
        "format": np.array([FORMAT_CODES[name] for name in formats], "u1"),
        "verdict": np.array([VERDICT_CODES[name] for name in verdicts], "u1"),
        "sourced": np.array([url is not None for url in urls], "?"),
        "photo": np.array([photo_key(url) if url else 0 for url in urls], "u8"),
        "seen_at": seen_at,
        "first_seen": seen_at,
        "near": _hashes(column["near"].to_pylist()),
    }


def _hashes(values: Iterable[bytes | None]) -> NDArray[Any]:
    """Stored hashes of the version that this code computes; zeros in place of all others.

    Another program may have written the column, so it may hold bytes of any length.
    """
    nothing = bytes(STORED_BYTES)
    ours = [
        value if value and len(value) == STORED_BYTES and value[0] == VERSION else nothing
        for value in values
    ]
    return np.frombuffer(b"".join(ours), f"V{STORED_BYTES}")
