"""Look up what the mirror has for a URL. Pure: only the index is read.

A text to look up is an original URL, one of the mirror's own URLs, or a content hash of 32
hexadecimal digits. The mirror's own URLs may be public, s3, file or presigned ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, NamedTuple

import numpy as np
import xxhash
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
from mirror.errors import FetchError, Flagged, NotMirrored, UsageError
from mirror.layout import object_key, parse_content_hash, url_md5

# Texts to look up together: enough for NumPy to pay off, and little memory.
BATCH: Final = 1 << 16

# The hash that tells an image's bytes from others.
VerifyBy = Literal["sha256", "xxh3"]


class MirroredImage(NamedTuple):
    """An image that the mirror has.

    Attributes:
        content_hash: XXH3-128 of its bytes, 16 bytes.
        key: its object's key, relative to the mirror's prefix.
        size: its size in bytes.
        url_md5: the name under which a URL-keyed cache may have it, 16 bytes.
        sha256: SHA-256 of its bytes, 32 bytes.
    """

    content_hash: bytes
    key: str
    size: int
    url_md5: bytes
    sha256: bytes

    def has_bytes(self, data: bytes, verify: VerifyBy) -> bool:
        """Whether these are the image's bytes, by their size and one hash.

        `xxh3` finds damage. It does not find bytes that were forged.
        """
        if len(data) != self.size:
            return False
        if verify == "xxh3":
            return xxhash.xxh3_128_digest(data) == self.content_hash
        return sha256(data).digest() == self.sha256


@dataclass(frozen=True)
class Coverage:
    """The outcomes and sizes of n URLs in the mirror, by position.

        coverage = fetch.coverage(urls)
        coverage.counts                       # {"ok": 9_870, "blank": 12, "not_mirrored": 118}
        missing = [urls[at] for at in coverage.not_mirrored]

    Attributes:
        outcomes: (n,) uint8 codes, indices into `mirror.catalog.lookup.OUTCOMES`; 0 is `ok`.
        sizes: (n,) int64, size of each image in bytes; 0 without an image.
    """

    outcomes: NDArray[np.uint8]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.outcomes)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        return f"<{type(self).__name__} of {len(self):,} URLs: {counts or 'none'}>"

    @property
    def counts(self) -> dict[str, int]:
        """The number of URLs by outcome: `ok`, a verdict, or `not_mirrored`."""
        codes, counts = np.unique(self.outcomes, return_counts=True)
        return {
            OUTCOMES[code]: count
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
        }

    @property
    def mirrored(self) -> Positions:
        """Positions of the URLs with an image, which a fetch returns."""
        return np.flatnonzero(self.outcomes == OK)

    @property
    def flagged(self) -> Positions:
        """Positions of the URLs whose latest content is no good image."""
        return np.flatnonzero((self.outcomes != OK) & (self.outcomes != NOT_MIRRORED))

    @property
    def not_mirrored(self) -> Positions:
        """Positions of the URLs that the mirror has never seen."""
        return np.flatnonzero(self.outcomes == NOT_MIRRORED)

    def where(self, outcome: str) -> Positions:
        """Positions of the URLs with one outcome, such as `"blank"`."""
        return np.flatnonzero(self.outcomes == OUTCOMES.index(outcome))


class ImageLookup:
    """Looks texts up in the mirror's index.

    Args:
        index: the mirror's index.
        match: `url`, or `photo` to find an iNaturalist photo under other spellings of its URL, too.
    """

    def __init__(self, index: Index, match: Match = "url") -> None:
        self.index = index
        self._resolver = UrlLookup(index, match)

    def find(self, text: str) -> MirroredImage | Flagged | NotMirrored:
        """Look one text up. Errors are returned, not raised."""
        # A single look-up in Python costs a tenth of one through NumPy.
        check_texts((text,))
        if not text.isascii():  # it may not even be UTF-8
            return self._find_together([text])[0]
        digest = url_md5(text)
        known = self.index.sighting(digest)
        if known is None or known.verdict != "ok":
            return self._find_together([text])[0]
        content = known.content_hash
        sha256_of_object = self.index.object_sha256(content)
        assert sha256_of_object is not None  # an ok row names it
        key = object_key(content, known.format)
        return MirroredImage(content, key, known.size, digest, sha256_of_object)

    def find_all(self, texts: Sequence[str]) -> list[MirroredImage | Flagged | NotMirrored]:
        """Look many texts up; one result each, in order."""
        return [self.find(texts[0])] if len(texts) == 1 else self._find_together(texts)

    def _find_together(self, texts: Sequence[str]) -> list[MirroredImage | Flagged | NotMirrored]:
        at = self._positions(texts)
        outcomes = self._resolver.outcomes(at)
        good = at[outcomes == OK]
        keys = self._resolver.object_keys(good)
        hashes = self.index.content_hashes(good).tobytes()
        names = self.index.url_md5s(good).tobytes()
        digests = self.index.object_sha256s(good)
        sizes = self.index.sightings["size"][good].tolist()
        found = iter(
            [
                MirroredImage(
                    hashes[16 * i : 16 * i + 16],
                    key.decode(),
                    size,
                    names[16 * i : 16 * i + 16],
                    digests[32 * i : 32 * i + 32],
                )
                for i, (key, size) in enumerate(zip(keys, sizes, strict=True))
            ]
        )
        return [
            next(found) if code == OK else _refusal(text, code)
            for text, code in zip(texts, outcomes.tolist(), strict=True)
        ]

    def coverage(self, texts: Iterable[str]) -> Coverage:
        """Look many texts up, and return outcomes and sizes only."""
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
        check_texts(texts)
        raw = [text.encode("utf-8", "backslashreplace") for text in texts]
        at = self._resolver.find(raw, digests_of(raw)).positions
        hashes = {i: parse_content_hash(texts[i]) for i in np.flatnonzero(at < 0).tolist()}
        if named := {i: content_hash for i, content_hash in hashes.items() if content_hash}:
            at[list(named)] = self.index.find_contents(b"".join(named.values()))
        return at


def check_texts(texts: Iterable[object]) -> None:
    """Check that URLs are texts; a record without a URL often gives None or NaN.

    Raises:
        UsageError: one of them is no text.
    """
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(
                f"A URL must be text, and {text!r} is of type {type(text).__name__}; leave out the "
                "records that have no URL."
            )


def shown(text: str) -> str:
    """A URL for messages and reports: without its signature, and valid UTF-8.

    A signature gives access to the object, and JSON takes valid UTF-8 only.
    """
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.partition("?")[0] if "Signature=" in text else text


def reason(error: FetchError) -> str:
    """A short reason for an error, for lists that show the URL beside it."""
    if isinstance(error, NotMirrored):
        return "not in the mirror"
    return f"flagged: {error.verdict}" if isinstance(error, Flagged) else str(error)


def _refusal(text: str, code: int) -> Flagged | NotMirrored:
    text = shown(text)
    if code == NOT_MIRRORED:
        return NotMirrored(
            f"{text} is not in the mirror; run mirror sync where it is cached, "
            "or mirror backfill to download it."
        )
    verdict = OUTCOMES[code]
    return Flagged(f"{text} is flagged in the catalog: {verdict}.", verdict)
