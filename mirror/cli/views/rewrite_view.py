"""The tables of `mirror rewrite`."""

from __future__ import annotations

from collections.abc import Iterator

from mirror.cli import output
from mirror.cli.log import say
from mirror.cli.session import Session
from mirror.dataset.rewrite.rewrite_report import RewriteReport
from mirror.system.display_text import plural, printable

_CLASSES_SHOWN = 20
_URL_SHOWN = 88

_WORDS = {
    "not_image": "not an image",
    "too_small": "too small",
    "license": "licence",
    "sample": "not in the sample",
    "near_duplicate": "copies of a photograph",
    "label_conflict": "photographs of several classes",
}
_WHY = {
    "few_units": "in fewer groups than there are splits",
    "pinned_units": "in groups that are pinned to other splits",
    "large_units": "in groups too large to divide like this",
    "mixed_units": "in groups that other classes share",
}


def show(session: Session, report: RewriteReport) -> None:
    """Print the report on standard output: one JSON object, or tables."""
    for warning in report.warnings:
        say(warning, "warning")
    if report.error is not None:
        say(str(report.error), "error")
    if session.concluded(report.as_json()):
        return
    output.table(_rows(report))
    if report.classes:
        output.echo()
        output.grid(["class", *report.splits], _class_rows(report))
        _show_imbalances(report)
    if report.config_diff:
        output.echo()
        output.echo_lines(report.config_diff.replace("\r\n", "\n").rstrip("\n"))
    if report.dry_run and report.error is None:
        output.echo("Dry run: nothing was written.")
    for path in report.outputs.values():
        output.echo(f"Written: {path}")
    if report.rejected:
        output.echo(f"Invalid records are in {report.rejected}")
    if report.config_backup:
        output.echo(f"Backup of the configuration: {report.config_backup}")


def _rows(report: RewriteReport) -> list[tuple[str, str, str]]:
    share = f"{report.written / report.records:.1%}" if report.records else ""
    rows = [
        ("records", output.count(report.records), ""),
        ("written", output.count(report.written), share),
    ]
    for name, count in report.splits.items():
        part = f"{count / report.written:.1%}" if report.written else ""
        rows.append((f"  {name}", output.count(count), part))
    if report.pinned:
        rows.append(("  pinned", output.count(report.pinned), "keep their earlier split"))
    if report.matched_by_photo:
        rows.append(("  matched by photo", output.count(report.matched_by_photo), "images"))
    if report.kept_missing:
        rows.append(
            (f"  not in the {report.place}", output.count(report.kept_missing), "kept unchanged")
        )
    rows += _copy_rows(report)
    rows.append(("dropped", output.count(sum(report.dropped.values())), ""))
    for reason, count in report.dropped.items():
        if count:
            words = _WORDS.get(reason, reason)
            words = f"not in the {report.place}" if reason == "not_mirrored" else words
            rows.append((f"  {words}", output.count(count), _first_example(report, reason)))
    if report.urls_dropped:
        rows.append(
            ("URLs removed", output.count(report.urls_dropped), "from lists that were kept")
        )
    rows.append(("took", output.duration(report.seconds), ""))
    return rows


def _copy_rows(report: RewriteReport) -> Iterator[tuple[str, str, str]]:
    if report.near_duplicate_groups is not None:
        crossing = f"{output.count(report.groups_crossing)} would have been in several splits"
        note = crossing if report.splits and report.near_duplicate_groups else ""
        yield "groups of copies", output.count(report.near_duplicate_groups), note
        if report.without_phash:
            yield "  without a hash", output.count(report.without_phash), "of the records"
    if report.label_conflicts:
        yield (
            "label conflicts",
            output.count(report.label_conflicts),
            "photographs under several classes",
        )


def _first_example(report: RewriteReport, reason: str) -> str:
    """The first example of a reason, in one line."""
    if not report.examples[reason]:
        return ""
    example = report.examples[reason][0]
    what = printable(example.what)
    what = what if len(what) <= _URL_SHOWN else f"{what[:_URL_SHOWN]}…"
    return f"record {example.number}: {what}"


def _class_rows(report: RewriteReport) -> Iterator[list[str]]:
    by_size = sorted(report.classes.items(), key=lambda item: (-sum(item[1]), item[0]))
    for name, counts in by_size[:_CLASSES_SHOWN]:
        yield [name, *map(output.count, counts)]
    rest = by_size[_CLASSES_SHOWN:]
    if rest:
        sums = [sum(column) for column in zip(*(counts for _, counts in rest), strict=True)]
        yield [f"and {len(rest):,} more", *map(output.count, sums)]


def _show_imbalances(report: RewriteReport) -> None:
    if not report.imbalances:
        return
    output.echo()
    number = len(report.imbalances)
    output.echo(
        f"{number:,} {'class misses its' if number == 1 else 'classes miss their'} "
        "share in some splits:"
    )
    for it in report.imbalances[:10]:
        output.echo(
            f"  {it.name}: {plural(it.records, 'record')} "
            f"{_WHY[it.reason]}; {it.have:,} in {it.split} instead of {it.want:,.1f}"
        )
    if len(report.imbalances) > 10:
        output.echo(f"  … and {len(report.imbalances) - 10:,} more (all of them with --json)")
