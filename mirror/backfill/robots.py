"""The request rate that a source's robots.txt asks for. Pure."""

from __future__ import annotations

from typing import Final
from urllib.robotparser import RobotFileParser

AGENT: Final = "dataset-mirror"
# Bytes of the file that are read (RFC 9309 asks for at least this many).
_MAX_BYTES: Final = 500 << 10
# Seconds. A longer interval between two images must be a mistake in the file.
_LONGEST_INTERVAL: Final = 3600.0


def min_interval(body: bytes) -> float:
    """Seconds between two requests that a robots.txt asks for; 0 if it does not say.

    `Crawl-delay` and `Request-rate` count, of the rules for our agent or else of those for all.
    """
    parser = RobotFileParser()
    parser.parse(body[:_MAX_BYTES].decode("utf-8", "replace").splitlines())
    # The parser answers only when it believes that the file was read.
    parser.modified()
    interval = 0.0
    delay = parser.crawl_delay(AGENT)
    if delay is not None:
        interval = float(delay)
    rate = parser.request_rate(AGENT)
    if rate is not None and rate.requests > 0:
        interval = max(interval, rate.seconds / rate.requests)
    return min(max(interval, 0.0), _LONGEST_INTERVAL)
