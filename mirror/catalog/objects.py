"""The objects that a catalog has rows of, in the order of their keys, to compare with a listing.

They are taken a part of the key space at a time, so that memory stays a fraction of the catalog's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.index import FORMAT_NAMES, Index, halves, positions_of
from mirror.content.image import VERDICTS
from mirror.layout import FORMATS, OBJECTS, parse_object_key

_OK: Final = VERDICTS.index("ok")
# With fewer rows the key space is not divided: each part costs the listing at least one page.
_WHOLE_UP_TO: Final = 100_000
_PIECE: Final = 1 << 20

EXTENSIONS: Final = tuple(sorted(extension for extension, _ in FORMATS.values()))
_EXTENSION_CODES: Final = {extension: code for code, extension in enumerate(EXTENSIONS)}
# Position in EXTENSIONS of each format's extension, by the format's position in FORMAT_NAMES.
_OF_FORMAT: Final = np.array([_EXTENSION_CODES[FORMATS[name][0]] for name in FORMAT_NAMES], "u1")
# The code of every other extension: no object of a catalog has it.
_FOREIGN: Final = len(EXTENSIONS)


@dataclass(frozen=True, slots=True)
class KeyRange:
    """A part of the key space: keys greater than `after`, up to `until`.

    Attributes:
        number: of this part, from 0.
        of: parts in all.
    """

    number: int
    of: int

    @property
    def after(self) -> str:
        return "" if self.number == 0 else self._border(self.number)

    @property
    def until(self) -> str | None:
        """The last possible key; None in the last part, which has no end."""
        return None if self.number == self.of - 1 else self._border(self.number + 1)

    def _border(self, number: int) -> str:
        # A border lies behind a folder's last object, not at the next folder's name: SeaweedFS
        # starts behind a folder that is named, and obstore strips a slash from the end.
        return f"{OBJECTS}{number * 256 // self.of - 1:02x}/~"


def key_ranges(index: Index) -> list[KeyRange]:
    """Divide the key space into parts, in order, each small enough to be held in memory."""
    of = 1 if len(index) <= _WHOLE_UP_TO else 16
    return [KeyRange(number, of) for number in range(of)]


@dataclass(frozen=True)
class NamedObjects:
    """The objects of live rows, sorted by key, as columns with one element for each object.

    Attributes:
        hash_hi: first half of the content hash.
        hash_lo: second half of the content hash.
        extension: position in `EXTENSIONS`.
        size: bytes, by the catalog.
        ok_rows: how many `ok` rows name it. Where it is 0, only flagged rows have the content, and
            the object is in the bucket only if a user chose to upload it.
        begins: position in `rows` of its first row.
        rows: positions in the index's sightings, `ok` rows first within an object.
    """

    hash_hi: NDArray[np.uint64]
    hash_lo: NDArray[np.uint64]
    extension: NDArray[np.uint8]
    size: NDArray[np.int64]
    ok_rows: NDArray[np.int64]
    begins: NDArray[np.intp]
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.hash_hi)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Mark the objects that an `ok` row names: those must be in the bucket."""
        return self.ok_rows > 0

    def content_hash(self, at: int) -> bytes:
        return (int(self.hash_hi[at]) << 64 | int(self.hash_lo[at])).to_bytes(16, "big")

    def key(self, at: int) -> str:
        digits = self.content_hash(at).hex()
        return f"{OBJECTS}{digits[:2]}/{digits}.{EXTENSIONS[self.extension[at]]}"

    def rows_of(self, at: int) -> NDArray[np.intp]:
        """Positions of the `ok` rows that name an object."""
        begin = self.begins[at]
        return self.rows[begin : begin + self.ok_rows[at]]

    def after(self, key: str) -> int:
        """Position of the first object whose key is greater than `key`."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.key(middle) > key else (middle + 1, high)
        return low

    def find(self, parsed: Sequence[tuple[bytes, str]]) -> NDArray[np.intp]:
        """Positions of parsed keys (see `parse_object_key`); -1 for a key that no live row has."""
        if not parsed or not len(self):
            return np.full(len(parsed), -1, np.intp)
        hi, lo = halves(b"".join([content for content, _ in parsed]))
        codes = np.array([_EXTENSION_CODES.get(ext, _FOREIGN) for _, ext in parsed], "u1")
        found = positions_of(hi, lo, self.hash_hi, self.hash_lo)
        other = np.flatnonzero((found >= 0) & (self.extension[found] != codes))
        for at in other.tolist():  # one content has two formats: the next objects share its hash
            found[at] = self._with_extension(int(found[at]), int(codes[at]))
        return found

    def _with_extension(self, first: int, code: int) -> int:
        at = first
        while at < len(self) and (self.hash_hi[at], self.hash_lo[at]) == (
            self.hash_hi[first],
            self.hash_lo[first],
        ):
            if self.extension[at] == code:
                return at
            at += 1
        return -1


def named_objects(index: Index, key_range: KeyRange) -> NamedObjects:
    """The objects in a part of the key space that live rows of the catalog have."""
    sightings = index.sightings
    at = _rows_within(sightings["hash_hi"], key_range)
    hi, lo = sightings["hash_hi"][at], sightings["hash_lo"][at]
    extension = _OF_FORMAT[sightings["format"][at]]
    flagged = sightings["verdict"][at] != _OK
    order = np.lexsort((flagged, extension, lo, hi))
    hi, lo, extension = hi[order], lo[order], extension[order]
    first = np.ones(len(hi), bool)
    first[1:] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1]) | (extension[1:] != extension[:-1])
    begins = np.flatnonzero(first)
    rows = at[order]
    ok_before = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(~flagged[order], out=ok_before[1:])
    return NamedObjects(
        hi[begins],
        lo[begins],
        extension[begins],
        sightings["size"][rows[begins]],
        np.diff(ok_before[np.append(begins, len(rows))]),
        begins,
        rows,
    )


def sha256_of_named(index: Index, key: str) -> bytes | None:
    """SHA-256 of the object with this key, or None when no live `ok` row names it.

    Rows may name one content under several extensions, and each is an object of its own.
    """
    parsed = parse_object_key(key)
    stored = None if parsed is None else index.stored_object(parsed[0])
    if parsed is None or stored is None:
        return None
    content, extension = parsed
    if FORMATS[stored.format][0] == extension:
        return stored.sha256
    sightings = index.sightings
    rows = np.flatnonzero(
        (sightings["hash_hi"] == int.from_bytes(content[:8], "big"))
        & (sightings["hash_lo"] == int.from_bytes(content[8:], "big"))
        & (sightings["verdict"] == _OK)
    )
    formats = {FORMAT_NAMES[code] for code in sightings["format"][rows].tolist()}
    return stored.sha256 if extension in {FORMATS[name][0] for name in formats} else None


def _rows_within(hash_hi: NDArray[Any], key_range: KeyRange) -> NDArray[np.intp]:
    if key_range.of == 1:
        return np.arange(len(hash_hi))
    shift = np.uint64(64 - (key_range.of.bit_length() - 1))
    found = [
        np.flatnonzero((hash_hi[begin : begin + _PIECE] >> shift) == key_range.number) + begin
        for begin in range(0, len(hash_hi), _PIECE)
    ]
    return np.concatenate([np.empty(0, np.intp), *found])
