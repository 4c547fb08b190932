"""A fetcher for tests of your own training code: no mirror, no network, no files.

from mirror.testing import FakeFetcher

fetch = FakeFetcher({"https://example.org/1.jpg": jpeg, "https://example.org/2.jpg": error})
dataset = MirrorDataset("train.jsonl", fetch)
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mirror.catalog.lookup import NOT_MIRRORED, OK, OUTCOMES
from mirror.errors import FetchError, Flagged, NotMirrored
from mirror.fetch.client import Fetcher
from mirror.fetch.image_lookup import Coverage, check_texts
from mirror.fetch.statistics import FetchStats
from mirror.fetch.stream import Result, kind_of


class FakeFetcher(Fetcher):
    """A `Fetcher` whose mirror is a dictionary.

    It behaves as `Fetcher` does: a URL that is not in the dictionary raises `NotMirrored`, `many`
    gives errors in the place of bytes, and it pickles. It takes original URLs only.

    Args:
        images: URL → the bytes of its image, or the exception to raise for it. A `FetchError` counts
            as an answer for this one URL. Any other exception ends a whole `many`, as wrong
            credentials do.
    """

    def __init__(self, images: Mapping[str, bytes | Exception]) -> None:
        self.__setstate__({"images": dict(images)})

    def __call__(self, url: str) -> bytes:
        result = self._counted(url)
        if isinstance(result, FetchError):
            raise result
        return result

    def _read(
        self, urls: Iterable[str], on_stats: Callable[[FetchStats], object] | None = None
    ) -> Generator[tuple[str, Result], None, None]:
        before = self.stats()
        try:
            for url in urls:
                yield url, self._counted(url)
        finally:
            if on_stats is not None:
                on_stats(self.stats() - before)

    def coverage(self, urls: Iterable[str]) -> Coverage:
        results = [self._result(url) for url in urls]
        return Coverage(
            np.array([_outcome(result) for result in results], np.uint8),
            np.array([len(r) if isinstance(r, bytes) else 0 for r in results], np.int64),
        )

    def cached(self, urls: Sequence[str]) -> list[bool | FetchError]:
        """No image is on this machine: False, or the error that a fetch would give."""
        results = [self._result(url) for url in urls]
        return [
            result if isinstance(result, NotMirrored | Flagged) else False for result in results
        ]

    def stats(self) -> FetchStats:
        with self._mutex:
            values: dict[str, Any] = dict(self._counts)
        return FetchStats(**values)

    def close(self) -> None:
        """Nothing is open; the fetcher can be used again, as `Fetcher` can."""

    def __repr__(self) -> str:
        return f"<FakeFetcher of {len(self._bytes_or_error)} images>"

    def __getstate__(self) -> dict[str, Any]:
        return {"images": self._bytes_or_error}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._bytes_or_error: dict[str, bytes | Exception] = state["images"]
        self._counts: Counter[str] = Counter()
        self._mutex = threading.Lock()

    def _result(self, url: str) -> bytes | Exception:
        check_texts((url,))
        found = self._bytes_or_error.get(url)
        return (
            NotMirrored(f"{url} is not among the images of this test.") if found is None else found
        )

    def _counted(self, url: str) -> Result:
        result = self._result(url)
        if not isinstance(result, bytes | FetchError):
            raise result
        with self._mutex:
            if isinstance(result, bytes):
                self._counts["mirror"] += 1
                self._counts["bytes"] += len(result)
            else:
                self._counts[kind_of(result)] += 1
        return result


def _outcome(result: bytes | Exception) -> int:
    """What a catalog would say: it knows nothing of damage to an object, or of an outage."""
    if isinstance(result, NotMirrored):
        return NOT_MIRRORED
    if isinstance(result, Flagged):
        return OUTCOMES.index(result.verdict or "corrupt")
    return OK
