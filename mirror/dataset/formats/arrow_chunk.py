"""Arrow record batches to be written, with their types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mirror.dataset.chunks import Chunk, Row, json_line
from mirror.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowChunk(Chunk):
    """A record batch of a Parquet file. A Parquet writer keeps its types."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def take(self, positions: Sequence[int]) -> ArrowChunk:
        return ArrowChunk(taken(self.batch, positions))

    def lines(self) -> list[bytes]:
        return [json_line(row) for row in self.rows()]

    def rows(self) -> list[Row]:
        names = self.batch.schema.names
        columns = [texts_or_values(column) for column in self.batch.columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def taken(batch: pa.RecordBatch, positions: Sequence[int]) -> pa.RecordBatch:
    import pyarrow as pa

    if list(positions) == list(range(batch.num_rows)):
        return batch
    return batch.take(pa.array(positions, pa.int64()))


def texts_or_values(column: pa.Array) -> list[Any]:
    """The values of a column; as text if Python's types cannot hold them, such as nanoseconds.

    Raises:
        UsageError: the values have no text form either.
    """
    import pyarrow as pa

    try:
        values: list[Any] = _without_nanoseconds(column).to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        try:
            values = column.cast(pa.string()).to_pylist()
        except pa.ArrowException:
            raise UsageError(
                f"A column of {column.type} holds values that only Parquet can hold; write Parquet."
            ) from None
    return values


def _without_nanoseconds(column: pa.Array) -> pa.Array:
    """The column in microseconds. Otherwise an installed pandas would round silently.

    Raises:
        ArrowException: microseconds cannot hold the values.
    """
    import pyarrow as pa

    kind = column.type
    if not str(kind).startswith(("timestamp[ns", "time64[ns", "duration[ns")):
        return column
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz))
    return column.cast(pa.time64("us") if pa.types.is_time64(kind) else pa.duration("us"))


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
