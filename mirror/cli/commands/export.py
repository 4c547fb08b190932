"""`mirror export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import OUTPUT, WHAT_TO_READ
from mirror.cli.session import Session, session_options
from mirror.system.display_text import plural

if TYPE_CHECKING:
    from mirror.dataset.export import ExportReport


@click.command("export", cls=SectionedCommand)
# One address is expected. click's own message would quote a second one, with its password.
@click.argument("urls", metavar="mongodb://HOST/DATABASE/COLLECTION", nargs=-1, required=True)
@section(
    WHAT_TO_READ,
    click.option(
        "--filter",
        "filter_text",
        metavar="JSON",
        default="",
        help="Only documents that match this filter, in MongoDB's query language.",
    ),
    click.option(
        "--projection",
        "projection_text",
        metavar="FIELDS",
        default="",
        help="Only these fields: a,b,c or MongoDB's JSON.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(1, 100_000),
        metavar="N",
        default=1000,
        show_default=True,
        help="Documents a request.",
    ),
)
@section(
    OUTPUT,
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        type=click.Path(path_type=Path),
        help="The file to write: .jsonl, .csv or .parquet, also with .gz or .zst.",
    ),
    click.option(
        "--json-style",
        type=click.Choice(["plain", "relaxed", "canonical"]),
        metavar="STYLE",
        default="plain",
        show_default=True,
        help="plain JSON, or MongoDB's Extended JSON: relaxed or canonical, which keep all types.",
    ),
    click.option("--force", is_flag=True, help="Replace the file if it exists."),
    click.option("--allow-empty", is_flag=True, help="Write an output without records."),
)
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Write a MongoDB collection to a dataset file, sorted by _id.

    If the connection is lost, the scan resumes where it broke. The file appears whole or not at
    all. The user and the password come from MONGODB_USERNAME and MONGODB_PASSWORD. They may also
    stand in the address, but there every user of the machine can see them. Options for the
    connection follow a ?.

    \b
    Examples:
      mirror export mongodb://host/biodiversity/plants -o dataset_raw.jsonl
      mirror export 'mongodb://host/biodiversity/plants?authSource=admin' -o plants.jsonl.zst \\
          --filter '{"license": {"$ne": null}}' --projection image_url,species,license
    """
    from mirror.dataset.export import ExportOptions, export
    from mirror.dataset.formats.mongo_query import Query
    from mirror.dataset.formats.mongo_url import MongoUrl
    from mirror.errors import UsageError

    url, *more = options["urls"]
    if more:
        raise UsageError(
            f"mirror export takes one address and got {plural(len(more), 'word')} more; "
            "put quotes around JSON and around an address with ? or &."
        )
    url = MongoUrl.parse(url)
    asked = ExportOptions(
        query=Query.parse(options["filter_text"], options["projection_text"]),
        style=options["json_style"],
        batch_size=options["batch_size"],
        force=options["force"],
        allow_empty=options["allow_empty"],
    )
    with session.progress() as progress:
        report = export(url, options["output"], asked, progress=progress)
    _show(session, report)
    return report.exit_status


def _show(session: Session, report: ExportReport) -> None:
    from mirror.cli import output
    from mirror.cli.log import say

    output.listing(
        f"{plural(report.failed, 'document')} could not be written:" if report.failed else "",
        [f"{name}: {reason}" for name, reason in report.failures],
    )
    if report.error is not None:
        say(str(report.error), "error")
    if session.concluded(report.as_json()):
        return
    rows = [
        ("documents", output.count(report.documents)),
        ("written", output.count(report.written), "" if report.error else str(report.output)),
    ]
    if report.failed:
        rows.append(("failed", output.count(report.failed), "not valid BSON"))
    if report.non_finite:
        rows.append(
            (
                "NaN or infinite",
                output.count(report.non_finite),
                "written as null; --json-style relaxed keeps them",
            )
        )
    if report.resumed:
        rows.append(("resumed", output.count(report.resumed), "after the scan broke"))
    output.table([*rows, ("took", output.duration(report.seconds))])
