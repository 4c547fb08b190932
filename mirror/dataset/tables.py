"""CSV and Parquet: batches of their records. pyarrow loads here and in `output` only."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO

from mirror.dataset.chunks import ArrowChunk, Chunk, Row, json_line
from mirror.dataset.fields import MISSING, FieldPath, value_at
from mirror.dataset.records import Batches, Reading, Rejected, RowBatch
from mirror.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH: Final = 8192
_LONGEST_FIELD: Final = 64 << 20


def read_csv(file: BinaryIO, reading: Reading, name: str, *, delimiter: str) -> Batches:
    """Batches of a CSV file with a header; every value is text.

    Raises:
        UsageError: there is no header, or it names a column twice.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _read_csv(text, reading, name, delimiter)
    finally:
        text.detach()  # else it would close the file, which is not ours, whenever it is collected


def _read_csv(text: TextIO, reading: Reading, name: str, delimiter: str) -> Batches:
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header = next(reader, None)
    if not header:
        raise UsageError(f"{name} is empty; a CSV file begins with the names of its columns.")
    if len(set(header)) < len(header):
        raise UsageError(f"{name} names a column twice; rename one of them.")
    # A dot in a column's name is only a dot: there is nothing nested in a CSV file.
    flat = Reading(
        (".".join(reading.url),), reading.source, tuple((".".join(o),) for o in reading.others)
    )
    rejected: list[Rejected] = []
    rows = _csv_rows(reader, header, rejected)
    while numbered := list(islice(rows, _BATCH)):
        batch = RowBatch.of(numbered, flat, json_line)
        batch.others = {o: batch.others[(".".join(o),)] for o in reading.others}
        batch.rejected += rejected
        rejected.clear()
        yield batch
    if rejected:
        yield RowBatch(rejected=rejected)


def _csv_rows(
    reader: Any, header: list[str], rejected: list[Rejected]
) -> Iterator[tuple[int, Row]]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            rejected.append(Rejected(reader.line_num, f"not CSV: {error}", b""))
            continue
        except EOFError:
            reason = "the compressed file ends too early"
            rejected.append(Rejected(reader.line_num + 1, reason, b""))
            return
        raw = ",".join(cells).encode("utf-8", "surrogateescape")
        if len(cells) != len(header):
            reason = f"{len(cells)} cells under {len(header)} columns" if cells else "empty line"
            rejected.append(Rejected(reader.line_num, reason, raw))
        elif any("\udc80" <= c <= "\udcff" for c in raw.decode("utf-8", "surrogateescape")):
            rejected.append(Rejected(reader.line_num, "not UTF-8", raw))
        else:
            yield reader.line_num, dict(zip(header, cells, strict=True))


def import_pyarrow() -> Any:
    """Raises: UsageError: pyarrow is not installed."""
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise UsageError("Parquet needs pyarrow: pip install 'dataset-mirror[parquet]'.") from None


def read_parquet(path: str, reading: Reading) -> Batches:
    """Batches of a Parquet file.

    Raises:
        UsageError: it is no Parquet file, or its URL column does not hold text.
    """
    pa = import_pyarrow()
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path} cannot be read as Parquet: {_first_line(error)}.") from None
    with file:
        top = reading.url[0]
        if top not in file.schema_arrow.names:
            raise UsageError(f"{path} has no column {top!r}; name the URL's with --url-field.")
        number = 1
        try:
            for batch in file.iter_batches(_BATCH):
                yield ArrowBatch.over(batch, number, reading)
                number += batch.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            yield RowBatch(rejected=[Rejected(number, f"damaged: {_first_line(error)}", b"")])


@dataclass
class ArrowBatch(RowBatch):
    """A record batch. Only the columns on the way to URLs are taken apart; `rows` are those."""

    batch: Any = None

    @classmethod
    def over(cls, batch: pa.RecordBatch, first: int, reading: Reading) -> ArrowBatch:
        names = set(batch.schema.names)
        wanted = [name for name in (reading.url[0], reading.source) if name in names]
        rows: list[Row] = batch.select(wanted).to_pylist()
        others = {path[0] for path in reading.others if path[0] in names}
        columns = {name: batch.column(name).to_pylist() for name in others}

        url_only = Reading(reading.url, reading.source)
        numbered = list(enumerate(rows, first))
        of = cls.of(numbered, url_only, json_line)
        kept = [number - first for number in of.numbers]
        taken = batch if len(kept) == batch.num_rows else batch.take(kept)
        return cls(
            numbers=of.numbers,
            urls=of.urls,
            owners=of.owners,
            others={path: _column(columns, kept, path) for path in reading.others},
            sourced=of.sourced,
            rejected=of.rejected,
            rows=of.rows,
            url_path=of.url_path,
            source=of.source,
            batch=taken,
        )

    def rewritten(self, keep: Sequence[int], urls: Sequence[bytes | None]) -> Chunk:
        import pyarrow as pa

        super().rewritten(keep, urls)
        rows = [self.rows[at] for at in keep]
        taken = self.batch.take(list(keep))
        schema = taken.schema
        top = self.url_path[0]
        at = schema.get_field_index(top)
        plain = _plain_text(schema.field(at).type)
        arrays = dict(zip(schema.names, taken.columns, strict=True))
        fields = {field.name: field for field in schema}
        if len(self.url_path) > 1:
            plain = _with_source(plain, self.url_path[1:], self.source)
            arrays[top] = pa.array([row[top] for row in rows], plain)
            fields[top] = pa.field(top, plain)
        else:
            arrays[top] = pa.array([row[top] for row in rows], plain)
            fields[top] = pa.field(top, plain)
            beside = fields.get(self.source)
            kind = plain if beside is None or pa.types.is_null(beside.type) else beside.type
            fields[self.source] = pa.field(self.source, kind)
            arrays[self.source] = pa.array([row.get(self.source) for row in rows], kind)
        names = [name for name in schema.names if name != self.source or len(self.url_path) > 1]
        if len(self.url_path) == 1:
            names.insert(names.index(top) + 1, self.source)
        batch = pa.RecordBatch.from_arrays(
            [arrays[name] for name in names],
            schema=pa.schema([fields[name] for name in names], metadata=schema.metadata),
        )
        return ArrowChunk(batch)

    def unchanged(self, keep: Sequence[int]) -> Chunk:
        return ArrowChunk(self.batch.take(list(keep)))


def _column(columns: dict[str, list[Any]], kept: Sequence[int], path: FieldPath) -> list[Any]:
    if path[0] not in columns:
        return [MISSING] * len(kept)
    values = columns[path[0]]
    return [value_at(values[at], path[1:]) for at in kept]


def _plain_text(kind: Any) -> Any:
    """The type of a URL column as new URLs are written: a dictionary of old ones has no use."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _with_source(kind: Any, path: Sequence[str], source: str) -> Any:
    """The type of a nested URL's column, with the field for its original beside it."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _with_source(kind.value_type, path, source)
        return pa.list_(inner) if pa.types.is_list(kind) else pa.large_list(inner)
    if not pa.types.is_struct(kind):
        return kind
    fields = []
    for field in kind:
        if field.name == source and len(path) == 1:
            continue
        if field.name == path[0]:
            inner = field.type if len(path) == 1 else _with_source(field.type, path[1:], source)
            inner = _plain_text(inner)
            fields.append(pa.field(field.name, inner))
            if len(path) == 1:
                fields.append(pa.field(source, inner))
        else:
            fields.append(field)
    return pa.struct(fields)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
