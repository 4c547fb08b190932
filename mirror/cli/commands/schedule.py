"""`mirror schedule`."""

from __future__ import annotations

import os
import socket
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirror.cli.help_sections import SectionedCommand, section
from mirror.cli.log import say
from mirror.cli.session import Session, session_options
from mirror.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from mirror.config.settings import Settings
    from mirror.scheduling.install_schedule import Kind, Plan
    from mirror.scheduling.schedule_text import Job


@click.command("schedule", cls=SectionedCommand)
@click.argument(
    "what", metavar="[COMMAND]", type=click.Choice(["sync", "verify", "gc"]), default="sync"
)
@section(
    "When and where",
    click.option(
        "--every",
        type=click.Choice(["15m", "30m", "hourly", "daily", "weekly"]),
        default="daily",
        show_default=True,
        help="How often it runs. Daily and weekly runs start between 3 and 4 o'clock.",
    ),
    click.option("--cron", "kind", flag_value="cron", help="Use the user's crontab."),
    click.option(
        "--systemd", "kind", flag_value="systemd", help="Use a timer of the user's systemd."
    ),
    click.option("--remove", is_flag=True, help="Take the job out again."),
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    click.option("-n", "--dry-run", is_flag=True, help="Show the text; change nothing."),
)
@session_options
@click.pass_obj
def command(session: Session, /, **options: Any) -> int:
    """Run mirror sync by itself: write a line of cron or a systemd timer for this user.

    COMMAND is sync, verify or gc; sync if you name none. The text is shown first, with the paths of this
    program and this configuration. A second call changes nothing; with another --every it replaces the
    job. Without --cron and --systemd, a systemd of the user comes first.

    \b
    Examples:
      mirror schedule
      mirror schedule --every 15m --yes
      mirror schedule --remove
    """
    from mirror.cli import output
    from mirror.scheduling.install_schedule import carry_out, kind_here, plan_schedule

    settings = session.settings({})
    _ = settings.bucket_url
    if options["what"] == "sync":
        _ = settings.cache_dir
    job = _job(session, settings, options)
    kind: Kind = options["kind"] or kind_here()
    plan = plan_schedule(job, kind, remove=options["remove"])
    quiet = session.json or session.verbosity < 0
    if not quiet and plan.text:
        output.echo_lines(plan.text.rstrip("\n"))
    if plan.change != "unchanged" and not options["dry_run"]:
        if not options["yes"]:
            _confirm(session, plan)
        carry_out(plan, job)
    if not options["remove"]:
        _warn_of_keys(settings)
        if kind == "systemd" and plan.change == "added":
            say(
                "A timer of a user runs only while the user is logged in; loginctl enable-linger changes that."
            )
    session.concluded(
        {
            "kind": kind,
            "command": job.command,
            "every": job.every,
            "change": plan.change,
            "text": plan.text,
            "dry_run": options["dry_run"],
        }
    )
    if not quiet:
        output.echo(_outcome(plan, job, dry_run=options["dry_run"]))
    return EXIT_DONE


def _confirm(session: Session, plan: Plan) -> None:
    if session.json or not sys.stdin.isatty():
        raise UsageError("Nobody can be asked here: look with --dry-run, then add --yes.")
    where = "your crontab" if plan.kind == "cron" else "your systemd"
    question = f"Remove it from {where}?" if plan.change == "removed" else f"Write it to {where}?"
    if not click.confirm(question, err=True):
        raise UsageError("Nothing was changed.")


def _outcome(plan: Plan, job: Job, *, dry_run: bool) -> str:
    where = "the crontab" if plan.kind == "cron" else "systemd"
    if plan.change == "unchanged":
        return f"Nothing to change: mirror {job.command} is as asked in {where}."
    if dry_run:
        return "Dry run: nothing was changed."
    done = {"added": "Added to", "replaced": "Replaced in", "removed": "Removed from"}[plan.change]
    return f"{done} {where}: mirror {job.command}"


def _job(session: Session, settings: Settings, options: dict[str, Any]) -> Job:
    from mirror.scheduling.schedule_text import Job

    here = Path("mirror.toml")
    config = session.config or (here if here.is_file() else None)
    name = os.path.abspath(config) if config else ""
    # The same on every call, and another one on another machine.
    minute = zlib.crc32(f"{socket.gethostname()}:{name}".encode()) % 60
    log = settings.schedule_dir / f"{options['what']}.log"
    return Job(_program(), options["what"], name, options["every"], minute, str(log))


def _program() -> list[str]:
    """The words that start this program, whatever folder and PATH a timer has."""
    called = os.path.abspath(sys.argv[0])
    if os.path.basename(called) == "mirror" and os.access(called, os.X_OK):
        return [called]
    return [sys.executable, "-P", "-m", "mirror"]  # -P: never from the folder it starts in


def _warn_of_keys(settings: Settings) -> None:
    if settings.bucket_url.scheme == "s3" and os.environ.get("AWS_ACCESS_KEY_ID"):
        say(
            "A timer does not have the AWS_* variables of this shell; put the keys into ~/.aws/credentials, "
            "or use a role.",
            "warning",
        )
