"""`mirror fetch`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    OUTPUT,
    PATH_TEXT,
    WHAT_TO_READ,
    bucket_flags,
    bucket_options,
    cache_option,
    public_url_option,
)
from mirror.cli.session import Session, session_options
from mirror.system.display_text import format_size, plural

if TYPE_CHECKING:
    from mirror.config.settings import Settings
    from mirror.fetch.download_files import SaveReport

# Where the mirror and the caches of this machine are: for fetch and prefetch.
fetch_options = section(
    "Caches of this machine",
    bucket_options,
    public_url_option,
    cache_option,
    click.option(
        "--fetch-cache",
        metavar="DIR",
        type=PATH_TEXT,
        help="A folder that keeps fetched images [fetch.cache_dir].",
    ),
    click.option(
        "--cache-bytes", metavar="SIZE", help="Its limit, such as 200G [fetch.cache_bytes]."
    ),
    click.option(
        "--offline",
        is_flag=True,
        default=None,
        help="Read only the caches of this machine [fetch.offline].",
    ),
)
match_option = click.option(
    "--match",
    type=click.Choice(["url", "photo"]),
    help="photo: also find an iNaturalist photo by another spelling of its URL [fetch.match].",
)


def fetch_settings(session: Session, options: dict[str, Any]) -> Settings:
    """The settings, overridden by the values of `fetch_options` and `match_option`."""
    return session.settings(
        {
            **bucket_flags(options),
            "bucket.public_url": options["public_url"],
            "cache.dir": options["cache"],
            "fetch.cache_dir": options["fetch_cache"],
            "fetch.cache_bytes": options["cache_bytes"],
            "fetch.match": options["match"],
            "fetch.offline": options["offline"],
        }
    )


@click.command("fetch", cls=SectionedCommand)
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@section(WHAT_TO_READ, match_option)
@fetch_options
@section(
    OUTPUT,
    click.option(
        "-o",
        "--output",
        metavar="DIR|-",
        type=PATH_TEXT,
        help="Write images here, named by the MD5 of their URL; - writes one to standard output.",
    ),
)
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Fetch images from the mirror as training does: verified, and from nowhere else.

    URL is an original URL, a URL of the mirror, or a content hash. Without -o images are read and
    verified, and stay in the fetch cache if there is one.

    \b
    Examples:
      mirror fetch https://inaturalist-open-data.s3.amazonaws.com/photos/1/medium.jpg -o photos
      mirror fetch s3://plants/inat/objects/ab/ab….jpg -o - > photo.jpg
    """
    from mirror.errors import UsageError
    from mirror.fetch.client import Fetcher
    from mirror.fetch.download_files import save

    output: str | None = options["output"]
    if output == "-" and (session.json or len(options["urls"]) > 1):
        raise UsageError("-o - writes one image to standard output: name one URL, without --json.")
    with Fetcher(fetch_settings(session, options)) as fetch:
        if output == "-":
            data = fetch(options["urls"][0])
            sys.stdout.buffer.write(data)
            return 0
        report = save(fetch, options["urls"], None if output is None else Path(output))
    return _show(session, report)


def _show(session: Session, report: SaveReport) -> int:
    from mirror.cli import output

    output.listing(
        f"{plural(report.lacking, 'image')} not fetched:" if report.lacking else "",
        [f"{url}: {reason}" for url, reason in report.failures],
    )
    if not session.concluded(report.as_json()):
        rows = [("fetched", output.count(report.fetched), format_size(report.bytes))]
        if report.missing:
            rows.append(("missing", output.count(report.missing), "not in the mirror, or flagged"))
        if report.failed:
            rows.append(("failed", output.count(report.failed), ""))
        output.table(rows)
        for path in report.written:
            output.echo(f"Written: {path}")
    return report.exit_status
