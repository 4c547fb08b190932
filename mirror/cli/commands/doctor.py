"""`mirror doctor`."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import click

from mirror.cli import output
from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.options import (
    bucket_flags,
    bucket_options,
    cache_option,
    public_url_option,
)
from mirror.cli.session import Session, session_options

if TYPE_CHECKING:
    from mirror.config.settings import Settings
    from mirror.diagnosis.finding import Finding

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skip": "–   "}
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}
_WIDTH = len("if-none-match")


@click.command("doctor", cls=SectionedCommand)
@section(
    "What to check",
    cache_option,
    click.option(
        "--read-only", is_flag=True, help="Write no probes; for a key that may only read."
    ),
)
@bucket_options
@public_url_option
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Check your setup: credentials, bucket, cache, network, clock. Say how to fix each problem.

    Checks whether the bucket can be written, read and listed, and whether its server honours
    conditions and checksums. For that it writes a few probes below doctor/ and deletes them again.
    Also checks latency, the public URL, the cache and the state. The exit status is 78 if the
    configuration or the credentials are wrong, 1 if anything else is, and 0 if nothing fails.

    \b
    Examples:
      mirror doctor
      mirror doctor --read-only            # on a machine whose key may only read
      mirror doctor --bucket s3://plants/inat --endpoint https://s3.example.org
    """
    flags = {
        **bucket_flags(options),
        "bucket.public_url": options["public_url"],
        "cache.dir": options["cache"],
    }
    settings = session.settings(flags, warn=False)
    return examine_and_show(session, settings, read_only=options["read_only"])


def examine_and_show(session: Session, settings: Settings, *, read_only: bool, **more: str) -> int:
    """Show each finding as it is made, and return the exit status. `more` goes into the JSON."""
    from mirror.diagnosis.doctor import DoctorOptions, examine
    from mirror.diagnosis.finding import DoctorReport

    found: list[Finding] = []
    findings = examine(settings, DoctorOptions(read_only=read_only))
    for (skipped, _), alike in groupby(findings, _alike):
        # Checks that were skipped for one reason share a line; others are shown at once.
        together = list(islice(alike, None if skipped else 1))
        found += together
        if not session.json and (session.verbosity >= 0 or together[0].status in ("warn", "fail")):
            _show(together)
    report = DoctorReport(found)
    if session.json:
        session.print_json({**more, **report.as_json()})
    return report.exit_status


def _alike(finding: Finding) -> tuple[bool, str]:
    return finding.status == "skip", finding.what if finding.status == "skip" else finding.name


def _show(together: Sequence[Finding]) -> None:
    finding, *more = together
    mark = click.style(_MARKS[finding.status], fg=_COLOURS[finding.status])
    also = f"; likewise {', '.join(one.name for one in more)}" if more else ""
    name = f"{finding.name:<{_WIDTH}}"
    first, *rest = _lines(f"{finding.what}{also}")
    output.echo(f"  {name}  {first}", prefix=mark)
    for line in [*rest, *_lines(f"→ {finding.fix}" if finding.fix else "")]:
        output.echo(f"      {'':<{_WIDTH}}  {line}")


def _lines(text: str) -> list[str]:
    """The text in lines of the terminal's width; one line where a program reads it."""
    if not sys.stdout.isatty():
        return [text] if text else []
    room = max(30, shutil.get_terminal_size().columns - _WIDTH - 8)
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
