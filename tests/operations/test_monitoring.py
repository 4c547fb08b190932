"""Alerts and dashboard: every expression is valid PromQL over metrics that a run writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import promql_parser
import pytest
import yaml

from mirror.backfill.backfill_report import BackfillReport
from mirror.cli.main import COMMANDS, mirror
from mirror.run.metrics import HELP, FinishedRun, samples
from mirror.sync.sync_report import SyncReport
from mirror.upkeep.gc import GcReport
from mirror.upkeep.pull import PullReport
from mirror.upkeep.verify import VerifyReport

CONFIG = Path(__file__).resolve().parents[2] / "config"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((CONFIG / "prometheus" / "mirror.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((CONFIG / "grafana" / "mirror.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
# Labels that Prometheus adds, and labels that a run writes.
LABELS = {"instance", "command", "bucket", "cache", "outcome", "reason", "operation"}


def assert_ours(expression: str) -> None:
    # Grafana replaces its variables with values; the test uses any word.
    promql_parser.parse(re.sub(r"\$\w+", "word", expression))
    metrics = set(re.findall(r"\bmirror_\w+", expression))
    assert metrics
    assert metrics <= HELP.keys()
    for inside in re.findall(r"\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|=)", inside)) <= LABELS
    for inside in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(inside.split(", ")) <= LABELS
    commands = {name for names in _values("command", expression) for name in names.split("|")}
    known = {
        key
        for name, keys in COUNTED.items()
        for key in keys
        if not commands & COUNTED.keys() or name in commands
    }
    for outcome in (name for names in _values("outcome", expression) for name in names.split("|")):
        assert outcome in known


def _values(label: str, expression: str) -> set[str]:
    return set(re.findall(rf'{label}=~?"([\w|]+)"', expression))


# The counts of the commands with metrics.
COUNTED = {
    "sync": SyncReport("x").as_json().keys(),
    "backfill": BackfillReport("x").as_json().keys(),
    "verify": VerifyReport().as_json().keys(),
    "gc": GcReport().as_json().keys(),
    "pull": PullReport().as_json().keys(),
}


def test_the_commands_that_report_are_these() -> None:
    found = {}
    for name in COMMANDS:
        command = mirror.get_command(click.Context(mirror), name)
        assert command is not None
        found[name] = {parameter.name for parameter in command.params}
    assert COUNTED.keys() == {name for name, words in found.items() if "ping" in words}
    assert COUNTED.keys() == {name for name, words in found.items() if "metrics_file" in words}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_uses_our_metrics_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert_ours(rule["expr"])
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    used = set(re.findall(r"\$labels\.(\w+)", f"{summary} {description}"))
    assert used <= LABELS
    aggregated = re.match(r"sum by \(([^)]*)\)", rule["expr"])
    if aggregated:
        assert used <= set(aggregated[1].split(", ")), "a label that the sum has dropped"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_uses_our_metrics(panel: dict[str, Any]) -> None:
    assert panel["description"]
    for target in panel["targets"]:
        assert_ours(target["expr"])
        used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert used <= LABELS


def test_panels_do_not_overlap_and_have_distinct_ids() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_metric_is_drawn_and_every_variable_is_used() -> None:
    text = json.dumps(PANELS)
    drawn = {name for name in HELP if name in text}
    assert HELP.keys() - drawn == {"mirror_run_timestamp_seconds"}, "which only the variables ask"
    for variable in DASHBOARD["templating"]["list"]:
        assert f"${variable['name']}" in text or f"${{{variable['name']}}}" in text


def test_the_metrics_of_a_sync_are_complete() -> None:
    report = SyncReport("x", catalog_version=3)
    told = {
        sample.name
        for sample in samples(FinishedRun({}, 0, 1.0, 1.0, report.as_json(), succeeded=True))
    }
    assert told == HELP.keys()
