"""Records to be written, in the form in which they were read; writers convert them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

Row = dict[str, Any]


class Chunk(ABC):
    """A sequence of records."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, positions: Sequence[int]) -> Chunk:
        """The records at these positions, in this order."""

    @abstractmethod
    def lines(self) -> list[bytes]:
        """Each record as a line of JSON, without the line ending."""

    @abstractmethod
    def rows(self) -> list[Row]:
        """Each record as a dict.

        Raises:
            UsageError: a value has a type that only the original format has.
        """


class JsonLines(Chunk):
    """Unchanged lines of JSON, without line endings."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def __reduce__(self) -> tuple[Any, ...]:
        # One long text pickles a hundred times faster than many short ones.
        return _json_lines, (b"\n".join(self._lines), len(self._lines))

    def __len__(self) -> int:
        return len(self._lines)

    def take(self, positions: Sequence[int]) -> JsonLines:
        return JsonLines([self._lines[position] for position in positions])

    def lines(self) -> list[bytes]:
        return self._lines

    def rows(self) -> list[Row]:
        try:
            decode = msgspec.json.Decoder(Row).decode
            return [decode(line) for line in self._lines]
        except msgspec.DecodeError:
            # A number exceeds the range of a double, or NaN was kept: as in Python's json module.
            return [_as_python(line) for line in self._lines]


def _as_python(line: bytes) -> Row:
    try:
        return _decode_any(line)
    except msgspec.DecodeError:
        row: Row = json.loads(line)
        return row


def _json_lines(joined: bytes, count: int) -> JsonLines:
    return JsonLines(joined.split(b"\n") if count else [])


class Rows(Chunk):
    """Records as Python objects, from CSV and MongoDB."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, positions: Sequence[int]) -> Rows:
        return Rows([self._rows[position] for position in positions])

    def lines(self) -> list[bytes]:
        return [json_line(row) for row in self._rows]

    def rows(self) -> list[Row]:
        return self._rows


def json_line(row: Row) -> bytes:
    """A record as JSON. Types that JSON lacks become text, and not-a-number becomes null."""
    return _encoder.encode(row)


_decode_any = msgspec.json.Decoder(Row, float_hook=float).decode
_encoder = msgspec.json.Encoder(enc_hook=str, decimal_format="number")
