"""How long it will take, and why. Pure: it is said before anything is asked."""

from __future__ import annotations

from typing import NamedTuple

from mirror.backfill.pacing import DAY, HOUR, Limits

# Of an image whose like was never fetched: a medium to large photograph.
_GUESSED_SIZE = 1_440_000


class DurationEstimate(NamedTuple):
    """The longest of what the limits ask for.

    Attributes:
        seconds: without pauses that the source may ask for.
        arithmetic: that as a sentence.
    """

    seconds: float
    arithmetic: str


class PaceStatus(NamedTuple):
    """How the pace of a source stands.

    Attributes:
        at_once: requests that may still come one after the other.
        factor: how much of the hourly rate is used, after refusals.
        least_interval: seconds between requests that the source states; 0 for none.
    """

    at_once: int
    factor: float = 1.0
    least_interval: float = 0.0


def estimate(
    images: int, limits: Limits, situation: PaceStatus, mean_size: float | None
) -> DurationEstimate:
    """Seconds that so many images take at these limits, and which of them makes it so.

    | limit                    | seconds                                      |
    |--------------------------|----------------------------------------------|
    | `per_second`, robots.txt | images / rate                                |
    | `per_hour`               | beyond those at once, evenly spaced          |
    | `per_day`                | beyond the first day's, a day for each day's |
    | bytes an hour, a day     | the same with bytes                          |

    Args:
        images: how many.
        limits: of their source.
        situation: of its pace.
        mean_size: bytes of an image, where that is known.
    """
    size = images * (mean_size or _GUESSED_SIZE)
    stated, hourly = situation.least_interval, limits.per_hour * situation.factor
    rate = min(limits.per_second, 1 / stated if stated else limits.per_second)
    times = {
        f"{rate:g} a second" if rate >= 1 else f"one in {1 / rate:g} seconds": images / rate,
        f"{round(hourly, 1):,g} an hour": _beyond(images, situation.at_once, HOUR / hourly),
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
    return DurationEstimate(
        seconds,
        f"{images:,} {noun} at {name} {verb} {spell(seconds)}; {about}{_bytes(size)} in all.",
    )


def _beyond(amount: float, at_once: float, each: float) -> float:
    return max(0.0, amount - at_once) * each


def spell(seconds: float) -> str:
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


def _bytes(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"
