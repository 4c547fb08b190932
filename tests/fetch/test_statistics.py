"""Statistics add up, and percentiles are right to 5 %."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.fetch.statistics import FetchStats, Histogram, percentile

durations = st.lists(st.floats(1e-4, 900.0), min_size=1, max_size=60)


def histogram(values: list[float]) -> list[int]:
    made = Histogram()
    for value in values:
        made.add(value)
    return made.counts


@given(durations, st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_that_of_the_durations(values: list[float], share: float) -> None:
    exact = next(v for at, v in enumerate(sorted(values), 1) if at >= share * len(values))
    assert percentile(histogram(values), share) == pytest.approx(exact, rel=0.06)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, 1e9, float("inf")])
def test_durations_out_of_bounds_are_counted(seconds: float) -> None:
    assert sum(histogram([seconds])) == 1


def test_no_durations_have_no_percentile() -> None:
    assert percentile(histogram([]), 0.5) == 0.0
    assert FetchStats().p99 == 0.0


def stats(**counts: float) -> FetchStats:
    latencies = tuple(histogram([0.01] * 99 + [1.0]))
    return dataclasses.replace(FetchStats(latencies=latencies), **counts)  # type: ignore[arg-type]


def test_statistics_add_and_subtract() -> None:
    one, two = stats(mirror=3, bytes=100, waited=1.5), stats(cache=2, bytes=11, retries=1)
    both = one + two
    assert (both.images, both.bytes, both.retries, both.waited) == (5, 111, 1, 1.5)
    assert sum(both.latencies) == 200
    assert both - two == one
    assert pickle.loads(pickle.dumps(both)) == both


def test_the_log_line_leaves_out_zero_counts() -> None:
    line = str(stats(mirror=1000, fetch_cache=24, bytes=46_080_000, waited=1.25))
    assert line.startswith("1,024 images, 46.1 MB: 0 from the cache, 24 from the fetch cache")
    assert "p50 10 ms" in line
    assert "retries" not in line
    assert "retries 3" in str(stats(retries=3))
    assert "p50" not in str(FetchStats(cache=1))
