"""`mirror pull`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mirror.cli.options import (
    bucket_flags,
    bucket_options,
    cache_option,
    concurrency_option,
    parsed,
    url_field_option,
)
from mirror.cli.reporting import reporting, reporting_options
from mirror.cli.session import Session, session_options
from mirror.config.option_values import parse_hex_prefix

if TYPE_CHECKING:
    from mirror.cli.views.upkeep_view import Row
    from mirror.upkeep.pull import PullReport


@click.command("pull")
@cache_option
@bucket_options
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be written; write nothing.")
@click.option(
    "--prefix",
    default="",
    callback=parsed(parse_hex_prefix),
    metavar="HEX",
    help="Only URLs whose MD5 begins so.",
)
@click.option(
    "--dataset", "datasets", metavar="IN", multiple=True, help="Only URLs of this dataset; again."
)
@url_field_option
@click.option("--verify", is_flag=True, help="Read and compare files that are there already.")
@click.option("--force", is_flag=True, help="Replace other files that have an image's name.")
@click.option(
    "--hardlink", is_flag=True, help="Store a content once that has several URLs, by hard links."
)
@concurrency_option
@reporting_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Restore the cache, or a part of it, from the mirror: <md5 of the URL>.jpg, flat.

    Every image is compared with the catalog before it has its name. What is there already is not
    read again, so an interrupted pull goes on. Nothing is replaced without --force.

    \b
    Examples:
      mirror pull --cache /data/image_cache
      mirror pull --cache /data/part --dataset val.jsonl
      mirror pull --verify --force         # and replace what has rotted on the disk
    """
    from mirror.cli.views.upkeep_view import show
    from mirror.dataset.inputs import Input
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
            datasets=tuple(map(Input, options["datasets"])),
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
            output.size(report.bytes),
        ),
    ]
    rows += trouble("  kept", report.kept, "another file has the name; --force replaces it")
    rows += trouble("  missing", report.missing, "objects that are not in the mirror")
    rows += trouble("  mismatched", report.mismatched, "objects that are not what they should be")
    rows += trouble("  failed", report.failed)
    rows += trouble("flagged", report.flagged, "have no good image in the mirror")
    rows += trouble("not mirrored", report.not_mirrored, "URLs that the mirror has never seen")
    return rows
