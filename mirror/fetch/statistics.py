"""What a fetcher counts: from where images came, how long they took, what went wrong. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Final

# Latencies are counted in buckets that grow by a tenth, from 0.1 ms to 1000 s: what processes have
# measured can be added up, and a percentile is off by no more than a twentieth.
_SHORTEST: Final = 1e-4
_LONGEST: Final = 1e3
_GROWTH: Final = math.log(1.1)
_BUCKETS: Final = math.ceil(math.log(_LONGEST / _SHORTEST) / _GROWTH) + 1


class Histogram:
    """Counts of durations, in buckets."""

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS

    def add(self, seconds: float) -> None:
        self.counts[bucket_of(seconds)] += 1


def bucket_of(seconds: float) -> int:
    """The bucket that a duration counts in."""
    if seconds <= _SHORTEST:
        return 0
    return int(math.log(min(seconds, _LONGEST) / _SHORTEST) / _GROWTH) + 1


def percentile(counts: tuple[int, ...] | list[int], share: float) -> float:
    """Seconds that `share` of the counted durations did not exceed; 0 where nothing was counted."""
    total = sum(counts)
    if not total:
        return 0.0
    reached = (at for at, seen in enumerate(accumulate(counts)) if seen >= share * total)
    return _SHORTEST * math.exp(_GROWTH * (next(reached) - 0.5))


@dataclass(frozen=True, slots=True)
class FetchStats:
    """Counts since a fetcher was made in this process, closed and used again or not. Of two, sum and
    difference are taken.

    `fetch.stats() - before` is what an epoch did; sum up what the processes of a training say.

    Attributes:
        cache: images from the URL-keyed cache.
        fetch_cache: images from the fetch cache.
        mirror: images read from the mirror.
        bytes: of the images handed out.
        bytes_read: of what the mirror sent.
        not_mirrored, flagged, corrupt, blocked, unavailable: errors handed out, by kind.
        mismatches: copies whose bytes were not those of their hash, wherever they were found.
        requests: attempts at the mirror, hedges included.
        retries: attempts that followed a failed one.
        throttled: answers that asked to slow down.
        hedges: second requests for what took too long, and
        hedges_won: those that were the faster ones.
        kept: images put into the fetch cache.
        not_kept: images that it had no room for, or could not write.
        waited: seconds that the consumer waited for images.
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
        """How many were handed out."""
        return self.cache + self.fetch_cache + self.mirror

    @property
    def failed(self) -> int:
        """How many errors were handed out in the place of an image."""
        return self.not_mirrored + self.flagged + self.corrupt + self.blocked + self.unavailable

    @property
    def p50(self) -> float:
        """Seconds that half of the reads from the mirror did not exceed."""
        return percentile(self.latencies, 0.50)

    @property
    def p95(self) -> float:
        return percentile(self.latencies, 0.95)

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 0.99)

    def __add__(self, other: FetchStats) -> FetchStats:
        return self._with(other, 1)

    def __sub__(self, earlier: FetchStats) -> FetchStats:
        return self._with(earlier, -1)

    def _with(self, other: FetchStats, sign: int) -> FetchStats:
        values = {
            one.name: getattr(self, one.name) + sign * getattr(other, one.name)
            for one in fields(self)
            if one.name != "latencies"
        }
        pairs = zip(self.latencies, other.latencies, strict=True)
        return FetchStats(**values, latencies=tuple(mine + sign * its for mine, its in pairs))

    def __str__(self) -> str:
        """One line for a log."""
        line = (
            f"{self.images:,} images, {self.bytes / 1e6:,.1f} MB: {self.cache:,} from the cache, "
            f"{self.fetch_cache:,} from the fetch cache, {self.mirror:,} from the mirror"
        )
        if self.mirror:
            line += (
                f" (p50 {self.p50 * 1e3:.0f} ms, p95 {self.p95 * 1e3:.0f} ms, "
                f"p99 {self.p99 * 1e3:.0f} ms)"
            )
        told = {
            "failed": self.failed,
            "retries": self.retries,
            "throttled": self.throttled,
            "hedges": self.hedges,
            "mismatches": self.mismatches,
            "not kept": self.not_kept,
        }
        line += "".join(f"; {name} {count:,}" for name, count in told.items() if count)
        return f"{line}; waited {self.waited:.1f} s"
