"""Values of options that people write as text: shares, prefixes, durations, times of day.

Each function raises a ValueError whose message says what to write. The command line and the library
add the name of the option.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

_MD5_DIGITS: Final = 32
_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[smhd])\s*")


def parse_delimiter(text: str) -> str:
    """Return the character that separates cells; `tab` and `\\t` stand for a tab."""
    text = {"tab": "\t", "\\t": "\t"}.get(text.lower(), text)
    if len(text) != 1 or text in '"\r\n' or (not text.isprintable() and text != "\t"):
        raise ValueError("write one character, such as ; or |, or tab.")
    return text


def parse_hex_prefix(text: str) -> str:
    """Check the first digits of the MD5 of a URL and return them."""
    if not re.fullmatch(rf"[0-9a-fA-F]{{0,{_MD5_DIGITS}}}", text):
        raise ValueError("write up to 32 hexadecimal digits, such as 3f.")
    return text


def parse_share(text: str) -> float:
    """Return the number in (0, 1] that `1%` or `0.01` stands for.

    `1` is refused: a crontab cuts a line at its percent sign, and would turn `1%` into "all".
    """
    text = text.strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1 or text == "1":
        raise ValueError("write a share, such as 1% or 0.01; all of it is 100%.")
    return share


def parse_duration(text: str) -> float:
    """Return the seconds of `90s`, `45m`, `2h`, `1h30m` or `3d`; zero is refused."""
    parts = _DURATION_PART.findall(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not seconds or _DURATION_PART.sub("", text).strip():
        raise ValueError("write a duration, such as 2h, 90m or 1h30m.")
    return seconds


def seconds_until(text: str, now: datetime) -> float:
    """Return the seconds until the clock next shows a time of day; at least 1.

    Args:
        text: hours and minutes, 00:00 to 23:59.
        now: with its time zone, because a night in which clocks change is longer or shorter.
    """
    from datetime import timedelta

    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text.strip())
    if not match:
        raise ValueError("write a time of day, such as 06:00.")
    local = now.replace(tzinfo=None)
    then = local.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    if then <= local:
        then += timedelta(days=1)
    return max((then.astimezone() - now).total_seconds(), 1.0)
