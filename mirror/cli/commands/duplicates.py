"""`mirror duplicates`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import OUTPUT, WHAT_TO_READ, bucket_flags, bucket_options, cache_option
from mirror.cli.session import Session, session_options
from mirror.system.display_text import plural

if TYPE_CHECKING:
    from mirror.duplicates.find_duplicates import DuplicatesReport

# In the table: groups, and names of one group.
_GROUPS = 10
_NAMES = 4


@click.command("duplicates", cls=SectionedCommand)
@section(
    WHAT_TO_READ,
    cache_option,
    click.option("--mirror", is_flag=True, help="Look in the mirror instead of the cache."),
)
@bucket_options
@section(
    OUTPUT,
    click.option(
        "--csv",
        "csv_file",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="List all images of all groups.",
    ),
    click.option(
        "--sheet",
        metavar="FILE.html",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write one HTML page with the copies side by side.",
    ),
)
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Find copies of one photograph: equal files, other sizes, other formats.

    Reads the cache, or with --mirror the catalog, and changes nothing. Two images are copies if their
    perceptual hashes differ in at most 23 of 256 bits, or if they are sizes of one iNaturalist photo.
    Crops, captions and watermarks are not found.

    \b
    Examples:
      mirror duplicates --cache /data/image_cache
      mirror duplicates --mirror --sheet copies.html        # open it in a browser
    """
    from mirror.duplicates.find_duplicates import find_duplicates

    settings = session.settings({"cache.dir": options["cache"], **bucket_flags(options)})
    with session.progress() as progress:
        report = find_duplicates(
            settings,
            mirror=options["mirror"],
            csv_path=options["csv_file"],
            page_path=options["sheet"],
            progress=progress,
        )
    _show(session, report, [options["csv_file"], options["sheet"]])
    return report.exit_status


def _show(session: Session, report: DuplicatesReport, written: list[Path | None]) -> None:
    from mirror.cli import output
    from mirror.cli.log import say

    for warning in report.warnings:
        say(warning, "warning")
    output.listing(
        f"{plural(report.failed, 'file')} could not be read:" if report.failed else "",
        [f"{path}: {reason}" for path, reason in report.failures],
    )
    if session.concluded(report.as_json()):
        return
    what = "files of the cache" if report.place == "cache" else "URLs of the mirror"
    flagged = report.checked - report.counts["ok"]
    output.table(
        [
            ("checked", output.count(report.checked), what),
            *([("  flagged", output.count(flagged), "not compared")] if flagged else []),
            ("different", output.count(report.contents), "contents"),
            *(
                [
                    (
                        "  without a hash",
                        output.count(report.without_phash),
                        "only equal ones are found",
                    )
                ]
                if report.without_phash
                else []
            ),
            ("groups", output.count(len(report.groups)), "of one photograph each"),
            ("  near copies", output.count(report.near_groups), "with different files"),
            ("redundant", output.count(report.redundant), "images beyond the first of each group"),
            ("took", output.duration(report.seconds), ""),
        ]
    )
    for number, group in enumerate(report.groups[:_GROUPS], 1):
        output.echo()
        output.echo(
            f"Group {number}: {plural(group.images, 'image')}, {len(group.copies):,} different"
        )
        for copy in group.copies[:_NAMES]:
            size = f"{copy.width:,} × {copy.height:,}" if copy.width else "unknown size"
            times = f", {len(copy.names):,} times" if len(copy.names) > 1 else ""
            output.echo(f"  {copy.names[0]}  {size} {copy.format}{times}")
        if (rest := len(group.copies) - _NAMES) > 0:
            output.echo(f"  … and {rest:,} more different files")
    if (rest := len(report.groups) - _GROUPS) > 0:
        output.echo()
        output.echo(f"… and {rest:,} more groups (all of them with --csv or --json)")
    for path in written:
        if path is not None:
            output.echo(f"Written: {path}")
