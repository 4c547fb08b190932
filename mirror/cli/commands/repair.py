"""`mirror repair`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.commands.verify import depth_asked, depth_options
from mirror.cli.options import bucket_flags, bucket_options, cache_option, concurrency_option
from mirror.cli.session import Session, session_options

if TYPE_CHECKING:
    from mirror.cli.views.upkeep_view import Row
    from mirror.upkeep.repair import RepairReport


@click.command("repair")
@cache_option
@click.option(
    "--from",
    "folders",
    metavar="DIR",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Another folder that may have the contents, under whatever names; again for more.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what could be repaired; write nothing.")
@click.option(
    "--max-lost",
    default="50%",
    show_default=True,
    metavar="N|SHARE%|all",
    help="Refuse to give up more objects than so many, or than such a share of all.",
)
@depth_options
@bucket_options
@concurrency_option
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Write again what is missing or damaged in the mirror, from any folder that has it.

    Verifies first; what an earlier verify --full found is known. A file counts only if its bytes
    are those that the catalog names. What no folder has is catalogued as corrupt, so that rewrite
    and fetch offer it no more; a sync that meets it again makes it good. Exit status 3 when
    something stays lost.

    \b
    Examples:
      mirror repair --dry-run
      mirror repair --from /backup/image_cache --from /data/flagged
      mirror repair --full                 # and read every object first
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
    found += trouble("healed", report.healed, "were well again, or are named no more")
    flagged = output.plural(report.flagged_rows, "row") + " flagged" if report.flagged_rows else ""
    found += trouble("lost", report.lost, flagged)
    return found
