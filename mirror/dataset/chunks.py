"""Records on their way out, in the form that they came in; another format asks them for its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

Row = dict[str, Any]


class Chunk(ABC):
    """Some records, in order."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, positions: Sequence[int]) -> Chunk:
        """These of the records, in this order."""

    @abstractmethod
    def lines(self) -> list[bytes]:
        """Each as a line of JSON, without the line's end."""

    @abstractmethod
    def rows(self) -> list[Row]:
        """Each as a dict.

        Raises:
            UsageError: one holds what only its own format can.
        """


class JsonLines(Chunk):
    """Lines of JSON as they are, without their ends."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def __reduce__(self) -> tuple[Any, ...]:
        # One long text pickles a hundred times faster than as many short ones.
        return _json_lines, (b"\n".join(self._lines), len(self._lines))

    def __len__(self) -> int:
        return len(self._lines)

    def take(self, positions: Sequence[int]) -> JsonLines:
        return JsonLines([self._lines[at] for at in positions])

    def lines(self) -> list[bytes]:
        return self._lines

    def rows(self) -> list[Row]:
        try:
            decode = msgspec.json.Decoder(Row).decode
            return [decode(line) for line in self._lines]
        except msgspec.ValidationError:
            # Numbers beyond a double's range: infinity, as Python's own reader has it.
            decode = msgspec.json.Decoder(Row, float_hook=float).decode
            return [decode(line) for line in self._lines]


def _json_lines(joined: bytes, count: int) -> JsonLines:
    return JsonLines(joined.split(b"\n") if count else [])


class Rows(Chunk):
    """Python objects: of CSV and of documents."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, positions: Sequence[int]) -> Rows:
        return Rows([self._rows[at] for at in positions])

    def lines(self) -> list[bytes]:
        return [json_line(row) for row in self._rows]

    def rows(self) -> list[Row]:
        return self._rows


def json_line(row: Row) -> bytes:
    """A record as JSON. What JSON does not have is written as text, and not-a-number as null."""
    return _encoder.encode(row)


_encoder = msgspec.json.Encoder(enc_hook=str, decimal_format="number")
