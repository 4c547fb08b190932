"""What a run needs of this machine: a cache that can be read, a state that can be written."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from mirror.cache.scan import ScanCount, display, walk
from mirror.config.settings import Settings
from mirror.diagnosis.finding import Finding, fail, ok, skip, warn
from mirror.errors import EXIT_CONFIG, MirrorError

# Enough to see what kind of folder it is; a million would take seconds.
_LOOKED_AT: Final = 10_000
# A state and an index of a million files are about 400 MB.
_LITTLE_SPACE: Final = 1_000_000_000
_READ_FIX: Final = (
    "Let this user read it, and files to come (d:): chown, chmod, or "
    "setfacl -R -m u:mirror:rX,d:u:mirror:rX."
)


def cache(settings: Settings) -> Finding:
    """The cache's folder: there, readable, and with files named as a URL-keyed cache names them."""
    if not settings.cache.dir:
        return skip("cache", "none is configured: this machine only reads the mirror")
    folder, count = settings.cache_dir, ScanCount()
    try:
        files = walk(os.fsencode(folder), settings.cache.extensions, count)
        first = list(itertools.islice(files, _LOOKED_AT))
    except MirrorError as error:
        return fail("cache", str(error), "Mount its disk, or correct cache.dir.", EXIT_CONFIG)
    if count.unreadable:
        path, why = count.unreadable[0]
        return fail("cache", f"{path}: {why} cannot be read", _READ_FIX)
    if not first:
        if count.ignored:
            fix = "Files are named <md5 of the URL>.<extension>: check cache.dir and cache.extensions."
            return warn("cache", f"none of {count.ignored:,} files is named by a URL", fix)
        return warn("cache", f"{folder} is empty", "Is its disk mounted?")
    try:
        with (folder / os.fsdecode(first[0][0])).open("rb") as file:
            file.read(1)
    except OSError as error:
        what = f"{display(first[0][0])} cannot be read ({error.strerror})"
        return fail("cache", what, _READ_FIX)
    more = "at least " if len(first) == _LOOKED_AT else ""
    return ok("cache", f"{more}{len(first):,} files in {folder}")


def state(settings: Settings) -> Finding:
    """The state's folder: can be made and written, on a disk with room."""
    folder = settings.state_dir if settings.cache.dir else settings.index_dir
    if (owner := _other_owner(folder)) is not None:
        # Looked at no further: a folder that root makes here is what would be wrong.
        fix = f"Run mirror as that user: runuser -u {owner} -- mirror …"
        return warn("state", f"{folder.parent} is {owner}'s, who cannot write what root makes", fix)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"doctor")
            file.flush()
    except OSError as error:
        fix = "Make the folder writable for this user, or set state.dir."
        what = f"{folder} cannot be written ({error.strerror})"
        return fail("state", what, fix, EXIT_CONFIG)
    free = free_bytes(folder)
    if free < _LITTLE_SPACE:
        fix = "Make room, or set state.dir: a million files take about 400 MB."
        return warn("state", f"{free / 1e6:,.0f} MB are free under {folder}", fix)
    return ok("state", f"{folder}, {free / 1e9:,.0f} GB free")


def _other_owner(folder: Path) -> str | None:
    """Whose the folder around it is, if this is root and that is somebody else."""
    if os.geteuid() != 0:
        return None
    above = next(parent for parent in folder.parents if parent.exists())
    uid = above.stat().st_uid
    try:
        return above.owner() if uid else None
    except KeyError:
        return str(uid)


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
