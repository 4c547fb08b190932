"""`mirror verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import bucket_flags, bucket_options, concurrency_option, parsed
from mirror.cli.reporting import reporting, reporting_options
from mirror.cli.session import Session, session_options
from mirror.config.option_values import parse_share
from mirror.system.display_text import format_size, plural

if TYPE_CHECKING:
    from mirror.cli.views.upkeep_view import Row
    from mirror.upkeep.verify import VerifyOptions, VerifyReport


# How far to look, and where to write the problems: for verify and repair.
depth_options = section(
    "How far to look",
    click.option(
        "--exists", is_flag=True, help="Compare one listing with the catalog: the default."
    ),
    click.option(
        "--sample",
        metavar="SHARE",
        callback=parsed(parse_share),
        help="Also read back this share of the objects, such as 1%.",
    ),
    click.option("--full", is_flag=True, help="Also read back and hash every object."),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        metavar="N",
        help="Choose the sample by this seed; without it each run takes another.",
    ),
    click.option(
        "--restart", is_flag=True, help="Start over, instead of resuming an interrupted reading."
    ),
    click.option(
        "--report",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write every problem to this file, one JSON object a line.",
    ),
)


def depth_asked(options: dict[str, Any]) -> VerifyOptions:
    """The values of `depth_options`. Raises: UsageError."""
    from mirror.upkeep.verify import VerifyOptions

    names = ("exists", "sample", "full", "seed", "restart", "report")
    return VerifyOptions.of(**{name: options[name] for name in names})


@click.command("verify", cls=SectionedCommand)
@bucket_options
@depth_options
@concurrency_option
@reporting_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Check that the mirror holds what its catalog says.

    No object is changed. --full adds the perceptual hashes that the catalog lacks, if the key may
    write. An interrupted reading resumes where it stopped.
    The exit status is 3 if an object is missing, differs from the catalog or cannot be read, or if
    there are orphans that gc would delete.

    \b
    Examples:
      mirror verify                        # one listing: every object exists, with its size
      mirror verify --sample 1%            # also read back one object in a hundred
      mirror verify --full --report wrong.jsonl
    """
    from mirror.cli.views.upkeep_view import show
    from mirror.upkeep.verify import verify

    with reporting(session, "verify", options) as run:
        asked = depth_asked(options)
        run.settings = session.settings(
            {**bucket_flags(options), "sync.concurrency": options["concurrency"]}
        )
        with run.progress() as progress:
            report = verify(run.settings, asked, progress=progress)
        run.ended(report.exit_status, report.as_json())
    show(session, report, rows(report), closing(report))
    return report.exit_status


def rows(report: VerifyReport) -> list[Row]:
    from mirror.cli import output
    from mirror.cli.views.upkeep_view import trouble

    found: list[Row] = [
        ("checked", output.count(report.checked), f"against version {report.catalog_version}")
    ]
    if report.share:
        resumed = f", {report.resumed:,} of them by earlier runs" if report.resumed else ""
        found.append(("read back", output.count(report.read), format_size(report.bytes) + resumed))
    named_by = plural(report.rows_without_object, "row") + " name a missing object"
    found += [
        ("missing", output.count(report.missing), named_by if report.rows_without_object else ""),
        ("mismatched", output.count(report.mismatched), ""),
        ("orphaned", output.count(report.orphaned), _orphans(report)),
    ]
    found += trouble("flagged", report.flagged, "kept, though their rows are flagged")
    found += trouble("not read", report.failed)
    if report.hashed:
        found.append(("hashed", output.count(report.hashed), "perceptual hashes were missing"))
    return found


def _orphans(report: VerifyReport) -> str:

    if not report.orphaned:
        return ""
    old = (
        f", {report.old_orphans:,} for gc to delete" if report.old_orphans else ", none for gc yet"
    )
    return format_size(report.orphaned_bytes) + old


def closing(report: VerifyReport) -> str:
    if report.missing or report.mismatched:
        return "mirror repair restores what a cache still has."
    if report.old_orphans:
        return "mirror gc deletes unreferenced objects."
    return ""
