# ruff: noqa: INP001 - for the scripts beside it, not a package
"""Tables of the results, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from bars import BARS, Bar
from results import Result

MEASURES = {"wall": "wall", "cpu": "CPU", "peak": "memory"}


def table(name: str, result: Result) -> str:
    """The table of a workload: medians, ratios ours ÷ theirs (below 1 is better), and targets."""
    rounds = len(result.runs[result.ours])
    counted = f"{rounds} round{'s' * (rounds != 1)}"
    lines = [
        f"**{result.title}** ({name}; {counted}, load {result.load:g} before)",
        "",
        "| | wall | CPU | peak memory | our wall ÷ its | our CPU ÷ its |",
        "|---|---|---|---|---|---|",
    ]
    for program in result.runs:
        cost = result.median(program)
        ratios = ["", ""]
        if program != result.ours:
            ratios = [f"{result.ratio(m, result.ours, program):.2f}" for m in ("wall", "cpu")]
        lines.append(
            f"| {program} | {seconds(cost.wall)} | {seconds(cost.cpu)} | {cost.peak / 1e6:.0f} MB "
            f"| {ratios[0]} | {ratios[1]} |"
        )
    held = [sentence(bar, {name: result}) for bar in BARS if bar.workload == name]
    return "\n".join([*lines, *([""] if held else []), *held])


def sentence(bar: Bar, results: Mapping[str, Result]) -> str:
    value = bar.value(results)
    if value is None:
        return f"- {_claim(bar)}: not measured"
    shown = _figure(bar, value)
    return f"- {_claim(bar)}: {shown} {'holds' if value <= bar.limit else '**does not hold**'}"


def bars(results: Mapping[str, Result]) -> str:
    """The table of all targets, and which of them hold."""
    lines = ["| workload | target | measured | |", "|---|---|---|---|"]
    for bar in BARS:
        value = bar.value(results)
        shown = "not measured" if value is None else _figure(bar, value)
        verdict = "" if value is None else "holds" if value <= bar.limit else "**does not hold**"
        lines.append(f"| {bar.workload} | {_claim(bar)} | {shown} | {verdict} |")
    return "\n".join(lines)


def _claim(bar: Bar) -> str:
    what = f"`{bar.ours}`: {MEASURES[bar.measure]}"
    if bar.theirs:
        return f"{what} ≤ {bar.limit:g} × that of {bar.theirs}"
    return f"{what} ≤ {_figure(bar, bar.limit)}"


def _figure(bar: Bar, value: float) -> str:
    if bar.theirs:
        return f"{value:.2f} ×"
    return f"{value / 1e6:.0f} MB" if bar.measure == "peak" else seconds(value)


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.0f} ms"


def conditions(results: Mapping[str, Result]) -> str:
    """The machines, dates and versions of the measurements."""
    machines = {
        f"{m['cores']} × {m['processor']}, {m['memory_gb']} GB, {m['system']}, Python {m['python']}"
        for m in (result.machine for result in results.values())
    }
    dates = sorted({result.date for result in results.values()})
    versions = sorted({version for result in results.values() for version in result.versions})
    return "\n".join(
        [
            f"- Machine: {'; '.join(sorted(machines))}.",
            f"- Measured: {', '.join(dates)}.",
            f"- Versions: {', '.join(versions)}.",
        ]
    )
