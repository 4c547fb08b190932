"""Counts the kills, faults and inputs of the tests that break things.

    count("kills")          at each kill, in a test or in its support code

A test is marked with the part that it breaks: `@pytest.mark.chaos("sync")`. With CHAOS_REPORT=FILE
each marked test appends a line of JSON to that file. tests/chaos/report.py makes the tables of
docs/reliability.md from it (`make chaos`).

CHAOS_SEED chooses the moments and faults. CHAOS_KILLS is the number of kills in each test of kills.
CHAOS_TIMES multiplies the seeds, inputs and steps that `make test` tries.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Generator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

SEED: Final = int(os.environ.get("CHAOS_SEED", "1"))
TIMES: Final = int(os.environ.get("CHAOS_TIMES", "1"))
_RECORD: Final = os.environ.get("CHAOS_REPORT") and os.path.abspath(os.environ["CHAOS_REPORT"])
_KILLS: Final = int(os.environ.get("CHAOS_KILLS", "0"))

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def kills(usually: int, *, tests: int = 1) -> int:
    """The number of kills for a test: `usually`, or more if CHAOS_KILLS asks for more.

    Args:
        usually: the number without CHAOS_KILLS.
        tests: the number of tests that share the kills of CHAOS_KILLS.
    """
    return max(usually, -(-_KILLS // tests))


def seeds(usually: int) -> list[int]:
    """The seeds to try: `usually` of them, times CHAOS_TIMES."""
    return [SEED * 1000 + number for number in range(usually * TIMES)]


def count(what: str, number: int = 1) -> None:
    """Add to the count of `kills`, `inputs`, `processes`, a fault (`fault NAME`) or a step (`step NAME`)."""
    with _lock:
        _counts[what] += number


def pytest_configure(config: pytest.Config) -> None:
    # No test is timed: a busy machine is no fault of the code.
    settings.register_profile(
        "untimed",
        max_examples=100 * TIMES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("untimed")
    config.addinivalue_line("markers", "chaos(part): breaks a part on purpose; see tests/chaos")


def pytest_runtest_setup(item: pytest.Item) -> None:
    with _lock:
        _counts.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report = yield
    marker = item.get_closest_marker("chaos")
    if marker and _RECORD and (report.when == "call" or report.failed):
        line = {
            "test": item.nodeid,
            "part": marker.args[0],
            "passed": report.passed,
            "seconds": call.duration,
            "counts": dict(_counts) if report.when == "call" else {},
        }
        with open(_RECORD, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return report
