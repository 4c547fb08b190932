"""`mirror gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import bucket_flags, bucket_options, concurrency_option
from mirror.cli.reporting import reporting, reporting_options
from mirror.cli.session import Session, session_options
from mirror.system.display_text import format_size

if TYPE_CHECKING:
    from mirror.cli.views.upkeep_view import Row
    from mirror.upkeep.gc import GcReport


@click.command("gc", cls=SectionedCommand)
@bucket_options
@section(
    "What to delete",
    click.option("-n", "--dry-run", is_flag=True, help="Show the plan; delete nothing."),
    click.option(
        "--max-delete",
        default="50%",
        show_default=True,
        metavar="N|SHARE%|all",
        help="Refuse a plan that deletes more objects than this number or share of all.",
    ),
    click.option(
        "--grace-days",
        type=click.FloatRange(min=0),
        metavar="DAYS",
        help="Keep objects that were written or referenced within this time [gc.grace_days].",
    ),
    click.option(
        "--flagged", is_flag=True, help="Also delete objects that only flagged rows reference."
    ),
)
@concurrency_option
@reporting_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Delete unreferenced objects: those that no row of the catalog has named for a while.

    Also deletes replaced data files of the catalog and uploads that were never completed. Only what
    is older than the grace period goes, by the store's own clock. Other machines may sync meanwhile.
    A dataset rewritten before a URL got new content may still refer to a deleted object.

    \b
    Examples:
      mirror gc --dry-run
      mirror gc                            # from cron, once a week
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
    closing = "Dry run: nothing was deleted." if report.dry_run else ""
    show(session, report, _rows(report), closing)
    return report.exit_status


def _rows(report: GcReport) -> list[Row]:
    from mirror.cli import output
    from mirror.cli.views.upkeep_view import trouble

    rows: list[Row] = [
        ("checked", output.count(report.checked), "objects listed"),
        ("orphaned", output.count(report.orphaned), "no live row names them"),
    ]
    rows += trouble("  young", report.young, "written within the grace period")
    rows += trouble(
        "  named recently", report.named_recently, "a row named them within the grace period"
    )
    rows += trouble("  strangers", report.strangers, "not objects of this mirror; left alone")
    rows += trouble(
        "flagged", report.flagged, "only flagged rows name them; --flagged deletes them"
    )
    rows += [("planned", output.count(report.planned), format_size(report.planned_bytes))]
    rows += trouble("  catalog files", report.catalog_files, format_size(report.catalog_bytes))
    rows += trouble("  uploads", report.uploads or 0, "started and never completed")
    if not report.dry_run:
        rows += [("deleted", output.count(report.deleted), format_size(report.bytes))]
        rows += trouble("spared", report.spared, "written or named again meanwhile")
    return rows
