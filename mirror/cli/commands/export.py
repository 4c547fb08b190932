"""`mirror export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.session import Session, session_options

if TYPE_CHECKING:
    from mirror.dataset.export import ExportReport


@click.command("export")
# One is wanted. click would quote a second one, with the password in it.
@click.argument("urls", metavar="mongodb://HOST/DATABASE/COLLECTION", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="The dataset to write: .jsonl, .csv or .parquet, and .gz or .zst behind it.",
)
@click.option(
    "--filter",
    "filter_text",
    metavar="JSON",
    default="",
    help="Only documents that match; MongoDB's query language.",
)
@click.option(
    "--projection",
    "projection_text",
    metavar="FIELDS",
    default="",
    help="Only these fields: a,b,c or MongoDB's JSON.",
)
@click.option(
    "--json-style",
    type=click.Choice(["plain", "relaxed", "canonical"]),
    default="plain",
    show_default=True,
    help="Plain JSON, or MongoDB's Extended JSON, which keeps types that JSON has not.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Documents asked for at a time.",
)
@click.option("--force", is_flag=True, help="Replace an output that exists.")
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Write a MongoDB collection to a dataset's file, sorted by _id.

    When the connection is lost the scan goes on where it broke, and the file appears whole or not
    at all. User and password come from MONGODB_USERNAME and MONGODB_PASSWORD, or stand in the
    address, where every user of the machine may see them. Options for the connection follow a ?.

    \b
    Examples:
      mirror export mongodb://host/RehabDatos/plants -o dataset_raw.jsonl
      mirror export 'mongodb://host/RehabDatos/plants?authSource=admin' -o plants.jsonl.zst \\
          --filter '{"license": {"$ne": null}}' --projection image_url,species,license
    """
    from mirror.cli import output
    from mirror.dataset.export import ExportOptions, export
    from mirror.dataset.formats.mongo import MongoUrl
    from mirror.dataset.formats.mongo_query import Query
    from mirror.errors import UsageError

    url, *more = options["urls"]
    if more:
        raise UsageError(
            f"mirror export takes one address, and {output.plural(len(more), 'word')} more stood "
            "beside it; JSON and an address with ? or & need quotes around them."
        )
    url = MongoUrl.parse(url)
    asked = ExportOptions(
        query=Query.parse(options["filter_text"], options["projection_text"]),
        style=options["json_style"],
        batch_size=options["batch_size"],
        force=options["force"],
    )
    with session.progress() as progress:
        report = export(url, options["output"], asked, progress=progress)
    _show(session, report)
    return report.exit_status


def _show(session: Session, report: ExportReport) -> None:
    from mirror.cli import output

    output.listing(
        f"{output.plural(report.failed, 'document')} could not be written:"
        if report.failed
        else "",
        [f"{name}: {reason}" for name, reason in report.failures],
    )
    if session.concluded(report.as_json()):
        return
    rows = [
        ("documents", output.count(report.documents)),
        ("written", output.count(report.written), str(report.output)),
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
        rows.append(("resumed", output.count(report.resumed), "the scan broke and went on"))
    output.table([*rows, ("took", output.duration(report.seconds))])
