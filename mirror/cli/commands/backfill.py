"""`mirror backfill`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    PATH_TEXT,
    WHAT_TO_READ,
    WHERE_THE_MIRROR_IS,
    bucket_flags,
    bucket_options,
    cache_option,
    delimiter_option,
    known_bad_option,
    parsed,
    url_field_option,
)
from mirror.cli.reporting import reporting, reporting_options
from mirror.cli.session import Session, session_options
from mirror.config.option_values import parse_duration, seconds_until
from mirror.errors import EXIT_DONE, EXIT_SOME_FAILED

if TYPE_CHECKING:
    from mirror.backfill.run_backfill import BackfillOptions
    from mirror.config.settings import Settings


def _until(text: str) -> float:
    return seconds_until(text, datetime.now().astimezone())


@click.command("backfill", cls=SectionedCommand)
@click.argument("inputs", metavar="DATASET...", type=PATH_TEXT, nargs=-1, required=True)
@section(
    WHAT_TO_READ,
    cache_option,
    url_field_option,
    delimiter_option,
    click.option(
        "--license-field",
        default="license",
        show_default=True,
        metavar="FIELD",
        help="The field with a record's licence.",
    ),
)
@section(
    "What to download",
    click.option(
        "--allow-license",
        "licenses",
        multiple=True,
        metavar="NAME",
        help="Only this licence, such as cc-by; repeatable, or with commas [backfill.licenses].",
    ),
    click.option(
        "--match",
        type=click.Choice(["url", "photo"]),
        default="url",
        show_default=True,
        help="photo: skip a photo that is mirrored under another spelling of its URL.",
    ),
    click.option(
        "--balance-by", metavar="FIELD", help="Fetch the classes with the fewest records first."
    ),
    click.option("--retry-failed", is_flag=True, help="Retry URLs that earlier runs gave up."),
    click.option(
        "--from-empty", is_flag=True, help="The cache was emptied on purpose: fetch all of it."
    ),
    click.option(
        "-n", "--dry-run", is_flag=True, help="Show what is wanted and how long it takes."
    ),
)
@known_bad_option
@bucket_options
@section(
    WHERE_THE_MIRROR_IS,
    click.option("--no-bucket", is_flag=True, help="Do not ask a mirror; only the cache counts."),
)
@section(
    "How fast and how long",
    click.option(
        "--contact",
        metavar="ADDRESS",
        help="Your e-mail address or web page, for the source [backfill.contact].",
    ),
    click.option(
        "--per-hour",
        type=click.IntRange(min=1),
        metavar="N",
        help="Send at most this many requests an hour [backfill.per_hour].",
    ),
    click.option(
        "--until",
        callback=parsed(_until),
        metavar="HH:MM",
        help="Start no request after this time of day.",
    ),
    click.option(
        "--for",
        "duration",
        callback=parsed(parse_duration),
        metavar="DURATION",
        help="Start no request after this long: 2h, 90m, 1h30m.",
    ),
    click.option(
        "--max-bytes",
        metavar="SIZE",
        help="Start no request after this many bytes have arrived: 500M, 2G.",
    ),
    click.option(
        "--max-images",
        type=click.IntRange(min=1),
        metavar="N",
        help="Stop after this many images.",
    ),
)
@reporting_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Download missing images from the dataset's URLs, slowly and politely, over days.

    An image is wanted if neither the mirror nor the cache has a good one. Each download is
    inspected before it is kept. The limits, and URLs that are gone for good, are remembered between
    runs. The estimated time is shown first. Press Ctrl-C at any time; the next run continues.

    \b
    Examples:
      mirror backfill dataset_raw.jsonl --dry-run
      mirror backfill dataset_raw.jsonl --balance-by species --until 06:00
      mirror backfill dataset_raw.jsonl --for 2h --max-bytes 2G; mirror sync
    """
    from mirror.backfill.run_backfill import backfill
    from mirror.cli.views.backfill_view import show
    from mirror.dataset.inputs import inputs_of

    # Some images are always gone: a run that got all the others has done its work.
    successes = (EXIT_DONE, EXIT_SOME_FAILED)
    silent = options["dry_run"]
    with reporting(session, "backfill", options, silent=silent, successes=successes) as run:
        run.settings = session.settings(
            {
                "cache.dir": options["cache"],
                **bucket_flags(options),
                "backfill.contact": options["contact"],
                "backfill.per_hour": options["per_hour"],
                "inspect.known_bad": options["known_bad"],
            }
        )
        inputs = inputs_of(options["inputs"], options["delimiter"])
        asked = _asked(run.settings, options, session.run_id)
        with run.progress() as progress:
            report = backfill(run.settings, inputs, asked, progress=progress)
        run.ended(report.exit_status, report.as_json())
    show(session, report)
    return report.exit_status


def _asked(settings: Settings, options: dict[str, Any], run_id: str) -> BackfillOptions:
    from mirror.backfill.run_backfill import BackfillOptions

    limits = [seconds for seconds in (options["until"], options["duration"]) if seconds]
    as_given = (
        "url_field license_field licenses balance_by max_bytes retry_failed from_empty "
        "match max_images dry_run"
    )
    return BackfillOptions.of(
        settings.backfill,
        use_bucket=not options["no_bucket"],
        seconds=min(limits, default=None),
        run_id=run_id,
        **{name: options[name] for name in as_given.split()},
    )
