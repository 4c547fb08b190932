"""`mirror repair`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.commands.verify import depth_asked, depth_options
from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    WHAT_TO_READ,
    bucket_flags,
    bucket_options,
    cache_option,
    concurrency_option,
)
from mirror.cli.session import Session, session_options
from mirror.system.display_text import plural

if TYPE_CHECKING:
    from mirror.cli.views.upkeep_view import Row
    from mirror.upkeep.repair import RepairReport


@click.command("repair", cls=SectionedCommand)
@section(
    WHAT_TO_READ,
    cache_option,
    click.option(
        "--from",
        "folders",
        metavar="DIR",
        multiple=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Another folder to search for the contents, under any file names; repeatable.",
    ),
)
@bucket_options
@depth_options
@section(
    "What to write",
    click.option("-n", "--dry-run", is_flag=True, help="Show what can be repaired; write nothing."),
    click.option(
        "--max-lost",
        default="50%",
        show_default=True,
        metavar="N|SHARE%|all",
        help="Refuse to give up more objects than this number or share of all.",
    ),
)
@concurrency_option
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Restore missing and damaged objects from any folder that has their content.

    Verifies first, and remembers what an earlier verify --full found. A file is used only if its
    bytes are those that the catalog names. Content that no folder has is catalogued as corrupt:
    rewrite and fetch no longer offer it. A later sync that finds it makes it good again. The exit
    status is 3 if something stays lost.

    \b
    Examples:
      mirror repair --dry-run
      mirror repair --from /backup/image_cache --from /data/flagged
      mirror repair --full                 # read every object first
    """
    from mirror.cli.views.upkeep_view import show
    from mirror.upkeep.change_limit import ChangeLimit
    from mirror.upkeep.repair import RepairOptions, repair

    settings = session.settings(
        {
            "cache.dir": options["cache"],
            **bucket_flags(options),
            "sync.concurrency": options["concurrency"],
        }
    )
    asked = RepairOptions(
        verify=depth_asked(options),
        folders=options["folders"],
        limit=ChangeLimit.parse(options["max_lost"], "--max-lost"),
        dry_run=options["dry_run"],
    )
    with session.progress() as progress:
        report = repair(settings, asked, progress=progress)
    show(session, report, _rows(report), "Dry run: nothing was written." * report.dry_run)
    return report.exit_status


def _rows(report: RepairReport) -> list[Row]:
    from mirror.cli import output
    from mirror.cli.commands.verify import rows
    from mirror.cli.views.upkeep_view import trouble

    found = rows(report)
    if report.dry_run:
        found.append(("repairable", output.count(report.repairable), ""))
    else:
        found.append(("repaired", output.count(report.repaired), ""))
    found += trouble("healed", report.healed, "turned out good, or are no longer named")
    flagged = plural(report.flagged_rows, "row") + " flagged" if report.flagged_rows else ""
    found += trouble("lost", report.lost, flagged)
    return found
