"""Looks up many URLs at a time in the index of a mirror."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.index import FORMAT_NAMES, Index
from mirror.content.image import VERDICTS
from mirror.content.photo import photo_key, spellings
from mirror.layout import FORMATS, OBJECTS, url_md5
from mirror.urls import content_hash_in

Match = Literal["url", "photo"]
Positions = NDArray[np.intp]

# The outcome of a lookup, as a code: first the verdicts, of which `ok` is 0.
OUTCOMES: Final = (*VERDICTS, "not_mirrored", "too_small", "license")
OK: Final = OUTCOMES.index("ok")
NOT_MIRRORED: Final = OUTCOMES.index("not_mirrored")
TOO_SMALL: Final = OUTCOMES.index("too_small")
LICENSE: Final = OUTCOMES.index("license")

_PADDING: Final = b"\0"
# For each code of a format the bytes of its extension, padded to the longest.
_EXTENSIONS: Final = (
    np.array([f".{FORMATS[name][0]}".encode() for name in FORMAT_NAMES])
    .view(np.uint8)
    .reshape(len(FORMAT_NAMES), -1)
)


def digests_of(urls: Sequence[bytes]) -> bytes:
    """The MD5s of URLs end to end, each as `layout.url_md5` gives it.

    They are computed inline: for a million URLs one call less each is noticeable.
    """
    return b"".join([md5(url, usedforsecurity=False).digest() for url in urls])


class LookupResult(NamedTuple):
    """Where URLs are in an index. Each array has one element per URL.

    Attributes:
        positions: in the index; -1 if it does not have the URL.
        by_photo: whether the URL was found only under another spelling.
    """

    positions: Positions
    by_photo: NDArray[np.bool_]


@dataclass(frozen=True)
class UrlLookup:
    """Finds URLs in the index of a mirror or of a cache.

    Attributes:
        index: the sightings.
        match: `photo` also finds an iNaturalist photo under another spelling of its URL.
        min_side: pixels that the shorter side must have. An image of unknown size is too small.
        of_mirror: the index is a mirror's, so it also finds the URLs of its objects. A dataset that
            was rewritten before contains them.
    """

    index: Index
    match: Match = "url"
    min_side: int = 0
    of_mirror: bool = True

    def find(self, urls: Sequence[bytes], digests: bytes) -> LookupResult:
        """Find URLs in the index.

        Args:
            urls: as UTF-8.
            digests: their MD5s, end to end (`digests_of`).
        """
        positions = self.index.find(digests)
        if self.of_mirror:
            absent = np.flatnonzero(positions < 0).tolist()
            named = {i: content_hash_in(urls[i]) for i in absent}
            if known := {i: content_hash for i, content_hash in named.items() if content_hash}:
                positions[list(known)] = self.index.find_contents(b"".join(known.values()))
        by_photo = np.zeros(len(positions), np.bool_)
        if self.match == "photo":
            wanting = np.flatnonzero(~self._is_good(positions))
            found = self._other_spellings([urls[i] for i in wanting.tolist()])
            better = self._is_good(found) | ((positions[wanting] < 0) & (found >= 0))
            positions[wanting[better]] = found[better]
            by_photo[wanting[better]] = True
        return LookupResult(positions, by_photo)

    def _other_spellings(self, urls: Sequence[bytes]) -> Positions:
        """For each URL the position of the same photo, a good sighting if there is one; else -1."""
        texts = [url.decode(errors="replace") for url in urls]
        best = self.index.find_photos(np.array([photo_key(text) for text in texts], np.uint64))
        # A catalog without source URLs knows no photos, so likely spellings are looked up as well.
        wanting = np.flatnonzero(~self._is_good(best))
        guesses = [spellings(texts[i]) for i in wanting.tolist()]
        row = np.repeat(wanting, np.array([len(guess) for guess in guesses], np.intp))
        found = self.index.find(b"".join([url_md5(url) for guess in guesses for url in guess]))
        for fits in ((found >= 0) & (best[row] < 0), self._is_good(found)):
            rows, first = np.unique(row[fits], return_index=True)
            best[rows] = found[fits][first]
        return best

    def _is_good(self, positions: Positions) -> NDArray[np.bool_]:
        good = np.zeros(len(positions), np.bool_)
        known = np.flatnonzero(positions >= 0)
        good[known] = self.index.sightings["verdict"][positions[known]] == OK
        return good

    def outcomes(self, positions: Positions) -> NDArray[np.uint8]:
        """For each position of `find` a code of `OUTCOMES`."""
        outcome = np.full(len(positions), NOT_MIRRORED, np.uint8)
        known = np.flatnonzero(positions >= 0)
        rows = positions[known]
        columns = self.index.sightings
        outcome[known] = columns["verdict"][rows]
        if self.min_side:
            side = np.minimum(columns["width"][rows], columns["height"][rows])
            small = known[(side < self.min_side) & (outcome[known] == OK)]
            outcome[small] = TOO_SMALL
        return outcome

    def object_keys(self, positions: Positions, base: bytes = b"") -> list[bytes]:
        """Keys of the objects at these positions, each after `base`. No position may be -1."""
        # The same as `layout.object_key`, but a column at a time, which is fast for a million keys.
        # Keys are built at equal length, one a line; then the padding of short extensions is removed.
        digits = self.index.content_hashes(positions).tobytes().hex().encode()
        hashes = np.frombuffer(digits, np.uint8).reshape(len(positions), 32)
        extensions = _EXTENSIONS[self.index.sightings["format"][positions]]
        before, slash, end = (
            np.frombuffer(text, np.uint8).reshape(1, -1)
            for text in (base + OBJECTS.encode(), b"/", b"\n")
        )
        columns = (before, hashes[:, :2], slash, hashes, extensions, end)
        keys = np.concatenate(
            [np.broadcast_to(column, (len(positions), column.shape[1])) for column in columns],
            axis=1,
        )
        return keys.tobytes().translate(None, _PADDING).split(b"\n")[:-1]

    def content_keys(self, positions: Positions) -> NDArray[np.uint64]:
        """The first 64 bits of each content's hash: equal for equal contents."""
        keys: NDArray[np.uint64] = self.index.sightings["hash_hi"][positions]
        return keys
