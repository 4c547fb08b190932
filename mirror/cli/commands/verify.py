"""`mirror verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.options import bucket_flags, bucket_options, concurrency_option, parsed, together
from mirror.cli.reporting import reporting, reporting_options
from mirror.cli.session import Session, session_options
from mirror.config.option_values import parse_share

if TYPE_CHECKING:
    from mirror.cli.views.upkeep_view import Row
    from mirror.upkeep.verify import VerifyOptions, VerifyReport


# How far to look, and where to write what was found: of all who verify.
depth_options = together(
    click.option(
        "--exists", is_flag=True, help="Compare one listing with the catalog; the default."
    ),
    click.option(
        "--sample",
        metavar="SHARE",
        callback=parsed(parse_share),
        help="And read back such a share of the objects, such as 1%.",
    ),
    click.option("--full", is_flag=True, help="And read back every object, and hash it."),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        help="Chooses the sample; without it, each is another.",
    ),
    click.option("--restart", is_flag=True, help="Begin a reading anew that was interrupted."),
    click.option(
        "--report",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write all that is wrong to this file, a JSON object a line.",
    ),
)


def depth_asked(options: dict[str, Any]) -> VerifyOptions:
    """The values of `depth_options`. Raises: UsageError."""
    from mirror.upkeep.verify import VerifyOptions

    names = ("exists", "sample", "full", "seed", "restart", "report")
    return VerifyOptions.of(**{name: options[name] for name in names})


@click.command("verify")
@depth_options
@bucket_options
@concurrency_option
@reporting_options
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Prove that the mirror has what its catalog says.

    Reads the bucket and writes nothing there. A reading that is interrupted goes on where it was.
    Exit status 3 when an object is missing, is not what the catalog says, or could not be read, or
    when there are orphans that gc would remove.

    \b
    Examples:
      mirror verify                        # one listing: every object is there, with its size
      mirror verify --sample 1%            # and another hundredth is read back each time
      mirror verify --full --report wrong.jsonl
    """
    from mirror.cli.views.upkeep_view import show
    from mirror.upkeep.verify import verify

    with reporting(session, "verify", options) as run:
        asked = depth_asked(options)
        run.settings = session.settings(
            {**bucket_flags(options), "sync.concurrency": options["concurrency"]}
        )
        with run.progress() as progress:
            report = verify(run.settings, asked, progress=progress)
        run.ended(report.exit_status, report.as_json())
    show(session, report, rows(report), closing(report))
    return report.exit_status


def rows(report: VerifyReport) -> list[Row]:
    from mirror.cli import output
    from mirror.cli.views.upkeep_view import trouble

    found: list[Row] = [
        ("checked", output.count(report.checked), f"against version {report.catalog_version}")
    ]
    if report.share:
        resumed = f", {report.resumed:,} of them by earlier runs" if report.resumed else ""
        found.append(("read back", output.count(report.read), output.size(report.bytes) + resumed))
    named_by = output.plural(report.rows_without_object, "row") + " name nothing"
    found += [
        ("missing", output.count(report.missing), named_by if report.rows_without_object else ""),
        ("mismatched", output.count(report.mismatched), ""),
        ("orphaned", output.count(report.orphaned), _orphans(report)),
    ]
    found += trouble("flagged", report.flagged, "kept, though their rows are flagged")
    found += trouble("not read", report.failed)
    return found


def _orphans(report: VerifyReport) -> str:
    from mirror.cli import output

    if not report.orphaned:
        return ""
    old = (
        f", {report.old_orphans:,} for gc to remove" if report.old_orphans else ", none for gc yet"
    )
    return output.size(report.orphaned_bytes) + old


def closing(report: VerifyReport) -> str:
    if report.missing or report.mismatched:
        return "mirror repair puts back what a cache still has."
    if report.old_orphans:
        return "mirror gc removes what no row names any more."
    return ""
