"""`mirror sync`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.log import say
from mirror.cli.options import (
    bucket_flags,
    bucket_options,
    cache_option,
    concurrency_option,
    parsed,
    url_field_option,
)
from mirror.cli.reporting import reporting, reporting_options
from mirror.cli.session import Session, session_options
from mirror.config.option_values import parse_hex_prefix

if TYPE_CHECKING:
    from mirror.dataset.dataset_urls import DatasetUrls
    from mirror.sync.sync_report import SyncReport


@click.command("sync")
@cache_option
@bucket_options
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan and its cost; touch nothing.")
@click.option(
    "--inspect",
    type=click.Choice(["decode", "header", "off"]),
    help="How far to look at each image [sync.inspect].",
)
@click.option(
    "--include-flagged", is_flag=True, help="Upload blank, broken and placeholder files too."
)
@click.option(
    "--limit-rate", metavar="RATE", help="Bytes a second at most, such as 20M [sync.limit_rate]."
)
@concurrency_option
@click.option(
    "--max-files", type=click.IntRange(min=1), help="At most so many new or changed files."
)
@click.option(
    "--prefix",
    default="",
    callback=parsed(parse_hex_prefix),
    metavar="HEX",
    help="Only URLs whose MD5 begins so.",
)
@click.option(
    "--dataset",
    metavar="IN",
    help="Only files that this dataset refers to; its URLs and licences go into the catalog.",
)
@url_field_option
@click.option("--license-field", default="license", show_default=True, help="Its licence field.")
@click.option(
    "--attribution-field", default="attribution", show_default=True, help="Its attribution field."
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first file that fails.")
@reporting_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Bring the mirror up to date with the cache: bulk the first time, incremental ever after.

    Reads new and changed files once, uploads each content once, never a blank or broken image,
    and changes nothing in the cache. A run without changes opens no image and sends one request.

    \b
    Examples:
      mirror sync --cache /data/image_cache --bucket s3://plants/inat --dry-run
      mirror sync                          # everything is in mirror.toml; the same from cron
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
    from mirror.dataset.inputs import Input

    fields = FieldNames(
        options["url_field"], options["license_field"], options["attribution_field"]
    )
    return DatasetUrls.read(Input(options["dataset"]), fields)


def _give_large_arrays_back() -> None:
    """Have glibc return each large array to the system when it is freed, not keep it in its heap.

    Its threshold for that grows with use; fixed at 1 MiB, a bulk sync of 900,000 files holds about
    a quarter less memory. Elsewhere than on glibc there is nothing to set.
    """
    import ctypes

    m_mmap_threshold = -3  # malloc.h
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(m_mmap_threshold, 1 << 20)


def _show(session: Session, report: SyncReport, most: int | None) -> None:
    from mirror.cli import output

    output.listing(
        f"{report.failed:,} files failed:" if report.failed else "",
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
            ("would read", output.size(e.bytes), "at most this is sent; duplicates are not"),
            ("requests", output.count(e.requests), f"at most, {output.usd(e.request_usd)}"),
            ("storage", output.size(e.bytes), f"{output.usd(e.storage_usd_month)} a month more"),
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
        click.echo("Dry run: nothing was read, sent or written.")
        return
    if report.new or report.changed or report.flagged_total or report.error:
        flagged = ", ".join(f"{name} {n:,}" for name, n in report.flagged.items() if n)
        rows += [
            ("uploaded", output.count(report.uploaded), output.size(report.bytes_uploaded)),
            ("deduplicated", output.count(report.deduplicated), "their content was there already"),
            ("flagged", output.count(report.flagged_total), flagged),
            ("failed", output.count(report.failed)),
        ]
        if most is not None and (left := report.new + report.changed - most) > 0:
            rows.append(("left", output.count(left), "for the next run, by --max-files"))
    if report.described:
        rows.append(("described", output.count(report.described), "sources added to the catalog"))
    if report.catalog_commits:
        rows.append(
            (
                "catalog",
                f"v{report.catalog_version}",
                output.plural(report.catalog_commits, "commit") + " by this run",
            )
        )
    requests = ", ".join(f"{name} {n:,}" for name, n in report.requests.items() if n)
    rows += [
        ("requests", output.count(sum(report.requests.values())), requests),
        ("took", output.duration(report.seconds)),
    ]
    output.table(rows)
    if report.interrupted:
        click.echo("Interrupted: what was acknowledged is committed; run again for the rest.")
