"""A downloaded image into the cache: whole or not at all, and never in place of a good one.

| at its place is                     | then                                                       |
|-------------------------------------|------------------------------------------------------------|
| nothing                             | it appears there                                           |
| a file whose verdict is `ok`        | that stays: somebody else was faster                       |
| a file that is bad                  | it takes the place of that one, in one step                |
| what cannot be read, or is no file  | that stays: it is not ours to judge                        |
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal, NamedTuple

from mirror.cache.prepare import Prepared, prepare
from mirror.cache.scan import Entry, display, unreadable
from mirror.content.digest import Identity
from mirror.content.placeholder import with_known_bad
from mirror.errors import Busy, CacheError

_TEMPORARY: Final = b".backfill-"

Standing = Literal["nothing", "good", "bad", "unreadable"]
HERE_TO_STAY: Final = frozenset(("good", "unreadable"))


def place_of(url_md5: bytes) -> bytes:
    """Where a cache has the image of a URL, unless it has one elsewhere already."""
    return url_md5.hex().encode() + b".jpg"


def standing(root: bytes, path: bytes, known_bad: frozenset[bytes]) -> Standing:
    """What is at a place of the cache now.

    Args:
        root: the cache's folder.
        path: relative to it.
        known_bad: hashes of contents that are placeholders wherever they are met.
    """
    try:
        seen = os.lstat(os.path.join(root, path))
    except FileNotFoundError:
        return "nothing"
    except OSError:
        return "unreadable"
    prepared = prepare(root, Entry(path, Identity.of(seen)), "decode")
    if not isinstance(prepared, Prepared):
        return "unreadable"
    found = with_known_bad(prepared.inspection, prepared.digest, known_bad)
    return "good" if found.verdict == "ok" else "bad"


class DownloadedFile(NamedTuple):
    """An image that is on disk and not yet in its place; `entry` is what it will be there."""

    entry: Entry
    temporary: bytes


def draft(root: bytes, path: bytes, body: bytes) -> DownloadedFile:
    """Write an image to a temporary name beside its place; `place` or `drop` it.

    Args:
        root: the cache's folder.
        path: the image's place, relative to it; its folder is there.
        body: the image.

    Raises:
        CacheError: the folder cannot be written, or the disk is full.
    """
    folder = os.path.dirname(os.path.join(root, path))
    temporary = os.path.join(folder, _TEMPORARY + secrets.token_hex(8).encode() + b".tmp")
    with _translated(root):
        try:
            with open(temporary, "xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            return DownloadedFile(Entry(path, Identity.of(os.lstat(temporary))), temporary)
        except BaseException:
            drop(temporary)
            raise


def place(root: bytes, made: DownloadedFile, known_bad: frozenset[bytes]) -> bool:
    """Put a draft in its place, or drop it where what is there stays; returns whether it is there.

    Args:
        root: the cache's folder.
        made: by `draft`.
        known_bad: as for `standing`.

    Raises:
        CacheError: the folder cannot be written.
    """
    path = made.entry.path
    target = os.path.join(root, path)
    with _translated(root):
        try:
            if not _appears(made.temporary, target):
                # Between this look and the next step another good file may come: as good as ours.
                if standing(root, path, known_bad) in HERE_TO_STAY:
                    return False
                os.replace(made.temporary, target)
        finally:
            drop(made.temporary)
        _sync_folder(os.path.dirname(target))
    return True


def drop(temporary: bytes) -> None:
    with suppress(OSError):
        os.unlink(temporary)


@contextmanager
def _translated(root: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"The cache folder {display(root)} cannot be written ({error.strerror}); make room or "
            "give this user access, and run again: nothing is lost."
        ) from None


def _appears(temporary: bytes, target: bytes) -> bool:
    """Give a file its name, if nothing has that name yet."""
    try:
        os.link(temporary, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            return False
        os.replace(temporary, target)
    return True


def _sync_folder(folder: bytes) -> None:
    # Some file systems of networks cannot; the name then lasts as they see fit.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def take_out(root: bytes, path: bytes, signature: bytes) -> bool:
    """Delete a file that `place` has put there, if it is still that one; returns whether it was."""
    whole = os.path.join(root, path)
    try:
        if Entry(path, Identity.of(os.lstat(whole))).signature != signature:
            return False
        os.unlink(whole)
    except OSError:
        return False
    return True


@contextmanager
def holding(root: bytes) -> Iterator[None]:
    """Holds a cache for one backfill, whoever runs it and wherever its state is; leaves no file.

    What a killed backfill left half written is cleared away; in sub-folders it stays, and is ignored.

    Raises:
        Busy: another backfill holds it.
        CacheError: there is no such folder.
    """
    import fcntl

    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise unreadable(root, error) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                f"Another backfill is at work on {display(root)}; wait for it to end."
            ) from None
        except OSError:
            pass  # a file system without locks for folders: the state's lock has to do
        _clear(root)
        yield
    finally:
        os.close(descriptor)


def _clear(root: bytes) -> None:
    with os.scandir(root) as scan:
        left = [item.name for item in scan if item.name.startswith(_TEMPORARY)]
    for name in left:
        with suppress(OSError):
            os.unlink(os.path.join(root, name))
