"""Pure pieces of a backfill: meanings of answers, retries, the clock, estimates."""

from __future__ import annotations

import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from mirror.backfill.answers import (
    Reply,
    UrlOutcome,
    next_attempt,
    request_outcome,
    url_outcome,
)
from mirror.backfill.backfill_clock import BackfillClock, ClockReading, resumed_time, to_save
from mirror.backfill.estimate import PaceStatus, estimate, in_words
from mirror.backfill.fetch_one import ImageRequester
from mirror.backfill.pacing import DAY, HOUR, Limits
from mirror.backfill.url_policy import UrlPolicy, robots_interval
from tests.support.photos import photo

WALL = 1_790_000_000.0
URL = "https://static.inaturalist.org/photos/1/medium.jpg"


@pytest.mark.parametrize(
    ("reply", "outcome", "kind"),
    [
        (Reply(429), "refused", "throttled"),
        (Reply(503), "refused", "throttled"),
        (Reply(403, retry_after="9"), "refused", "throttled"),
        (Reply(403), "forbidden", "gone"),
        (Reply(404), "answered", "gone"),
        (Reply(500), "failed", "server_error"),
        (Reply(408), "failed", "server_error"),
        (Reply(0, problem="network", reason="reset"), "failed", "network"),
        (Reply(200, problem="network", reason="cut"), "failed", "network"),
        (Reply(200, problem="too_large"), "answered", "too_large"),
        (Reply(204), "answered", "not_image"),
        (Reply(206, photo(1)), "answered", "not_image"),
        (Reply(304), "answered", "not_image"),
        (Reply(200, photo(1), encoding="gzip"), "answered", "not_image"),
        (Reply(200, photo(1), encoding="identity"), "answered", "had"),
        (Reply(200, photo(1), content_type="text/html"), "answered", "not_image"),
        (Reply(200, photo(1), content_type="binary/octet-stream"), "answered", "had"),
        (Reply(200, photo(1), content_type="image/webp"), "answered", "had"),
    ],
)
def test_an_answer_tells_the_pace_and_the_url(reply: Reply, outcome: str, kind: str) -> None:
    assert request_outcome(reply) == outcome
    assert url_outcome(reply, URL, frozenset()).kind == kind


def test_a_known_bad_content_is_a_placeholder() -> None:
    digest = url_outcome(Reply(200, photo(1)), URL, frozenset()).digest
    assert digest is not None
    for known in (digest.sha256, digest.content_hash):
        fate = url_outcome(Reply(200, photo(1)), URL, frozenset({known}))
        assert isinstance(fate, UrlOutcome)
        assert fate.kind == "placeholder"


def test_pauses_grow_and_end() -> None:
    network = [next_attempt("network", strikes) for strikes in range(1, 9)]
    assert [round(one.pause) for one in network] == [10, 40, 160, 640, 2560, 10240, 40960, 0]
    assert [one.state for one in network] == ["waiting"] * 7 + ["given_up"]
    html = [next_attempt("not_image", strikes) for strikes in range(1, 5)]
    assert [round(one.pause) for one in html] == [600, 3600, 21600, 0]
    assert html[-1].state == "given_up"
    assert next_attempt("throttled", 99) == ("waiting", 0.0)


# saved, the clocks at the next start, the time then
TIMES = {
    "first run": (None, ClockReading(WALL, 5.0, "a"), WALL),
    "same boot": ([100.0, 5.0, "a"], ClockReading(WALL, 65.0, "a"), 160.0),
    "same boot, wall set back": ([WALL, 5.0, "a"], ClockReading(WALL - DAY, 65.0, "a"), WALL + 60),
    "same boot, wall set forward": (
        [WALL, 5.0, "a"],
        ClockReading(WALL + DAY, 65.0, "a"),
        WALL + 60,
    ),
    "another boot": ([WALL, 5.0, "a"], ClockReading(WALL + 60, 1.0, "b"), WALL + 60),
    "another boot, no battery": ([WALL, 5.0, "a"], ClockReading(0.0, 1.0, "b"), WALL),
    "no boot id": ([WALL, 5.0, ""], ClockReading(WALL + 60, 65.0, ""), WALL + 60),
    "a clock that went back": ([WALL, 500.0, "a"], ClockReading(WALL + 60, 5.0, "a"), WALL + 60),
}


@pytest.mark.parametrize(("kept", "seen", "now"), TIMES.values(), ids=TIMES)
def test_the_clock_resumes_from_run_to_run(kept: object, seen: ClockReading, now: float) -> None:
    assert resumed_time(kept, seen) == now
    assert resumed_time(to_save(now, seen), seen) == now


def test_a_clock_resumes_where_it_was_saved() -> None:
    first = BackfillClock()
    kept = first.to_save()
    again = BackfillClock(kept)
    assert kept[0] <= again() < kept[0] + 60
    assert again() <= again()
    far = BackfillClock([kept[0] + 10 * DAY, *kept[1:]])
    assert far() >= kept[0] + 10 * DAY


@pytest.mark.parametrize(
    ("images", "changes", "words"),
    [
        (512_331, {}, "512,331 images at 150 an hour are 142 days; about 737.8 GB in all."),
        (1, {}, "1 image at 1 a second is 1 second; about 1.4 MB in all."),
        (500_000, {"per_hour": 3600}, "at 10,000 a day are 49 days"),
        (500_000, {"per_hour": 3600, "per_day": 10**6, "bytes_per_day": 10**10}, "at 10 GB a day"),
        (10_000, {"per_hour": 100_000}, "at 1 a second are 3 hours"),
    ],
)
def test_the_estimate_names_the_limit_that_decides(
    images: int, changes: dict[str, int], words: str
) -> None:
    assert words in estimate(images, Limits(**changes), PaceStatus(30), None).arithmetic


def test_the_estimate_uses_robots_txt_and_the_mean_size() -> None:
    told = estimate(1000, Limits(), PaceStatus(30, min_interval=120.0), 2e6)
    assert told.seconds == pytest.approx(120_000)
    assert told.arithmetic == "1,000 images at one in 120 seconds are 33 hours; 2.0 GB in all."


def test_the_estimate_uses_the_state_of_the_pace() -> None:
    """An earlier run has used up the burst, and refusals have halved the rate."""
    assert estimate(31, Limits(), PaceStatus(0), None).seconds == 31 * 24
    told = estimate(30, Limits(), PaceStatus(0, 0.5), None)
    assert told.seconds == 30 * 48
    assert "30 images at 75 an hour are 24 minutes" in told.arithmetic


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 second"),
        (89, "89 seconds"),
        (5399, "90 minutes"),
        (2 * HOUR, "2 hours"),
        (DAY * 9, "9 days"),
    ],
)
def test_durations_in_round_numbers(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (b"User-agent: *\nCrawl-delay: 10\n", 10.0),
        (b"User-agent: dataset-mirror\nRequest-rate: 1/5\n\nUser-agent: *\nCrawl-delay: 99\n", 5.0),
        (b"User-agent: other\nCrawl-delay: 10\n", 0.0),
        (b"User-agent: *\nCrawl-delay: 99999999\n", 3600.0),
        (b"User-agent: *\nCrawl-delay: soon\n", 0.0),
        (b"User-agent: *\nRequest-rate: 0/5\n", 0.0),
        (b"User-agent: *\nCrawl-delay: 0.5\n", 0.5),
        (b"User-agent: *\nRequest-rate: 1/30s\nCrawl-delay: 9", 30.0),
        (b"User-agent: Dataset-Mirror/1\nCrawl-delay: 7\n\nUser-agent: *\nCrawl-delay: 99\n", 7.0),
        (b"User-agent: dataset-mirror\nAllow: /\nUser-agent: *\nCrawl-delay: 99\n", 0.0),
        (b"User-agent: other\nUser-agent: *\nCrawl-delay: 8\n", 8.0),
        (b"\xef\xbb\xbfUser-agent: * # all\r\nSitemap: x\r\nCrawl-delay: 6 # s\r\n", 6.0),
        # Each of these once ended a backfill. The rate that can be read still counts.
        ("User-agent: *\nCrawl-delay: ²\nCrawl-delay: 5\n".encode(), 5.0),
        (b"User-agent: *\nRequest-rate: 1/5\nCrawl-delay: " + b"9" * 400, 5.0),
        (b"User-agent: *\nCrawl-delay: " + b"9" * 5000, 0.0),
        ("User-agent: *\nRequest-rate: ²/5\n".encode(), 0.0),
        (b"User-agent: *\nRequest-rate: 1/" + b"9" * 400, 0.0),
        (b"User-agent: *\nDisallow: http://[x\nCrawl-delay: 5\n", 5.0),
        (b"<html>\xff\xfe", 0.0),
        (b"", 0.0),
    ],
)
def test_the_rate_that_robots_txt_states(body: bytes, seconds: float) -> None:
    assert robots_interval(body) == seconds


_ROBOTS_NAMES = st.sampled_from(
    ["User-agent", "Crawl-delay", "Request-rate", "Disallow", "Sitemap"]
)
_ROBOTS_VALUES = st.one_of(
    st.text(max_size=20),
    st.text("0123456789²٣/.-e", max_size=12),
    st.sampled_from(["*", "dataset-mirror", "9" * 400, "http://[x", "1/0"]),
)


@given(st.lists(st.tuples(_ROBOTS_NAMES, _ROBOTS_VALUES), max_size=8), st.binary(max_size=20))
def test_any_robots_txt_is_read(rules: list[tuple[str, str]], tail: bytes) -> None:
    text = "User-agent: *\n" + "".join(f"{name}: {value}\n" for name, value in rules)
    assert 0 <= robots_interval(text.encode() + tail) <= HOUR


@pytest.mark.parametrize(
    "location",
    [
        *(
            "http://[x",
            "//[",
            "http://²/",
            "http://h:²/",
            "http://h:99999999/",
            "\udc80",
            "?" * 9000,
        ),
        *(
            "http://%zz/",
            "http://a@b@c/",
            "\\\\h\\x",
            "http://xn--\udcff/",
            "::",
            "http:///x",
            "\0",
        ),
        "http://[]@",  # yarl 1.25 raises IndexError
    ],
)
def test_any_location_is_a_target_or_an_outcome(location: str) -> None:
    check_location(location)


@given(st.text(st.sampled_from("htp:/[]@?#%²\udc80\\.a0-"), max_size=16), st.booleans())
def test_any_text_is_a_location(text: str, absolute: bool) -> None:
    check_location("http://" * absolute + text)


def check_location(location: str) -> None:
    requester = ImageRequester.__new__(ImageRequester)
    requester.policy = UrlPolicy(("static.inaturalist.org",))
    target = requester._target(yarl.URL(URL), Reply(302, location=location), "/photos/1/medium.jpg")
    if isinstance(target, yarl.URL):
        assert target.host == "static.inaturalist.org"
    else:
        assert isinstance(target, UrlOutcome)
