"""The statistics of a fetcher: where images came from, how long they took, what failed. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Final

from mirror.system.display_text import format_size, plural

# Latencies are counted in buckets that grow by 10 %, from 0.1 ms to 1000 s. So the counts of several
# processes can be added, and a percentile is off by 5 % at most.
_SHORTEST: Final = 1e-4
_LONGEST: Final = 1e3
_GROWTH: Final = math.log(1.1)
_BUCKETS: Final = math.ceil(math.log(_LONGEST / _SHORTEST) / _GROWTH) + 1


class Histogram:
    """Counts of durations by bucket."""

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS

    def add(self, seconds: float) -> None:
        self.counts[bucket_of(seconds)] += 1


def bucket_of(seconds: float) -> int:
    """The bucket that counts a duration."""
    if seconds <= _SHORTEST:
        return 0
    return int(math.log(min(seconds, _LONGEST) / _SHORTEST) / _GROWTH) + 1


def percentile(counts: tuple[int, ...] | list[int], share: float) -> float:
    """The duration in seconds that a `share` of all durations stays below; 0 without durations."""
    total = sum(counts)
    if not total:
        return 0.0
    reached = (at for at, seen in enumerate(accumulate(counts)) if seen >= share * total)
    return _SHORTEST * math.exp(_GROWTH * (next(reached) - 0.5))


@dataclass(frozen=True, slots=True)
class FetchStats:
    """The statistics of one fetcher in one process, since it was made. They add and subtract.

        before = fetch.stats()
        train_one_epoch(fetch)
        print(fetch.stats() - before)

    Attributes:
        cache: images from the URL-keyed cache.
        fetch_cache: images from the fetch cache.
        mirror: images read from the mirror.
        bytes: size of the images returned.
        bytes_read: bytes that the mirror sent.
        not_mirrored, flagged, corrupt, blocked, unavailable: errors returned, by kind.
        mismatches: copies with other bytes than the catalog says, in a cache or on the mirror.
        requests: requests to the mirror, retries and hedges included.
        retries: requests that followed a failed one.
        throttled: responses that asked to slow down.
        hedges: second requests, sent because the first was slow.
        hedges_won: second requests that were answered first.
        kept: images written to the fetch cache.
        not_kept: images that had no room in the fetch cache, or could not be written.
        waited: seconds that the caller waited for images.
        latencies: durations of reads from the mirror, counted in buckets.
    """

    cache: int = 0
    fetch_cache: int = 0
    mirror: int = 0
    bytes: int = 0
    bytes_read: int = 0
    not_mirrored: int = 0
    flagged: int = 0
    corrupt: int = 0
    blocked: int = 0
    unavailable: int = 0
    mismatches: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    hedges: int = 0
    hedges_won: int = 0
    kept: int = 0
    not_kept: int = 0
    waited: float = 0.0
    latencies: tuple[int, ...] = field(default=(0,) * _BUCKETS, repr=False)

    @property
    def images(self) -> int:
        """Images returned, from all tiers."""
        return self.cache + self.fetch_cache + self.mirror

    @property
    def failed(self) -> int:
        """Errors returned instead of an image."""
        return self.not_mirrored + self.flagged + self.corrupt + self.blocked + self.unavailable

    @property
    def p50(self) -> float:
        """Median duration of a read from the mirror, in seconds."""
        return percentile(self.latencies, 0.50)

    @property
    def p95(self) -> float:
        """95th percentile of the same durations, in seconds."""
        return percentile(self.latencies, 0.95)

    @property
    def p99(self) -> float:
        """99th percentile of the same durations, in seconds."""
        return percentile(self.latencies, 0.99)

    def __add__(self, other: FetchStats) -> FetchStats:
        return self._with(other, 1)

    def __sub__(self, earlier: FetchStats) -> FetchStats:
        return self._with(earlier, -1)

    def _with(self, other: FetchStats, sign: int) -> FetchStats:
        values = {
            count.name: getattr(self, count.name) + sign * getattr(other, count.name)
            for count in fields(self)
            if count.name != "latencies"
        }
        pairs = zip(self.latencies, other.latencies, strict=True)
        return FetchStats(**values, latencies=tuple(ours + sign * theirs for ours, theirs in pairs))

    def __str__(self) -> str:
        """The statistics in one line, for a log."""
        line = (
            f"{plural(self.images, 'image')}, {format_size(self.bytes)}: {self.cache:,} from the cache, "
            f"{self.fetch_cache:,} from the fetch cache, {self.mirror:,} from the mirror"
        )
        if self.mirror:
            line += (
                f" (p50 {self.p50 * 1e3:.0f} ms, p95 {self.p95 * 1e3:.0f} ms, "
                f"p99 {self.p99 * 1e3:.0f} ms)"
            )
        problems = {
            "failed": self.failed,
            "retries": self.retries,
            "throttled": self.throttled,
            "hedges": self.hedges,
            "mismatches": self.mismatches,
            "not kept": self.not_kept,
        }
        line += "".join(f"; {name} {count:,}" for name, count in problems.items() if count)
        return f"{line}; waited {self.waited:.1f} s"
