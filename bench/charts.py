# ruff: noqa: INP001 - for the scripts beside it, not a package
"""Charts of the results, as SVG for light and dark backgrounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from results import Result

WIDTH = 760
STYLE = """<style>
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f; }
.page { fill: #ffffff; }
.title { font-weight: 600; } .note { font-size: 12px; fill: #57606a; } .end { text-anchor: end; }
.middle { text-anchor: middle; }
.ours { fill: #1a7f5a; } .theirs { fill: #9aa4af; } .grid { stroke: #d0d7de; }
.line { fill: none; stroke-width: 2.5; } .a { stroke: #1a7f5a; fill: #1a7f5a; }
.b { stroke: #c2630a; fill: #c2630a; } .c { stroke: #6e7781; fill: #6e7781; }
.d { stroke: #3a6fc4; fill: #3a6fc4; } .line { fill: none; }
text.a, text.b, text.c, text.d { stroke: none; }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117; }
  text { fill: #e6edf3; } .note { fill: #9198a1; } .grid { stroke: #3d444d; }
  .ours { fill: #3fb98a; } .theirs { fill: #6e7681; }
  .a { stroke: #3fb98a; fill: #3fb98a; } .b { stroke: #f0883e; fill: #f0883e; }
  .c { stroke: #9198a1; fill: #9198a1; } .d { stroke: #79a8f0; fill: #79a8f0; }
  .line { fill: none; }
}
</style>"""


class Panel(NamedTuple):
    """The bars of one workload. `programs` has the names to show, in order."""

    title: str
    workloads: Sequence[str]
    programs: Mapping[str, str]


PANELS = (
    Panel(
        "First run: 20,000 photographs of 45 kB to a server that discards them",
        ("bulk", "bulk-aws"),
        {
            "mirror sync --inspect off": "mirror, files not judged",
            "mirror sync": "mirror, every file decoded",
            "s5cmd": "s5cmd cp",
            "rclone": "rclone copy",
            "aws-cli": "aws s3 cp",
        },
    ),
    Panel(
        "Nothing changed among 50,000 files",
        ("no-change-peers",),
        {
            "mirror sync": "mirror",
            "s5cmd sync": "s5cmd sync",
            "rclone sync": "rclone sync",
            "aws s3 sync": "aws s3 sync",
        },
    ),
    Panel(
        "Reading 10,000 objects of 45 kB in random order, hashes verified",
        ("fetch",),
        {
            "mirror": "mirror fetch.many",
            "s3torchconnectorclient": "s3torchconnectorclient",
            "obstore": "obstore",
            "requests": "requests, 32 threads",
        },
    ),
    Panel(
        "An epoch of 1,024 images, 50 ms to each answer, DataLoader with 2 workers",
        ("loader",),
        {"MirrorDataset": "mirror", "requests": "requests, one URL at a time"},
    ),
)


def overview(results: Mapping[str, Result]) -> str:
    """Draw wall times beside the peers: one panel for each workload, each with its own scale."""
    lines: list[str] = []
    y = 8
    for panel in PANELS:
        bars = list(_walls(panel, results))
        if not bars:
            continue
        lines.append(_text(16, y + 16, panel.title, "title"))
        y += 26
        most = max(seconds for _, seconds in bars)
        for name, seconds in bars:
            ours = "ours" if name.startswith("mirror") else "theirs"
            length = max(2, round(seconds / most * 440))
            lines.append(_text(218, y + 14, name, "end"))
            lines.append(
                f'<rect class="{ours}" x="226" y="{y + 2}" width="{length}" height="16" rx="2"/>'
            )
            lines.append(_text(226 + length + 6, y + 14, _seconds(seconds), "note"))
            y += 22
        y += 12
    known = [results[name] for panel in PANELS for name in panel.workloads if name in results]
    if known:
        lines.append(_text(16, y + 12, f"Seconds of wall time, medians. {_where(known)}", "note"))
        y += 24
    return _svg(y, lines)


def _walls(panel: Panel, results: Mapping[str, Result]) -> Iterator[tuple[str, float]]:
    for program, shown in panel.programs.items():
        for name in panel.workloads:
            if name in results and program in results[name].runs:
                yield shown, results[name].median(program).wall
                break


def _where(results: Sequence[Result]) -> str:
    machine = results[0].machine
    dates = sorted({result.date for result in results})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}, {when}."


class Line(NamedTuple):
    """The growth of a cost: `workloads` by their number of files."""

    shown: str
    workloads: Mapping[int, str]
    program: str
    style: str


STEPS = {9_000: "-9k", 90_000: "-90k", 900_000: ""}
PLANNING = {9_000: "-9k", 90_000: "-90k", 900_000: "-900k", 9_000_000: "-9m"}
LINES = (
    Line("1 % changed", {n: f"changed{s}" for n, s in STEPS.items()}, "mirror sync", "b"),
    Line("none changed", {n: f"no-change{s}" for n, s in STEPS.items()}, "mirror sync", "a"),
    Line("find -printf", {n: f"no-change{s}" for n, s in STEPS.items()}, "find -printf", "c"),
    Line("planning", {n: f"planning{s}" for n, s in PLANNING.items()}, "none changed", "d"),
)
PLOT_HEIGHT = 250


class Plot(NamedTuple):
    """The place of a plot, its scale, and the format of its figures."""

    measure: str
    left: int
    title: str
    ticks: Sequence[float]
    shown: Callable[[float], str]


def growth(results: Mapping[str, Result]) -> str:
    """Draw wall time and peak memory by the number of files, on logarithmic scales."""
    lines = [
        *_plot(results, Plot("wall", 64, "Seconds", (0.01, 0.1, 1.0, 10.0, 100.0), _seconds)),
        *_plot(results, Plot("peak", 440, "Memory", (10e6, 100e6, 1e9, 10e9), _megabytes)),
    ]
    known = [results[n] for line in LINES for n in line.workloads.values() if n in results]
    if known:
        caption = f"By the number of files in the cache. {_where(known)}"
        lines.append(_text(16, PLOT_HEIGHT + 94, caption, "note"))
    return _svg(PLOT_HEIGHT + 106, lines)


def _plot(results: Mapping[str, Result], plot: Plot) -> Iterator[str]:
    measure, left, title, ticks, shown = plot
    drawn = {line.shown: list(_points(line, results, measure)) for line in LINES}
    values = [value for points in drawn.values() for _, value in points]
    if not values:
        return
    ticks = [t for t in ticks if min(values) / 10 < t < max(values) * 10]
    low, high = math.log10(min(ticks[0], *values)), math.log10(ticks[-1])
    counts = sorted({count for points in drawn.values() for count, _ in points})
    first, last = math.log10(counts[0]), math.log10(counts[-1])
    top, width = 36, 160

    def x(count: int) -> float:
        return left + (math.log10(count) - first) / ((last - first) or 1) * width

    def y(value: float) -> float:
        return top + PLOT_HEIGHT * (1 - (math.log10(value) - low) / ((high - low) or 1))

    yield _text(left, 20, title, "title")
    for tick in ticks:
        yield f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        yield _text(left - 8, y(tick) + 4, shown(tick), "note end")
    for count in counts:
        yield _text(x(count), top + PLOT_HEIGHT + 20, _thousands(count), "note middle")
    labels: list[tuple[float, str, str]] = []
    for line in LINES:
        points = drawn[line.shown]
        if not points:
            continue
        path = " ".join(f"{x(count):.1f},{y(value):.1f}" for count, value in points)
        yield f'<polyline class="line {line.style}" points="{path}"/>'
        for count, value in points:
            yield f'<circle class="{line.style}" cx="{x(count):.1f}" cy="{y(value):.1f}" r="3.5"/>'
        most = points[-1][1]
        labels.append((y(most) + 4, f"{line.shown} {shown(most)}", line.style))
    # From the top down, without overlaps.
    free = 0.0
    for at, label, style in sorted(labels):
        yield _text(left + width + 10, max(at, free), label, style)
        free = max(at, free) + 16


def _points(line: Line, results: Mapping[str, Result], measure: str) -> Iterator[tuple[int, float]]:
    for count, name in line.workloads.items():
        if name in results and line.program in results[name].runs:
            yield count, getattr(results[name].median(line.program), measure)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def _thousands(count: int) -> str:
    return f"{count // 1_000_000} M" if count >= 1_000_000 else f"{count // 1000} k"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:,.0f} MB"


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:.1f}" class="{style}">{escape(text)}</text>'


# A chart opened by itself has the browser's page behind it, which stays white in dark mode.
_PAGE = '<rect class="page" width="100%" height="100%"/>'


def _svg(height: float, lines: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}">'
    return "\n".join([head, STYLE, _PAGE, *lines, "</svg>", ""])
