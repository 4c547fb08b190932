"""Put a job into a user's crontab or systemd, and take it out again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mirror.errors import MirrorError, UsageError
from mirror.resources import resource
from mirror.scheduling.schedule_text import Job, cron_block, systemd_units, with_cron_block
from mirror.system.files import replacing

Kind = Literal["cron", "systemd"]
Change = Literal["added", "replaced", "removed", "unchanged"]

_SERVICE = "config/systemd/mirror-sync.service"
# systemctl and crontab answer at once, unless the machine is in trouble.
_SECONDS = 30


class Plan(NamedTuple):
    """What a call would change.

    Attributes:
        kind: where the job goes.
        change: what becomes of it there.
        text: the lines, or the units by their paths, as they will be; empty for a removal.
        files: the units to write, by path; of a crontab the one file `crontab`.
    """

    kind: Kind
    change: Change
    text: str
    files: dict[str, str]


def kind_here() -> Kind:
    """Return what this machine has: a systemd of the user, or else cron.

    Raises:
        UsageError: it has neither.
    """
    if shutil.which("systemctl") and _run(["systemctl", "--user", "show-environment"])[0] == 0:
        return "systemd"
    if shutil.which("crontab"):
        return "cron"
    raise UsageError(
        "This machine has neither a systemd for this user nor crontab; let another scheduler run "
        "mirror sync, as docs/operations.md describes."
    )


def plan_schedule(job: Job, kind: Kind, *, remove: bool = False) -> Plan:
    """Compare a job with what is scheduled. Changes nothing.

    Args:
        job: the job.
        kind: where to look.
        remove: take it out.

    Raises:
        MirrorError: the crontab cannot be read.
    """
    if kind == "cron":
        before = _crontab()
        block = [] if remove else cron_block(job)
        after = with_cron_block(before, job, block)
        had = job.mark in before.splitlines()
        return Plan(
            kind, _change(had, before == after, remove), "\n".join(block), {"crontab": after}
        )
    units = systemd_units(job, resource(_SERVICE).read_text("utf-8"))
    files = {str(_unit_folder() / name): text for name, text in units.items()}
    had = any(os.path.exists(path) for path in files)
    same = all(
        Path(path).is_file() and Path(path).read_text() == text for path, text in files.items()
    )
    text = "" if remove else "\n".join(f"{path}:\n{text}" for path, text in files.items())
    return Plan(kind, _change(had, same and not remove, remove), text, files)


def _change(had: bool, same: bool, remove: bool) -> Change:
    if remove:
        return "removed" if had else "unchanged"
    return "unchanged" if same else "replaced" if had else "added"


def carry_out(plan: Plan, job: Job) -> None:
    """Make the planned change.

    Raises:
        MirrorError: crontab or systemctl failed; what it said is in the message.
    """
    if plan.kind == "cron":
        Path(job.log).parent.mkdir(parents=True, exist_ok=True)
        _checked(["crontab", "-"], plan.files["crontab"])
        return
    timer = f"{job.unit}.timer"
    if plan.change == "removed":
        _checked(["systemctl", "--user", "disable", "--now", timer])
        for path in plan.files:
            Path(path).unlink(missing_ok=True)
        _checked(["systemctl", "--user", "daemon-reload"])
        return
    for path, text in plan.files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as file:
            file.write(text)
    _checked(["systemctl", "--user", "daemon-reload"])
    _checked(["systemctl", "--user", "enable", timer])
    _checked(["systemctl", "--user", "restart", timer])


def _unit_folder() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "systemd" / "user"


def _crontab() -> str:
    if not shutil.which("crontab"):
        raise UsageError("There is no crontab on this machine; use --systemd.")
    status, out, error = _run(["crontab", "-l"])
    if status == 0:
        return out
    if "no crontab" in error.lower():
        return ""
    raise MirrorError(f"crontab -l failed ({error.strip() or status}); may this user use cron?")


def _checked(words: Sequence[str], text: str | None = None) -> None:
    status, _, error = _run(words, text)
    if status:
        said = " ".join(error.split()) or f"status {status}"
        raise MirrorError(f"{' '.join(words)} failed ({said}); correct that and run again.")


def _run(words: Sequence[str], text: str | None = None) -> tuple[int, str, str]:
    """Run a program; returns its status and what it wrote to both outputs."""
    try:
        done = subprocess.run(  # noqa: S603 - crontab and systemctl, without a shell
            words, input=text, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", str(error)
    return done.returncode, done.stdout, done.stderr
