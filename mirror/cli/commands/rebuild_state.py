"""`mirror rebuild-state`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mirror.cli.options import bucket_flags, bucket_options, cache_option, concurrency_option
from mirror.cli.session import Session, session_options

if TYPE_CHECKING:
    from mirror.cli.views.upkeep_view import Row
    from mirror.sync.rebuild import RebuildReport


@click.command("rebuild-state")
@cache_option
@bucket_options
@click.option(
    "--inspect",
    type=click.Choice(["decode", "header", "off"]),
    help="How far to look at each image [sync.inspect].",
)
@click.option("--restart", is_flag=True, help="Begin anew, even if a run was interrupted.")
@concurrency_option
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Make the local state anew, from the bucket and the cache, when it is in doubt.

    Reads every file of the cache and lists the bucket; uploads nothing and catalogues nothing. The
    state then knows those files that are in the mirror as the catalog has them; the next sync looks
    at the others. For a day an interrupted run is gone on with, and reads no file twice; --restart
    begins anew.

    \b
    Examples:
      mirror rebuild-state
      mirror rebuild-state --restart       # read everything, whatever an interrupted run has read
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
    closing = "mirror repair puts back what is missing." if report.missing else ""
    show(session, report, _rows(report), closing)
    return report.exit_status


def _rows(report: RebuildReport) -> list[Row]:
    from mirror.cli import output
    from mirror.cli.views.upkeep_view import trouble

    rows: list[Row] = [
        ("checked", output.count(report.checked), f"{report.ignored:,} other files ignored"),
        ("  read", output.count(report.read), output.size(report.bytes)),
        ("  known", output.count(report.known), "to the mirror as they are"),
        ("  unknown", output.count(report.unknown), "left to the next sync"),
    ]
    rows += trouble("  failed", report.failed)
    rows += trouble("missing", report.missing, "objects that the catalog names")
    rows += trouble("mismatched", report.mismatched, "objects of another size")
    return rows
