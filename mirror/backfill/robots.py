"""The rate that a source's robots.txt states for us, if it states one. Pure."""

from __future__ import annotations

from typing import Final
from urllib.robotparser import RobotFileParser

AGENT: Final = "dataset-mirror"
# Of a longer file the beginning counts (RFC 9309 asks for this much).
LONGEST: Final = 500 << 10
# What a site may ask for; more than an hour between two images is a mistake in a file.
_LONGEST_INTERVAL: Final = 3600.0


def least_interval(body: bytes) -> float:
    """Seconds between two requests that a robots.txt asks for: 0 where it says nothing of it.

    `Crawl-delay` and `Request-rate` of the rules for our agent, or of those for all.
    """
    parser = RobotFileParser()
    parser.parse(body[:LONGEST].decode("utf-8", "replace").splitlines())
    # Without a time of reading the parser answers nothing.
    parser.modified()
    interval = 0.0
    delay = parser.crawl_delay(AGENT)
    if delay is not None:
        interval = float(delay)
    rate = parser.request_rate(AGENT)
    if rate is not None and rate.requests > 0:
        interval = max(interval, rate.seconds / rate.requests)
    return min(max(interval, 0.0), _LONGEST_INTERVAL)
