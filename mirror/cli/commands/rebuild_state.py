"""`mirror rebuild-state`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    WHAT_TO_READ,
    bucket_flags,
    bucket_options,
    cache_option,
    concurrency_option,
)
from mirror.cli.session import Session, session_options
from mirror.system.display_text import format_size

if TYPE_CHECKING:
    from mirror.cli.views.upkeep_view import Row
    from mirror.sync.rebuild import RebuildReport


@click.command("rebuild-state", cls=SectionedCommand)
@section(
    WHAT_TO_READ,
    cache_option,
    click.option(
        "--inspect",
        type=click.Choice(["decode", "header", "off"]),
        help="How thoroughly to inspect each image [sync.inspect].",
    ),
    click.option(
        "--restart", is_flag=True, help="Start over, instead of resuming an interrupted run."
    ),
)
@bucket_options
@concurrency_option
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Rebuild the local state from the bucket and the cache, when it is in doubt.

    Reads every file of the cache and lists the bucket. Uploads nothing and adds no catalog rows.
    The state then knows the files that the mirror holds as its catalog says; the next sync looks at
    the others. Within a day an interrupted run is resumed and reads no file twice.

    \b
    Examples:
      mirror rebuild-state
      mirror rebuild-state --restart       # read every file again
      mirror rebuild-state --inspect off   # hashes only
    """
    from mirror.cli.views.upkeep_view import show
    from mirror.sync.rebuild import rebuild_state

    settings = session.settings(
        {
            "cache.dir": options["cache"],
            **bucket_flags(options),
            "sync.inspect": options["inspect"],
            "sync.concurrency": options["concurrency"],
        }
    )
    with session.progress() as progress:
        report = rebuild_state(settings, progress=progress, restart=options["restart"])
    closing = "mirror repair restores what is missing." if report.missing else ""
    show(session, report, _rows(report), closing)
    return report.exit_status


def _rows(report: RebuildReport) -> list[Row]:
    from mirror.cli import output
    from mirror.cli.views.upkeep_view import trouble

    rows: list[Row] = [
        ("checked", output.count(report.checked), f"{report.ignored:,} other files ignored"),
        ("  read", output.count(report.read), format_size(report.bytes)),
        ("  known", output.count(report.known), "the mirror holds them as they are"),
        ("  unknown", output.count(report.unknown), "left to the next sync"),
    ]
    rows += trouble("  failed", report.failed)
    rows += trouble("missing", report.missing, "objects that the catalog names")
    rows += trouble("mismatched", report.mismatched, "objects of another size")
    return rows
