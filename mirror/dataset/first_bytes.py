"""What a file is by its first bytes: they decide once, whatever its name says."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from mirror.dataset.compression import TolerantStream
from mirror.dataset.formats.file_name import Kind
from mirror.errors import UsageError

Found = Literal["json lines", "json values", "table", "parquet"]

DELIMITERS: Final = (",", ";", "\t", "|")
HEAD: Final = 1 << 16
PARQUET: Final = b"PAR1"
# Marks of Unicode encodings. That of UTF-32 begins with that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FOREIGN: Final = (
    (
        b"PK\x03\x04",
        "a ZIP archive, as Excel's .xlsx files are; unpack it, or save it as CSV UTF-8",
    ),
    (b"\xd0\xcf\x11\xe0", "an old Excel file; save it as CSV UTF-8"),
    (b"BZh", "compressed with bzip2; unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it with unxz"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it"),
    (b"ARROW1\x00\x00", "an Arrow file; write it as Parquet"),
    (b"Obj\x01", "an Avro file; write it as JSON lines or Parquet"),
    (b"SQLite format 3\x00", "an SQLite database; export its table as CSV"),
    (b"\x89HDF\r\n", "an HDF5 file; write it as JSON lines or Parquet"),
    (b"%PDF-", "a PDF document"),
)
_ARRAY: Final = re.compile(rb"\s*\[").match
_OBJECT: Final = re.compile(rb"\s*\{").match
# An object over several lines; one of JSON lines goes on after its first bracket.
_SPREAD: Final = re.compile(rb"\s*\{[ \t\r]*\n").match
_JSON_IN_TABLE: Final = re.compile(rb'\s*(?:\{\s*"|\[\s*\{\s*")').match


class FirstBytes(NamedTuple):
    """A dataset as its first bytes describe it.

    Attributes:
        found: what it is.
        text: the whole content as UTF-8; for Parquet the bytes as they are.
        delimiter: between the cells of a table.
    """

    found: Found
    text: TolerantStream
    delimiter: str = ","


def recognised(
    content: TolerantStream, kind: Kind | None, column: str, shown: str, delimiter: str | None
) -> FirstBytes:
    """Decide what an uncompressed content is.

    Args:
        content: from its beginning.
        kind: what the name says; None if it says nothing.
        column: the column of the URL, if it is a table.
        shown: the name, for messages.
        delimiter: between cells, as the user says; None chooses it.

    Raises:
        UsageError: the content is of a kind that is not read.
    """
    head = content.peek(HEAD)
    if head.startswith(PARQUET):
        return FirstBytes("parquet", content)
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise UsageError(f"{shown} is {what}.")
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if encoding is not None:
        content = TolerantStream(_Utf8(content, encoding), below=content)
        head = content.peek(HEAD)
    head = head.removeprefix(codecs.BOM_UTF8)
    line = head.partition(b"\n")[0].decode(errors="replace").rstrip("\r")
    if kind == "jsonl" or _JSON_IN_TABLE(head) or (kind is None and delimiter is None):
        is_json = _ARRAY(head) or _OBJECT(head)
        if kind is not None or is_json or not _names_column(line, column):
            values = _ARRAY(head) or _SPREAD(head)
            return FirstBytes("json values" if values else "json lines", content)
    usual = "\t" if kind == "tsv" else ","
    return FirstBytes("table", content, delimiter or delimiter_of(line, column, usual))


def delimiter_of(header: str, column: str, usual: str) -> str:
    """The delimiter of a table.

    column of the URL appears with one only   that one
    with several, or with none                the one that gives most columns; the usual one of equals
    """
    cells = {each: _cells(header, each) for each in dict.fromkeys((usual, *DELIMITERS))}
    return max(cells, key=lambda each: (column in cells[each], len(cells[each])))


def _cells(header: str, delimiter: str) -> Sequence[str]:
    try:
        return next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:
        return []


def _names_column(header: str, column: str) -> bool:
    return any(column in (cells := _cells(header, each)) and len(cells) > 1 for each in DELIMITERS)


class _Utf8:
    """A stream in UTF-8 over one in another Unicode encoding.

    Half a pair of surrogates becomes bytes that are not UTF-8, so only its record is invalid.
    """

    def __init__(self, file: TolerantStream, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._is_first = True

    def read1(self, size: int, /) -> bytes:
        while block := self._file.read1(size):
            try:
                text = self._decoder.decode(block)
            except UnicodeDecodeError as error:
                raise OSError(error.reason) from None
            if text and self._is_first:
                text, self._is_first = text.removeprefix("\ufeff"), False
            if text:
                return text.encode("utf-8", "surrogatepass")
        if self._file.broken is not None:
            raise EOFError
        if self._decoder.getstate()[0]:
            raise OSError("it ends within a character")
        return b""
