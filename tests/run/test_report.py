"""`Report`: frozen, the values of `--json`, and readable."""

from __future__ import annotations

import pickle

import pytest

from mirror import Report

VALUES = {
    "scanned": 1408,
    "new": 0,
    "flagged": {"blank": 20, "corrupt": 0},
    "failures": [{"path": "a<b>.jpg", "reason": "cut short"}],
    "seconds": 0.7,
    "dry_run": False,
    "exit_status": 3,
}


@pytest.fixture
def report() -> Report:
    return Report("sync", VALUES, 3)


def test_its_values_are_attributes(report: Report) -> None:
    assert report.scanned == 1408
    assert report.flagged["blank"] == 20
    assert report.exit_status == 3
    assert not report.succeeded
    assert Report("sync", {}).succeeded
    assert {"scanned", "flagged", "as_dict"} <= set(dir(report))
    with pytest.raises(AttributeError, match="no 'uploadd'"):
        _ = report.uploadd


def test_it_cannot_be_changed(report: Report) -> None:
    with pytest.raises(AttributeError, match="cannot be changed"):
        report.scanned = 1
    with pytest.raises(AttributeError, match="cannot be changed"):
        del report.command
    report.flagged["blank"] = 0
    report.as_dict()["failures"].clear()
    assert report.as_dict() == VALUES


def test_it_shares_nothing_with_the_run() -> None:
    values = {"flagged": {"blank": 1}}
    report = Report("sync", values)
    values["flagged"]["blank"] = 2
    assert report.flagged == {"blank": 1}


def test_it_pickles_and_compares_by_value(report: Report) -> None:
    assert pickle.loads(pickle.dumps(report)) == report
    assert report != Report("sync", VALUES, 0)
    assert report != VALUES


def test_what_is_empty_or_zero_is_not_shown(report: Report) -> None:
    assert repr(report) == (
        "<sync: exit_status=3, scanned=1,408, flagged={blank: 20}, failures=1 item, seconds=0.7>"
    )


def test_a_notebook_shows_a_table() -> None:
    shown = Report("sync", {"url": "a<b>", "empty": []})._repr_html_()
    assert shown.startswith("<table>")
    assert "a&lt;b&gt;" in shown
    assert "empty" not in shown
