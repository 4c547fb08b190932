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
    """Seconds that so many images take at these limits, and which of them makes it so.

    | limit                    | seconds                                      |
    |--------------------------|----------------------------------------------|
    | `per_second`, robots.txt | images / rate                                |
    | `per_hour`               | beyond the first burst, evenly spaced        |
    | `per_day`                | beyond the first day's, a day for each day's |
    | bytes an hour, a day     | the same with bytes                          |

    Args:
        images: how many.
        limits: of their source.
        least_interval: seconds between requests that the source states; 0 for none.
        mean_size: bytes of an image, where that is known.
    """
    size = images * (mean_size or _GUESSED_SIZE)
    rate = min(limits.per_second, 1 / least_interval if least_interval else limits.per_second)
    times = {
        f"{rate:g} a second" if rate >= 1 else f"one in {1 / rate:g} seconds": images / rate,
        f"{limits.per_hour:,} an hour": _beyond(images, limits.burst, HOUR / limits.per_hour),
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
    verb = "is" if spell(seconds).startswith("1 ") else "are"
    return Estimate(
        seconds,
        f"{images:,} {noun} at {name} {verb} {spell(seconds)}; {about}{_bytes(size)} in all.",
    )


def _beyond(amount: float, at_once: float, each: float) -> float:
    return max(0.0, amount - at_once) * each


def spell(seconds: float) -> str:
    """A duration in round numbers: 40 seconds, 75 minutes, 31 hours, 142 days."""
    if seconds < 90:
        number, unit = seconds, "second"
    elif seconds < 90 * 60:
        number, unit = seconds / 60, "minute"
    elif seconds < 2 * DAY:
        number, unit = seconds / HOUR, "hour"
    else:
        number, unit = seconds / DAY, "day"
    whole = round(number)
    return f"{whole:,} {unit}" if whole == 1 else f"{whole:,} {unit}s"


def _bytes(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"
