"""What every command shares: the configuration, how much to show, and the options for both."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import GENERAL, section
from mirror.cli.log import Style, say, set_style
from mirror.run.run_id import new_run_id
from mirror.system.display_text import printable_json

if TYPE_CHECKING:
    from mirror.config.settings import Settings
    from mirror.run.progress import Progress


@dataclass
class Session:
    """One call of `mirror`.

    Attributes:
        verbosity: -1 quiet, 0, 1 verbose, 2 with tracebacks.
        run_id: names this call in its report, its log, the local state and the monitoring.
    """

    config: Path | None = None
    json: bool = False
    verbosity: int = 0
    run_id: str = field(default_factory=new_run_id)

    def settings(self, flags: dict[str, Any], *, warn: bool = True) -> Settings:
        """Load all layers of the configuration, and warn of addresses without encryption.

        A command calls it once. The doctor has a finding instead of the warning.

        Args:
            flags: dotted keys, which override the other layers.
            warn: print the warning.
        """
        from mirror.config.loading import load
        from mirror.system.open_files import raise_limit

        settings = load(config=self.config, flags=flags)
        raise_limit(max(settings.sync.concurrency, settings.fetch.concurrency))
        if warn:
            warn_of_plain_http(settings)
        return settings

    def progress(
        self, started: Callable[[], object] = lambda: None
    ) -> AbstractContextManager[Progress]:
        """The view of a run's progress on standard error."""
        from mirror.cli.views.terminal_progress import terminal_progress

        return terminal_progress(self.verbosity, started=started)

    def named(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """The report with the id of this run in it."""
        return {"run_id": self.run_id, **report}

    def concluded(self, report: dict[str, Any]) -> bool:
        """Print the report as JSON if `--json` was given.

        Returns:
            Whether there is nothing left to print: the output is JSON, or the command is quiet.
        """
        if self.json:
            self.print_json(report)
        return self.json or self.verbosity < 0

    def print_json(self, value: dict[str, Any]) -> None:
        """Print the one JSON object of `--json` on standard output."""
        import msgspec

        from mirror.run.report_json import encoded

        text = msgspec.json.format(encoded(value), indent=2).decode()
        sys.stdout.write(printable_json(text) + "\n")
        sys.stdout.flush()


def warn_of_plain_http(settings: Settings) -> None:
    """Say on standard error which addresses of the bucket are not encrypted."""
    for key in settings.unencrypted:
        say(
            f"{key} begins with http://, so the network can read and change every request; "
            "use https://.",
            "warning",
        )


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    session = ctx.find_object(Session)
    if session is None or not value:
        return
    if param.name == "config":
        session.config = value
    elif param.name == "json":
        session.json = True
    elif param.name == "log_format":
        set_style(Style(value, session.run_id))
    elif param.name == "quiet":
        session.verbosity = -1
    else:
        session.verbosity = value


_option = partial(click.option, callback=_remember, expose_value=False)

# They may stand before the command's name or after it.
session_options = section(
    GENERAL,
    _option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Read this configuration file and no other.",
    ),
    _option(
        "--json",
        is_flag=True,
        help="Print one JSON object on standard output instead of tables.",
    ),
    _option("-q", "--quiet", is_flag=True, help="Show warnings and errors only."),
    _option("-v", "--verbose", count=True, help="Show more; -vv adds tracebacks."),
    _option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        help="Lines on standard error: sentences, or JSON with the time and the run's id.",
    ),
)
