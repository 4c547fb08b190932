"""Writes dataset files. The name gives the format; a file appears whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from mirror.dataset.chunks import Chunk, Row, json_line
from mirror.dataset.compression import compressed, extension_of
from mirror.dataset.formats.arrow_chunk import ArrowChunk
from mirror.dataset.formats.file_name import FileName
from mirror.dataset.formats.parquet import import_pyarrow
from mirror.dataset.spool import Spool
from mirror.errors import UsageError
from mirror.system.files import Access, ReplacedTogether, replacing_bytes

# Limits of a row group, in records and in bytes.
_ROW_GROUP: Final = 100_000
_ROW_GROUP_SIZE: Final = 64 << 20


class Writer(ABC):
    """Writes chunks of records in order to one file."""

    @abstractmethod
    def write(self, chunk: Chunk) -> None:
        """Write the next records.

        Raises:
            UsageError: the records do not fit the format.
        """

    @abstractmethod
    def show_columns(self, sample: Chunk) -> None:
        """Give a table without records the columns of these records."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the file after the last chunk.

        Raises:
            UsageError: the records do not fit the format.
        """


def check_output(path: Path) -> None:
    """Raise UsageError if a dataset cannot be written to this path: `check_is_file`, and its ending."""
    check_is_file(path)
    if ending := FileName.parse(path).foreign_ending:
        raise UsageError(
            f"{path} ends in {ending}, which is not written; name a file that ends in .jsonl, .csv, "
            ".tsv or .parquet."
        )


def check_is_file(path: Path) -> None:
    """Raise UsageError if an output is standard output, a folder, or in something that is no folder."""
    if str(path) == "-":
        raise UsageError("The output cannot be standard output; name a file in place of -.")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder; name a file, such as {path / 'dataset.jsonl'}.")
    above = next(each for each in path.absolute().parents if os.path.lexists(each))
    if not above.is_dir():
        raise UsageError(
            f"{above} is not a folder, so {path} cannot be written; name another file."
        )


def check_not_replaced(path: Path, *, force: bool) -> None:
    """Raise UsageError if the file exists and may not be replaced."""
    if os.path.isfile(path) and not force:
        raise UsageError(f"{path} exists; --force replaces it.")


@contextmanager
def writing(*paths: Path, access: Access = Access.INHERITED) -> Iterator[list[Writer]]:
    """Open the files of a dataset. They appear together when the block ends without an error.

    Tables have the same columns with the same types in all files.

    Args:
        paths: names give the format and the compression; JSON lines if the ending is not known.
        access: who may read the files.

    Raises:
        UsageError: a file cannot be created, pyarrow is missing, or records do not fit the format.
        MirrorError: the disk is full.
    """
    columns = _Columns()
    with ReplacedTogether() as together, ExitStack() as files:
        yield [files.enter_context(_writing(path, columns, together, access)) for path in paths]


@contextmanager
def _writing(
    path: Path, columns: _Columns, together: ReplacedTogether, access: Access
) -> Iterator[Writer]:
    name = FileName.parse(path)
    if name.kind == "parquet":
        import_pyarrow()
        if packed := extension_of(path.name):
            raise UsageError(
                f"{path}: Parquet compresses its columns; leave {packed} out of the name."
            )
    with replacing_bytes(path, together, access=access) as raw:
        file = compressed(raw, path.name)
        if name.kind == "jsonl":
            lines = _JsonlWriter(file)
            yield lines
            lines.finish()
        else:
            with Spool(_spool_folder(path)) as spool:
                table: Writer
                if name.kind == "parquet":
                    table = _ParquetWriter(file, spool, path, columns)
                else:
                    delimiter = "\t" if name.kind == "tsv" else ","
                    table = _CsvWriter(file, spool, path, columns, delimiter)
                yield table
                table.finish()
        file.close()


class _Columns:
    """The columns of the files, from the records seen so far.

    Attributes:
        names: columns of CSV, in the order of their first appearance.
        schema: of Parquet; None before the first batch.
        is_guessed: the schema was inferred from records without types.
    """

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.schema: Any = None
        self.is_guessed = False

    def see_row(self, row: Row) -> None:
        if not row.keys() <= self.names.keys():
            self.names = dict.fromkeys(_with_new_ones(list(self.names), list(row)))

    def see_batch(self, schema: Any) -> None:
        if self.schema is None:
            self.schema = schema
        elif self.schema != schema:
            self.schema = _unified(self.schema, schema)


class _JsonlWriter(Writer):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, chunk: Chunk) -> None:
        if lines := chunk.lines():
            self._file.write(b"\n".join([*lines, b""]))

    def show_columns(self, sample: Chunk) -> None:
        """Nothing to do: each line has its own fields."""

    def finish(self) -> None:
        """Nothing to do: each line is complete."""


def _spool_folder(path: Path) -> Path:
    """The folder of the output, whose disk must have room anyway; not for a device or a pipe."""
    is_plain = path.is_file() or not path.exists()
    return path.resolve().parent if is_plain else Path(tempfile.gettempdir())


def _rows(chunk: Chunk, path: Path) -> list[Row]:
    try:
        return chunk.rows()
    except RecursionError:
        raise _unfit(path, "one is nested too deeply") from None


def _unfit(path: Path, why: str) -> UsageError:
    kind = FileName.parse(path).kind
    name = "Parquet" if kind == "parquet" else kind.upper()
    return UsageError(
        f"The records do not fit one table, so {path} cannot be {name} ({why}); "
        "write JSON lines instead."
    )


class _CsvWriter(Writer):
    """Spools the records, because the columns are known only after the last one."""

    def __init__(
        self, file: BinaryIO, spool: Spool, path: Path, columns: _Columns, delimiter: str
    ) -> None:
        self._file = file
        self._spool = spool
        self._path = path
        self._delimiter = delimiter
        self._columns = columns

    def write(self, chunk: Chunk) -> None:
        self.show_columns(chunk)
        self._spool.add(chunk)

    def show_columns(self, sample: Chunk) -> None:
        for row in _rows(sample, self._path):
            self._columns.see_row(row)

    def finish(self) -> None:
        text = io.TextIOWrapper(self._file, "utf-8", newline="")
        plain = csv.writer(text, delimiter=self._delimiter, lineterminator="\n")
        # The plain writer leaves a carriage return unquoted, which readers take for a line's end.
        quoted = csv.writer(
            text, delimiter=self._delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL
        )
        names = self._columns.names
        if names:
            rows = plain if not any("\r" in name for name in names) else quoted
            rows.writerow(names)
        for chunk in self._spool:
            for row in _rows(chunk, self._path):
                cells = [_cell(row.get(name)) for name in names]
                rows = plain if not any("\r" in cell for cell in cells) else quoted
                rows.writerow(cells)
        text.detach()


def _with_new_ones(columns: list[str], names: Sequence[str]) -> list[str]:
    """The columns with the new ones of `names`, each inserted after the one it follows there."""
    ordered = list(columns)
    known = set(columns)
    position = 0
    for name in names:
        if name in known:
            position = ordered.index(name) + 1
        else:
            ordered.insert(position, name)
            position += 1
    return ordered


def _cell(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - not a number
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    raw = json_line(value)
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode()


class _ParquetWriter(Writer):
    """Writes Arrow batches with their types; for other records it infers types from all of them."""

    def __init__(self, file: BinaryIO, spool: Spool, path: Path, columns: _Columns) -> None:
        self._file = file
        self._spool = spool
        self._path = path
        self._columns = columns

    def write(self, chunk: Chunk) -> None:
        self._spool.add(ArrowChunk(self._seen(chunk)))

    def show_columns(self, sample: Chunk) -> None:
        self._seen(sample)

    def _seen(self, chunk: Chunk) -> Any:
        with self._fitting():
            if isinstance(chunk, ArrowChunk):
                batch = chunk.batch
            else:
                batch = self._guessed(_rows(chunk, self._path))
                self._columns.is_guessed = True
            self._columns.see_batch(batch.schema)
        return batch

    def finish(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([]) if self._columns.schema is None else self._columns.schema
        if self._columns.is_guessed:
            schema = _without_null_types(schema)
        with (
            self._fitting(),
            pq.ParquetWriter(self._file, schema, compression="zstd") as writer,
        ):
            for batches in self._row_groups(schema):
                writer.write_table(pa.Table.from_batches(batches, schema), _ROW_GROUP)

    def _guessed(self, rows: Sequence[Row]) -> Any:
        import pyarrow as pa

        names = dict.fromkeys(name for row in rows for name in row)
        if rows and not names:
            raise _unfit(self._path, "one has no field at all")
        return pa.RecordBatch.from_pydict({name: [row.get(name) for row in rows] for name in names})

    def _row_groups(self, schema: Any) -> Iterator[list[Any]]:
        batches: list[Any] = []
        count = size = 0
        for chunk in self._spool:
            assert isinstance(chunk, ArrowChunk)
            batch = _cast(chunk.batch, schema)
            batches.append(batch)
            count += batch.num_rows
            size += batch.nbytes
            if count >= _ROW_GROUP or size >= _ROW_GROUP_SIZE:
                yield batches
                batches = []
                count = size = 0
        if batches:
            yield batches

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise _unfit(self._path, str(error).splitlines()[0].rstrip(".")) from None


def _unified(schema: Any, other: Any) -> Any:
    """A schema for both, with the new columns of `other` after those that they follow there."""
    import pyarrow as pa

    both = pa.unify_schemas([schema, other], promote_options="permissive")
    fields = []
    for name in _with_new_ones(schema.names, other.names):
        everywhere = name in schema.names and name in other.names
        field = both.field(name)
        fields.append(field if everywhere else field.with_nullable(True))
    return pa.schema(fields, metadata=both.metadata)


def _without_null_types(schema: Any) -> Any:
    """The schema with text for columns without values: few readers support the null type."""
    import pyarrow as pa

    def typed(field: Any) -> Any:
        kind = field.type
        if pa.types.is_null(kind):
            return field.with_type(pa.string())
        if pa.types.is_list(kind):
            return field.with_type(pa.list_(typed(kind.value_field)))
        if pa.types.is_struct(kind):
            return field.with_type(pa.struct([typed(inner) for inner in kind]))
        return field

    return pa.schema([typed(field) for field in schema], metadata=schema.metadata)


def _cast(batch: Any, schema: Any) -> Any:
    """The batch with all columns of a schema, in its order and with its types."""
    import pyarrow as pa

    names = set(batch.schema.names)
    arrays = []
    for field in schema:
        if field.name not in names:
            arrays.append(pa.nulls(batch.num_rows, field.type))
        else:
            array = batch.column(field.name)
            arrays.append(array if array.type == field.type else array.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
