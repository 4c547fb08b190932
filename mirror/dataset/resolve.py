"""URLs → what the mirror holds for them, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import md5
from itertools import accumulate, pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.index import FORMAT_NAMES, Index
from mirror.content.image import VERDICTS
from mirror.content.photo import photo_key, spellings
from mirror.layout import FORMATS, OBJECTS, url_md5
from mirror.urls import ObjectUrls

Match = Literal["url", "photo"]
Positions = NDArray[np.intp]

# What became of a URL, as a code: 0 is `ok`, the verdicts come first.
OUTCOMES: Final = (*VERDICTS, "not_mirrored", "too_small", "license")
OK: Final = OUTCOMES.index("ok")
NOT_MIRRORED: Final = OUTCOMES.index("not_mirrored")
TOO_SMALL: Final = OUTCOMES.index("too_small")
LICENSE: Final = OUTCOMES.index("license")

# URLs whose other spellings are looked up together: a dozen for each are in memory then.
_SPELLED_TOGETHER: Final = 8192

_EXTENSIONS: Final = tuple(f".{FORMATS[name][0]}".encode() for name in FORMAT_NAMES)


def digests_of(urls: Sequence[bytes]) -> bytes:
    """MD5s of URLs, end to end, as `layout.url_md5`; for a million, a call less for each counts."""
    return b"".join([md5(url, usedforsecurity=False).digest() for url in urls])


@dataclass
class Resolver:
    """Finds URLs in a mirror, or in whatever else an index was made of.

    Attributes:
        index: the sightings.
        urls: knows the mirror's own URLs again, in a dataset that was rewritten before; None where
            there is no mirror.
        match: `photo` also finds an iNaturalist photo under another spelling of its URL.
        min_side: pixels that the shorter side must have; what is not known to is too small.
        matched_by_photo: URLs that were found so only.
    """

    index: Index
    urls: ObjectUrls | None = None
    match: Match = "url"
    min_side: int = 0
    matched_by_photo: int = field(default=0, init=False)

    def find(self, urls: Sequence[bytes], digests: bytes) -> Positions:
        """Positions in the index, -1 where it has none.

        Args:
            urls: as UTF-8.
            digests: their MD5s, end to end (`digests_of`).
        """
        at = self.index.find(digests)
        if self.urls is not None:
            unknown = np.flatnonzero(at < 0).tolist()
            own = [(i, content) for i in unknown if (content := self.own(urls[i]))]
            if own:
                hashes = b"".join([content for _, content in own])
                at[[i for i, _ in own]] = self.index.find_contents(hashes)
        if self.match == "photo":
            self._match_photos(urls, at)
        return at

    def own(self, url: bytes) -> bytes | None:
        """Content hash of the object that a URL of the mirror's own names; None of any other."""
        if self.urls is None or not self.urls.could_be_bytes(url):
            return None
        parsed = self.urls.parse(url.decode(errors="replace"))
        return parsed[0] if parsed else None

    def _match_photos(self, urls: Sequence[bytes], at: Positions) -> None:
        """Another spelling for what is unknown; and for what is flagged, if that one is good."""
        wanting = np.flatnonzero((at < 0) | ~self._is_ok(at))
        for begin in range(0, len(wanting), _SPELLED_TOGETHER):
            self._match_some(urls, wanting[begin : begin + _SPELLED_TOGETHER], at)

    def _match_some(self, urls: Sequence[bytes], wanting: Positions, at: Positions) -> None:
        verdicts = self.index.sightings["verdict"]
        texts = [urls[i].decode(errors="replace") for i in wanting.tolist()]
        told = self.index.find_photos(np.array([photo_key(t) for t in texts], np.uint64))
        told_ok = self._is_ok(told).tolist()
        others = [[] if ok else spellings(t) for ok, t in zip(told_ok, texts, strict=True)]
        spelled = self.index.find(b"".join([url_md5(other) for some in others for other in some]))
        ends = accumulate(map(len, others), initial=0)
        for i, best, (begin, end) in zip(
            wanting.tolist(), told.tolist(), pairwise(ends), strict=True
        ):
            candidates = [best, *spelled[begin:end].tolist()]
            known = [candidate for candidate in candidates if candidate >= 0]
            good = [candidate for candidate in known if verdicts[candidate] == OK]
            if good or (at[i] < 0 and known):
                at[i] = (good or known)[0]
                self.matched_by_photo += 1

    def _is_ok(self, at: Positions) -> NDArray[np.bool_]:
        found = np.zeros(len(at), np.bool_)
        known = np.flatnonzero(at >= 0)
        found[known] = self.index.sightings["verdict"][at[known]] == OK
        return found

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

    def object_keys(self, at: Positions) -> list[bytes]:
        """Keys of the objects at these positions, none of them -1."""
        digits = self.index.content_hashes(at).tobytes().hex().encode()
        formats = self.index.sightings["format"][at].tolist()
        objects = OBJECTS.encode()
        # As `layout.object_key`, which tests compare it with: here for a million at once.
        return [
            objects + digits[i : i + 2] + b"/" + digits[i : i + 32] + _EXTENSIONS[code]
            for i, code in zip(range(0, 32 * len(formats), 32), formats, strict=True)
        ]

    def content_keys(self, at: Positions) -> NDArray[np.uint64]:
        """64 bits of each content's hash: equal for equal contents."""
        keys: NDArray[np.uint64] = self.index.sightings["hash_hi"][at]
        return keys
