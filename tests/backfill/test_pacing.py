"""The pace of a source: no schedule of calls exceeds a limit, whatever the source answers."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.backfill import pacing
from mirror.backfill.pacing import DAY, HOUR, Go, Limits, Pace, RequestOutcome, Wait
from mirror.backfill.rate_window import SLICES, RateWindow
from mirror.errors import ConfigError
from tests.backfill.fake_inaturalist import most_within

BEGIN = 1_790_000_000.0
OUTCOMES: tuple[RequestOutcome, ...] = ("answered", "refused", "failed", "forbidden", "redirected")

limits_of_any_kind = st.builds(
    Limits,
    per_second=st.sampled_from([0.05, 0.5, 1.0, 2.5, 100.0]),
    per_hour=st.sampled_from([1, 3, 10, 150, 5000]),
    per_day=st.sampled_from([5, 40, 10_000]),
    bytes_per_hour=st.sampled_from([5_000_000, 40_000_000]),
    bytes_per_day=st.sampled_from([9_000_000, 100_000_000]),
    concurrency=st.integers(1, 4),
    largest=st.sampled_from([1_000, 2_000_000]),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "start", "end", "end", "sleep", "restart", "killed"]),
        st.floats(0, 1),
        st.sampled_from([*["answered"] * 5, *OUTCOMES]),
    ),
    max_size=120,
)


class Simulation:
    """Drives a pace as steps say, and a server that counts each request somewhere in its flight."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pace = Pace(limits)
        self.now = BEGIN
        self.flying: list[tuple[int, float]] = []
        self.requests: list[tuple[float, int]] = []
        self.bytes: list[tuple[float, int]] = []

    def step(self, what: str, share: float, outcome: RequestOutcome) -> None:
        if what == "start":
            decision = self.pace.may_start(self.now)
            if isinstance(decision, Wait) and decision.seconds < 2 * DAY:
                # At the earliest moment that it allows, or a bit later.
                self.now += decision.seconds * (1 + (share > 0.8) * share)
                decision = self.pace.may_start(self.now)
            if isinstance(decision, Go):
                self.flying.append((self.pace.started(self.now), self.now))
        elif what == "end" and self.flying:
            self.now += share * 30
            ticket, began = self.flying.pop(int(share * (len(self.flying) - 1)))
            nbytes = int(share * self.limits.reserved)
            self._counted(began, nbytes, share)
            retry_after = None if share < 0.5 else share * 4000
            self.pace.finished(self.now, ticket, outcome, nbytes, retry_after=retry_after)
        elif what == "sleep":
            self.now += share**4 * 30 * HOUR
        elif what in ("restart", "killed") and (what == "killed" or not self.flying):
            for _, began in self.flying:
                self._counted(began, self.limits.reserved, share)
            self.flying.clear()
            kept = json.loads(msgspec.json.encode(self.pace.as_value()))
            self.pace = Pace.from_value(kept, self.limits)
            self.pace.abandon_in_flight(self.now)

    def _counted(self, began: float, nbytes: int, share: float) -> None:
        at = began + share * (self.now - began)
        self.requests.append((at, 1))
        self.bytes.append((at, nbytes))

    def check(self) -> None:
        limits = self.limits
        requests, sizes = sorted(self.requests), sorted(self.bytes)
        second = max(1.0, 1 / limits.per_second)
        assert most_within(requests, second) <= max(1, limits.per_second)
        assert most_within(requests, HOUR) <= limits.per_hour
        assert most_within(requests, DAY) <= limits.per_day
        assert most_within(sizes, HOUR) <= limits.bytes_per_hour
        assert most_within(sizes, DAY) <= limits.bytes_per_day


@given(limits_of_any_kind, steps)
@settings(deadline=None, max_examples=150)
def test_no_schedule_of_calls_exceeds_any_limit_in_any_window(
    limits: Limits, schedule: list[tuple[str, float, RequestOutcome]]
) -> None:
    simulation = Simulation(limits)
    for what, share, outcome in schedule:
        simulation.step(what, share, outcome)
        assert len(simulation.pace.in_flight) <= limits.concurrency
    simulation.check()


@given(limits_of_any_kind, steps)
@settings(deadline=None, max_examples=60)
def test_any_pace_lets_a_request_start_in_the_end(
    limits: Limits, schedule: list[tuple[str, float, RequestOutcome]]
) -> None:
    simulation = Simulation(limits)
    for what, share, outcome in schedule:
        simulation.step(what, share, outcome)
    simulation.step("killed", 0.0, "answered")
    decision = simulation.pace.may_start(simulation.now)
    if isinstance(decision, Wait):
        # A slowed-down pace waits; a day for each of the windows is more than enough.
        assert decision.seconds <= 65 * DAY
        assert decision.reason
        assert isinstance(simulation.pace.may_start(simulation.now + decision.seconds + 1), Go)


@given(
    st.lists(st.tuples(st.floats(0, 400), st.integers(0, 50)), max_size=200),
    st.integers(1, 100),
    st.sampled_from([1.0, 60.0, 3600.0]),
)
@settings(deadline=None)
def test_a_window_counts_all_that_is_in_it_in_bounded_memory(
    events: list[tuple[float, int]], limit: int, seconds: float
) -> None:
    window = RateWindow(seconds, limit)
    now, seen = BEGIN, []
    for gap, amount in events:
        now += gap * seconds / 400
        at = window.fits_at(now, amount)
        if at == now:
            window.add(now, amount)
            seen.append((now, amount))
        elif at < math.inf:
            assert window.fits_at(at, amount) == at
            assert at <= now + seconds * (1 + 2 / SLICES)
        else:
            assert amount > limit
        assert len(window.counts) <= SLICES + 2
    assert most_within(seen, seconds) <= limit


def run(pace: Pace, outcomes: str, now: float = BEGIN, **more: Any) -> float:
    """Send a request for each letter (a, r, f, x) as soon as it may start; returns the time at the end."""
    letters: dict[str, RequestOutcome] = {
        "a": "answered", "r": "refused", "f": "failed", "x": "forbidden"
    }  # fmt: skip
    for letter in outcomes:
        decision = pace.may_start(now)
        if isinstance(decision, Wait):
            now += decision.seconds
            assert isinstance(pace.may_start(now), Go)
        pace.finished(now, pace.started(now), letters[letter], 1000, **more)
    return now


def rate(pace: Pace, now: float, requests: int = 20) -> float:
    """Requests per hour, measured over a number of answered ones."""
    return requests / (run(pace, "a" * requests, now) - now) * HOUR


def test_an_hour_is_used_and_not_overused() -> None:
    pace = Pace(Limits())
    end = run(pace, "a" * 1500)
    assert 1500 / (end - BEGIN) * HOUR == pytest.approx(150, rel=0.11)  # the first burst is in it
    assert rate(pace, end, 300) == pytest.approx(150, rel=0.02)


def test_a_small_backfill_is_soon_done() -> None:
    assert run(Pace(Limits()), "a" * 30) - BEGIN < 60


def test_the_rest_of_the_burst_is_counted() -> None:
    pace = Pace(Limits(per_second=100))
    assert pace.burst_left(BEGIN) == 30
    now = run(pace, "a" * 12)
    assert pace.burst_left(now) == 18
    now = run(pace, "a" * 18, now)
    assert pace.burst_left(now) == 0
    assert pace.burst_left(now + HOUR) == 30


def test_a_refusal_halves_the_rate_and_success_restores_it_slowly() -> None:
    pace = Pace(Limits(per_hour=100_000, per_day=10**7, per_second=1000))
    end = run(pace, "a" * 100)
    assert pace.factor == 1
    end = run(pace, "r", end)
    assert pace.factor == 0.5
    end = run(pace, "r", end)
    assert pace.factor == 0.25
    end = run(pace, "a" * 25, end)
    assert pace.factor == pytest.approx(0.5)
    run(pace, "a" * 50, end)
    assert pace.factor == pytest.approx(1)


def test_requests_in_flight_together_halve_the_rate_once() -> None:
    pace = Pace(Limits(per_second=10, concurrency=4))
    tickets = [pace.started(BEGIN) for _ in range(4)]
    for ticket in tickets:
        pace.finished(BEGIN + 1, ticket, "refused", 0)
    assert pace.factor == 0.5


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [(100.0, 100.0), (0.0, 48.0), (1e9, DAY), (-5.0, 48.0), (None, 48.0)],
)
def test_a_pause_that_is_asked_for_is_kept_up_to_a_day(
    retry_after: float | None, pause: float
) -> None:
    """After the pause, the next request is evenly spaced at half the rate: after 48 seconds."""
    pace = Pace(Limits())
    pace.finished(BEGIN, pace.started(BEGIN), "refused", 0, retry_after=retry_after)
    decision = pace.may_start(BEGIN)
    assert isinstance(decision, Wait)
    assert decision.seconds == pytest.approx(pause, rel=0.01)


def test_the_breaker_opens_cools_down_and_tries_once() -> None:
    pace = Pace(Limits(per_hour=10_000, per_second=100))
    now = run(pace, "fffff")
    assert pace.breaker(now) == "open"
    decision = pace.may_start(now)
    assert isinstance(decision, Wait)
    assert decision.seconds == pytest.approx(pacing.COOL_DOWN, rel=0.01)
    assert decision.reason == "5 failures in a row"
    now += decision.seconds
    assert isinstance(pace.may_start(now), Go)
    assert pace.breaker(now) == "half-open"
    ticket = pace.started(now)
    assert pace.may_start(now) == Wait(math.inf, "a request is under way")
    pace.finished(now, ticket, "failed", 0)
    again = pace.may_start(now)
    assert isinstance(again, Wait)
    assert again.seconds == pytest.approx(2 * pacing.COOL_DOWN)
    now = run(pace, "a", now)
    assert pace.breaker(now) == "closed"
    assert isinstance(pace.may_start(now + 1), Go)


def test_the_breaker_never_cools_down_for_longer_than_its_longest() -> None:
    pace = Pace(Limits(per_hour=10_000, per_second=100))
    now = run(pace, "f" * 30)
    decision = pace.may_start(now)
    assert isinstance(decision, Wait)
    assert decision.seconds == pytest.approx(pacing.LONGEST_COOL_DOWN)


def test_a_success_in_between_ends_the_row_of_failures() -> None:
    pace = Pace(Limits(per_hour=10_000, per_second=100))
    now = run(pace, "ffffaffffaffffxffff")
    assert pace.breaker(now) == "closed"


def test_many_forbidden_in_a_row_are_a_block() -> None:
    pace = Pace(Limits(per_hour=10_000, per_second=100))
    now = run(pace, "a" + "x" * (pacing.MAX_FORBIDDEN - 1))
    assert (pace.is_blocked, pace.breaker(now)) == (False, "closed")
    now = run(pace, "x", now)
    assert (pace.is_blocked, pace.breaker(now)) == (True, "open")
    assert pace.forbidden_since >= BEGIN
    decision = pace.may_start(now)
    assert isinstance(decision, Wait)
    assert "may be blocked" in decision.reason
    now = run(pace, "a", now)
    assert (pace.is_blocked, pace.breaker(now)) == (False, "closed")


def test_the_rate_of_robots_txt_is_kept_and_remembered() -> None:
    pace = Pace(Limits(per_hour=10_000, per_second=10))
    run(pace, "aaa")
    pace.raise_min_interval(10.0)
    assert rate(pace, BEGIN + 5) == pytest.approx(360, rel=0.03)
    pace.raise_min_interval(0.0)
    assert pace.min_interval == 10.0


def test_a_clock_that_goes_back_makes_no_window_longer_and_stops_nothing() -> None:
    pace = Pace(Limits(per_hour=5, per_second=100))
    now = run(pace, "aaaaa")
    for behind in (1.0, HOUR, 300 * DAY):
        decision = pace.may_start(now - behind)
        assert isinstance(decision, Wait)
        assert decision.seconds <= HOUR * (1 + 2 / SLICES)


def test_requests_in_flight_at_a_kill_count_in_full() -> None:
    limits = Limits(bytes_per_hour=5_000_000, bytes_per_day=9_000_000, largest=1_000_000)
    pace = Pace(limits)
    pace.started(BEGIN)
    again = Pace.from_value(pace.as_value(), limits)
    assert len(again.in_flight) == 1
    assert again.abandon_in_flight(BEGIN + 9) == 1
    assert again.abandon_in_flight(BEGIN + 9) == 0
    run(again, "a", BEGIN + 10)
    assert isinstance(again.may_start(BEGIN + 12), Go)
    again.started(BEGIN + 12)
    restarted = Pace.from_value(again.as_value(), limits)
    restarted.abandon_in_flight(BEGIN + 13)
    decision = restarted.may_start(BEGIN + 20)
    assert isinstance(decision, Wait)
    assert "bytes an hour" in decision.reason


def test_limits_that_one_image_exceeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_size"):
        Limits(bytes_per_hour=10_000_000, largest=9_500_000)


def test_a_saved_pace_is_small() -> None:
    pace = Pace(Limits(per_hour=100_000, per_day=10**7, per_second=1000))
    run(pace, "a" * 3000)
    assert len(msgspec.json.encode(pace.as_value())) < 60_000
