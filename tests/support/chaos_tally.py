"""What the tests that break things did: how often they killed, what they injected, how much they tried.

    count("kills")          where it is done, in a test or in what it uses

A test is marked with what it breaks, `@pytest.mark.chaos("sync")`. With CHAOS_REPORT=FILE each of
them appends a line of JSON to that file, from which tests/chaos/report.py makes the tables of
docs/reliability.md (`make chaos`).

CHAOS_SEED chooses the moments and faults; CHAOS_KILLS is how often a process is killed in each test
of kills, and CHAOS_TIMES how many times as many seeds, inputs and steps are tried as `make test` tries.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Generator
from typing import Any, Final

import pytest
from hypothesis import settings

SEED: Final = int(os.environ.get("CHAOS_SEED", "1"))
TIMES: Final = int(os.environ.get("CHAOS_TIMES", "1"))
_RECORD: Final = os.environ.get("CHAOS_REPORT") and os.path.abspath(os.environ["CHAOS_REPORT"])
_KILLS: Final = int(os.environ.get("CHAOS_KILLS", "0"))

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def kills(usually: int, *, tests: int = 1) -> int:
    """How often to kill: so often, or as often as CHAOS_KILLS says if that is more.

    Args:
        usually: without CHAOS_KILLS.
        tests: so many share the kills that CHAOS_KILLS asks for.
    """
    return max(usually, -(-_KILLS // tests))


def seeds(usually: int) -> list[int]:
    """Seeds to try: so many, or CHAOS_TIMES as many."""
    return [SEED * 1000 + number for number in range(usually * TIMES)]


def count(what: str, number: int = 1) -> None:
    """So many more of `kills`, `inputs`, `processes`, of a fault (`fault NAME`) or a step (`step NAME`)."""
    with _lock:
        _counts[what] += number


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("more", max_examples=100 * TIMES, deadline=None)
    if TIMES > 1:
        settings.load_profile("more")
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
