"""`mirror inspect`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    OUTPUT,
    WHAT_TO_READ,
    cache_option,
    known_bad_option,
    level_option,
)
from mirror.cli.session import Session, session_options
from mirror.errors import UsageError
from mirror.system.display_text import format_size, plural

if TYPE_CHECKING:
    from mirror.config.settings import Settings
    from mirror.inspection.inspect_cache import Findings

# In the table: reasons of one verdict, and names of one reason.
_REASONS = 8
_NAMES = 3


@click.command("inspect", cls=SectionedCommand)
@section(WHAT_TO_READ, cache_option)
@level_option
@known_bad_option
@section(
    OUTPUT,
    click.option(
        "--csv",
        "csv_file",
        metavar="FILE",
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        help="List all files with their verdicts; - is standard output.",
    ),
    click.option(
        "--sheet",
        metavar="FILE.html",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write one HTML page with a thumbnail of every flagged file.",
    ),
)
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Judge every file of the cache: ok, blank, corrupt, not an image, or a placeholder.

    Reads the cache, changes nothing and needs no bucket. Flagged files are a result, not a failure:
    the exit status is 0, or 3 if files could not be read.

    \b
    Examples:
      mirror inspect --cache /data/image_cache
      mirror inspect --sheet flagged.html        # open it in a browser
      mirror inspect --csv - | grep -v ',ok,'
    """
    from mirror.inspection.inspect_cache import inspect_cache, inspection_arguments
    from mirror.inspection.inspection_report import InspectionReport, opened_page, write_findings

    csv_file: Path | None = options["csv_file"]
    to_stdout = csv_file is not None and str(csv_file) == "-"
    if to_stdout and session.json:
        raise UsageError("--csv - and --json both want standard output; name a file for the CSV.")
    began_at = time.monotonic()
    settings = settings_of(session, options)
    with ExitStack() as stack:
        outputs = stack.enter_context(ExitStack())
        # Opened first: an hour of work must not end at a file that cannot be written.
        csv_page = opened_page(None if to_stdout else csv_file, ".csv")
        csv_out = sys.stdout if to_stdout else outputs.enter_context(csv_page)
        sheet_out = outputs.enter_context(opened_page(options["sheet"], ".html", ".htm"))
        with session.progress() as progress:
            arguments = inspection_arguments(settings, options["level"])
            findings = stack.enter_context(inspect_cache(**arguments, progress=progress))
        write_findings(findings, settings.cache_dir, options["level"], csv_out, sheet_out)
        outputs.close()  # writes the last bytes: a full disk must be told in place of "Written:"
        report = InspectionReport.of(findings, time.monotonic() - began_at)
        if not session.json and not to_stdout and session.verbosity >= 0:
            _show(findings, time.monotonic() - began_at, csv_file, options["sheet"])
        list_failures(findings)
    if session.json:
        session.print_json(report.as_json())
    return report.exit_status


def settings_of(session: Session, options: dict[str, Any]) -> Settings:
    return session.settings(
        {"cache.dir": options["cache"], "inspect.known_bad": options["known_bad"]}
    )


def _show(findings: Findings, seconds: float, csv_file: Path | None, sheet: Path | None) -> None:
    from mirror.cli import output

    rows = [
        ("checked", output.count(findings.checked), f"{findings.ignored:,} other files ignored")
    ]
    rows += [("  ok", output.count(findings.counts["ok"]), "")]
    rows += verdict_rows(findings)
    rows += [("failed", output.count(findings.failed), "")] if findings.failed else []
    rows += [("took", output.duration(seconds), format_size(findings.bytes))]
    output.table(rows)
    for path in (csv_file, sheet):
        if path is not None:
            output.echo(f"Written: {path}")


def verdict_rows(findings: Findings) -> list[tuple[str, str, str]]:
    """The rows of a table: each verdict, and below it its reasons with a few names."""
    from mirror.cli import output
    from mirror.content.image import VERDICTS
    from mirror.inspection.inspect_cache import shown

    groups = findings.groups()
    rows = []
    for verdict in VERDICTS[1:]:
        rows.append((f"  {verdict}", output.count(findings.counts[verdict]), ""))
        mine = [group for group in groups if group.verdict == verdict]
        for group in mine[:_REASONS]:
            names = [shown(path) for path in findings.paths(group, limit=_NAMES)]
            rest = group.files - len(names)
            names += [f"and {rest:,} more"] if rest else []
            rows.append(("", output.count(group.files), group.reason))
            rows += [("", "", f"  {name}") for name in names]
        if left := mine[_REASONS:]:
            files = sum(group.files for group in left)
            rows.append(("", output.count(files), f"with {len(left):,} other reasons"))
    return rows


def list_failures(findings: Findings) -> None:
    from mirror.cli import output

    output.listing(
        f"{plural(findings.failed, 'file')} could not be read:" if findings.failed else "",
        [f"{path}: {reason}" for path, reason in findings.failures],
    )
