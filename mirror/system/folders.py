"""Folders that are open: the names below one are resolved in it, wherever its path leads by then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from mirror.system.files import flush_folder

Name = bytes | str
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def folder_below(
    root: int | Name | os.PathLike[str], *names: Name, make: bool = False, durable: bool = False
) -> Iterator[int]:
    """Open a folder below `root` without following a symbolic link; yields its descriptor.

    Args:
        root: path or descriptor of a folder. A path may itself be a symbolic link.
        names: the folders on the way, one each.
        make: create missing folders.
        durable: flush the names of new folders to disk.

    Raises:
        OSError: a folder on the way is missing, is a symbolic link or is not a folder.
    """
    folder = os.dup(root) if isinstance(root, int) else os.open(root, _FOLDER)
    try:
        for name in names:
            below = _open(folder, name, make=make, durable=durable)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def _open(folder: int, name: Name, *, make: bool, durable: bool) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:  # another process was faster
        pass
    else:
        if durable:
            flush_folder(folder)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
