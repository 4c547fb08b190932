"""Values that people write as text."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mirror.config.option_values import (
    parse_duration,
    parse_hex_prefix,
    parse_share,
    seconds_until,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2700), ("45min", 2700), ("2h", 7200), ("1h30m", 5400), ("3d", 259_200),
     ("1.5h", 5400), ("1 h 30 m", 5400)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "0h", "-2h", "2h later", "two hours", "1h30", "2x"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("now", "text", "hours"),
    [
        ("2026-11-24 22:00", "06:00", 8),
        ("2026-11-24 05:30", "06:00", 0.5),
        ("2026-11-24 06:00", "06:00", 24),
        ("2026-11-24 06:01", "6:00", 24 - 1 / 60),
        ("2026-10-24 22:00", "06:00", 9),  # the clocks are set back in that night
        ("2026-03-28 22:00", "06:00", 7),  # and forward in that one
    ],
)
def test_until_is_the_next_time_it_is_so_late(
    now: str, text: str, hours: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        moment = datetime.fromisoformat(now).replace(tzinfo=ZoneInfo("Europe/Berlin"))
        assert timedelta(seconds=seconds_until(text, moment)) == timedelta(hours=hours)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "24:00", "6", "06:60", "noon", "-1:00"])
def test_what_is_no_time_of_the_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        seconds_until(text, datetime.now().astimezone())


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("0.01", 0.01), ("100%", 1.0), (" 2.5 % ", 0.025)]
)
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "1", "0", "0%", "101%", "1.5", "-1%", "nan", "all"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a share"):
        parse_share(text)


@pytest.mark.parametrize("text", ["", "3f", "3F", "0" * 32])
def test_hex_prefixes(text: str) -> None:
    assert parse_hex_prefix(text) == text


@pytest.mark.parametrize("text", ["g", "0x3f", "3f ", "0" * 33, "3f\n"])
def test_what_is_no_hex_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        parse_hex_prefix(text)
