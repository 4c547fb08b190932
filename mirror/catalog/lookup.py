"""URLs → what the mirror holds for them, many at a time."""

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

# What became of a URL, as a code: 0 is `ok`, the verdicts come first.
OUTCOMES: Final = (*VERDICTS, "not_mirrored", "too_small", "license")
OK: Final = OUTCOMES.index("ok")
NOT_MIRRORED: Final = OUTCOMES.index("not_mirrored")
TOO_SMALL: Final = OUTCOMES.index("too_small")
LICENSE: Final = OUTCOMES.index("license")

_PADDING: Final = b"\0"
# By the code of a format: the extension's bytes, padded to the longest.
_EXTENSIONS: Final = (
    np.array([f".{FORMATS[name][0]}".encode() for name in FORMAT_NAMES])
    .view(np.uint8)
    .reshape(len(FORMAT_NAMES), -1)
)


def digests_of(urls: Sequence[bytes]) -> bytes:
    """MD5s of URLs, end to end, as `layout.url_md5`; for a million, a call less for each counts."""
    return b"".join([md5(url, usedforsecurity=False).digest() for url in urls])


class LookupResult(NamedTuple):
    """Where URLs are in an index.

    Attributes:
        at: positions, -1 for what it does not have.
        by_photo: which of them were found only under another spelling.
    """

    at: Positions
    by_photo: NDArray[np.bool_]


@dataclass(frozen=True)
class UrlLookup:
    """Finds URLs in a mirror, or in whatever else an index was made of.

    Attributes:
        index: the sightings.
        match: `photo` also finds an iNaturalist photo under another spelling of its URL.
        min_side: pixels that the shorter side must have; what is not known to is too small.
        of_mirror: the index is a mirror's: its objects are known by their URLs too, in a dataset that
            was rewritten before.
    """

    index: Index
    match: Match = "url"
    min_side: int = 0
    of_mirror: bool = True

    def find(self, urls: Sequence[bytes], digests: bytes) -> LookupResult:
        """Where the URLs are in the index.

        Args:
            urls: as UTF-8.
            digests: their MD5s, end to end (`digests_of`).
        """
        at = self.index.find(digests)
        if self.of_mirror:
            named = {i: content_hash_in(urls[i]) for i in np.flatnonzero(at < 0).tolist()}
            if known := {i: content_hash for i, content_hash in named.items() if content_hash}:
                at[list(known)] = self.index.find_contents(b"".join(known.values()))
        by_photo = np.zeros(len(at), np.bool_)
        if self.match == "photo":
            wanting = np.flatnonzero(~self._is_good(at))
            found = self._other_spellings([urls[i] for i in wanting.tolist()])
            better = self._is_good(found) | ((at[wanting] < 0) & (found >= 0))
            at[wanting[better]] = found[better]
            by_photo[wanting[better]] = True
        return LookupResult(at, by_photo)

    def _other_spellings(self, urls: Sequence[bytes]) -> Positions:
        """For each URL where the same photo is, a good sighting of it if there is one; else -1."""
        texts = [url.decode(errors="replace") for url in urls]
        best = self.index.find_photos(np.array([photo_key(text) for text in texts], np.uint64))
        # A catalog that nobody told its URLs knows no photo; what it has under likely URLs, it has.
        wanting = np.flatnonzero(~self._is_good(best))
        guesses = [spellings(texts[i]) for i in wanting.tolist()]
        row = np.repeat(wanting, np.array([len(guess) for guess in guesses], np.intp))
        found = self.index.find(b"".join([url_md5(url) for guess in guesses for url in guess]))
        for fits in ((found >= 0) & (best[row] < 0), self._is_good(found)):
            rows, first = np.unique(row[fits], return_index=True)
            best[rows] = found[fits][first]
        return best

    def _is_good(self, at: Positions) -> NDArray[np.bool_]:
        good = np.zeros(len(at), np.bool_)
        known = np.flatnonzero(at >= 0)
        good[known] = self.index.sightings["verdict"][at[known]] == OK
        return good

    def outcomes(self, at: Positions) -> NDArray[np.uint8]:
        """What became of each URL, as a code of `OUTCOMES`."""
        outcome = np.full(len(at), NOT_MIRRORED, np.uint8)
        known = np.flatnonzero(at >= 0)
        rows = at[known]
        columns = self.index.sightings
        outcome[known] = columns["verdict"][rows]
        if self.min_side:
            side = np.minimum(columns["width"][rows], columns["height"][rows])
            small = known[(side < self.min_side) & (outcome[known] == OK)]
            outcome[small] = TOO_SMALL
        return outcome

    def object_keys(self, at: Positions, base: bytes = b"") -> list[bytes]:
        """Keys of the objects at these positions, none of them -1, each behind `base`."""
        # As `layout.object_key`, which tests compare it with: here a column at a time for a million.
        # Keys of equal length, a line each; what an extension is shorter than the longest is taken out.
        digits = self.index.content_hashes(at).tobytes().hex().encode()
        hashes = np.frombuffer(digits, np.uint8).reshape(len(at), 32)
        extensions = _EXTENSIONS[self.index.sightings["format"][at]]
        before, slash, end = (
            np.frombuffer(text, np.uint8).reshape(1, -1)
            for text in (base + OBJECTS.encode(), b"/", b"\n")
        )
        columns = (before, hashes[:, :2], slash, hashes, extensions, end)
        keys = np.concatenate(
            [np.broadcast_to(column, (len(at), column.shape[1])) for column in columns], axis=1
        )
        return keys.tobytes().translate(None, _PADDING).split(b"\n")[:-1]

    def content_keys(self, at: Positions) -> NDArray[np.uint64]:
        """64 bits of each content's hash: equal for equal contents."""
        keys: NDArray[np.uint64] = self.index.sightings["hash_hi"][at]
        return keys
