"""What is asked of a MongoDB collection: which documents, what of them, and which come after one.

"After" is by BSON's order of types, in which `_id`s of several types follow one another. MongoDB's
`$gt` alone would not do: it compares within one type only, and would end a resumed scan with the
last `_id` of the type it broke at. The conditions are plain query operators, which sharded clusters,
views and servers that only speak MongoDB's protocol have too; `min` and `$expr` are not everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import Any, Final, Self

from mirror.errors import DatasetError, UsageError


@dataclass(frozen=True)
class Query:
    """Which documents, and what of them. Both are MongoDB's own; sort and limit are not for asking."""

    filter: Mapping[str, Any] = field(default_factory=dict)
    projection: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, filter_text: str = "", projection_text: str = "") -> Self:
        """A query as a command line has it.

        Args:
            filter_text: JSON, Extended JSON for what JSON has not: `{"_id": {"$oid": "…"}}`.
            projection_text: the same, or names of fields with commas between; with those, `_id`
                comes too, as in MongoDB.

        Raises:
            UsageError: a text says something else.
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
        # An _id that is computed or cut would not say where a broken scan has to go on.
        cut = any(name.startswith("_id.") for name in projection)
        if cut or projection.get("_id", 1) not in (0, 1):
            raise UsageError("The projection may ask for _id with 1 or 0, and nothing else.")
        return cls(_parse_json("filter", filter_text), projection)

    @property
    def keeps_id(self) -> bool:
        return bool(self.projection.get("_id", 1))

    @property
    def sent_projection(self) -> dict[str, Any] | None:
        """The projection with `_id`, by which a broken scan goes on; `keeps_id` says who drops it."""
        if self.keeps_id:
            return dict(self.projection) or None
        return {name: value for name, value in self.projection.items() if name != "_id"} or None

    def after(self, last: LastId | None) -> dict[str, Any] | None:
        """The filter for what a scan has not given yet; None when nothing can be left."""
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
            encode(value)  # names and numbers that JSON has and BSON has not
    except Exception as error:  # noqa: BLE001 - json_util raises whatever it trips over
        raise UsageError(f"The {what} is not JSON ({error}); write it as {example}.") from None
    if not isinstance(value, dict):
        raise UsageError(f"The {what} is not a JSON object; write it as {example}.")
    return value


# The types of BSON in the order in which MongoDB sorts them, those on one line as one: the numbers
# of the types and their names in `$type`. What an _id can not be (array, regex, undefined) is not
# here.
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
_SINGLE: Final = frozenset({0xFF, 0x0A, 0x7F})  # types of one value: nothing of them is greater


@dataclass(frozen=True)
class LastId:
    """The `_id` of the last document that a scan has given, and its type's number in BSON."""

    kind: int
    value: Any

    @classmethod
    def of(cls, document: bytes) -> Self:
        """Of a document as BSON.

        Raises:
            DatasetError: it is text that is not UTF-8, which no query can name.
        """
        from bson import encode
        from bson.binary import UuidRepresentation
        from bson.codec_options import CodecOptions, DatetimeConversion
        from bson.raw_bson import RawBSONDocument

        exactly = CodecOptions(
            document_class=RawBSONDocument,
            uuid_representation=UuidRepresentation.UNSPECIFIED,
            datetime_conversion=DatetimeConversion.DATETIME_MS,
            # Another field may hold what is no UTF-8; the _id must be found all the same.
            unicode_decode_error_handler="surrogateescape",
        )
        value = RawBSONDocument(document, exactly)["_id"]
        try:
            kind = encode({"": value})[4]  # behind the length of the document
        except UnicodeEncodeError:
            raise DatasetError(
                "The scan broke behind an _id that is not UTF-8 and cannot go on from there; "
                "run the command again."
            ) from None
        return cls(kind, value)

    def branches(self) -> list[dict[str, Any]]:
        """Conditions of which all that comes later meets one, and nothing else does."""
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
    try:
        import pymongo  # noqa: F401
    except ImportError:
        raise UsageError(
            "Reading MongoDB needs pymongo; install it: pip install 'dataset-mirror[mongo]'."
        ) from None
