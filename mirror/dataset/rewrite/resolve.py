"""Stage 1 of a rewrite: find the URLs of a batch in the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.lookup import Positions, UrlLookup, digests_of
from mirror.dataset.records import Batch


class ResolvedBatch(NamedTuple):
    """A batch and what the index knows about its URLs. Each array has one element per URL.

    Attributes:
        batch: the records as they were read.
        positions: where the URL is in the index; -1 if it is not there.
        by_photo: the URL was found only under another spelling.
        outcomes: codes of `OUTCOMES`.
        url_keys: the first 64 bits of the URL's MD5.
    """

    batch: Batch
    positions: Positions
    by_photo: NDArray[np.bool_]
    outcomes: NDArray[np.uint8]
    url_keys: NDArray[np.uint64]

    @property
    def found(self) -> int:
        """How many of the URLs the index has."""
        return int(np.count_nonzero(self.positions >= 0))


def resolve(batch: Batch, lookup: UrlLookup) -> ResolvedBatch:
    """Look up the URLs of a batch."""
    digests = digests_of(batch.urls)
    positions, by_photo = lookup.find(batch.urls, digests)
    return ResolvedBatch(batch, positions, by_photo, lookup.outcomes(positions), _prefixes(digests))


def url_keys_of(urls: Sequence[bytes]) -> NDArray[np.uint64]:
    """The first 64 bits of each URL's MD5."""
    return _prefixes(digests_of(urls))


def _prefixes(digests: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(digests, ">u8")[::2].astype(np.uint64)
