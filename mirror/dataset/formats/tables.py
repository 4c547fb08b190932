"""CSV and Parquet: batches of their records. pyarrow loads here and in `output` only."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, cast

from mirror.dataset.chunks import Chunk, Row, json_line
from mirror.dataset.compression import TolerantStream
from mirror.dataset.fields import MISSING, FieldPath, value_at
from mirror.dataset.records import Batches, ReadOptions, Rejected, RowBatch
from mirror.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

# A batch has as many records as this, or as much of them: some hold the image itself.
_BATCH: Final = 8192
_BATCH_SIZE: Final = 8 << 20
# An open quote would have the rest of a CSV file in memory.
_LONGEST_RECORD: Final = 16 << 20
_ENDS: Final = ("\n", "\r")

# --- CSV ---


def read_csv(file: TolerantStream, reading: ReadOptions, name: str, *, delimiter: str) -> Batches:
    """Batches of a CSV file with a header; every value is text.

    Raises:
        UsageError: there is no header, it names a column twice, or none of it is the URL's.
    """
    csv.field_size_limit(_LONGEST_RECORD)
    lines = _CsvLines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = _header(reader, lines, name)
    # A dot in a column's name is only a dot: there is nothing nested in a CSV file.
    flat = ReadOptions(
        (".".join(reading.url),), reading.source, tuple((".".join(o),) for o in reading.others)
    )
    _check_column(header, flat.url[0], name)
    rejected: list[Rejected] = []
    rows = _csv_rows(reader, lines, header, rejected)
    more = True
    while more:
        numbered: list[tuple[int, Row]] = []
        size = 0
        for number, row, length in rows:
            numbered.append((number, row))
            size += length
            if len(numbered) == _BATCH or size >= _BATCH_SIZE:
                break
        else:
            more = False
        batch = RowBatch.of(numbered, flat, json_line)
        batch.others = {o: batch.others[(".".join(o),)] for o in reading.others}
        batch.rejected += rejected
        rejected.clear()
        if len(batch) or batch.rejected:
            yield batch


class _CsvLines:
    """Lines as the csv module takes them; it asks for so many as a record has.

    Attributes:
        ended: how many have come to their end.
        taken: those of the present record.
    """

    def __init__(self, file: TolerantStream) -> None:
        self.file = file
        self._text = io.TextIOWrapper(
            cast("Any", file), "utf-8-sig", errors="surrogateescape", newline=""
        )
        self.ended = 0
        self.taken: list[str] = []
        self._size = 0

    def begin(self) -> int:
        """A record begins: on the line of this number."""
        self.taken.clear()
        self._size = 0
        return self.ended + 1

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_LONGEST_RECORD)
        if not line:
            raise StopIteration
        self._size += len(line)
        self.taken.append(line)
        rest = line
        while len(rest) == _LONGEST_RECORD and not rest.endswith(_ENDS):
            rest = self._text.readline(_LONGEST_RECORD)  # all one line: let go of it
        self.ended += rest.endswith(_ENDS)
        if self._size >= _LONGEST_RECORD:
            raise csv.Error(f"an open quote, or longer than {_LONGEST_RECORD >> 20} MiB")
        return line


def _header(reader: Any, lines: _CsvLines, name: str) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise UsageError(
            f"{name} does not begin with the names of its columns ({error})."
        ) from None
    if lines.file.broken is not None and not "".join(lines.taken).endswith(_ENDS):
        raise UsageError(f"{name} has no whole line: {lines.file.broken}.")
    if not header:
        raise UsageError(f"{name} is empty; a CSV file begins with the names of its columns.")
    if not _is_utf8("".join(header)):
        raise UsageError(f"The names of {name}'s columns are not UTF-8.")
    if len(set(header)) < len(header):
        raise UsageError(f"{name} names a column twice; rename one of them.")
    return header


def _csv_rows(
    reader: Any, lines: _CsvLines, header: list[str], rejected: list[Rejected]
) -> Iterator[tuple[int, Row, int]]:
    """`(number of a record's first line, record, characters of it)`."""
    while True:
        number = lines.begin()
        reason = None
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            if lines.file.broken is not None:
                rejected.append(Rejected(number, lines.file.broken, b""))
            return
        except csv.Error as error:
            reason = f"not CSV: {error}"
        text = "".join(lines.taken)
        if lines.file.broken is not None and not text.endswith(_ENDS):
            reason = lines.file.broken
        elif reason is None and not _is_utf8(text):
            reason = "not UTF-8"
        elif reason is None and len(cells) != len(header):
            reason = f"{len(cells)} cells under {len(header)} columns" if cells else "empty line"
        if reason is None:
            yield number, dict(zip(header, cells, strict=True)), len(text)
            continue
        raw = text.rstrip("\r\n").encode("utf-8", "surrogateescape")
        rejected.append(Rejected(number, reason, raw))
        if reason == lines.file.broken:
            return


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # by its surrogates
        return False
    return True


def _check_column(names: Sequence[str], name: str, file: str) -> None:
    if name not in names:
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        raise UsageError(
            f"{file} has no column {name!r} among {shown or 'none at all'}; "
            "name the URL's with --url-field."
        )


# --- Parquet ---


def import_pyarrow() -> Any:
    """Raises: UsageError: pyarrow is not installed."""
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise UsageError("Parquet needs pyarrow: pip install 'dataset-mirror[parquet]'.") from None


def read_parquet(path: str, reading: ReadOptions) -> Batches:
    """Batches of a Parquet file.

    Raises:
        UsageError: it is no Parquet file, or its URL column does not hold text.
    """
    pa = import_pyarrow()
    import pyarrow.parquet as pq

    failures = (pa.ArrowException, OSError, UnicodeDecodeError)
    try:
        # Of a row group only what a batch needs is in memory at a time.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        schema = file.schema_arrow
    except failures as error:
        raise UsageError(f"{path} cannot be read as Parquet: {_first_line(error)}.") from None
    with file:
        if len(set(schema.names)) < len(schema.names):
            raise UsageError(f"{path} names a column twice; rename one of them.")
        _check_column(schema.names, reading.url[0], path)
        _check_text(schema.field(reading.url[0]).type, reading.url, path)
        number = 1
        batches = file.iter_batches(_rows_at_a_time(file.metadata))
        while True:
            try:
                batch = next(batches, None)
            except failures as error:
                reason = f"damaged from here on: {_first_line(error)}"
                lost = RowBatch(rejected=[Rejected(number, reason, b"")])
                lost.others = {path: [] for path in reading.others}
                yield lost
                return
            if batch is None:
                return
            yield ArrowBatch.over(_without_views(batch), number, reading)
            number += batch.num_rows


def _rows_at_a_time(metadata: Any) -> int:
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    widest = max((g.total_byte_size / max(g.num_rows, 1) for g in groups), default=0)
    return min(_BATCH, max(1, int(_BATCH_SIZE / max(widest, 1))))


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same as Parquet has it: views are Arrow's own, and Arrow cannot take rows of them."""
    import pyarrow as pa

    def plain(kind: Any) -> Any:
        if kind == pa.string_view():
            return pa.large_string()
        return pa.large_binary() if kind == pa.binary_view() else kind

    if not any("_view" in str(kind) for kind in batch.schema.types):
        return batch
    fields = [field.with_type(_with_leaves(field.type, plain)) for field in batch.schema]
    return batch.cast(pa.schema(fields, metadata=batch.schema.metadata))


def _times_as_numbers(kind: Any) -> Any:
    """A type whose values Python holds to the last nanosecond, and in the year 20000."""
    import pyarrow as pa

    def number(leaf: Any) -> Any:
        if not pa.types.is_temporal(leaf):
            return leaf
        return pa.int32() if pa.types.is_time32(leaf) or pa.types.is_date32(leaf) else pa.int64()

    return _with_leaves(kind, number)


def _with_leaves(kind: Any, leaf: Callable[[Any], Any]) -> Any:
    """A type with others in place of those that hold no others."""
    import pyarrow as pa

    if _is_list(kind):
        item = kind.value_field.with_type(_with_leaves(kind.value_type, leaf))
        is_fixed = pa.types.is_fixed_size_list(kind)
        return pa.list_(item, kind.list_size) if is_fixed else _list_of(item, kind)
    if pa.types.is_struct(kind):
        return pa.struct([inner.with_type(_with_leaves(inner.type, leaf)) for inner in kind])
    if pa.types.is_map(kind):
        return pa.map_(_with_leaves(kind.key_type, leaf), _with_leaves(kind.item_type, leaf))
    return leaf(kind)


def _check_text(kind: Any, path: Sequence[str], file: str) -> None:
    """Raises: UsageError: what a path leads to in a column of this type is no text."""
    import pyarrow as pa

    inner = kind
    for name in path[1:]:
        inner = _item_type(inner)
        at = inner.get_field_index(name) if pa.types.is_struct(inner) else -1
        if at < 0:
            raise UsageError(
                f"{file} has no {name!r} in its column {path[0]!r} ({kind}); "
                "name the URL's with --url-field."
            )
        inner = inner.field(at).type
    inner = _item_type(inner)
    texts = ("string", "large_string", "string_view", "null")
    if str(_plain(inner)) not in texts:
        raise UsageError(
            f"{file} holds {inner} in {'.'.join(path)!r}, not text; "
            "name the URL's with --url-field."
        )


def _item_type(kind: Any) -> Any:
    while _is_list(kind):
        kind = kind.value_type
    return kind


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


@dataclass
class ArrowBatch(RowBatch):
    """A record batch. Only the columns on the way to URLs are taken apart; `rows` are those."""

    batch: Any = None

    @classmethod
    def over(cls, batch: pa.RecordBatch, first: int, reading: ReadOptions) -> ArrowBatch:
        fit, rejected = _fit_rows(batch, first)
        batch = _taken(batch, fit)
        names = set(batch.schema.names)
        wanted = [name for name in (reading.url[0], reading.source) if name in names]
        taken_apart = batch.select(wanted)
        if len(reading.url) > 1:  # what stands beside a URL comes through Python, unchanged
            schema = taken_apart.schema
            field = schema.field(reading.url[0])
            numbers = field.with_type(_times_as_numbers(field.type))
            taken_apart = taken_apart.cast(schema.set(schema.get_field_index(field.name), numbers))
        numbered = zip((first + at for at in fit), ArrowChunk(taken_apart).rows(), strict=True)
        of = cls.of(list(numbered), ReadOptions(reading.url, reading.source), json_line)
        places = {first + place: at for at, place in enumerate(fit)}
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
            batch=_taken(batch, kept),
        )

    def rewritten(self, keep: Sequence[int], urls: Sequence[bytes | None]) -> Chunk:
        import pyarrow as pa

        # Where URLs are only taken out there are no originals.
        is_new = any(
            url is not None and url != old for url, old in zip(urls, self.urls, strict=True)
        )
        super().rewritten(keep, urls)
        rows = [self.rows[at] for at in keep]
        batch = _taken(self.batch, keep)
        schema = batch.schema
        fields = {field.name: field for field in schema}
        arrays = dict(zip(schema.names, batch.columns, strict=True))
        top, *inner = self.url_path
        fields = _with_urls(fields, self.url_path, self.source if is_new else None)
        changed = [top] if inner or self.source not in fields else [top, self.source]
        try:
            for name in changed:
                values = [row.get(name) for row in rows]
                kind = fields[name].type
                arrays[name] = pa.array(values, _times_as_numbers(kind)).cast(kind)
        except (pa.ArrowException, UnicodeError, OverflowError, ValueError) as error:
            raise UsageError(
                f"The original URLs do not fit the field {self.source!r} ({_first_line(error)}); "
                "name another with --source-field."
            ) from None
        return ArrowChunk(
            pa.RecordBatch.from_arrays(
                [arrays[name] for name in fields],
                schema=pa.schema(list(fields.values()), metadata=schema.metadata),
            )
        )

    def unchanged(self, keep: Sequence[int]) -> Chunk:
        return ArrowChunk(_taken(self.batch, keep))


def _fit_rows(batch: pa.RecordBatch, first: int) -> tuple[list[int], list[Rejected]]:
    """The places of rows that are what their types say; text in Parquet may be any bytes."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        pass
    else:
        return list(range(batch.num_rows)), []
    fit, rejected = [], []
    for at in range(batch.num_rows):
        try:
            _taken(batch, [at]).validate(full=True)
        except pa.ArrowInvalid as error:
            rejected.append(Rejected(first + at, _first_line(error), b""))
        else:
            fit.append(at)
    return fit, rejected


def _taken(batch: pa.RecordBatch, positions: Sequence[int]) -> pa.RecordBatch:
    import pyarrow as pa

    if list(positions) == list(range(batch.num_rows)):
        return batch
    return batch.take(pa.array(positions, pa.int64()))


def _column(columns: dict[str, list[Any]], kept: Sequence[int], path: FieldPath) -> list[Any]:
    if path[0] not in columns:
        return [MISSING] * len(kept)
    values = columns[path[0]]
    return [value_at(values[at], path[1:]) for at in kept]


def _plain(kind: Any) -> Any:
    """The type of URLs as new ones are written, of which there are neither few nor equally many."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return kind.value_type
    if _is_list(kind):
        return _list_of(kind.value_field.with_type(_plain(kind.value_type)), kind)
    return kind


def _list_of(item: Any, kind: Any) -> Any:
    """A list's type with other items, of any number."""
    import pyarrow as pa

    return pa.large_list(item) if pa.types.is_large_list(kind) else pa.list_(item)


def _with_urls(fields: dict[str, Any], path: Sequence[str], source: str | None) -> dict[str, Any]:
    """Fields as they hold new URLs, and their originals in `source`: where that is, or beside them."""
    import pyarrow as pa

    name, *rest = path
    if rest:
        return fields | {name: _with_nested_urls(fields[name], rest, source)}
    fields = fields | {name: fields[name].with_type(_plain(fields[name].type))}
    kind = fields[name].type
    if source in fields:
        held = fields[source]
        of = kind if pa.types.is_null(held.type) else _plain(held.type)
        return fields | {source: held.with_type(of)}
    beside: dict[str, Any] = {}
    for each, field in fields.items():
        beside[each] = field
        if each == name and source is not None:
            beside[source] = pa.field(source, kind)
    return beside


def _with_nested_urls(field: Any, path: Sequence[str], source: str | None) -> Any:
    import pyarrow as pa

    kind = field.type
    if _is_list(kind):
        item = _with_nested_urls(kind.value_field, path, source)
        return field.with_type(_list_of(item, kind))
    fields = _with_urls({inner.name: inner for inner in kind}, path, source)
    return field.with_type(pa.struct(list(fields.values())))


class ArrowChunk(Chunk):
    """A record batch of a Parquet file: its types go on as they are."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def take(self, positions: Sequence[int]) -> ArrowChunk:
        return ArrowChunk(_taken(self.batch, positions))

    def lines(self) -> list[bytes]:
        return [json_line(row) for row in self.rows()]

    def rows(self) -> list[Row]:
        names = self.batch.schema.names
        columns = [texts_or_values(column) for column in self.batch.columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def texts_or_values(column: pa.Array) -> list[Any]:
    """What a column holds; as text where Python's types cannot: nanoseconds, the year 20000.

    Raises:
        UsageError: it has no text either.
    """
    import pyarrow as pa

    try:
        values: list[Any] = _without_nanoseconds(column).to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        try:
            values = column.cast(pa.string()).to_pylist()
        except pa.ArrowException:
            raise UsageError(
                f"A column of {column.type} holds what only Parquet can; write Parquet."
            ) from None
    return values


def _without_nanoseconds(column: pa.Array) -> pa.Array:
    """Microseconds if they are enough: pandas, if it is there, would round in silence.

    Raises:
        ArrowException: they are not.
    """
    import pyarrow as pa

    kind = column.type
    if not str(kind).startswith(("timestamp[ns", "time64[ns", "duration[ns")):
        return column
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz))
    return column.cast(pa.time64("us") if pa.types.is_time64(kind) else pa.duration("us"))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
