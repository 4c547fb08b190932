"""Reads JSON lines in blocks, validates each line, and rewrites URLs by splicing.

A line keeps every byte except those of its URL: numbers, escapes, white space and the order of
fields stay. Lines are nearly always plain; then one call decodes a whole block, and the new URL is
inserted after its key. Any other line is opened along the path to the URL (`splicing`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from mirror.dataset.chunks import Chunk, JsonLines
from mirror.dataset.compression import TolerantStream
from mirror.dataset.fields import (
    MISSING,
    BadRecord,
    FieldPath,
    holds_other,
    sites_of,
    value_at,
)
from mirror.dataset.formats.json_array import values_of
from mirror.dataset.formats.splicing import STRING, OpenedObject, opened, splice
from mirror.dataset.records import (
    Batch,
    Batches,
    ReadOptions,
    Rejected,
    check_source,
    urls_of,
)
from mirror.errors import UsageError
from mirror.system.display_text import format_size

_BLOCK: Final = 1 << 20
# A longer line is rejected, and only its beginning is kept in memory. MongoDB's documents are limited
# to 16 MiB of BSON.
MAX_LINE: Final = 32 << 20
_SHOWN: Final = 4096
_BOM: Final = b"\xef\xbb\xbf"
# A letter written as \u0061: a search for the key would not find such a spelling.
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[2-7]").search
_ESCAPED: Final = re.compile(rb"\\u").search
# Characters that a key can contain only as escapes.
_ESCAPES: Final = re.compile(r'["\\\x00-\x1f]').search
_HALF_PAIR: Final = re.compile(
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
).search

# A text, or a number that only Python's JSON has.
_NAN: Final = re.compile(rb"(%b)|-?\b(?:NaN|Infinity)\b" % STRING, re.DOTALL).sub
_NAN_REASON: Final = "not JSON: a number is NaN or infinite; --nan null or --nan keep takes it"

_Decode = Callable[[bytes], Any]
_FAILURES: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Flawed(NamedTuple):
    """A line that is rejected without decoding it. `raw` is what was kept of it."""

    reason: str
    raw: bytes


_FlawedLines = dict[int, _Flawed]


class _Lines(NamedTuple):
    """Consecutive lines of a file. A flawed line is replaced by an empty one.

    Attributes:
        first: the number of the first line.
        lines: without line endings.
        flawed: the flawed lines, by number.
    """

    first: int
    lines: list[bytes]
    flawed: _FlawedLines


def read_jsonl(file: TolerantStream, reading: ReadOptions) -> Batches:
    """Read JSON lines in batches.

    Args:
        file: the lines.
        reading: the fields to read of each record.

    Raises:
        UsageError: a field's name has a quote, a backslash or a control character.
    """
    yield from _batches(_lines_of(file), reading)


def read_json_values(file: TolerantStream, reading: ReadOptions) -> Batches:
    """Read arrays of records, or records over several lines, as `json_array.values_of` divides them.

    The number of a record is its position.
    """
    yield from _batches(_values_of(file), reading)


def _batches(lines: Iterator[_Lines], reading: ReadOptions) -> Batches:
    for name in (*reading.url, reading.source, *chain(*reading.others)):
        if _ESCAPES(name):
            raise UsageError(f"The field {name!r} cannot be searched for in JSON; rename it.")
    parser = _Parser(reading)
    for some in lines:
        yield parser.batch(some)


def _values_of(file: TolerantStream) -> Iterator[_Lines]:
    first = 1
    for lines, flawed in values_of(file):
        yield _Lines(first, lines, {first + at: _Flawed(*why) for at, why in flawed.items()})
        first += len(lines)


def _lines_of(file: TolerantStream) -> Iterator[_Lines]:
    first = 1
    line = _Unended()
    while block := file.read(_BLOCK):
        head, newline, rest = block.partition(b"\n")
        line.add(head)
        if not newline:
            continue
        lines = rest.split(b"\n")
        last = lines.pop()
        ended, flawed = line.end(first)
        yield _Lines(first, [ended, *lines], flawed)
        first += 1 + len(lines)
        line = _Unended()
        line.add(last)
    ended, flawed = line.end(first, file.broken)
    if ended or flawed:
        yield _Lines(first, [ended], flawed)


class _Unended:
    """A line whose end has not been read yet."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        self._size += len(part)
        self._parts.append(part)
        if self._size > MAX_LINE:
            self._parts = [b"".join(self._parts)[:_SHOWN]]

    def end(self, number: int, broken: str | None = None) -> tuple[bytes, _FlawedLines]:
        """End the line, and return it with its flaw.

        Args:
            number: of the line.
            broken: why the file ends here; None if it does not, or ends normally.
        """
        line = b"".join(self._parts)
        if number == 1:
            line = line.removeprefix(_BOM)
        if broken is not None:
            return b"", {number: _Flawed(broken, line)}
        if self._size > MAX_LINE:
            return b"", {number: _Flawed(f"longer than {format_size(MAX_LINE)}", line)}
        return line, {}


class _Parser:
    def __init__(self, reading: ReadOptions) -> None:
        self._reading = reading
        top, *inner = reading.url
        self._key = _key(top)
        # A search would not find a key whose slash is written as \/.
        is_plain = not inner and "/" not in top + reading.source
        # The separator that was found last comes first.
        self._separators = list(_separators(self._key)) if is_plain else []
        self._source_key = _key(reading.source) if reading.source else None
        ascii_only = top.isascii() and reading.source.isascii()
        self._is_respelled = _ESCAPED_ASCII if ascii_only else _ESCAPED
        wanted = dict.fromkeys(path[0] for path in reading.others)
        self._attributes = {name: f"f{number}" for number, name in enumerate(wanted)} | {top: "url"}
        others = [(self._attributes[name], Any, MISSING) for name in wanted]
        beside = [other for other in others if other[0] != "url"]
        self._decode_plain: _Decode = _decoder(
            [("url", str), *beside], self._attributes
        ).decode_lines
        self._decode: _Decode = _decoder(others, self._attributes).decode
        # Also accepts numbers beyond a double's range, at a quarter of the speed.
        self._decode_any: _Decode = _decoder(others, self._attributes, float_hook=float).decode

    def batch(self, read: _Lines) -> JsonlBatch:
        """Parse lines into a batch."""
        found = _Found()
        self._take(found, read.first, read.lines, read.flawed)
        batch = JsonlBatch(
            numbers=found.numbers,
            urls=found.urls,
            others={path: self._values(found.records, path) for path in self._reading.others},
            sourced=found.sourced,
            rejected=found.rejected,
            reading=self._reading,
            kept=found.kept,
            sites=found.sites,
        )
        if len(found.owners) != len(found.numbers):
            batch.owners = np.array(found.owners, np.intp)
        return batch

    def _take(self, found: _Found, first: int, lines: list[bytes], flawed: _FlawedLines) -> None:
        """Parse lines: all at once if they are plain, otherwise by halves.

        Halving keeps the cost of a single line that is not plain low.
        """
        if self._separators and self._take_plain(found, first, lines):
            return
        if len(lines) == 1 or not self._separators:
            for number, line in enumerate(lines, first):
                if flaw := flawed.get(number):
                    found.rejected.append(Rejected(number, *flaw))
                else:
                    self._take_one(found, number, line)
            return
        half = len(lines) // 2
        self._take(found, first, lines[:half], flawed)
        self._take(found, first + half, lines[half:], flawed)

    def _take_plain(self, found: _Found, first: int, lines: list[bytes]) -> bool:
        """Parse lines at once, and return whether that was possible.

        It is if each line is one object with its URL after the same separator. The key occurs as
        often as there are objects, and each object has it; so it occurs in no text and no inner
        object. No object crosses a line's end, because inside an object no `{` follows a `}`.
        """
        block = b"\n".join(lines)
        if self._source_key is not None and self._source_key in block:
            return False
        if len(lines) > 1 and not _are_braced(lines, returns=b"\r" in block):
            return False
        separator = next((s for s in self._separators if block.count(s) == len(lines)), None)
        if separator is None or block.count(self._key) != len(lines):
            return False
        if separator != self._separators[0]:
            self._separators.reverse()
        if not _is_utf8(block) or (b"\\" in block and self._is_respelled(block)):
            return False
        try:
            records = self._decode_plain(block)
            urls = [record.url.encode() for record in records]
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False
        if len(records) != len(lines) or not all(urls):
            return False
        begin = len(found.numbers)
        found.numbers += range(first, first + len(lines))
        found.owners += range(begin, begin + len(lines))
        found.urls += urls
        found.kept += lines
        found.sites += [separator] * len(lines)
        found.records += records
        return True

    def _take_one(self, found: _Found, number: int, line: bytes) -> None:
        try:
            line, record = self._decoded(line)
            opened_record = opened(line, self._reading.url, self._reading.source)
            sites = sites_of(opened_record, self._reading.url)
        except BadRecord as bad:
            found.rejected.append(Rejected(number, str(bad), line))
            return
        position = len(found.numbers)
        urls = urls_of(sites)
        if any(holds_other(site, self._reading.source) for site in sites):
            found.sourced.add(position)
        found.numbers.append(number)
        found.owners += [position] * len(urls)
        found.urls += urls
        found.kept.append(line)
        found.sites.append(opened_record)
        found.records.append(record)

    def _decoded(self, line: bytes) -> tuple[bytes, Any]:
        """A line as it is kept, and its requested fields.

        Raises:
            BadRecord: the line is no record.
        """
        kept = line
        try:
            record = self._decode(line)
        except _FAILURES as error:
            try:
                record = self._decode_any(line)
            except _FAILURES:
                without = _NAN(lambda found: found[1] or b"null", line)
                if without == line:
                    raise BadRecord(_why(line, error)) from None
                if self._reading.nan == "reject":
                    raise BadRecord(_NAN_REASON) from None
                kept, record = self._without_nan(line, without)
        if not _is_utf8(line):
            raise BadRecord("not UTF-8")
        return kept, record

    def _without_nan(self, line: bytes, without: bytes) -> tuple[bytes, Any]:
        try:
            record = self._decode_any(without)
        except _FAILURES as error:
            raise BadRecord(_why(without, error)) from None
        return without if self._reading.nan == "null" else line, record

    def _values(self, records: list[Any], path: FieldPath) -> list[Any]:
        attribute = self._attributes[path[0]]
        values = [getattr(record, attribute) for record in records]
        if len(path) > 1:
            return [value_at(value, path[1:]) for value in values]
        return values


@dataclass
class _Found:
    """The parsed records of a block. `records` holds the decoded fields."""

    numbers: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    urls: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    sites: list[bytes | OpenedObject] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)
    sourced: set[int] = field(default_factory=set)
    rejected: list[Rejected] = field(default_factory=list)


def _decoder(fields: list[Any], attributes: dict[str, str], **options: Any) -> Any:
    """A decoder for some fields of a record. It skips other fields but checks that they are JSON."""
    names = {attribute: name for name, attribute in attributes.items()}
    record = msgspec.defstruct("Record", fields, rename=names, gc=False)
    return msgspec.json.Decoder(record, **options)


def _key(name: str) -> bytes:
    """A key as JSON, without needless escapes."""
    return msgspec.json.encode(name)


def _separators(key: bytes) -> tuple[bytes, bytes]:
    """A key with the colon and quote before its text, without a space and with one as Python writes."""
    return b'%b:"' % key, b'%b: "' % key


@dataclass
class JsonlBatch(Batch):
    """Lines of JSON. `sites` has for each line the separator before its URL, or the opened record."""

    reading: ReadOptions = field(default_factory=ReadOptions)
    kept: list[bytes] = field(default_factory=list)
    sites: list[bytes | OpenedObject] = field(default_factory=list)

    def rewritten(self, keep: Sequence[int], urls: Sequence[bytes | None]) -> Chunk:
        path, name = self.reading.url, self.reading.source
        check_source(name)
        source = _key(name)
        tight, spaced = _separators(_key(path[-1]))
        before_old = {tight: b'",%b:"' % source, spaced: b'", %b: "' % source}
        kept, sites, old = self.kept, self.sites, self.urls
        begins = keep if self.owners is None else np.searchsorted(self.owners, keep).tolist()
        lines: list[bytes] = []
        for position, begin in zip(keep, begins, strict=True):
            line, site = kept[position], sites[position]
            if not isinstance(site, bytes):
                line = splice(line, site, path, name, map(urls.__getitem__, count(begin)))
            elif (url := urls[begin]) != old[begin]:
                # The old URL stays as it is escaped, and becomes the text of the source field.
                line = line.replace(site, site + url + before_old[site], 1)
            lines.append(line)
        return JsonLines(lines)

    def unchanged(self, keep: Sequence[int]) -> Chunk:
        return JsonLines([self.kept[position] for position in keep])


def _are_braced(lines: list[bytes], *, returns: bool) -> bool:
    """Whether every line begins with `{` and ends with `}`.

    Args:
        lines: to check.
        returns: some of them may end with a carriage return.
    """
    if returns:
        lines = [line.removesuffix(b"\r") for line in lines]
    try:
        # Faster than counting `}\n{`, and than a loop.
        first, last = bytes(map(itemgetter(0), lines)), bytes(map(itemgetter(-1), lines))
    except IndexError:  # an empty line
        return False
    return first.count(b"{") == last.count(b"}") == len(lines)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _why(line: bytes, error: Exception) -> str:
    if not line.strip():
        return "empty line"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not _is_utf8(line):
        return "not UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return "not an object"
    if _HALF_PAIR(line):
        return "not JSON: half a surrogate pair"
    return f"not JSON: {str(error).removeprefix('JSON is malformed: ')}"
