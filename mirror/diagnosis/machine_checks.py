"""Checks of this machine: the cache's folder must be readable, the state's folder writable."""

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
from mirror.system.display_text import format_size, plural
from mirror.system.files import open_regular

# Enough to tell what kind of folder it is; a million files would take seconds.
_SAMPLED_FILES: Final = 10_000
# A state and an index of a million files are about 400 MB.
_LITTLE_SPACE: Final = 1_000_000_000
_READ_FIX: Final = (
    "Let this user read it, new files included (d:): chown, chmod, or "
    "setfacl -R -m u:mirror:rX,d:u:mirror:rX."
)


def cache(settings: Settings) -> Finding:
    """Check that the cache exists, is readable, and names its files after URLs."""
    if not settings.cache.dir:
        return skip("cache", "none is configured: this machine only reads the mirror")
    folder, count = settings.cache_dir, ScanCount()
    try:
        files = walk(os.fsencode(folder), settings.cache.extensions, count)
        first = list(itertools.islice(files, _SAMPLED_FILES))
    except MirrorError as error:
        return fail("cache", str(error), "Mount its disk, or correct cache.dir.", EXIT_CONFIG)
    if count.unreadable:
        path, why = count.unreadable[0]
        return fail("cache", f"{path}: {why} cannot be read", _READ_FIX)
    if count.links:
        fix = "Put the files themselves there, or mount a folder there."
        example = f"{count.links:,}, for example {display(count.link_example)}"
        return warn("cache", f"symbolic links are not followed ({example})", fix)
    if not first:
        if count.ignored:
            fix = "Files are named <md5 of the URL>.<extension>: check cache.dir and cache.extensions."
            return warn("cache", f"none of {count.ignored:,} files is named by a URL", fix)
        return warn("cache", f"{folder} is empty", "Is its disk mounted?")
    try:
        descriptor, _ = open_regular(folder / os.fsdecode(first[0][0]))
        with open(descriptor, "rb") as file:
            file.read(1)
    except OSError as error:
        what = f"{display(first[0][0])} cannot be read ({error.strerror})"
        return fail("cache", what, _READ_FIX)
    more = "at least " if len(first) == _SAMPLED_FILES else ""
    return ok("cache", f"{more}{plural(len(first), 'file')} in {folder}")


def state(settings: Settings) -> Finding:
    """Check that the state's folder can be made and written, on a disk with free space."""
    folder = settings.state_dir if settings.cache.dir else settings.index_dir
    if (owner := _other_owner(folder)) is not None:
        # Stop here: a folder that root makes would itself be the fault.
        fix = f"Run mirror as that user: runuser -u {owner} -- mirror …"
        return warn(
            "state", f"{folder.parent} belongs to {owner}, who cannot write files of root", fix
        )
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
        fix = "Free some space, or set state.dir: a million files take about 400 MB."
        return warn("state", f"{format_size(free)} are free under {folder}", fix)
    return ok("state", f"{folder}, {format_size(free)} free")


def _other_owner(folder: Path) -> str | None:
    """The owner of the nearest existing parent, if this process is root and the owner is not."""
    if os.geteuid() != 0:
        return None
    above = next(parent for parent in folder.parents if parent.exists())
    uid = above.stat().st_uid
    try:
        return above.owner() if uid else None
    except KeyError:
        return str(uid)


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder."""
    return shutil.disk_usage(folder).free
