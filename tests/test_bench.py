"""The documents show the measured results, and the scripts of bench/ run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scripts import each other, as in a run."""
    monkeypatch.syspath_prepend(str(BENCH))


def test_tables_and_charts_are_those_of_the_results(bench: None) -> None:
    import report
    import results

    known = results.load()
    assert known
    for path, text in report.written(report.DOCUMENT.read_text(), known).items():
        assert path.read_text() == text, f"run: python bench/report.py, for {path.name}"


def test_charts_paint_their_page_in_both_colour_schemes(bench: None) -> None:
    import report

    for chart in (report.OVERVIEW, report.GROWTH):
        light, _, dark = chart.read_text().partition("@media (prefers-color-scheme: dark)")
        assert ".page { fill: #ffffff; }" in light
        style, _, shapes = dark.partition("</style>\n")
        assert ".page { fill: #0d1117; }" in style
        assert shapes.startswith('<rect class="page" width="100%" height="100%"/>\n')


def test_every_result_has_a_workload_and_a_table(bench: None) -> None:
    import report
    import results
    import run

    known = run.parts()
    assert not results.load().keys() - known.keys()
    document = report.DOCUMENT.read_text()
    for name, result in results.load().items():
        assert f"({name};" in document
        assert result.title == known[name].title
        assert len({len(costs) for costs in result.runs.values()}) == 1


def test_every_target_names_measured_programs(bench: None) -> None:
    import bars
    import results

    for bar in bars.BARS:
        if (result := results.load().get(bar.workload)) is not None:
            assert {bar.ours, bar.theirs or bar.ours} <= result.runs.keys(), bar


def test_workloads_are_listed_without_measuring_any() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "run.py"), "--list"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no-change" in done.stdout


def test_programs_are_run_in_turns_and_their_own_clock_counts(bench: None) -> None:
    import measure

    program = "import sys; sys.path.insert(0, sys.argv[1]); import measure\nwith measure.printing_cost(): pass"
    order: list[str] = []
    contenders = [
        measure.Contender(
            name,
            [sys.executable, "-c", program, str(BENCH)],
            before=lambda name=name: order.append(name),
            own_clock=True,
        )
        for name in ("ours", "theirs")
    ]
    runs = measure.alternately(contenders, 2)
    assert order == ["ours", "theirs"] * 3  # a warm-up first
    assert [len(costs) for costs in runs.values()] == [2, 2]
    assert all(0 <= cost.wall < 0.05 < cost.peak for costs in runs.values() for cost in costs)


def test_a_failing_program_or_check_ends_the_measurement(bench: None) -> None:
    import measure

    def wrong(printed: str) -> None:
        raise RuntimeError(f"not {printed}")

    with pytest.raises(RuntimeError, match="it ended with 1: .*no such thing"):
        measure.measured(measure.Contender("it", [sys.executable, "-c", "exit('no such thing')"]))
    with pytest.raises(RuntimeError, match="not 5"):
        measure.measured(measure.Contender("it", [sys.executable, "-c", "print(5)"], check=wrong))
