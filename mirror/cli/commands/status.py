"""`mirror status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import WHAT_TO_READ, bucket_flags, bucket_options, cache_option
from mirror.cli.session import Session, session_options
from mirror.errors import EXIT_DONE
from mirror.system.display_text import format_size

if TYPE_CHECKING:
    from mirror.diagnosis.status import Status


@click.command("status", cls=SectionedCommand)
@section(
    WHAT_TO_READ,
    cache_option,
    click.option(
        "--no-scan", is_flag=True, help="Do not walk the cache; leave out files not yet synced."
    ),
)
@bucket_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Show what the mirror holds, what is not yet synced, the last runs, and what it costs.

    Reads the catalog (only its new files, if this machine has read it before) and this machine's
    state, and walks the cache without opening a file. Costs follow the price lists of the
    configuration, [prices], without free tiers.

    \b
    Examples:
      mirror status
      mirror status --no-scan --json
    """
    from mirror.diagnosis.status import status

    flags = {**bucket_flags(options), "cache.dir": options["cache"]}
    found = status(session.settings(flags), scan=not options["no_scan"])
    if not session.concluded(found.as_json()):
        _show(found)
    return EXIT_DONE


def _show(found: Status) -> None:
    from mirror.cli import output

    here = found.contents
    named = here.verdicts["ok"]
    version = "none yet" if found.catalog_version is None else f"v{found.catalog_version}"
    output.echo(f"{found.url}  mirror {found.mirror_id}")
    output.table(
        [
            ("files", output.count(here.files), "URLs that the mirror knows"),
            *(
                (f"  {verdict}", output.count(number))
                for verdict, number in here.verdicts.items()
                if number or verdict == "ok"
            ),
            ("objects", output.count(here.objects), format_size(here.bytes)),
            (
                "deduplicated",
                output.count(named - here.objects),
                f"{format_size(here.bytes_saved)} saved",
            ),
            ("catalog", version),
            *(
                [("  ignored rows", output.count(found.ignored_rows), "mirror verify names them")]
                if found.ignored_rows
                else []
            ),
            _unsynced(found),
        ]
    )
    output.echo()
    title = {"s3": "AWS S3", "r2": "Cloudflare R2"}
    names = sorted(found.costs, key=lambda name: name != found.prices)  # this bucket's own first
    costs = [found.costs[name] for name in names]
    rows = [
        ["storage, a month", *(output.usd(cost.storage_month) for cost in costs)],
        ["requests, this month", *(output.usd(cost.requests_month) for cost in costs)],
        ["one epoch over the internet", *(output.usd(cost.epoch) for cost in costs)],
    ]
    if all(cost.sync is not None for cost in costs):
        rows.append(["requests to sync the rest", *(output.usd(c.sync or 0.0) for c in costs)])
    output.grid(["cost", *(title[name] for name in names)], rows)
    runs = found.shown_runs()
    if runs:
        output.echo()
        output.grid(
            ["last runs here", "status", "uploaded", "failed", "took"],
            [
                [
                    report["run_id"],
                    str(run.exit_status),
                    output.count(report["uploaded"]),
                    output.count(report["failed"]),
                    output.duration(run.seconds),
                ]
                for run, report in runs
            ],
        )


def _unsynced(found: Status) -> tuple[str, str, str]:
    from mirror.cli import output

    pending = found.pending
    if pending is None or pending.estimate is None:
        return ("not synced", "?", found.not_looked)
    size = format_size(pending.estimate.bytes)
    return ("not synced", output.count(pending.new + pending.changed), size)
