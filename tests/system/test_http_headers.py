"""Headers of HTTP answers: Retry-After, dates."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.system.http_headers import http_date, retry_after_seconds

NOW = 1_790_000_000.0


def date(at: float) -> str:
    return email.utils.formatdate(at, usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "sent", "seconds"),
    [
        (None, None, None),
        ("", "", None),
        ("7", "", 7.0),
        ("120", "", 120.0),
        (" 0 ", "", 0.0),
        ("0.5", "", 0.5),
        ("999999999999", "", 999999999999.0),
        ("-5", "", None),
        ("1e9", "", None),
        ("nan", "", None),
        ("inf", "", None),
        ("soon", "", None),
        (date(NOW + 90), "", 90.0),
        (date(NOW + 90), date(NOW + 60), 30.0),  # by the clock that wrote it
        (date(NOW + 90), "soon", 90.0),
        (date(NOW - 90), "", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", "", 0.0),
        # Every way in which `parsedate_to_datetime` raises.
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", "", None),  # OverflowError: the year
        ("Mon, 01 Jan 2026 00:00:00 -99999999999999", "", None),  # OverflowError: the zone
        ("Mon, 01 Jan 2026 00:00:00 +99999999", "", None),  # ValueError: the zone
        ("Sun, 99 Nov 2094 08:49:37 GMT", "", None),  # ValueError: the day
        ("Mon, 01 Jan 2026 25:61:61 GMT", "", None),  # ValueError: the hour
        ("Mon, 01 Jan -1 00:00:00 GMT", "", None),  # ValueError: the year
        (",", "", None),  # ValueError: no date at all
    ],
)
def test_a_retry_after_is_seconds_or_a_date(
    retry_after: str | None, sent: str | None, seconds: float | None
) -> None:
    assert retry_after_seconds(retry_after, date=sent, now=NOW) == seconds


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_header_is_read(retry_after: str, sent: str) -> None:
    seconds = retry_after_seconds(retry_after, date=sent, now=NOW)
    assert seconds is None or seconds >= 0


def test_a_date_without_a_zone_is_utc() -> None:
    assert http_date("Mon, 01 Jan 2026 00:00:00 -0000") == 1_767_225_600.0
