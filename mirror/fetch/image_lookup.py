"""What the mirror has for a URL. Pure: a text is looked up in the index, and nothing is read.

A text is an original URL, one of the mirror's own in any form (public, s3, file, presigned), or a
content hash as 32 hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.index import Index
from mirror.catalog.lookup import (
    NOT_MIRRORED,
    OK,
    OUTCOMES,
    Match,
    Positions,
    UrlLookup,
    digests_of,
)
from mirror.errors import FetchError, Flagged, NotMirrored
from mirror.layout import object_key, parse_content_hash, url_md5

# Texts that are looked up together: enough for NumPy to pay, and little beside what they name.
BATCH: Final = 1 << 16


class MirroredImage(NamedTuple):
    """An image that the mirror has.

    Attributes:
        content_hash: XXH3-128 of its bytes, 16 bytes.
        key: of its object, relative to the mirror's prefix.
        size: bytes.
        url_md5: under which a URL-keyed cache may have it, 16 bytes.
    """

    content_hash: bytes
    key: str
    size: int
    url_md5: bytes


@dataclass(frozen=True)
class Coverage:
    """What the mirror has for n URLs, by their positions.

    Attributes:
        outcomes: (n,) codes: positions in `OUTCOMES`, 0 is `ok`.
        sizes: (n,) bytes of each image; 0 where there is none to be had.
    """

    outcomes: NDArray[np.uint8] = field(repr=False)
    sizes: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.outcomes)

    @property
    def counts(self) -> dict[str, int]:
        """How many URLs have which outcome: `ok`, a verdict, or `not_mirrored`."""
        codes, counts = np.unique(self.outcomes, return_counts=True)
        return {
            OUTCOMES[code]: count
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
        }

    @property
    def mirrored(self) -> Positions:
        """Positions of the URLs that a fetch gives bytes for."""
        return np.flatnonzero(self.outcomes == OK)

    @property
    def flagged(self) -> Positions:
        """Positions of those whose latest content was judged to be no good image."""
        return np.flatnonzero((self.outcomes != OK) & (self.outcomes != NOT_MIRRORED))

    @property
    def not_mirrored(self) -> Positions:
        """Positions of those that the mirror has never seen."""
        return np.flatnonzero(self.outcomes == NOT_MIRRORED)

    def where(self, outcome: str) -> Positions:
        """Positions of one outcome, by a name of `OUTCOMES`."""
        return np.flatnonzero(self.outcomes == OUTCOMES.index(outcome))


class ImageLookup:
    """Looks texts up.

    Args:
        index: of the mirror.
        match: `photo` also finds an iNaturalist photo under another spelling of its URL.
    """

    def __init__(self, index: Index, match: Match = "url") -> None:
        self.index = index
        self._resolver = UrlLookup(index, match)

    def find(self, text: str) -> MirroredImage | Flagged | NotMirrored:
        """What there is for one text; the errors are values here."""
        # One look-up by hand costs a tenth of NumPy's ways for many.
        if not text.isascii():  # it may not even be UTF-8
            return self._find_together([text])[0]
        digest = url_md5(text)
        known = self.index.sighting(digest)
        if known is None or known.verdict != "ok":
            return self._find_together([text])[0]
        key = object_key(known.content_hash, known.format)
        return MirroredImage(known.content_hash, key, known.size, digest)

    def find_all(self, texts: Sequence[str]) -> list[MirroredImage | Flagged | NotMirrored]:
        """The same for many."""
        return [self.find(texts[0])] if len(texts) == 1 else self._find_together(texts)

    def _find_together(self, texts: Sequence[str]) -> list[MirroredImage | Flagged | NotMirrored]:
        at = self._positions(texts)
        outcomes = self._resolver.outcomes(at)
        good = at[outcomes == OK]
        keys = self._resolver.object_keys(good)
        hashes = self.index.content_hashes(good).tobytes()
        names = self.index.url_md5s(good).tobytes()
        sizes = self.index.sightings["size"][good].tolist()
        found = iter(
            [
                MirroredImage(hashes[i : i + 16], key.decode(), size, names[i : i + 16])
                for i, key, size in zip(range(0, len(hashes), 16), keys, sizes, strict=True)
            ]
        )
        return [
            next(found) if code == OK else _refusal(text, code)
            for text, code in zip(texts, outcomes.tolist(), strict=True)
        ]

    def coverage(self, texts: Iterable[str]) -> Coverage:
        """What there is for each of them, without a look at any image."""
        texts = texts if isinstance(texts, Sequence) else list(texts)
        outcomes = np.empty(len(texts), np.uint8)
        sizes = np.zeros(len(texts), np.int64)
        for begin in range(0, len(texts), BATCH):
            piece = slice(begin, begin + BATCH)
            at = self._positions(texts[piece])
            outcomes[piece] = self._resolver.outcomes(at)
            good = outcomes[piece] == OK
            sizes[piece][good] = self.index.sightings["size"][at[good]]
        return Coverage(outcomes, sizes)

    def _positions(self, texts: Sequence[str]) -> Positions:
        raw = [text.encode("utf-8", "backslashreplace") for text in texts]
        at = self._resolver.find(raw, digests_of(raw)).positions
        hashes = {i: parse_content_hash(texts[i]) for i in np.flatnonzero(at < 0).tolist()}
        if named := {i: content_hash for i, content_hash in hashes.items() if content_hash}:
            at[list(named)] = self.index.find_contents(b"".join(named.values()))
        return at


def shown(text: str) -> str:
    """A URL as people and programs may see it: a signature lets anybody read what it signs, and what
    is no UTF-8 cannot be written as JSON.
    """
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.partition("?")[0] if "Signature=" in text else text


def reason(error: FetchError) -> str:
    """An error in few words, for a list that names the URL beside it."""
    if isinstance(error, NotMirrored):
        return "not in the mirror"
    return f"flagged: {error.verdict}" if isinstance(error, Flagged) else str(error)


def _refusal(text: str, code: int) -> Flagged | NotMirrored:
    text = shown(text)
    if code == NOT_MIRRORED:
        return NotMirrored(
            f"{text} is not in the mirror; run mirror sync where it is cached, "
            "or mirror backfill to have it downloaded."
        )
    verdict = OUTCOMES[code]
    return Flagged(f"{text} is flagged in the catalog: {verdict}.", verdict)
