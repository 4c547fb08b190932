"""An id of this machine since it last started."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID: Final = Path("/etc/machine-id")


def boot_id(boot: Path = _BOOT_ID, machine: Path = _MACHINE_ID) -> str | None:
    """Return an id that changes with the machine and with each start; None where it has no such id.

    It is a hash, because machine-id(5) asks programs not to publish the id itself.

    Args:
        boot: holds the kernel's random id of this start (Linux).
        machine: holds the installation's id; containers may have none.
    """
    started = _read(boot)
    if not started:
        return None
    return hashlib.sha256(f"mirror\0{started}\0{_read(machine)}".encode()).hexdigest()[:16]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
