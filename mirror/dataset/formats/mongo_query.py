"""Queries of a MongoDB collection: which documents, which fields, and the documents after an `_id`.

"After" follows BSON's order of types, because a collection may have `_id`s of several types. `$gt`
alone is not enough: it compares within one type, so a resumed scan would miss all later types. The
conditions are plain query operators, which sharded clusters, views and compatible servers support;
`min` and `$expr` are not supported everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import Any, Final, Self

from mirror.errors import DatasetError, UsageError
from mirror.system.extras import import_optional


@dataclass(frozen=True)
class Query:
    """A filter and a projection of MongoDB. A scan sets the sort order itself."""

    filter: Mapping[str, Any] = field(default_factory=dict)
    projection: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, filter_text: str = "", projection_text: str = "") -> Self:
        """Parse a query from the texts of the command line.

        Args:
            filter_text: JSON, or Extended JSON for other types: `{"_id": {"$oid": "…"}}`.
            projection_text: the same, or names of fields separated by commas. Names include `_id`,
                as in MongoDB.

        Raises:
            UsageError: a text is not understood.
        """
        projection: dict[str, Any]
        if not projection_text.strip() or projection_text.lstrip().startswith("{"):
            projection = _parse_json("projection", projection_text)
        else:
            names = [name.strip() for name in projection_text.split(",")]
            if not all(names):
                raise UsageError(
                    f"The projection {projection_text!r} has an empty name; write it as a,b,c."
                )
            projection = dict.fromkeys(names, 1)
        # A broken scan resumes at an _id, which must therefore be complete.
        cut = any(name.startswith("_id.") for name in projection)
        if cut or projection.get("_id", 1) not in (0, 1):
            raise UsageError("The projection may set _id only to 1 or 0.")
        return cls(_parse_json("filter", filter_text), projection)

    @property
    def keeps_id(self) -> bool:
        return bool(self.projection.get("_id", 1))

    @property
    def sent_projection(self) -> dict[str, Any] | None:
        """The projection sent to the server. It includes `_id`, at which a broken scan resumes."""
        if self.keeps_id:
            return dict(self.projection) or None
        return {name: value for name, value in self.projection.items() if name != "_id"} or None

    def after(self, last: LastId | None) -> dict[str, Any] | None:
        """The filter for the documents after `last`; None if there can be none."""
        if last is None:
            return dict(self.filter)
        if not (branches := last.branches()):
            return None
        rest = {"$or": branches}
        return {"$and": [dict(self.filter), rest]} if self.filter else rest


def _parse_json(what: str, text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    import_pymongo()
    from bson import encode
    from bson.json_util import loads

    example = '{"species": "Quercus robur"}' if what == "filter" else '{"image_url": 1}'
    try:
        value = loads(text)
        if isinstance(value, dict):
            encode(value)  # refuses names and numbers that BSON cannot hold
    except Exception as error:  # noqa: BLE001 - json_util raises errors of many kinds
        raise UsageError(f"The {what} is not JSON ({error}); write it as {example}.") from None
    if not isinstance(value, dict):
        raise UsageError(f"The {what} is not a JSON object; write it as {example}.")
    return value


# The types of BSON in MongoDB's sort order: their numbers, and their names in `$type`. Types on one
# line sort as one. Types that an _id cannot have (array, regex, undefined) are left out.
_IN_ORDER: Final[tuple[tuple[frozenset[int], tuple[str, ...]], ...]] = (
    (frozenset({0xFF}), ("minKey",)),
    (frozenset({0x0A}), ("null",)),
    (frozenset({0x01, 0x10, 0x12, 0x13}), ("int", "long", "double", "decimal")),
    (frozenset({0x02, 0x0E}), ("string", "symbol")),
    (frozenset({0x03}), ("object",)),
    (frozenset({0x05}), ("binData",)),
    (frozenset({0x07}), ("objectId",)),
    (frozenset({0x08}), ("bool",)),
    (frozenset({0x09}), ("date",)),
    (frozenset({0x11}), ("timestamp",)),
    (frozenset({0x0C}), ("dbPointer",)),
    (frozenset({0x0D}), ("javascript",)),
    (frozenset({0x0F}), ("javascriptWithScope",)),
    (frozenset({0x7F}), ("maxKey",)),
)
_SINGLE: Final = frozenset(
    {0xFF, 0x0A, 0x7F}
)  # types with a single value, so that no value of them is greater


@dataclass(frozen=True)
class LastId:
    """The `_id` of the last document of a scan, and the number of its BSON type."""

    kind: int
    value: Any

    @classmethod
    def of(cls, document: bytes) -> Self:
        """Read the `_id` of a BSON document.

        Raises:
            DatasetError: the `_id` is text that is not UTF-8, which no query can contain.
        """
        from bson import encode
        from bson.binary import UuidRepresentation
        from bson.codec_options import CodecOptions, DatetimeConversion
        from bson.raw_bson import RawBSONDocument

        exactly = CodecOptions(
            document_class=RawBSONDocument,
            uuid_representation=UuidRepresentation.UNSPECIFIED,
            datetime_conversion=DatetimeConversion.DATETIME_MS,
            # Other fields may hold text that is not UTF-8.
            unicode_decode_error_handler="surrogateescape",
        )
        value = RawBSONDocument(document, exactly)["_id"]
        try:
            kind = encode({"": value})[4]  # after the length of the document
        except UnicodeEncodeError:
            raise DatasetError(
                "The scan broke after an _id that is not UTF-8, and cannot resume there; "
                "run the command again."
            ) from None
        return cls(kind, value)

    def branches(self) -> list[dict[str, Any]]:
        """Conditions of which every later document meets exactly one, and no other document any."""
        place = next(n for n, (kinds, _) in enumerate(_IN_ORDER) if self.kind in kinds)
        later = [name for _, names in _IN_ORDER[place + 1 :] for name in names]
        found: list[dict[str, Any]] = []
        if self.kind not in _SINGLE:
            found.append({"_id": self._greater()})
        if later:
            found.append({"_id": {"$type": later}})
        return found

    def _greater(self) -> dict[str, Any]:
        from bson import Decimal128

        value = self.value
        if isinstance(value, Decimal128):
            is_nan = value.to_decimal().is_nan()
        else:
            is_nan = isinstance(value, float) and isnan(value)
        # NaN sorts below all numbers, but no number compares as greater.
        return {"$gte": float("-inf")} if is_nan else {"$gt": value}


def import_pymongo() -> None:
    """Raise UsageError if pymongo is not installed."""
    import_optional("pymongo", "MongoDB")
