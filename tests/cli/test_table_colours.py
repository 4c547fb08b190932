"""Flagged and failed rows of a summary are coloured for a terminal only."""

from __future__ import annotations

import click
import pytest

from mirror.cli import output

ROWS = [("new", "3"), ("flagged", "2", "blank 2"), ("failed", "0")]


@pytest.mark.parametrize("colour", [True, False, None])
def test_only_rows_with_trouble_are_coloured(
    colour: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with click.Context(click.Command("sync"), color=colour):
        output.table(ROWS)
    new, flagged, failed = capsys.readouterr().out.splitlines()
    assert click.unstyle(flagged) == "flagged  2  blank 2"
    assert (flagged == click.style("flagged  2  blank 2", fg="yellow")) is (colour is True)
    assert (new, failed) == ("new      3", "failed   0")
