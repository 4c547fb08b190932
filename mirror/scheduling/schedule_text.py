"""The text of a schedule: a block of a crontab, or the units of a systemd timer. Pure.

Both name the program and the configuration by absolute paths, because a timer starts in another folder
and with another PATH than a shell.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import xxhash

from mirror.errors import UsageError

Every = Literal["15m", "30m", "hourly", "daily", "weekly"]

# Cron's five fields and systemd's calendar. {minute} differs from machine to machine, so that not all
# start at once.
_TIMES: Final[dict[Every, tuple[str, str]]] = {
    "15m": ("*/15 * * * *", "*:0/15"),
    "30m": ("*/30 * * * *", "*:0/30"),
    "hourly": ("{minute} * * * *", "*:{minute:02d}"),
    "daily": ("{minute} 3 * * *", "*-*-* 03:{minute:02d}"),
    "weekly": ("{minute} 3 * * 0", "Sun *-*-* 03:{minute:02d}"),
}
# What the user's own unit keeps of config/systemd/mirror-sync.service. The rest is for a system's service.
_KEPT: Final = (
    "Type", "SuccessExitStatus", "TimeoutStartSec", "TimeoutStopSec", "KillSignal", "KillMode", "Nice",
    "IOSchedulingClass",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What is to run, and when.

    Attributes:
        program: the words that start mirror: absolute paths.
        command: the command, such as `sync`.
        config: absolute path of the configuration; empty if every folder finds it.
        every: how often.
        minute: of the hour, 0 … 59.
        log: absolute path of a file for what a run says under cron.

    Raises:
        UsageError: a path has a line break, which no schedule can hold.
    """

    program: Sequence[str]
    command: str
    config: str
    every: Every
    minute: int
    log: str

    def __post_init__(self) -> None:
        for path in (*self.program, self.config, self.log):
            if re.search(r"[\r\n\0]", path):
                raise UsageError(
                    f"{path!r} has a line break, which no schedule can hold; rename it."
                )

    @property
    def words(self) -> list[str]:
        """The command line, a word each."""
        config = ["--config", self.config] if self.config else []
        return [*self.program, *config, "--quiet", self.command]

    @property
    def unit(self) -> str:
        """The name of the units, without their endings. Another configuration has another name."""
        return f"mirror-{self.command}-{xxhash.xxh32_hexdigest(os.fsencode(self.config))}"

    @property
    def mark(self) -> str:
        """The line above the job in a crontab, by which it is found again."""
        return f"# {self.unit}: written by mirror schedule, which also removes it"


def cron_block(job: Job) -> list[str]:
    """Return the lines of a crontab: the mark, and the job."""
    times = _TIMES[job.every][0].format(minute=job.minute)
    line = f"{shlex.join(job.words)} >> {shlex.quote(job.log)} 2>&1"
    # cron takes an unescaped percent sign for the end of the line.
    return [job.mark, f"{times} {line}".replace("%", r"\%")]


def with_cron_block(crontab: str, job: Job, block: Sequence[str]) -> str:
    """Return a crontab in which this job has these lines, and all other lines are as they were.

    Args:
        crontab: the present one.
        job: whose lines are replaced.
        block: the new lines; none to remove the job.
    """
    lines = crontab.splitlines()
    kept: list[str] = []
    at = 0
    while at < len(lines):
        if lines[at] == job.mark:
            at += 2
            continue
        kept.append(lines[at])
        at += 1
    lines = [*kept, *block]
    return "\n".join(lines) + "\n" if lines else ""


def systemd_units(job: Job, service: str) -> dict[str, str]:
    """Return the user's units by their file names.

    Args:
        job: what they start.
        service: the text of config/systemd/mirror-sync.service, whose directives for a run they share.
    """
    kept = [line for line in service.splitlines() if line.partition("=")[0] in _KEPT]
    words = " ".join(map(_systemd_word, job.words))
    calendar = _TIMES[job.every][1].format(minute=job.minute)
    head = f"# Written by mirror schedule, which also removes it.\n[Unit]\nDescription=mirror {job.command}"
    return {
        f"{job.unit}.service": "\n".join([head, "", "[Service]", f"ExecStart={words}", *kept, ""]),
        f"{job.unit}.timer": "\n".join(
            [
                head, "", "[Timer]", f"OnCalendar={calendar}", "Persistent=true", "",
                "[Install]", "WantedBy=timers.target", "",
            ]
        ),
    }  # fmt: skip


def _systemd_word(word: str) -> str:
    """Quote a word for ExecStart: systemd expands $ and %, and reads backslashes."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$").replace("%", "%%")
    return f'"{escaped}"' if re.search(r"[\s\"'\\;]", word) else escaped
