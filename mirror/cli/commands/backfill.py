"""`mirror backfill`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.options import (
    bucket_flags,
    bucket_options,
    cache_option,
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


@click.command("backfill")
@click.argument("inputs", metavar="DATASET...", nargs=-1, required=True)
@cache_option
@bucket_options
@click.option("--no-bucket", is_flag=True, help="Ask no mirror what it has: only the cache counts.")
@url_field_option
@click.option(
    "--match",
    type=click.Choice(["url", "photo"]),
    default="url",
    show_default=True,
    help="photo: a photo that is mirrored under another spelling of its URL is not fetched.",
)
@click.option(
    "--license-field",
    default="license",
    show_default=True,
    metavar="FIELD",
    help="Where a record holds its licence.",
)
@click.option(
    "--allow-license",
    "licenses",
    multiple=True,
    metavar="NAME",
    help="A licence that may be fetched, such as cc-by; again or with commas [backfill.licenses].",
)
@click.option(
    "--balance-by", metavar="FIELD", help="Fetch the classes with the fewest records first."
)
@click.option(
    "--contact", metavar="WHO", help="Your e-mail address or web page [backfill.contact]."
)
@click.option(
    "--per-hour", type=click.IntRange(min=1), help="Requests an hour at most [backfill.per_hour]."
)
@click.option(
    "--until", callback=parsed(_until), metavar="HH:MM", help="Begin no request after that time."
)
@click.option(
    "--for",
    "duration",
    callback=parsed(parse_duration),
    metavar="DURATION",
    help="Begin no request after so long: 2h, 90m, 1h30m.",
)
@click.option("--max-bytes", metavar="SIZE", help="Begin none when so much has come: 500M, 2G.")
@click.option("--max-images", type=click.IntRange(min=1), help="End when so many images are had.")
@click.option("--retry-failed", is_flag=True, help="Ask again for what was given up.")
@click.option(
    "--from-empty", is_flag=True, help="The cache was emptied on purpose: fetch all of it again."
)
@known_bad_option
@click.option("-n", "--dry-run", is_flag=True, help="Show what is wanted and how long it takes.")
@reporting_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Download what the cache lacks from where the dataset says, slowly and politely, over days.

    Wanted is what neither the mirror nor the cache has a good image of. Each image is looked at
    before it is kept; the limits, and what is gone for ever, are remembered from run to run. How
    long it will take is said first. Ctrl-C at any time; the next run goes on.

    \b
    Examples:
      mirror backfill dataset_raw.jsonl --dry-run
      mirror backfill dataset_raw.jsonl --balance-by species --until 06:00
      mirror backfill dataset_raw.jsonl --for 2h --max-bytes 2G; mirror sync
    """
    from mirror.backfill.run_backfill import backfill
    from mirror.cli.views.backfill_view import show
    from mirror.dataset.inputs import Input

    # Some images are always gone: a run that had all the others has done its work.
    well = (EXIT_DONE, EXIT_SOME_FAILED)
    with reporting(session, "backfill", options, silent=options["dry_run"], well=well) as run:
        run.settings = session.settings(
            {
                "cache.dir": options["cache"],
                **bucket_flags(options),
                "backfill.contact": options["contact"],
                "backfill.per_hour": options["per_hour"],
                "inspect.known_bad": options["known_bad"],
            }
        )
        inputs = [Input(name) for name in options["inputs"]]
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
