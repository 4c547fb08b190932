"""Replaces URLs in a line of JSON and leaves its other bytes unchanged. Pure.

`opened` follows the path to the URLs, notes their positions in the line, and skips everything else.
`splice` inserts new URLs there. White space, escapes, numbers, the order of fields and even repeated
fields stay as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from mirror.dataset.fields import BadRecord, FieldPath, UrlTally, is_nothing, url_bytes

# Limits on a record, so that a hostile line cannot fill the memory.
MAX_DEPTH: Final = 64
MAX_ITEMS: Final = 100_000

# A text in JSON, with its quotes; the patterns need re.DOTALL.
STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_MEMBER: Final = re.compile(rb"[\s,]*+(%b)(\s*+:\s*+)" % STRING, re.DOTALL).match
_GAP: Final = re.compile(rb"[\s,]*+").match
_SCALAR: Final = re.compile(rb"%b|[^\s,\]}\[{\"]++" % STRING, re.DOTALL).match
_BRACKETS: Final = re.compile(rb"%b|[\[\]{}]" % STRING, re.DOTALL).finditer
_DEPTH: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


class _Span(NamedTuple):
    begin: int
    end: int


class _Edit(NamedTuple):
    """A replacement of the bytes from `begin` to `end` of a line."""

    begin: int
    end: int
    text: bytes


class OpenedObject(dict[str, Any]):
    """The members of an object that matter: the one on the path, and the source field.

    Attributes:
        spans: the positions of their values in the line.
        colons: the colons before their values, with white space.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spans: dict[str, _Span] = {}
        self.colons: dict[str, bytes] = {}


class OpenedList(list[Any]):
    """The items of a list.

    Attributes:
        spans: their positions in the line.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[_Span] = []

    def without(self, gone: Sequence[int]) -> Iterator[_Edit]:
        """The edits that remove the items at these ascending indexes. At least one item must remain."""
        spans = self.spans
        leading = next(n for n, index in enumerate([*gone, len(spans)]) if n != index)
        if leading:
            yield _Edit(spans[0].begin, spans[leading].begin, b"")
        for index in gone[leading:]:
            yield _Edit(spans[index - 1].end, spans[index].end, b"")


def opened(line: bytes, path: FieldPath, source: str) -> OpenedObject:
    """Parse a record along a path only.

    Its objects contain only the field on the path, and at the end of the path also the field
    `source`. Lists and texts are complete. Any other value is replaced by one of its kind.

    Args:
        line: valid JSON of an object.
        path: of the URLs.
        source: the field for original URLs; empty for none.

    Raises:
        BadRecord: an object has a field of the path twice, or the record exceeds the limits.
    """
    record, _ = _Opening(line, source).value(line.index(b"{"), path, 0)
    assert isinstance(record, OpenedObject)
    return record


class _Opening:
    """Parses one line. Each method takes the position of a value, and returns it with its end."""

    def __init__(self, line: bytes, source: str) -> None:
        self._line = line
        self._source = source or None
        self._items = 0

    def value(self, at: int, path: FieldPath, depth: int) -> tuple[Any, int]:
        if depth > MAX_DEPTH:
            raise BadRecord("nested too deeply")
        if not path:
            return self._leaf(at)
        first = self._line[at]
        if first == ord("["):
            return self._list(at, lambda item: self.value(item, path, depth + 1))
        if first != ord("{"):
            return None, self._end_of(at)
        line = self._line
        found = OpenedObject()
        at += 1
        while member := _MEMBER(line, at):
            name, begin = _text(member[1]), member.end()
            on_path = name == path[0]
            if on_path or (len(path) == 1 and name == self._source):
                if name in found:
                    raise BadRecord(f"the key {name!r} occurs twice")
                inner = path[1:] if on_path else ()
                found[name], at = self.value(begin, inner, depth + 1)
                found.spans[name] = _Span(begin, at)
                found.colons[name] = member[2]
            else:
                at = self._end_of(begin)
        return found, line.index(b"}", at) + 1

    def _list(self, at: int, item: Callable[[int], tuple[Any, int]]) -> tuple[OpenedList, int]:
        line = self._line
        found = OpenedList()
        at += 1
        while gap := _GAP(line, at):
            begin = gap.end()
            if line[begin] == ord("]"):
                break
            self._items += 1
            if self._items > MAX_ITEMS:
                raise BadRecord(f"more than {MAX_ITEMS:,} items in its lists")
            value, at = item(begin)
            found.append(value)
            found.spans.append(_Span(begin, at))
        return found, begin + 1

    def _leaf(self, at: int) -> tuple[Any, int]:
        """A text, a list of texts, or a value of the same kind."""
        if self._line[at] == ord("["):
            return self._list(at, self._item)
        return self._item(at)

    def _item(self, at: int) -> tuple[Any, int]:
        end = self._end_of(at)
        match self._line[at : at + 1]:
            case b'"':
                return _text(self._line[at:end]), end
            case b"{":
                return ({"": None} if b'"' in self._line[at:end] else {}), end
            case b"[":
                return [], end
            case b"t" | b"f":
                return True, end
            case b"n":
                return None, end
            case _:
                return 0, end

    def _end_of(self, at: int) -> int:
        if scalar := _SCALAR(self._line, at):
            return scalar.end()
        depth = 0
        for bracket in _BRACKETS(self._line, at):
            depth += _DEPTH.get(bracket[0], 0)
            if depth == 0:
                return bracket.end()
        raise AssertionError("the text is not the valid JSON that it was found to be")


def _text(raw: bytes) -> str:
    if b"\\" not in raw:
        return raw[1:-1].decode()
    text: str = msgspec.json.decode(raw, type=str)
    return text


def splice(
    line: bytes,
    record: OpenedObject,
    path: FieldPath,
    source: str,
    urls: Iterator[bytes | None],
) -> bytes:
    """Replace the URLs in a line, as `fields.replace_urls` does in a dict.

    Args:
        line: the line that `opened` parsed with the same path and source.
        record: what `opened` returned.
        path: of the URLs.
        source: the field for original URLs.
        urls: one for each old URL, as UTF-8; None removes it.
    """
    _, edits = _Splicing(line, source, urls).edits(record, path)
    return _edited(line, edits)


class _Splicing:
    def __init__(self, line: bytes, source: str, urls: Iterator[bytes | None]) -> None:
        self._line = line
        self._source = source
        self._urls = urls

    def edits(self, value: Any, path: FieldPath) -> tuple[UrlTally, list[_Edit]]:
        if isinstance(value, OpenedList):
            return self._in_list(value, path)
        if not isinstance(value, OpenedObject) or path[0] not in value:
            return UrlTally(0, 0), []
        if len(path) > 1:
            return self.edits(value[path[0]], path[1:])
        return self._in_site(value, path[0])

    def _in_list(self, items: OpenedList, path: FieldPath) -> tuple[UrlTally, list[_Edit]]:
        tallies = []
        edits: list[_Edit] = []
        for item in items:
            tally, inner = self.edits(item, path)
            tallies.append(tally)
            edits += [] if tally.is_gone else inner
        gone = [index for index, tally in enumerate(tallies) if tally.is_gone]
        if len(gone) < len(items):
            edits += items.without(gone)
        return UrlTally(sum(t.lost for t in tallies), sum(t.left for t in tallies)), edits

    def _in_site(self, holder: OpenedObject, key: str) -> tuple[UrlTally, list[_Edit]]:
        value, span = holder[key], holder.spans[key]
        is_list = isinstance(value, OpenedList)
        old, spans = (value, value.spans) if is_list else ([value], [span])
        new = [next(self._urls) for _ in old]
        gone = [index for index, url in enumerate(new) if url is None]
        tally = UrlTally(len(gone), len(old) - len(gone))
        if not tally.left:
            return tally, []
        fresh = [
            _Edit(spans[index].begin, spans[index].end, msgspec.json.encode(url.decode()))
            for index, url in enumerate(new)
            if url is not None and url != url_bytes(old[index])
        ]
        cuts = list(value.without(gone)) if is_list else []
        edits = fresh + cuts
        held = holder.get(self._source)
        if fresh and is_nothing(held):
            original = _edited(self._line[: span.end], cuts)[span.begin :]
            edits.append(_beside(holder, key, self._source, original))
        elif cuts and isinstance(held, OpenedList) and len(held) == len(old):
            edits += held.without(gone)  # each original stays with its URL
        return tally, edits


def _beside(holder: OpenedObject, key: str, source: str, original: bytes) -> _Edit:
    """Write the original URL to the source field, or create that field after the URL's."""
    if source in holder:
        return _Edit(*holder.spans[source], original)
    colon, end = holder.colons[key], holder.spans[key].end
    comma = b", " if colon[-1:].isspace() else b","
    return _Edit(end, end, b"%b%b%b%b" % (comma, msgspec.json.encode(source), colon, original))


def _edited(line: bytes, edits: Sequence[_Edit]) -> bytes:
    parts = []
    at = 0
    for begin, end, text in sorted(edits):
        parts += [line[at:begin], text]
        at = end
    return b"".join([*parts, line[at:]])
