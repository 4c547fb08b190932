"""Parse HTTP dates and `Retry-After`; redirect statuses. Every HTTP client here uses them."""

from __future__ import annotations

import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

# Statuses whose Location header names another address (RFC 9110, section 15.4).
REDIRECT_STATUSES: Final = frozenset((301, 302, 303, 307, 308))

# RFC 9110 has whole seconds; some servers send a fraction. No sign, no exponent.
_SECONDS: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")


def http_date(text: str | None) -> float | None:
    """Parse an HTTP date.

    Returns:
        Seconds since 1970. A date without a time zone is UTC. None where there is no date, or no
        date that this machine can represent.
    """
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def retry_after_seconds(
    retry_after: str | None, *, date: str | None = None, now: float | None = None
) -> float | None:
    """Parse a Retry-After header (RFC 9110, section 10.2.3).

    Args:
        retry_after: the header: seconds, or a date.
        date: the answer's Date header. It is the clock by which the server wrote `retry_after`.
        now: seconds since 1970 by this machine, used without `date`. The current time when None.

    Returns:
        Seconds to wait, at least 0. None where the header is absent or cannot be understood.
    """
    text = (retry_after or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    until = http_date(text)
    if until is None:
        return None
    written_at = http_date(date)
    if written_at is None:
        written_at = time.time() if now is None else now
    return max(0.0, until - written_at)
