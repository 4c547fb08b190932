"""Reads Parquet files as batches of Arrow columns.

pyarrow loads only here, in `arrow_chunk`, `arrow_types` and `writers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mirror.dataset.chunks import Chunk, json_line
from mirror.dataset.fields import MISSING, FieldPath, value_at
from mirror.dataset.formats.arrow_chunk import ArrowChunk, first_line, taken, texts_or_values
from mirror.dataset.formats.arrow_types import (
    check_text,
    times_as_numbers,
    with_url_fields,
    without_views,
)
from mirror.dataset.formats.csv_reader import check_column
from mirror.dataset.records import Batches, ReadOptions, Rejected, RowBatch
from mirror.errors import UsageError
from mirror.system.extras import import_optional

if TYPE_CHECKING:
    import pyarrow as pa

# A batch has as many records as this, or as much of them: some hold the image itself.
_BATCH_RECORDS: Final = 8192
_BATCH_BYTES: Final = 8 << 20


def import_pyarrow() -> Any:
    """Import pyarrow.

    Raises:
        UsageError: it is not installed.
    """
    return import_optional("pyarrow", "Parquet")


def read_parquet(path: str, reading: ReadOptions) -> Batches:
    """Read a Parquet file in batches.

    Raises:
        UsageError: the file is not Parquet, or its URL column does not hold text.
    """
    pa = import_pyarrow()
    import pyarrow.parquet as pq

    failures = (pa.ArrowException, OSError, UnicodeDecodeError)
    try:
        # Only the part of a row group that a batch needs is held in memory.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        schema = file.schema_arrow
    except failures as error:
        raise UsageError(f"{path} cannot be read as Parquet: {first_line(error)}.") from None
    with file:
        if len(set(schema.names)) < len(schema.names):
            raise UsageError(f"{path} names a column twice; rename one of them.")
        check_column(schema.names, reading.url[0], path)
        check_text(schema.field(reading.url[0]).type, reading.url, path)
        number = 1
        batches = file.iter_batches(_rows_at_a_time(file.metadata))
        while True:
            try:
                batch = next(batches, None)
            except failures as error:
                reason = f"damaged from here on: {first_line(error)}"
                lost = RowBatch(rejected=[Rejected(number, reason, b"")])
                lost.others = {path: [] for path in reading.others}
                yield lost
                return
            if batch is None:
                if number == 1:  # without rows, its columns are known all the same
                    none = pa.RecordBatch.from_pylist([], schema=schema)
                    yield ArrowBatch.over(without_views(none), number, reading)
                return
            yield ArrowBatch.over(without_views(batch), number, reading)
            number += batch.num_rows


def _rows_at_a_time(metadata: Any) -> int:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    widest = max((g.total_byte_size / max(g.num_rows, 1) for g in groups), default=0)
    return min(_BATCH_RECORDS, max(1, int(_BATCH_BYTES / max(widest, 1))))


@dataclass
class ArrowBatch(RowBatch):
    """An Arrow record batch. `rows` holds only the columns of URLs and of original URLs."""

    batch: Any = None

    @classmethod
    def over(cls, batch: pa.RecordBatch, first: int, reading: ReadOptions) -> ArrowBatch:
        fit, rejected = _fit_rows(batch, first)
        batch = taken(batch, fit)
        names = set(batch.schema.names)
        wanted = [name for name in (reading.url[0], reading.source) if name in names]
        taken_apart = batch.select(wanted)
        # Values beside a nested URL pass through Python and must come back unchanged.
        if len(reading.url) > 1:
            schema = taken_apart.schema
            field = schema.field(reading.url[0])
            numbers = field.with_type(times_as_numbers(field.type))
            taken_apart = taken_apart.cast(schema.set(schema.get_field_index(field.name), numbers))
        numbered = zip((first + row for row in fit), ArrowChunk(taken_apart).rows(), strict=True)
        of = cls.of(list(numbered), ReadOptions(reading.url, reading.source), json_line)
        places = {first + place: row for row, place in enumerate(fit)}
        kept = [places[number] for number in of.numbers]
        others = {path[0] for path in reading.others if path[0] in names}
        columns = {name: texts_or_values(batch.column(name)) for name in others}
        return cls(
            numbers=of.numbers,
            urls=of.urls,
            owners=of.owners,
            others={path: _column(columns, kept, path) for path in reading.others},
            sourced=of.sourced,
            rejected=rejected + of.rejected,
            rows=of.rows,
            url_path=of.url_path,
            source=of.source,
            batch=taken(batch, kept),
        )

    def rewritten(self, keep: Sequence[int], urls: Sequence[bytes | None]) -> Chunk:
        import pyarrow as pa

        # URLs that are only removed leave no original URL.
        is_new = any(
            url is not None and url != old for url, old in zip(urls, self.urls, strict=True)
        )
        super().rewritten(keep, urls)
        rows = [self.rows[position] for position in keep]
        batch = taken(self.batch, keep)
        schema = batch.schema
        fields = {field.name: field for field in schema}
        arrays = dict(zip(schema.names, batch.columns, strict=True))
        top, *inner = self.url_path
        fields = with_url_fields(fields, self.url_path, self.source if is_new else None)
        changed = [top] if inner or self.source not in fields else [top, self.source]
        try:
            for name in changed:
                values = [row.get(name) for row in rows]
                kind = fields[name].type
                arrays[name] = pa.array(values, times_as_numbers(kind)).cast(kind)
        except (pa.ArrowException, UnicodeError, OverflowError, ValueError) as error:
            raise UsageError(
                f"The original URLs do not fit the field {self.source!r} ({first_line(error)}); "
                "name another with --source-field."
            ) from None
        return ArrowChunk(
            pa.RecordBatch.from_arrays(
                [arrays[name] for name in fields],
                schema=pa.schema(list(fields.values()), metadata=schema.metadata),
            )
        )

    def unchanged(self, keep: Sequence[int]) -> Chunk:
        return ArrowChunk(taken(self.batch, keep))

    def sample(self, *, replaced: bool) -> Chunk:
        import pyarrow as pa

        if len(self):
            return super().sample(replaced=replaced)
        schema = self.batch.schema
        fields = {field.name: field for field in schema}
        if replaced:
            fields = with_url_fields(fields, self.url_path, self.source)
        schema = pa.schema(list(fields.values()), metadata=schema.metadata)
        nulls = [pa.nulls(1, field.type) for field in schema]
        return ArrowChunk(pa.RecordBatch.from_arrays(nulls, schema=schema))


def _fit_rows(batch: pa.RecordBatch, first: int) -> tuple[list[int], list[Rejected]]:
    """The positions of valid rows, and the others as rejected: Parquet allows text of any bytes."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        pass
    else:
        return list(range(batch.num_rows)), []
    fit, rejected = [], []
    for row in range(batch.num_rows):
        try:
            taken(batch, [row]).validate(full=True)
        except pa.ArrowInvalid as error:
            rejected.append(Rejected(first + row, first_line(error), b""))
        else:
            fit.append(row)
    return fit, rejected


def _column(columns: dict[str, list[Any]], kept: Sequence[int], path: FieldPath) -> list[Any]:
    if path[0] not in columns:
        return [MISSING] * len(kept)
    values = columns[path[0]]
    return [value_at(values[row], path[1:]) for row in kept]
