"""The table of `mirror backfill`."""

from __future__ import annotations

from collections.abc import Iterator

from mirror.backfill.backfill_report import BackfillReport
from mirror.cli import output
from mirror.cli.log import say
from mirror.cli.session import Session
from mirror.system.display_text import format_size, plural

_WORDS = {
    "gone": "deleted, private or withdrawn at the source",
    "placeholder": "a placeholder in their place",
    "not_image": "the answer was no image",
    "too_large": "larger than backfill.max_size",
    "not_allowed": "at hosts that are not allowed",
    "server_error": "the source failed",
    "network": "the connection failed",
    "unreadable": "a file in their place that cannot be read",
}


def show(session: Session, report: BackfillReport) -> None:
    """Print the report on standard output: one JSON object, or a table."""
    asked_for = report.failed_total - report.plan.not_allowed
    output.listing(
        f"{plural(asked_for, 'image')} could not be downloaded:" if asked_for else "",
        [f"{url}: {kind}, {why}".rstrip(", ") for url, kind, why in report.failures],
    )
    if report.error is not None:
        say(str(report.error), "error")
    if session.concluded(report.as_json()):
        return
    output.table(_rows(report))
    if report.dry_run:
        if report.estimate is not None:
            output.echo(report.estimate.arithmetic)
        output.echo("Dry run: no request was sent, and nothing was kept.")
        return
    if report.stopped:
        output.echo(f"It ended because {report.stopped}.")
    if report.left_estimate is not None:
        output.echo(f"Left: {report.left_estimate.arithmetic}")


def _rows(report: BackfillReport) -> Iterator[tuple[str, ...]]:
    plan = report.plan
    yield (
        "already",
        output.count(plan.already),
        f"mirrored {plan.mirrored:,}, cached {plan.cached:,}",
    )
    if plan.unlicensed:
        yield "unlicensed", output.count(plan.unlicensed), "their licence is not allowed"
    flagged = f"{plan.flagged:,} have a bad file in the cache" if plan.flagged else ""
    yield "wanted", output.count(plan.wanted), flagged
    if plan.gone:
        yield "  known to be gone", output.count(plan.gone), "not requested again"
    if plan.given_up:
        yield "  given up before", output.count(plan.given_up), "--retry-failed retries them"
    if plan.postponed:
        yield "  postponed", output.count(plan.postponed), "retried later"
    if report.dry_run:
        return
    yield "downloaded", output.count(report.downloaded), format_size(report.bytes) + " received"
    if report.overtaken:
        yield "overtaken", output.count(report.overtaken), "appeared in the cache meanwhile"
    if report.taken_back:
        yield (
            "taken back",
            output.count(report.taken_back),
            "placeholders, removed from the cache again",
        )
    yield "failed", output.count(report.failed_total), ""
    for kind, number in report.failed.items():
        if number:
            yield f"  {kind}", output.count(number), _WORDS.get(kind, "")
    yield "left", output.count(report.left), ""
    yield "requests", output.count(report.requests), f"throttled {report.throttled:,}"
    yield "took", output.duration(report.seconds), ""
