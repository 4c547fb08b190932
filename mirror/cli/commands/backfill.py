"""`mirror backfill`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.options import (
    bucket_flags,
    bucket_options,
    cache_option,
    known_bad_option,
    url_field_option,
)
from mirror.cli.reporting import reporting, reporting_options
from mirror.cli.session import Session, session_options
from mirror.errors import EXIT_DONE, EXIT_SOME_FAILED

if TYPE_CHECKING:
    from mirror.backfill.run_backfill import BackfillOptions
    from mirror.config.settings import Settings

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str) -> float:
    """Seconds of `90s`, `45m`, `2h`, `1h30m` or `3d`.

    Raises:
        ValueError: it is none of these, or no time at all.
    """
    pieces = re.findall(r"(\d+(?:\.\d+)?)\s*(min|[smhd])\s*", text)
    if not pieces or "".join(re.split(r"\d+(?:\.\d+)?\s*(?:min|[smhd])\s*", text)).strip():
        raise ValueError(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in pieces)
    if not seconds:
        raise ValueError(text)
    return seconds


def seconds_until(text: str, now: datetime) -> float:
    """Seconds until it is next `06:00` on the wall.

    Args:
        text: hours and minutes, 00:00 to 23:59.
        now: with its time zone: nights in which clocks are changed are longer or shorter.

    Raises:
        ValueError: it is no time of the day.
    """
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text.strip())
    if not match:
        raise ValueError(text)
    local = now.replace(tzinfo=None)
    then = local.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    if then <= local:
        then += timedelta(days=1)
    return max((then.astimezone() - now).total_seconds(), 1.0)


def _duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else seconds_of(value)
    except ValueError:
        raise click.BadParameter("write a duration, such as 2h, 90m or 1h30m.") from None


def _until(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else seconds_until(value, datetime.now().astimezone())
    except ValueError:
        raise click.BadParameter("write a time of the day, such as 06:00.") from None


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
@click.option("--until", callback=_until, metavar="HH:MM", help="Begin no request after that time.")
@click.option(
    "--for",
    "duration",
    callback=_duration,
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
        for source in inputs:
            source.check()
        asked = _asked(run.settings, options, session.run_id)
        with run.progress() as progress:
            report = backfill(run.settings, inputs, asked, progress=progress)
        run.ended(report.exit_status, report.as_json())
    show(session, report)
    return report.exit_status


def configured_licenses(settings: Settings) -> frozenset[str]:
    """Raises: ConfigError: one of `backfill.licenses` names none."""
    from mirror.dataset.licenses import license_names
    from mirror.errors import ConfigError

    for text in settings.backfill.licenses:
        if not license_names([text]):
            raise ConfigError(
                f"backfill.licenses holds {text!r}, which names no licence; write such as cc-by or cc0."
            )
    return license_names(settings.backfill.licenses)


def _asked(settings: Settings, options: dict[str, Any], run_id: str) -> BackfillOptions:
    from mirror.backfill.download_plan import DownloadSelection
    from mirror.backfill.run_backfill import BackfillOptions
    from mirror.config.settings import parse_size
    from mirror.dataset.fields import parse_path
    from mirror.dataset.licenses import license_names
    from mirror.errors import UsageError

    allowed = license_names(options["licenses"])
    if options["licenses"] and not allowed:
        raise UsageError("No licence is named that there is; write such as cc-by or cc0.")
    allowed = allowed or configured_licenses(settings)
    limits = [seconds for seconds in (options["until"], options["duration"]) if seconds]
    balance, size = options["balance_by"], options["max_bytes"]
    return BackfillOptions(
        selection=DownloadSelection(
            url=parse_path(options["url_field"]),
            license=parse_path(options["license_field"]) if allowed else None,
            allowed=allowed,
            balance=None if balance is None else parse_path(balance),
            retry_failed=options["retry_failed"],
            from_empty=options["from_empty"],
        ),
        match=options["match"],
        use_bucket=not options["no_bucket"],
        seconds=min(limits, default=None),
        max_bytes=None if size is None else parse_size(size, "--max-bytes"),
        max_images=options["max_images"],
        dry_run=options["dry_run"],
        run_id=run_id,
    )
