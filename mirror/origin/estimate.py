"""How long it will take, and why. Pure: it is said before anything is asked."""

from __future__ import annotations

from typing import NamedTuple

from mirror.origin.pacing import DAY, HOUR, Limits

# Of an image whose like was never fetched: a medium to large photograph.
_GUESSED_SIZE = 1_440_000


class Estimate(NamedTuple):
    """The longest of what the limits ask for.

    Attributes:
        seconds: without pauses that the source may ask for.
        arithmetic: that as a sentence.
    """

    seconds: float
    arithmetic: str


def estimate(
    images: int, limits: Limits, least_interval: float, mean_size: float | None
) -> Estimate:
    """Seconds that so many images take at these limits.

    | limit                    | images a day                 |
    |--------------------------|------------------------------|
    | `per_hour`, `per_day`    | 24 · per_hour, per_day       |
    | `per_second`, robots.txt | 86,400 · per_second, …       |
    | bytes an hour, a day     | 24 · limit / size, …         |

    Args:
        images: how many.
        limits: of their source.
        least_interval: seconds between requests that the source states; 0 for none.
        mean_size: bytes of an image, where that is known.
    """
    size = mean_size or _GUESSED_SIZE
    per_second = min(limits.per_second, 1 / least_interval if least_interval else limits.per_second)
    allowed = {
        f"{limits.per_hour:,} an hour": 24.0 * limits.per_hour,
        f"{limits.per_day:,} a day": float(limits.per_day),
        f"{per_second:g} a second": DAY * per_second,
        f"{limits.bytes_per_hour / 1e9:g} GB an hour": 24.0 * limits.bytes_per_hour / size,
        f"{limits.bytes_per_day / 1e9:g} GB a day": limits.bytes_per_day / size,
    }
    name, a_day = min(allowed.items(), key=lambda item: item[1])
    # The first of an hour may come at once.
    at_once = limits.per_hour if name.endswith("an hour") and "GB" not in name else 0
    seconds = max(images / per_second, (images - at_once) / a_day * DAY)
    about = "" if mean_size else "about "
    total = f"{about}{_bytes(images * size)} in all"
    plural = "image" if images == 1 else "images"
    return Estimate(seconds, f"{images:,} {plural} at {name} are {spell(seconds)}; {total}.")


def spell(seconds: float) -> str:
    """A duration in its two largest units, or in days alone where there are many."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 2 * DAY:
        return f"{seconds / HOUR:.0f} hours"
    return f"{seconds / DAY:,.0f} days"


def _bytes(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"
