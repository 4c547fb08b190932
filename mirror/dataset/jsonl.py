"""JSON lines: read in blocks, validated line by line, and rewritten by splicing.

A line keeps every byte but those of its URL: numbers, escapes, white space and the order of fields
are its writer's. Where the URL stands at the top of the record and is written plainly, which is
nearly always, its place is found by searching bytes; any other line is opened along the path to the
URL, and all that is beside that path stays as it is.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np

from mirror.dataset.chunks import Chunk, JsonLines
from mirror.dataset.compression import zstd
from mirror.dataset.fields import (
    MISSING,
    BadRecord,
    FieldPath,
    holds_other,
    replace_urls,
    sites_of,
    value_at,
)
from mirror.dataset.records import (
    Batch,
    Batches,
    Reading,
    Rejected,
    urls_by_record,
    urls_of,
)

_BLOCK: Final = 1 << 20
# A line beyond this is no record of anybody's: it is rejected, and its bytes are let go.
MAX_LINE: Final = 64 << 20
_BOM: Final = b"\xef\xbb\xbf"
# A letter written as \u0061: a key that is spelled so would not be found by searching for it.
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[2-7]").search
_ESCAPED: Final = re.compile(rb"\\u").search

Row = dict[str, Any]


def read_jsonl(file: BinaryIO, reading: Reading) -> Batches:
    """Batches of a stream of JSON lines.

    Args:
        file: anything with `read(n)`.
        reading: what is wanted of each record.
    """
    parser = _Parser(reading)
    for first, lines, cut in _blocks(file):
        yield parser.batch(first, lines, cut)


def _blocks(file: BinaryIO) -> Iterator[tuple[int, list[bytes], str | None]]:
    """`(number of the first line, lines, why the last of them is cut)`."""
    first = 1
    parts: list[bytes] = []  # of a line whose end has not come
    held = 0
    cut: str | None = None
    while cut is None:
        try:
            block = file.read(_BLOCK)
        except EOFError:
            cut = "the compressed file ends too early"
            break
        except (OSError, zlib.error, zstd.ZstdError) as error:
            cut = f"the file cannot be read further ({error})"
            break
        if not block:
            break
        if first == 1 and not parts and block.startswith(_BOM):
            block = block[len(_BOM) :]
        head, newline, rest = block.partition(b"\n")
        if held < MAX_LINE:
            parts.append(head)
        held += len(head)
        if not newline:
            continue
        lines = rest.split(b"\n")
        last = lines.pop()
        lines.insert(0, b"".join(parts))
        parts, held = [last], len(last)
        yield first, lines, None
        first += len(lines)
    tail = b"".join(parts)
    if tail or cut is not None:
        yield first, [tail], cut


class _Parser:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        *_, name = reading.url
        self._key = b'"%b"' % msgspec.json.encode(name)[1:-1]
        self._source_key = b'"%b"' % msgspec.json.encode(reading.source)[1:-1]
        ascii_only = name.isascii() and reading.source.isascii()
        self._respelled = _ESCAPED_ASCII if ascii_only else _ESCAPED
        self._nested = len(reading.url) > 1
        wanted = dict.fromkeys(path[0] for path in reading.others)
        self._attributes = {name: f"f{at}" for at, name in enumerate(wanted)}
        fields: list[Any] = [("url_of_record", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)]
        fields += [(attribute, Any, MISSING) for attribute in self._attributes.values()]
        names = {"url_of_record": reading.url[0]} | {a: n for n, a in self._attributes.items()}
        record = msgspec.defstruct("Record", fields, rename=names, gc=False)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(record).decode

    def batch(self, first: int, lines: list[bytes], cut: str | None) -> JsonlBatch:
        """What a block of lines holds; the last one is cut when `cut` says why."""
        batch = JsonlBatch(reading=self._reading)
        numbers: list[int] = []
        owners: list[int] | None = None
        kept, sites, urls = batch.kept, batch.sites, batch.urls
        values: list[Any] = []
        suspects = self._suspects(lines)
        key, source_key, decode = self._key, self._source_key, self._decode
        after_key = len(key)
        nested = self._nested
        unset = msgspec.UNSET
        for at, line in enumerate(lines):
            try:
                record = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                reason = cut if cut and at == len(lines) - 1 else _why(line, error)
                batch.rejected.append(Rejected(first + at, reason, line))
                continue
            colon = line.find(key) + after_key
            if line[colon : colon + 3] == b': "':
                begin = colon + 3
            else:
                begin = colon + 2 if line[colon : colon + 2] == b':"' else 0
            if (
                begin
                and colon >= after_key
                and not nested
                and record.url_of_record is not unset
                and (suspects is None or not suspects[at])
                and line.find(key, begin) < 0
                and line.find(source_key) < 0
                and b"\\" not in (url := line[begin : line.index(b'"', begin)])
                and url
            ):
                site: int | Row = begin
                found = 1
                urls.append(url)
            else:
                if suspects is not None and suspects[at] and not _is_utf8(line):
                    batch.rejected.append(Rejected(first + at, "not UTF-8", line))
                    continue
                try:
                    site, new, sourced = self._open(line)
                except BadRecord as bad:
                    batch.rejected.append(Rejected(first + at, str(bad), line))
                    continue
                found = len(new)
                urls += new
                if sourced:
                    batch.sourced.add(len(numbers))
            if found != 1 and owners is None:
                owners = list(range(len(numbers)))
            if owners is not None:
                owners += [len(numbers)] * found
            numbers.append(first + at)
            kept.append(line)
            sites.append(site)
            values.append(record)
        batch.numbers = numbers
        batch.owners = None if owners is None else np.array(owners, np.intp)
        batch.others = {path: self._values(values, path) for path in self._reading.others}
        return batch

    def _suspects(self, lines: list[bytes]) -> list[bool] | None:
        """Which lines are not to be searched: not UTF-8, or with escaped ASCII; None if none."""
        block = b"\n".join(lines)
        if _is_utf8(block) and (b"\\u" not in block or not self._respelled(block)):
            return None
        return [not _is_utf8(line) or self._respelled(line) is not None for line in lines]

    def _values(self, records: list[Any], path: FieldPath) -> list[Any]:
        attribute = self._attributes[path[0]]
        values = [getattr(record, attribute) for record in records]
        if len(path) > 1:
            return [value_at(value, path[1:]) for value in values]
        return values

    def _open(self, line: bytes) -> tuple[Row, list[bytes], bool]:
        record: Row = _opened(line, self._reading.url, self._reading.source)
        sites = sites_of(record, self._reading.url)
        sourced = any(holds_other(site, self._reading.source) for site in sites)
        return record, urls_of(sites), sourced


@dataclass
class JsonlBatch(Batch):
    """Lines, and for each the place of its URL: a number of bytes, or the opened record."""

    reading: Reading = field(default_factory=Reading)
    kept: list[bytes] = field(default_factory=list)
    sites: list[int | Row] = field(default_factory=list)

    def rewritten(self, keep: Sequence[int], urls: Sequence[bytes | None]) -> Chunk:
        source = msgspec.json.encode(self.reading.source)
        spaced, tight = b'", %b: "' % source, b'",%b:"' % source
        kept, sites = self.kept, self.sites
        lines: list[bytes] = []
        for at, new in zip(keep, urls_by_record(self, keep, urls), strict=True):
            line, site = kept[at], sites[at]
            if isinstance(site, int):
                # Searched lines have one URL, so its bytes tell where it ends.
                url = new[0]
                assert url is not None
                end = line.index(b'"', site)
                old = line[site:end]
                if url != old:
                    between = spaced if line[site - 2] == 32 else tight
                    line = b"%b%b%b%b%b" % (line[:site], url, between, old, line[end:])
            else:
                texts = [url if url is None else url.decode() for url in new]
                before = _texts_of(site, self.reading.url)
                if texts != before:
                    replace_urls(site, self.reading.url, self.reading.source, iter(texts))
                    line = _closed(site, spaced=b'": ' in line) + line[len(line.rstrip()) :]
            lines.append(line)
        return JsonLines(lines)

    def unchanged(self, keep: Sequence[int]) -> Chunk:
        return JsonLines([self.kept[at] for at in keep])


class _Beside:
    """A key that is not on the path, as it was spelled; the same name may stand twice."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_MEMBER: Final = re.compile(rb"[\s{,]*+(%b)\s*+:\s*+" % _STRING, re.DOTALL).match
_SCALAR: Final = re.compile(rb"%b|[^\s,\]}\[{\"]++" % _STRING, re.DOTALL).match
_BRACKETS: Final = re.compile(rb"%b|[\[\]{}]" % _STRING, re.DOTALL).finditer


def _members(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`(key, value)` of an object's members, as they are written. The text is valid JSON."""
    at = 0
    while member := _MEMBER(raw, at):
        at = _end_of_value(raw, member.end())
        yield member[1], raw[member.end() : at]


def _end_of_value(raw: bytes, at: int) -> int:
    if scalar := _SCALAR(raw, at):
        return scalar.end()
    depth = 0
    for bracket in _BRACKETS(raw, at):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(bracket[0], 0)
        if depth == 0:
            return bracket.end()
    raise AssertionError("the text is not the valid JSON that it was found to be")


def _opened(raw: bytes, path: FieldPath, source: str) -> Any:
    """A JSON value, decoded along a path; what is beside the path stays as it is written.

    Raises:
        BadRecord: a key on the path stands twice in one object.
    """
    kind = raw.lstrip()[:1]
    if not path:
        return msgspec.json.decode(raw)
    if kind == b"[":
        items = msgspec.json.decode(raw, type=list[msgspec.Raw])
        return [_opened(bytes(item), path, source) for item in items]
    if kind != b"{":
        return raw
    record: dict[Any, Any] = {}
    for key, value in _members(raw):
        name = msgspec.json.decode(key)
        if name == path[0] or (len(path) == 1 and name == source):
            if name in record:
                raise BadRecord(f"the key {name!r} stands twice")
            inner = path[1:] if name == path[0] else ()
            record[name] = _opened(value, inner, source)
        else:
            record[_Beside(key)] = value
    return record


def _closed(value: Any, *, spaced: bool) -> bytes:
    """The JSON of what `_opened` gave; `spaced`: as Python writes it, with a blank after `:` and `,`."""
    comma, colon = (b", ", b": ") if spaced else (b",", b":")
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        return b"[%b]" % comma.join(_closed(item, spaced=spaced) for item in value)
    if isinstance(value, dict):
        members = [
            (key.raw if isinstance(key, _Beside) else msgspec.json.encode(key))
            + colon
            + _closed(item, spaced=spaced)
            for key, item in value.items()
        ]
        return b"{%b}" % comma.join(members)
    return msgspec.json.encode(value)


def _texts_of(record: Row, path: FieldPath) -> list[str]:
    return [url for site in sites_of(record, path) for url in site.urls]


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _why(line: bytes, error: Exception) -> str:
    if not line.strip():
        return "empty line"
    if len(line) >= MAX_LINE:
        return f"longer than {MAX_LINE >> 20} MiB"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not _is_utf8(line):
        return "not UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return "not an object"
    return f"not JSON: {str(error).removeprefix('JSON is malformed: ')}"
