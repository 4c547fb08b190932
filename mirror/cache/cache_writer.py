"""Images into the cache's folder: whole, flushed, under all of their names, never over another file."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

from mirror.cache.safe_folder import NO_LINK, PartFile, SafeFolder
from mirror.content.digest import Digest
from mirror.errors import CacheError

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}

ABSENT: Final = "absent"
ALREADY: Final = "already"


class Name(NamedTuple):
    """A name to write an image under; `replace` what has it now."""

    name: bytes
    replace: bool


class Outcome(NamedTuple):
    """What became of one name. `reason` says why it was not written."""

    name: Name
    what: Literal["written", "kept", "failed"]
    reason: str = ""


class CacheWriter:
    """Writes images into a folder. Blocks: call in threads, of which several may write at once.

    Args:
        tree: the folder.
        folder: its name, for messages.
        hardlink: give a file all names that its content has, instead of a copy for each.
    """

    def __init__(self, tree: SafeFolder, folder: Path, *, hardlink: bool) -> None:
        self._tree = tree
        self._folder = folder
        self._hardlink = hardlink

    def standing(self, name: bytes, expected: Digest, *, verify: bool) -> str:
        """What has a name: `ABSENT`, `ALREADY`, or in words what else.

        Args:
            name: of an image.
            expected: what it should hold.
            verify: read a file of the right size.
        """
        found = self._tree.status(name)
        if found is None:
            return ABSENT
        if not stat.S_ISREG(found.st_mode):
            return "no plain file has the name"
        if found.st_size != expected.size:
            return f"{found.st_size:,} bytes, where the mirror has {expected.size:,}"
        if not verify:
            return ALREADY
        try:
            seen = self._tree.read(name)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if seen is None:
            return ABSENT
        return ALREADY if seen.digest == expected else "has other bytes"

    def begin(self, name: Name) -> PartFile:
        """A part file, to be filled by `append` and given its names by `publish`.

        Raises:
            CacheError: the folder takes no file.
        """
        with self._telling():
            return PartFile(self._tree, name.name)

    def append(self, part: PartFile, data: bytes) -> None:
        """Raises: CacheError: the disk is full."""
        with self._telling():
            part.write(data)

    def write(self, body: bytes, names: Sequence[Name]) -> list[Outcome]:
        """An image under its names. Raises: CacheError."""
        with self.begin(names[0]) as part:
            self.append(part, body)
            return self.publish(part, names)

    def publish(self, part: PartFile, names: Sequence[Name]) -> list[Outcome]:
        """A whole part under the first of its names, and its content under the others.

        Raises:
            CacheError: the disk is full, or the folder takes no file.
        """
        first, *others = names
        outcomes = [self._named(first, part)]
        linked = self._hardlink and outcomes[0].what == "written"
        return outcomes + [
            (linked and self._linked(name, part)) or self._copied(name, part) for name in others
        ]

    def _linked(self, name: Name, part: PartFile) -> Outcome | None:
        """None where there must be a copy."""
        if name.replace:
            return None
        try:
            part.link(name.name)
        except FileExistsError:
            return Outcome(name, "kept", "appeared meanwhile")
        except OSError as error:
            if error.errno in NO_LINK:
                return None
            return Outcome(name, "failed", _words(error))
        return Outcome(name, "written")

    def _copied(self, name: Name, part: PartFile) -> Outcome:
        with self.begin(name) as copy:
            with self._telling():
                copy.copy(part)
            return self._named(name, copy)

    def _named(self, name: Name, part: PartFile) -> Outcome:
        try:
            with self._telling():
                part.publish(replace=name.replace)
        except FileExistsError:
            return Outcome(name, "kept", "appeared meanwhile")
        except OSError as error:
            return Outcome(name, "failed", _words(error))
        return Outcome(name, "written")

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Errors that every other file would meet, in words."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise CacheError(
                    f"The disk under {self._folder} is full; make room and run again: what is "
                    "there already is not read again."
                ) from None
            if error.errno in _NOT_ALLOWED:
                raise CacheError(
                    f"Files cannot be made in {self._folder} ({error.strerror}); make it writable "
                    "for this user."
                ) from None
            raise


def _words(error: OSError) -> str:
    return f"cannot be written: {error.strerror or error}"
