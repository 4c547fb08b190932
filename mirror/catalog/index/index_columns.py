"""The columns of an index: their names, types and codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.content.image import VERDICTS
from mirror.content.perceptual_hash import STORED_BYTES
from mirror.layout import FORMATS

# Columns of equal length by their names.
Batch = dict[str, NDArray[Any]]

# A batch holds a format as its position in this, and a verdict as its position in `VERDICTS`.
FORMAT_NAMES: Final = tuple(FORMATS)
FORMAT_CODES: Final = {name: code for code, name in enumerate(FORMAT_NAMES)}
VERDICT_CODES: Final = {name: code for code, name in enumerate(VERDICTS)}
OK_CODE: Final = VERDICTS.index("ok")

SIGHTING_COLUMNS: Final = {
    "url_hi": "u8",
    "url_lo": "u8",
    "hash_hi": "u8",
    "hash_lo": "u8",
    "size": "i8",
    "width": "i4",
    "height": "i4",
    "format": "u1",
    "verdict": "u1",
    "sourced": "?",
    "seen_at": "i8",
    "first_seen": "i8",
    "photo": "u8",
}
OBJECT_COLUMNS: Final = {
    "hash_hi": "u8",
    "hash_lo": "u8",
    "sha256": "V32",
    "format": "u1",
    "near": f"V{STORED_BYTES}",
}

# Rows that are copied or searched at once: memory stays at a few megabytes a column.
PIECE: Final = 1 << 16


def empty_columns(columns: dict[str, str]) -> Batch:
    return {name: np.empty(0, kind) for name, kind in columns.items()}


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Join batches into one. They are empty afterwards: at ten million rows both would take 2 GB."""
    if not batches:
        return empty_columns(SIGHTING_COLUMNS | OBJECT_COLUMNS)
    return {
        name: np.concatenate([batch.pop(name) for batch in batches]) for name in list(batches[0])
    }


class ColumnSelection(NamedTuple):
    """`np.concatenate([base, new])[positions]`, computed a piece at a time."""

    base: NDArray[Any]
    new: NDArray[Any]
    positions: NDArray[np.intp]

    def pieces(self) -> Iterator[NDArray[Any]]:
        for begin in range(0, len(self.positions), PIECE):
            at = self.positions[begin : begin + PIECE]
            piece = np.empty(len(at), self.base.dtype)
            from_base = at < len(self.base)
            piece[from_base] = self.base[at[from_base]]
            piece[~from_base] = self.new[at[~from_base] - len(self.base)]
            yield piece

    def whole(self) -> NDArray[Any]:
        return np.concatenate([np.empty(0, self.base.dtype), *self.pieces()])
