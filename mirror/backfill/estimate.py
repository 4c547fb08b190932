"""How long a backfill will take, and which limit decides. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.backfill.pacing import DAY, HOUR, Limits
from mirror.catalog.index.index_columns import OK_CODE
from mirror.content.photo import SIZE_BITS
from mirror.system.display_text import format_size

# Bytes of an image before any was downloaded: a medium to large photograph.
_ASSUMED_SIZE = 1_440_000


class DurationEstimate(NamedTuple):
    """The time that the strictest limit allows.

    Attributes:
        seconds: without pauses that the source may ask for.
        arithmetic: the estimate as a sentence.
    """

    seconds: float
    arithmetic: str


class PaceStatus(NamedTuple):
    """The state of a source's pace, as far as an estimate needs it.

    Attributes:
        burst_left: requests that may still follow each other directly.
        factor: the part of the hourly rate that is used; below 1 after refusals.
        min_interval: seconds between requests that the source states; 0 for none.
    """

    burst_left: int
    factor: float = 1.0
    min_interval: float = 0.0


def estimate(
    images: int, limits: Limits, pace: PaceStatus, mean_size: float | None
) -> DurationEstimate:
    """Estimate how long images take at these limits, and which limit decides.

    | limit                    | seconds                                          |
    |--------------------------|--------------------------------------------------|
    | `per_second`, robots.txt | images / rate                                    |
    | `per_hour`               | evenly spaced, after the burst                   |
    | `per_day`                | a day for each full quota after the first        |
    | bytes an hour, a day     | the same with bytes                              |

    Args:
        images: how many.
        limits: of their source.
        pace: the state of the source's pace.
        mean_size: bytes of an image on average; None where that is unknown.
    """
    size = images * (mean_size or _ASSUMED_SIZE)
    stated, hourly = pace.min_interval, limits.per_hour * pace.factor
    rate = min(limits.per_second, 1 / stated if stated else limits.per_second)
    times = {
        f"{rate:g} a second" if rate >= 1 else f"one in {1 / rate:g} seconds": images / rate,
        f"{round(hourly, 1):,g} an hour": _beyond(images, pace.burst_left, HOUR / hourly),
        f"{limits.per_day:,} a day": _beyond(images, limits.per_day, DAY / limits.per_day),
        f"{limits.bytes_per_hour / 1e9:g} GB an hour": _beyond(
            size, limits.bytes_per_hour, HOUR / limits.bytes_per_hour
        ),
        f"{limits.bytes_per_day / 1e9:g} GB a day": _beyond(
            size, limits.bytes_per_day, DAY / limits.bytes_per_day
        ),
    }
    name, seconds = max(times.items(), key=lambda item: item[1])
    about = "" if mean_size else "about "
    noun = "image" if images == 1 else "images"
    verb = "is" if in_words(seconds).startswith("1 ") else "are"
    return DurationEstimate(
        seconds,
        f"{images:,} {noun} at {name} {verb} {in_words(seconds)}; {about}{format_size(size)} in all.",
    )


def mean_sizes(sightings: Mapping[str, NDArray[Any]]) -> dict[int, float]:
    """Return the mean bytes of a mirror's good images, by the `size_code` of their URLs' size.

    The code 0 has the mean of all. Empty if the mirror has no good image.
    """
    good = sightings["verdict"] == OK_CODE
    if not good.any():
        return {}
    size = sightings["size"][good]
    codes = (sightings["photo"][good] & np.uint64((1 << SIZE_BITS) - 1)).astype(np.intp)
    numbers, sums = np.bincount(codes), np.bincount(codes, weights=size)
    means = {int(code): float(sums[code] / numbers[code]) for code in np.flatnonzero(numbers)}
    return {**means, 0: float(size.mean())}


def mean_size(wanted: Mapping[int, int], means: Mapping[int, float]) -> float | None:
    """Return the bytes that a wanted image has on average; None where that is unknown.

    Args:
        wanted: how many images are wanted, by `size_code`.
        means: of `mean_sizes`. A size that it lacks has the mean of all.
    """
    images = sum(wanted.values())
    if not images or not means:
        return None
    return sum(number * means.get(code, means[0]) for code, number in wanted.items()) / images


def _beyond(amount: float, burst_left: float, each: float) -> float:
    return max(0.0, amount - burst_left) * each


def in_words(seconds: float) -> str:
    """A duration in round numbers: 40 seconds, 75 minutes, 31 hours, 142 days; 1 second at least."""
    if seconds < 90:
        number, unit = seconds, "second"
    elif seconds < 90 * 60:
        number, unit = seconds / 60, "minute"
    elif seconds < 2 * DAY:
        number, unit = seconds / HOUR, "hour"
    else:
        number, unit = seconds / DAY, "day"
    whole = max(1, round(number))
    return f"{whole:,} {unit}" if whole == 1 else f"{whole:,} {unit}s"
