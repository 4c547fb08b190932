"""The run that holds a lock, as one line: the next run shows it when it is refused.

Arguments are left out, because they may have secrets.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Final

# Other users may be able to write the line.
LONGEST: Final = 1000


def write_holder(file: int, command: str) -> None:
    """Replace the content of an open file by the line of this process. Raises: OSError."""
    os.ftruncate(file, 0)
    os.pwrite(file, _this_run(command).encode("utf-8", "replace"), 0)


def _this_run(command: str) -> str:
    """Describe this process: its command, its number, its machine, and where it logs to."""
    log = _log()
    end = f", which logs to {log}" if log else ""
    return f"mirror {command}, process {os.getpid()} on {socket.gethostname()}{end}"


def _log() -> str:
    """Where standard error goes: a file, a terminal, or systemd's journal; empty if unknown."""
    try:
        kind = os.fstat(2).st_mode
        if stat.S_ISSOCK(kind) and os.environ.get("JOURNAL_STREAM"):
            return f"the journal (journalctl _PID={os.getpid()})"
        if stat.S_ISREG(kind) or os.isatty(2):
            path = os.readlink("/proc/self/fd/2")
            return "" if path.endswith(" (deleted)") else path
    except OSError:  # standard error is closed, or this is not Linux
        pass
    return ""


def as_shown(line: bytes) -> str:
    """The line as a part of a message; empty if it was not written yet."""
    text = line[:LONGEST].decode("utf-8", "replace").strip()
    return f": {text}" if text else ""
