"""Reads CSV files: batches of rows whose values are all text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self, cast

from mirror.dataset.chunks import Row, json_line
from mirror.dataset.compression import TolerantStream
from mirror.dataset.records import Batches, ReadOptions, Rejected, RowBatch
from mirror.errors import UsageError
from mirror.system.display_text import format_size

# A batch ends after so many records or characters: some records hold the image itself.
_BATCH_RECORDS: Final = 8192
_BATCH_BYTES: Final = 8 << 20
# Without a limit, an unclosed quote would read the rest of the file into memory.
_LONGEST_RECORD: Final = 16 << 20
_ENDS: Final = ("\n", "\r")


def read_csv(file: TolerantStream, reading: ReadOptions, name: str, *, delimiter: str) -> Batches:
    """Read a CSV file with a header in batches. Every value is text.

    Args:
        file: the CSV text.
        reading: the fields to read.
        name: of the file, for messages.
        delimiter: between cells.

    Raises:
        UsageError: the file has no header, names a column twice, or has no column for the URL.
    """
    csv.field_size_limit(_LONGEST_RECORD)
    lines = _CsvLines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = _header(reader, lines, name)
    # CSV has no nested fields, so a dot is part of the column's name.
    flat = ReadOptions(
        (".".join(reading.url),), reading.source, tuple((".".join(o),) for o in reading.others)
    )
    check_column(header, flat.url[0], name)
    rejected: list[Rejected] = []
    rows = _csv_rows(reader, lines, header, rejected)
    more, count = True, 0
    while more:
        numbered: list[tuple[int, Row]] = []
        size = 0
        for number, row, length in rows:
            numbered.append((number, row))
            size += length
            if len(numbered) == _BATCH_RECORDS or size >= _BATCH_BYTES:
                break
        else:
            more = False
        batch = RowBatch.of(numbered, flat, json_line)
        batch.others = {o: batch.others[(".".join(o),)] for o in reading.others}
        batch.rejected += rejected
        rejected.clear()
        if not more and not count and not len(batch):
            batch.columns = header
        if len(batch) or batch.rejected or batch.columns:
            yield batch
        count += len(batch)


class _CsvLines:
    """Lines for the csv module, which reads as many as a record has.

    Attributes:
        file: the source.
        ended: how many lines have been read to their end.
        taken: the lines of the current record.
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
        """Begin a record, and return the number of its first line."""
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
            rest = self._text.readline(_LONGEST_RECORD)  # the rest of an overlong line is discarded
        self.ended += rest.endswith(_ENDS)
        if self._size >= _LONGEST_RECORD:
            raise csv.Error(f"an unclosed quote, or longer than {format_size(_LONGEST_RECORD)}")
        return line


def _header(reader: Any, lines: _CsvLines, name: str) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise UsageError(
            f"{name} does not begin with a header of column names ({error})."
        ) from None
    if lines.file.broken is not None and not "".join(lines.taken).endswith(_ENDS):
        raise UsageError(f"{name} has no complete line: {lines.file.broken}.")
    if not header:
        raise UsageError(f"{name} is empty; a CSV file begins with a header of column names.")
    if not _is_utf8("".join(header)):
        raise UsageError(f"The column names of {name} are not UTF-8; save it as UTF-8.")
    if len(set(header)) < len(header):
        raise UsageError(f"{name} names a column twice; rename one of them.")
    return header


def _csv_rows(
    reader: Any, lines: _CsvLines, header: list[str], rejected: list[Rejected]
) -> Iterator[tuple[int, Row, int]]:
    """Tuples of the number of a record's first line, the record, and its characters.

    Invalid records are appended to `rejected`.
    """
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
    except UnicodeEncodeError:  # surrogates mark bytes that are not UTF-8
        return False
    return True


def check_column(names: Sequence[str], name: str, file: str) -> None:
    """Raise UsageError if a file has no column of this name."""
    if name not in names:
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        raise UsageError(
            f"{file} has no column {name!r} among {shown or 'none'}; "
            "name the column of the URL with --url-field."
        )
