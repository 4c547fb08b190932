"""`mirror pull`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    PATH_TEXT,
    WHAT_TO_READ,
    bucket_flags,
    bucket_options,
    cache_option,
    concurrency_option,
    delimiter_option,
    prefix_option,
    url_field_option,
)
from mirror.cli.reporting import reporting, reporting_options
from mirror.cli.session import Session, session_options
from mirror.system.display_text import format_size

if TYPE_CHECKING:
    from mirror.cli.views.upkeep_view import Row
    from mirror.upkeep.pull import PullReport


@click.command("pull", cls=SectionedCommand)
@section(
    WHAT_TO_READ,
    prefix_option,
    click.option(
        "--dataset",
        "datasets",
        metavar="IN",
        type=PATH_TEXT,
        multiple=True,
        help="Only URLs of this dataset; repeatable.",
    ),
    url_field_option,
    delimiter_option,
)
@bucket_options
@section(
    "What to write",
    cache_option,
    click.option(
        "-n", "--dry-run", is_flag=True, help="Show what would be written; write nothing."
    ),
    click.option("--verify", is_flag=True, help="Read and compare files that exist already."),
    click.option("--force", is_flag=True, help="Replace other files that have an image's name."),
    click.option(
        "--hardlink", is_flag=True, help="Store a content of several URLs once, with hard links."
    ),
)
@concurrency_option
@reporting_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Restore the cache, or a part of it, from the mirror: one flat folder of <md5 of the URL>.jpg.

    Every image is compared with the catalog before it gets its name. Files that exist are not read
    again, so an interrupted pull resumes. Nothing is replaced without --force.

    \b
    Examples:
      mirror pull --cache /data/image_cache
      mirror pull --cache /data/part --dataset val.jsonl
      mirror pull --verify --force         # also replace files that have rotted on the disk
    """
    from mirror.cli.views.upkeep_view import show
    from mirror.dataset.inputs import inputs_of
    from mirror.upkeep.pull import PullOptions, pull

    with reporting(session, "pull", options, silent=options["dry_run"]) as run:
        run.settings = session.settings(
            {
                "cache.dir": options["cache"],
                **bucket_flags(options),
                "sync.concurrency": options["concurrency"],
            }
        )
        asked = PullOptions(
            prefix=options["prefix"],
            datasets=tuple(inputs_of(options["datasets"], options["delimiter"])),
            url_field=options["url_field"],
            verify=options["verify"],
            force=options["force"],
            hardlink=options["hardlink"],
            dry_run=options["dry_run"],
        )
        with run.progress() as progress:
            report = pull(run.settings, asked, progress=progress)
        run.ended(report.exit_status, report.as_json())
    closing = "Dry run: nothing was written." if report.dry_run else ""
    show(session, report, _rows(report), closing)
    return report.exit_status


def _rows(report: PullReport) -> list[Row]:
    from mirror.cli import output
    from mirror.cli.views.upkeep_view import trouble

    rows: list[Row] = [
        ("wanted", output.count(report.checked), ""),
        ("  already there", output.count(report.already), ""),
        (
            "  would be pulled" if report.dry_run else "  pulled",
            output.count(report.pulled),
            format_size(report.bytes),
        ),
    ]
    rows += trouble("  kept", report.kept, "another file has the name; --force replaces it")
    rows += trouble("  missing", report.missing, "objects that are not in the mirror")
    rows += trouble("  mismatched", report.mismatched, "objects that differ from the catalog")
    rows += trouble("  failed", report.failed)
    rows += trouble("flagged", report.flagged, "URLs without a good image in the mirror")
    rows += trouble("not mirrored", report.not_mirrored, "URLs that the mirror has never seen")
    return rows
