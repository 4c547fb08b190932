"""`mirror doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mirror.cli.options import (
    bucket_flags,
    bucket_options,
    cache_option,
    public_url_option,
)
from mirror.cli.session import Session, session_options

if TYPE_CHECKING:
    from mirror.config import Settings
    from mirror.diagnosis.finding import Finding

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skip": "–   "}
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}
_WIDTH = len("if-none-match")


@click.command("doctor")
@cache_option
@bucket_options
@public_url_option
@click.option("--read-only", is_flag=True, help="Write no probes: for a key that may only read.")
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Look at all that a run relies on, and say what to do about what is wrong.

    Credentials, network, region, clock; whether the bucket can be written, read and listed, and
    whether its server honours conditions and checksums, by a few probes below doctor/ that are
    deleted again; latency; the public URL; the cache and the state. Ends with 78 if the
    configuration or the credentials are at fault, 1 if anything else is, and 0 if nothing fails.

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
    return examine_and_show(session, session.settings(flags), read_only=options["read_only"])


def examine_and_show(session: Session, settings: Settings, *, read_only: bool, **more: str) -> int:
    """All findings, each shown as it is made; returns the exit status. `more` goes into the JSON."""
    from mirror.diagnosis.doctor import DoctorOptions, examine
    from mirror.diagnosis.finding import exit_status

    found = []
    for finding in examine(settings, DoctorOptions(read_only=read_only)):
        found.append(finding)
        if not session.json and (session.verbosity >= 0 or finding.status == "fail"):
            _show(finding)
    status = exit_status(found)
    if session.json:
        counts = {name: sum(f.status == name for f in found) for name in _MARKS}
        checks = [finding.as_json() for finding in found]
        session.print_json({**more, **counts, "checks": checks, "exit_status": status})
    return status


def _show(finding: Finding) -> None:
    mark = click.style(_MARKS[finding.status], fg=_COLOURS[finding.status])
    click.echo(f"{mark}  {finding.name:<{_WIDTH}}  {finding.what}")
    if finding.fix:
        click.echo(f"      {'':<{_WIDTH}}  → {finding.fix}")
