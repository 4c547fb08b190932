"""Converts MongoDB documents to records: plain JSON, or MongoDB's Extended JSON.

Plain is for training, and converts BSON types that JSON lacks:

    ObjectId             its 24 hexadecimal digits
    date                 "2020-01-02T03:04:05.678Z": ISO 8601, UTC, always with milliseconds
    int32, int64         a number
    double               a number; NaN and infinities become null and are counted
    Decimal128           a string, because most readers would turn a number into a double and lose digits
    binary               base64; a UUID (subtype 4) as its text
    timestamp            {"t": seconds since 1970, "i": ordinal}
    regular expression   "/pattern/flags"
    code                 its text; with a scope {"code": …, "scope": …}
    DBRef                {"$ref": …, "$id": …} and its other fields
    MinKey, MaxKey       "MinKey", "MaxKey"

`bson.json_util` and mongoimport read Extended JSON (version 2 of the specification) back. `relaxed`
loses only the difference between int32, int64 and double; `canonical` loses nothing.

Fields keep their order. A document that is not valid BSON, such as one whose strings are not UTF-8,
is left out and counted.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from mirror.dataset.chunks import Chunk, JsonLines, Row, Rows

if TYPE_CHECKING:
    from bson import Binary, DBRef, Regex
    from bson.code import Code
    from bson.codec_options import CodecOptions

Style = Literal["plain", "relaxed", "canonical"]
STYLES: Final[tuple[Style, ...]] = get_args(Style)

_UNCHANGED_TYPES: Final = frozenset({str, int, bool, type(None)})
_LENGTH_BYTES: Final = 4
_SHORTEST: Final = 5  # bytes of a document without fields: its length and a zero
_UUID_SUBTYPE: Final = 4
_UUID_BYTES: Final = 16


class InvalidDocument(NamedTuple):
    """A document that is not valid BSON. `number` is its position in the scan, from 1."""

    number: int
    shown_id: str
    reason: str


class Rendering:
    """Converts documents to records batch by batch, and counts what JSON cannot hold.

    Attributes:
        documents: how many documents were converted or rejected.
        undecodable: how many of them are not valid BSON.
        non_finite: numbers that became null because JSON has no NaN and no infinity.
    """

    def __init__(self, style: Style = "plain", *, keep_id: bool = True) -> None:
        self.documents = 0
        self.undecodable = 0
        self.non_finite = 0
        self._style = style
        self._keep_id = keep_id
        self._options = _codec_options(style)
        self._converters = self._all_converters()

    def chunk(self, batch: bytes) -> tuple[Chunk, list[InvalidDocument]]:
        """The records of a batch.

        Args:
            batch: BSON documents end to end.
        """
        documents, bad = self._decoded(batch)
        if not self._keep_id:
            for document in documents:
                document.pop("_id", None)
        if self._style == "plain":
            return Rows([self.plain(document) for document in documents]), bad
        from bson.json_util import dumps

        options: Any = self._options
        return JsonLines(
            [
                dumps(
                    document, json_options=options, ensure_ascii=False, separators=(",", ":")
                ).encode()
                for document in documents
            ]
        ), bad

    def plain(self, document: Mapping[str, Any]) -> Row:
        """A document as plain JSON: strings, numbers, booleans, null, lists and objects."""
        return {
            name: value if type(value) in _UNCHANGED_TYPES else self._value(value)
            for name, value in document.items()
        }

    def _value(self, value: Any) -> Any:
        return self._converters.get(type(value), str)(value)

    def _list(self, values: list[Any]) -> list[Any]:
        return [
            value if type(value) in _UNCHANGED_TYPES else self._value(value) for value in values
        ]

    def _float(self, value: float) -> float | None:
        if math.isfinite(value):
            return value
        self.non_finite += 1
        return None

    def _code(self, value: Code) -> Any:
        if value.scope is None:
            return str(value)
        return {"code": str(value), "scope": self.plain(value.scope)}

    def _reference(self, value: DBRef) -> Row:
        return self.plain(value.as_doc())

    def _all_converters(self) -> dict[type, Callable[[Any], Any]]:
        from bson import DBRef, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
        from bson.binary import Binary
        from bson.code import Code
        from bson.datetime_ms import DatetimeMS
        from bson.son import SON

        return {
            float: self._float,
            dict: self.plain,
            SON: self.plain,
            list: self._list,
            ObjectId: str,
            Int64: int,
            datetime: _date,
            DatetimeMS: _far_date,
            bytes: _base64,
            Binary: _binary,
            Timestamp: lambda value: {"t": value.time, "i": value.inc},
            Regex: _regex,
            Code: self._code,
            DBRef: self._reference,
            MinKey: lambda _: "MinKey",
            MaxKey: lambda _: "MaxKey",
        }

    def _decoded(self, batch: bytes) -> tuple[list[dict[str, Any]], list[InvalidDocument]]:
        from bson import decode, decode_all
        from bson.errors import InvalidBSON

        first = self.documents + 1
        try:
            documents = decode_all(batch, self._options)
        except InvalidBSON:
            pass  # one invalid document fails the whole batch; they are decoded one by one below
        else:
            self.documents += len(documents)
            return documents, []
        documents, bad = [], []
        for number, raw in enumerate(split(batch), first):
            self.documents += 1
            try:
                documents.append(decode(raw, self._options))
            except InvalidBSON as error:
                self.undecodable += 1
                bad.append(InvalidDocument(number, _shown_id(raw), f"is not valid BSON: {error}"))
        return documents, bad


def split(batch: bytes) -> list[bytes]:
    """Divide a batch into documents. Each document begins with its length."""
    documents = []
    at = 0
    while at < len(batch):
        # A damaged length may be too small, and must not stop the loop.
        end = at + max(_SHORTEST, int.from_bytes(batch[at : at + _LENGTH_BYTES], "little"))
        documents.append(batch[at:end])
        at = end
    return documents


@cache
def _codec_options(style: Style) -> CodecOptions[dict[str, Any]]:
    from bson import json_util
    from bson.binary import UuidRepresentation
    from bson.codec_options import CodecOptions, DatetimeConversion

    if style == "plain":
        return CodecOptions(
            document_class=dict,
            tz_aware=False,
            # Decoding as UUID would fail for the whole document if one had a wrong length.
            uuid_representation=UuidRepresentation.UNSPECIFIED,
            datetime_conversion=DatetimeConversion.DATETIME_AUTO,
        )
    options: Any = {
        "relaxed": json_util.RELAXED_JSON_OPTIONS,
        "canonical": json_util.CANONICAL_JSON_OPTIONS,
    }[style]
    decoding: CodecOptions[dict[str, Any]] = options.with_options(
        document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_AUTO
    )
    return decoding


def _date(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds") + "Z"


def _far_date(value: Any) -> str:
    """A date before the year 1 or after 9999, which Python's datetime cannot hold."""
    import numpy as np

    return f"{np.datetime64(int(value), 'ms')}Z"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _binary(value: Binary) -> str:
    from uuid import UUID

    is_uuid = value.subtype == _UUID_SUBTYPE and len(value) == _UUID_BYTES
    return str(UUID(bytes=bytes(value))) if is_uuid else _base64(value)


def _regex(value: Regex[str]) -> str:
    from bson.regex import str_flags_to_int

    flags = "".join(letter for letter in "ilmsux" if value.flags & str_flags_to_int(letter))
    pattern = value.pattern
    return f"/{pattern if isinstance(pattern, str) else pattern.decode('utf-8', 'replace')}/{flags}"


def _shown_id(raw: bytes) -> str:
    """The _id of an invalid document, for people; empty if the _id is damaged too."""
    from bson import decode
    from bson.errors import InvalidBSON

    lenient = _codec_options("plain").with_options(unicode_decode_error_handler="replace")
    try:
        return str(decode(raw, lenient).get("_id", ""))
    except InvalidBSON:
        return ""
