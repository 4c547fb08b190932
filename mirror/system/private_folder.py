"""Tell whether this user alone can change a folder or a file. Root is trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def is_own(status: os.stat_result) -> bool:
    """Whether this user owns a file or a folder, and no other user may write it.

    An access list that lets others write shows as a writable group.
    """
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE


def is_private_folder(folder: Path) -> bool:
    """Whether no other user can change the names in a folder, nor replace the folder itself.

    The folder must be `is_own`. Each folder above it must belong to this user or to root. Others may
    write there only if it is sticky, as `/tmp` is, because they cannot rename this user's folder then.
    """
    try:
        real = folder.resolve(strict=True)
        if not is_own(real.stat()):
            return False
        above = [parent.stat() for parent in real.parents]
    except OSError:
        return False
    return all(
        status.st_uid in (0, os.geteuid())
        and (not status.st_mode & _OTHERS_WRITE or status.st_mode & stat.S_ISVTX)
        for status in above
    )
