"""`mirror quarantine`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.commands.inspect import settings_of
from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import WHAT_TO_READ, cache_option, known_bad_option, level_option
from mirror.cli.session import Session, session_options
from mirror.system.display_text import format_size, plural

if TYPE_CHECKING:
    from mirror.inspection.quarantine import QuarantineReport


@click.command("quarantine", cls=SectionedCommand)
@section(WHAT_TO_READ, cache_option)
@level_option
@known_bad_option
@section(
    "What to move",
    click.option(
        "--to",
        "folder",
        metavar="DIR",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="The folder for flagged files; --restore moves them back from it.",
    ),
    click.option("--restore", is_flag=True, help="Move the files back into the cache."),
    click.option("--yes", is_flag=True, help="Move files; without it, only show what would move."),
)
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Move flagged files out of the cache into a folder, or back. Nothing is ever deleted.

    Files keep their paths, and manifest.jsonl in the folder says why each was flagged. Nothing is
    overwritten: a file whose place is taken stays and is listed, and the exit status is 3. Without
    --yes this is a dry run.

    \b
    Examples:
      mirror quarantine --cache /data/image_cache --to /data/flagged
      mirror quarantine --to /data/flagged --yes
      mirror quarantine --to /data/flagged --restore --yes
    """
    from mirror.inspection.inspect_cache import inspection_arguments
    from mirror.inspection.quarantine import quarantine, restore

    settings = settings_of(session, options)
    folder, dry_run = options["folder"].absolute(), not options["yes"]
    if options["restore"]:
        report = restore(os.fsencode(settings.cache_dir), folder, dry_run=dry_run)
    else:
        arguments = inspection_arguments(settings, options["level"])
        with session.progress() as progress:
            report = quarantine(**arguments, folder=folder, dry_run=dry_run, progress=progress)
    _show(session, report, restoring=options["restore"], folder=options["folder"])
    return report.exit_status


def _show(session: Session, report: QuarantineReport, *, restoring: bool, folder: Path) -> None:
    from mirror.cli import output

    left = report.skipped + report.failed
    output.listing(
        f"{plural(left, 'file')} left alone:" if left else "",
        [f"{path}: {reason}" for path, reason in report.failures],
    )
    if session.concluded(report.as_json()):
        return
    done = report.restored if restoring else report.moved
    what = "restored" if restoring else "moved"
    rows = [("checked", output.count(report.checked), "")]
    rows += [
        (
            f"would be {what}" if report.dry_run else what,
            output.count(done),
            format_size(report.bytes),
        )
    ]
    rows += [(f"  {name}", output.count(n), "") for name, n in sorted(report.verdicts.items())]
    rows += [("skipped", output.count(report.skipped), "")] if report.skipped else []
    rows += [("failed", output.count(report.failed), "")] if report.failed else []
    if restoring and report.absent:
        rows += [("not there", output.count(report.absent), "restored before, or removed")]
    output.table(rows)
    if session.verbosity > 0 or report.dry_run:
        for path in report.examples:
            output.echo(f"  {path}")
        if done > len(report.examples):
            output.echo(f"  and {output.count(done - len(report.examples))} more")
    if report.dry_run:
        output.echo(
            f"Dry run: nothing was moved. Add --yes to move the files; the folder is {folder}."
        )
    else:
        output.echo(f"Manifest: {report.manifest}")
