"""`mirror prefetch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.commands.fetch import fetch_options, fetch_settings, match_option
from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    OUTPUT,
    PATH_TEXT,
    WHAT_TO_READ,
    delimiter_option,
    url_field_option,
)
from mirror.cli.session import Session, session_options
from mirror.system.display_text import format_size, plural

if TYPE_CHECKING:
    from mirror.fetch.prefetch import PrefetchReport


@click.command("prefetch", cls=SectionedCommand)
@click.argument("datasets", metavar="DATASET...", type=PATH_TEXT, nargs=-1, required=True)
@section(WHAT_TO_READ, url_field_option, delimiter_option, match_option)
@fetch_options
@section(
    OUTPUT,
    click.option(
        "--check",
        is_flag=True,
        help="List images that are not on this machine; fetch nothing. --offline implies it.",
    ),
    click.option(
        "--lacking",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Write the URLs that this machine still lacks at the end, one a line.",
    ),
)
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Fill this machine's fetch cache with a dataset's images, before training begins.

    DATASET is JSON lines, CSV or Parquet (plain, .gz or .zst), - for standard input, or
    mongodb://HOST/DATABASE/COLLECTION. Images that are here already are not read again. URLs that
    the mirror lacks are listed, and the exit status is then 3. With --offline no request leaves this
    machine: the list shows what a training without a network would lack.

    \b
    Examples:
      mirror prefetch train.jsonl val.jsonl --fetch-cache /nvme/fetch --cache-bytes 800G
      mirror prefetch train.jsonl --check
      mirror prefetch train.jsonl --offline && python train.py
    """
    from mirror.dataset.inputs import inputs_of
    from mirror.dataset.records import ReadOptions
    from mirror.fetch.prefetch import prefetch

    settings = fetch_settings(session, options)
    with session.progress() as progress:
        report = prefetch(
            settings,
            inputs_of(options["datasets"], options["delimiter"]),
            ReadOptions.of(options["url_field"]),
            check=options["check"],
            lacking=options["lacking"],
            progress=progress,
        )
    _show(session, report)
    return report.exit_status


def _from_cache(report: PrefetchReport) -> str:
    if not report.from_cache:
        return ""
    return f"{report.from_cache:,} of them in cache.dir, and not copied from there"


def _show(session: Session, report: PrefetchReport) -> None:
    from mirror.cli import output

    lacking = report.lacking
    output.listing(
        f"{plural(lacking, 'image')} not on this machine:" if lacking else "",
        [f"{url}: {reason}" for url, reason in report.failures],
    )
    if session.concluded(report.as_json()):
        return
    rows = [
        ("urls", output.count(report.urls), ""),
        ("here already", output.count(report.cached), _from_cache(report)),
        ("fetched", output.count(report.fetched), format_size(report.bytes)),
    ]
    remarks = {
        "not_mirrored": "",
        "flagged": "no good images",
        "absent": "in the mirror, not on this machine",
        "failed": "",
        "no_room": "the fetch cache is full; training reads them from the mirror",
        "invalid": "records without a URL",
    }
    for name, remark in remarks.items():
        if number := getattr(report, name):
            rows.append((name.replace("_", " "), output.count(number), remark))
    output.table([*rows, ("took", output.duration(report.seconds), "")])
