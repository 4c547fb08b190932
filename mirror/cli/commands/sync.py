"""`mirror sync`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.log import say
from mirror.cli.options import (
    HOW_FAST,
    PATH_TEXT,
    WHAT_TO_READ,
    bucket_flags,
    bucket_options,
    cache_option,
    concurrency_option,
    delimiter_option,
    prefix_option,
    url_field_option,
)
from mirror.cli.reporting import reporting, reporting_options
from mirror.cli.session import Session, session_options
from mirror.system.display_text import format_size, plural

if TYPE_CHECKING:
    from mirror.dataset.dataset_urls import DatasetUrls
    from mirror.sync.sync_report import SyncReport


@click.command("sync", cls=SectionedCommand)
@section(
    WHAT_TO_READ,
    cache_option,
    prefix_option,
    click.option(
        "--max-files",
        type=click.IntRange(min=1),
        metavar="N",
        help="Take at most this many new or changed files.",
    ),
    click.option(
        "--dataset",
        metavar="IN",
        type=PATH_TEXT,
        help="Only files that this dataset refers to; its URLs and licences go into the catalog.",
    ),
    url_field_option,
    delimiter_option,
    click.option(
        "--license-field",
        default="license",
        show_default=True,
        metavar="FIELD",
        help="The dataset's field with the licence.",
    ),
    click.option(
        "--attribution-field",
        default="attribution",
        show_default=True,
        metavar="FIELD",
        help="The dataset's field with the attribution.",
    ),
)
@bucket_options
@section(
    "What to upload",
    click.option("-n", "--dry-run", is_flag=True, help="Show the plan and its cost; do nothing."),
    click.option(
        "--inspect",
        type=click.Choice(["decode", "header", "off"]),
        help="How thoroughly to inspect each image [sync.inspect].",
    ),
    click.option(
        "--include-flagged",
        is_flag=True,
        help="Upload blank, broken and placeholder files too.",
    ),
    click.option("--fail-fast", is_flag=True, help="Stop at the first file that fails."),
)
@section(
    HOW_FAST,
    concurrency_option,
    click.option(
        "--limit-rate",
        metavar="RATE",
        help="Upload at most this many bytes a second, such as 20M [sync.limit_rate].",
    ),
)
@reporting_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Bring the mirror up to date with the cache: first in bulk, then incrementally from cron.

    Reads new and changed files once and uploads each content once. Blank and broken images are
    kept out, and nothing in the cache changes. A run without changes opens no image and sends one
    request.

    \b
    Examples:
      mirror sync --cache /data/image_cache --bucket s3://plants/inat --dry-run
      mirror sync                          # cache and bucket are in mirror.toml
      mirror sync --prefix 3f --limit-rate 20M
    """
    from mirror.sync.run_sync import SyncOptions, sync

    _give_large_arrays_back()
    with reporting(session, "sync", options, silent=options["dry_run"]) as run:
        run.settings = session.settings(
            {
                "cache.dir": options["cache"],
                **bucket_flags(options),
                "sync.inspect": options["inspect"],
                "sync.limit_rate": options["limit_rate"],
                "sync.concurrency": options["concurrency"],
            }
        )
        with _sources(options) as sources, run.progress() as progress:
            report = sync(
                run.settings,
                SyncOptions(
                    dry_run=options["dry_run"],
                    prefix=options["prefix"],
                    max_files=options["max_files"],
                    include_flagged=options["include_flagged"],
                    fail_fast=options["fail_fast"],
                    run_id=session.run_id,
                ),
                sources=sources,
                progress=progress,
            )
        run.ended(report.exit_status, report.as_json())
    _show(session, report, options["max_files"])
    return report.exit_status


def _sources(options: dict[str, Any]) -> AbstractContextManager[DatasetUrls | None]:
    if not options["dataset"]:
        return nullcontext()
    from mirror.dataset.dataset_urls import DatasetUrls, FieldNames
    from mirror.dataset.inputs import inputs_of

    fields = FieldNames(
        options["url_field"], options["license_field"], options["attribution_field"]
    )
    return DatasetUrls.read(inputs_of([options["dataset"]], options["delimiter"]), fields)


def _give_large_arrays_back() -> None:
    """Make glibc return each large array to the system when it is freed.

    By default glibc's threshold for that grows with use. Fixed at 1 MiB, a bulk sync of 900,000
    files holds about a quarter less memory. Other C libraries have nothing to set.
    """
    import ctypes

    m_mmap_threshold = -3  # malloc.h
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(m_mmap_threshold, 1 << 20)


def _show(session: Session, report: SyncReport, max_files: int | None) -> None:
    from mirror.cli import output

    output.listing(
        f"{plural(report.failed, 'file')} failed:" if report.failed else "",
        [f"{path}: {reason}" for path, reason in report.failures],
    )
    if report.error is not None:
        say(str(report.error), "error")
    if session.concluded(report.as_json()):
        return
    rows = [
        ("scanned", output.count(report.scanned), f"{report.ignored:,} other files ignored"),
        ("  new", output.count(report.new)),
        ("  changed", output.count(report.changed)),
        ("  unchanged", output.count(report.unchanged)),
        (
            "  vanished",
            output.count(report.vanished),
            "kept in the mirror" if report.vanished else "",
        ),
    ]
    if report.estimate is not None:
        e = report.estimate
        rows += [
            ("would read", format_size(e.bytes), "at most; duplicates are not uploaded"),
            ("requests", output.count(e.requests), f"at most, {output.usd(e.request_usd)}"),
            ("storage", format_size(e.bytes), f"{output.usd(e.storage_usd_month)} more a month"),
        ]
        if e.seconds is not None:
            rows.append(("time", output.duration(e.seconds), "at the last run's rate"))
        elif e.bytes:
            at_100, at_1000 = e.bytes / 12.5e6, e.bytes / 125e6
            rows.append(
                (
                    "time",
                    output.duration(at_1000),
                    f"at 1 Gb/s; {output.duration(at_100)} at 100 Mb/s",
                )
            )
        output.table(rows)
        output.echo("Dry run: nothing was read, sent or written.")
        return
    if report.new or report.changed or report.flagged_total or report.error:
        flagged = ", ".join(f"{name} {n:,}" for name, n in report.flagged.items() if n)
        rows += [
            ("uploaded", output.count(report.uploaded), format_size(report.bytes_uploaded)),
            (
                "deduplicated",
                output.count(report.deduplicated),
                "their content is in the mirror already",
            ),
            ("flagged", output.count(report.flagged_total), flagged),
            ("failed", output.count(report.failed)),
        ]
        if report.collided:
            rows.append(
                ("collided", output.count(report.collided), "have the XXH3-128 of another image")
            )
        if max_files is not None and (left := report.new + report.changed - max_files) > 0:
            rows.append(("left", output.count(left), "for the next run, because of --max-files"))
    if report.described:
        rows.append(("described", output.count(report.described), "sources added to the catalog"))
    if report.catalog_commits:
        rows.append(
            (
                "catalog",
                f"v{report.catalog_version}",
                plural(report.catalog_commits, "commit") + " by this run",
            )
        )
    requests = ", ".join(f"{name} {n:,}" for name, n in report.requests.items() if n)
    rows += [
        ("requests", output.count(sum(report.requests.values())), requests),
        ("took", output.duration(report.seconds)),
    ]
    output.table(rows)
    if report.interrupted:
        output.echo("Interrupted: everything acknowledged is committed; run again for the rest.")
