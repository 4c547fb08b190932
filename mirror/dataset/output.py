"""A dataset's file being written: the format by its name, and whole or not at all."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mirror.dataset.chunks import ArrowChunk, Chunk, json_line
from mirror.dataset.compression import compressed
from mirror.dataset.formats import FileName
from mirror.dataset.spool import Spool
from mirror.dataset.tables import import_pyarrow
from mirror.errors import UsageError
from mirror.files import replacing_bytes


class Writer(ABC):
    """Takes chunks of records, in order."""

    @abstractmethod
    def write(self, chunk: Chunk) -> None: ...

    @abstractmethod
    def finish(self) -> None:
        """All has been written."""


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A dataset's file, which takes `path`'s place when the block ends without an error.

    Args:
        path: its name says the format and the compression; JSON lines where it says nothing.

    Raises:
        UsageError: it cannot be made there, pyarrow is missing, or records do not fit the format.
    """
    name = FileName.parse(path)
    if name.kind == "parquet":
        import_pyarrow()
    with replacing_bytes(path) as raw:
        file = compressed(raw, path.name)
        writer: Writer
        with Spool(path.resolve().parent) as spool:
            if name.kind == "jsonl":
                writer = _JsonlWriter(file)
            elif name.kind == "parquet":
                writer = _ParquetWriter(file, spool, path)
            else:
                writer = _CsvWriter(file, spool, "\t" if name.kind == "tsv" else ",")
            yield writer
            writer.finish()
        file.close()


class _JsonlWriter(Writer):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, chunk: Chunk) -> None:
        if lines := chunk.lines():
            self._file.write(b"\n".join([*lines, b""]))

    def finish(self) -> None:
        """A line needs no other."""


class _CsvWriter(Writer):
    """Columns are known when all records have been seen: in the order of their first appearance."""

    def __init__(self, file: BinaryIO, spool: Spool, delimiter: str) -> None:
        self._file = file
        self._spool = spool
        self._delimiter = delimiter
        self._columns: dict[str, None] = {}

    def write(self, chunk: Chunk) -> None:
        for row in chunk.rows():
            if row.keys() != self._columns.keys():
                self._columns = _with_new_ones(self._columns, list(row))
        self._spool.add(chunk)

    def finish(self) -> None:
        text = io.TextIOWrapper(self._file, "utf-8", newline="")
        rows = csv.writer(text, delimiter=self._delimiter, lineterminator="\n")
        rows.writerow(self._columns)
        for chunk in self._spool:
            rows.writerows([_cell(row.get(name)) for name in self._columns] for row in chunk.rows())
        text.detach()


def _with_new_ones(columns: dict[str, None], names: list[str]) -> dict[str, None]:
    """The columns and those of `names` that are new, each behind the one that it followed."""
    ordered = list(columns)
    at = 0
    for name in names:
        if name in columns:
            at = ordered.index(name) + 1
        else:
            ordered.insert(at, name)
            at += 1
    return dict.fromkeys(ordered)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json_line(value).decode().strip('"')


class _ParquetWriter(Writer):
    """Arrow's batches go on as they are; for others the types are found out from all records."""

    def __init__(self, file: BinaryIO, spool: Spool, path: Path) -> None:
        self._file = file
        self._spool = spool
        self._path = path
        self._schemas: list[Any] = []

    def write(self, chunk: Chunk) -> None:
        batch = self._as_batch(chunk)
        if batch.schema not in self._schemas:
            self._schemas.append(batch.schema)
        self._spool.add(ArrowChunk(batch))

    def finish(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._agreed(lambda: pa.unify_schemas(self._schemas, promote_options="permissive"))
        schema = pa.schema(
            [pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in schema],
            metadata=schema.metadata,
        )
        with pq.ParquetWriter(self._file, schema, compression="zstd") as writer:
            for chunk in self._spool:
                assert isinstance(chunk, ArrowChunk)
                writer.write_batch(self._agreed(lambda: _cast(chunk.batch, schema)))  # noqa: B023

    def _as_batch(self, chunk: Chunk) -> Any:
        if isinstance(chunk, ArrowChunk):
            return chunk.batch
        import pyarrow as pa

        rows = chunk.rows()
        names = dict.fromkeys(name for row in rows for name in row)
        return self._agreed(
            lambda: pa.RecordBatch.from_pylist(
                rows,
                schema=pa.schema(
                    [pa.field(n, pa.infer_type([row.get(n) for row in rows])) for n in names]
                ),
            )
        )

    def _agreed(self, action: Any) -> Any:
        import pyarrow as pa

        try:
            return action()
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise UsageError(
                f"The records do not fit one table, so {self._path} cannot be Parquet ({why}); "
                "write JSON lines instead."
            ) from None


def _cast(batch: Any, schema: Any) -> Any:
    """The batch with all of a schema's columns, in its order and of its types."""
    import pyarrow as pa

    names = set(batch.schema.names)
    return pa.RecordBatch.from_arrays(
        [
            batch.column(field.name).cast(field.type)
            if field.name in names
            else pa.nulls(batch.num_rows, field.type)
            for field in schema
        ],
        schema=schema,
    )
