"""`mirror gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mirror.cli.options import bucket_flags, bucket_options, concurrency_option
from mirror.cli.reporting import reporting, reporting_options
from mirror.cli.session import Session, session_options

if TYPE_CHECKING:
    from mirror.cli.views.upkeep_view import Row
    from mirror.upkeep.gc import GcReport


@click.command("gc")
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan; remove nothing.")
@click.option(
    "--max-delete",
    default="50%",
    show_default=True,
    metavar="N|SHARE%|all",
    help="Refuse a plan that deletes more objects than so many, or than such a share of all.",
)
@click.option(
    "--grace-days",
    type=click.FloatRange(min=0),
    help="Nothing goes that was written, or named by a row, within so many days [gc.grace_days].",
)
@click.option(
    "--flagged", is_flag=True, help="Remove objects as well of which only flagged rows tell."
)
@bucket_options
@concurrency_option
@reporting_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Remove from the bucket what no row of the catalog names any more, and has not for a while.

    Objects, data files that the catalog has replaced, and uploads that were never completed; only
    what is older than the grace period by the store's own clock. It may run while others sync.
    A dataset that was rewritten before a URL got other content may still name what goes.

    \b
    Examples:
      mirror gc --dry-run
      mirror gc                            # the same from cron, once a week
      mirror gc --max-delete 1000
    """
    from mirror.cli.views.upkeep_view import show
    from mirror.upkeep.change_limit import ChangeLimit
    from mirror.upkeep.gc import GcOptions, gc

    with reporting(session, "gc", options, silent=options["dry_run"]) as run:
        run.settings = session.settings(
            {
                **bucket_flags(options),
                "sync.concurrency": options["concurrency"],
                "gc.grace_days": options["grace_days"],
            }
        )
        asked = GcOptions(
            dry_run=options["dry_run"],
            limit=ChangeLimit.parse(options["max_delete"], "--max-delete"),
            flagged=options["flagged"],
        )
        with run.progress() as progress:
            report = gc(run.settings, asked, progress=progress)
        run.ended(report.exit_status, report.as_json())
    closing = "Dry run: nothing was removed." if report.dry_run else ""
    show(session, report, _rows(report), closing)
    return report.exit_status


def _rows(report: GcReport) -> list[Row]:
    from mirror.cli import output
    from mirror.cli.views.upkeep_view import trouble

    rows: list[Row] = [
        ("checked", output.count(report.checked), "objects listed"),
        ("orphaned", output.count(report.orphaned), "named by no live row"),
    ]
    rows += trouble("  young", report.young, "written within the grace period")
    rows += trouble("  named lately", report.named_recently, "by a row within the grace period")
    rows += trouble("  strangers", report.strangers, "no object's name; left alone")
    rows += trouble("flagged", report.flagged, "of flagged rows only; --flagged removes them")
    rows += [("planned", output.count(report.planned), output.size(report.planned_bytes))]
    rows += trouble("  catalog files", report.catalog_files, output.size(report.catalog_bytes))
    rows += trouble("  uploads", report.uploads or 0, "begun and never completed")
    if not report.dry_run:
        rows += [("deleted", output.count(report.deleted), output.size(report.bytes))]
        rows += trouble("spared", report.spared, "written anew or named meanwhile")
    return rows
