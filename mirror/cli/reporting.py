"""Reports of an unattended run: metrics in a file, and pings to a monitor.

A command that may run unattended takes `reporting_options` and does its work inside `reporting`:

    with reporting(session, "sync", options) as run:
        run.settings = session.settings(…)
        with run.progress() as progress:
            report = sync(run.settings, …, progress=progress)
        run.ended(report.exit_status, report.as_json())

`{command}` in the file's name or the address stands for the command's name. One environment then
serves several commands, and a monitor can tell a sync that stopped from a verify that did not.

Neither the file nor the monitor can fail the run: a problem with them is a warning.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from mirror.cli.help_sections import section
from mirror.cli.log import say
from mirror.cli.session import Session
from mirror.errors import EXIT_BUSY, EXIT_DONE, EXIT_ERROR, EXIT_INTERRUPTED, MirrorError

if TYPE_CHECKING:
    from mirror.config.settings import Settings
    from mirror.run.progress import Progress


def _web_address(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    try:
        is_one = value is None or (urlsplit(value).scheme in ("http", "https") and "//" in value)
    except ValueError:  # such as a bracket without its end
        is_one = False
    if not is_one:
        raise click.BadParameter("write a web address, http:// or https://.")
    return value


reporting_options = section(
    "Monitoring",
    click.option(
        "--metrics-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        envvar="MIRROR_METRICS_FILE",
        help="Write metrics of the run for node-exporter's textfile collector; {command} stands "
        "for the command's name [MIRROR_METRICS_FILE].",
    ),
    click.option(
        "--ping",
        metavar="URL",
        envvar="MIRROR_PING",
        callback=_web_address,
        help="Report the run's start and end to a monitor such as healthchecks.io; {command} "
        "stands for the command's name [MIRROR_PING].",
    ),
)


class Run:
    """A run that is reported on. The command sets `settings` and calls `ended`.

    Attributes:
        settings: bucket and cache are labels of the metrics. While it is None no metrics are
            written: they could not be told from those of another mirror.
    """

    def __init__(self, session: Session, ping: str | None, successes: Collection[int]) -> None:
        self._session = session
        self._successes = successes
        self._ping = ping
        self.settings: Settings | None = None
        self.exit_status: int = EXIT_ERROR
        self.report: Mapping[str, Any] = {}
        self.error = ""

    def progress(self) -> AbstractContextManager[Progress]:
        """The view of this run's progress; the monitor hears when the work begins."""
        return self._session.progress(started=partial(self._send, "start", ""))

    def ended(self, exit_status: int, report: Mapping[str, Any]) -> None:
        """Note that the work is done. `report` is the object of `--json`."""
        self.exit_status, self.report = exit_status, self._session.named(report)

    def broke(self, error: BaseException) -> None:
        """Note that an error ended the run."""
        self.error = str(error)
        if isinstance(error, MirrorError):
            self.exit_status = error.exit_status
        elif isinstance(error, (KeyboardInterrupt, click.Abort)):
            self.exit_status = EXIT_INTERRUPTED
        else:
            self.exit_status = EXIT_ERROR

    @property
    def succeeded(self) -> bool:
        return self.exit_status in self._successes

    def notify_monitor(self) -> None:
        # Busy: the run that holds the lock reports its own end; this one never began.
        if self.exit_status != EXIT_BUSY:
            self._send(str(EXIT_DONE if self.succeeded else self.exit_status), self._log())

    def _log(self) -> str:
        head = f"run {self._session.run_id}: exit status {self.exit_status}"
        report = json.dumps(self.report, indent=2, ensure_ascii=False) if self.report else ""
        return "\n".join(filter(None, [head, self.error, report]))

    def _send(self, signal: str, body: str) -> None:
        if self._ping is None:
            return
        from mirror.cli.ping import ping

        if (trouble := ping(self._ping, signal, self._session.run_id, body)) is not None:
            host = urlsplit(self._ping).hostname
            say(f"The monitor at {host} did not hear of this run: {trouble}.", "warning")


@contextmanager
def reporting(
    session: Session,
    command: str,
    options: Mapping[str, Any],
    *,
    silent: bool = False,
    successes: Collection[int] = (EXIT_DONE,),
) -> Iterator[Run]:
    """Report on the work of the block as `options` ask for it; errors pass through.

    Args:
        session: gives the reports its run id.
        command: the command's name, a label of the metrics.
        options: the values of `reporting_options`.
        silent: report nothing; for a dry run.
        successes: exit statuses of a run that did its work and must not alert anybody.
    """
    path, ping = (
        str(options[name]).replace("{command}", command) if options[name] and not silent else None
        for name in ("metrics_file", "ping")
    )
    run = Run(session, ping, successes)
    began_at = time.monotonic()
    try:
        yield run
    except BaseException as error:
        run.broke(error)
        raise
    finally:
        if path is not None and run.exit_status != EXIT_BUSY:
            _write_metrics(Path(path), command, run, time.monotonic() - began_at)
        run.notify_monitor()


def _write_metrics(path: Path, command: str, run: Run, seconds: float) -> None:
    from mirror.run.metrics import FinishedRun, write

    if run.settings is None:
        return
    bucket, cache = run.settings.bucket.url or "", run.settings.cache.dir or ""
    labels = {"command": command, "bucket": bucket, "cache": cache}
    try:
        status, ended_at = run.exit_status, time.time()
        write(path, FinishedRun(labels, status, ended_at, seconds, run.report, run.succeeded))
    except (OSError, MirrorError) as error:
        say(f"The metrics of this run are not in {path}: {error}", "warning")
