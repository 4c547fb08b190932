"""`mirror backfill`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    WHAT_TO_READ,
    WHERE_THE_MIRROR_IS,
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
    """Read a duration such as `90s`, `45m`, `2h`, `1h30m` or `3d`, in seconds.

    Raises:
        ValueError: the text is no duration, or it is 0.
    """
    pieces = re.findall(r"(\d+(?:\.\d+)?)\s*(min|[smhd])\s*", text)
    if not pieces or "".join(re.split(r"\d+(?:\.\d+)?\s*(?:min|[smhd])\s*", text)).strip():
        raise ValueError(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in pieces)
    if not seconds:
        raise ValueError(text)
    return seconds


def seconds_until(text: str, now: datetime) -> float:
    """Seconds until the wall clock next shows a time such as `06:00`.

    Args:
        text: hours and minutes, 00:00 to 23:59.
        now: with its time zone, because the clocks may change during the night.

    Raises:
        ValueError: the text is no time of day.
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
        raise click.BadParameter("write a time of day, such as 06:00.") from None


@click.command("backfill", cls=SectionedCommand)
@click.argument("inputs", metavar="DATASET...", nargs=-1, required=True)
@section(
    WHAT_TO_READ,
    cache_option,
    url_field_option,
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
        "--until", callback=_until, metavar="HH:MM", help="Start no request after this time of day."
    ),
    click.option(
        "--for",
        "duration",
        callback=_duration,
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
    from mirror.dataset.inputs import Input

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
