"""The one writer of the cache folder: an image appears whole, on disk, and never over a good file.

part file (temporary name) ──► fsync ──► link or rename to the real name ──► fsync the folder
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Literal, NamedTuple

from mirror.cache.cache_lock import cache_locked
from mirror.cache.prepare import judge_place
from mirror.cache.safe_folder import NO_LINK, PartFile, SafeFolder
from mirror.cache.scan import Entry, display, unreadable
from mirror.content.digest import Digest, Identity
from mirror.errors import CacheError

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}

# Results of `compare`; any other text describes a difference.
ABSENT: Final = "absent"
SAME: Final = "same"


class TargetName(NamedTuple):
    """A name for an image, relative to the cache; `replace` whatever has it now."""

    name: bytes
    replace: bool


class WriteResult(NamedTuple):
    """The result for one name. `reason` says why it was not written."""

    target: TargetName
    outcome: Literal["written", "kept", "failed"]
    reason: str = ""


def cache_name(url_md5: bytes) -> bytes:
    """The file name under which a cache stores a new image of a URL."""
    return url_md5.hex().encode() + b".jpg"


class CacheWriter:
    """Writes images into the cache. Blocks: call it in threads; several may write at once.

    Args:
        tree: the open cache folder.
        root: its path.
        hardlink: link all names of a content to one file instead of writing a copy for each.
    """

    def __init__(self, tree: SafeFolder, root: bytes, *, hardlink: bool = False) -> None:
        self._tree = tree
        self._root = root
        self._hardlink = hardlink

    def compare(self, name: bytes, expected: Digest, *, verify: bool) -> str:
        """Compare the file under a name with an image: `ABSENT`, `SAME` or the difference in words.

        Args:
            name: the file's name.
            expected: digest and size of the image.
            verify: also read a file of the right size.
        """
        found = self._tree.status(name)
        if found is None:
            return ABSENT
        if not stat.S_ISREG(found.st_mode):
            return "is not a regular file"
        if found.st_size != expected.size:
            return f"{found.st_size:,} bytes, where the mirror has {expected.size:,}"
        if not verify:
            return SAME
        try:
            read = self._tree.read(name)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if read is None:
            return ABSENT
        return SAME if read.digest == expected else "has other bytes"

    def begin(self, path: bytes) -> PartFile:
        """Create a part file, to be filled with `append` and named with `publish`.

        Raises:
            CacheError: no file can be created in the folder.
        """
        with self._translated():
            return PartFile(self._tree, path)

    def append(self, part: PartFile, data: bytes) -> None:
        """Append bytes to a part file. Raises: CacheError."""
        with self._translated():
            part.write(data)

    def write(self, body: bytes, targets: Sequence[TargetName]) -> list[WriteResult]:
        """Write an image under its names. Raises: CacheError."""
        with self.begin(targets[0].name) as part:
            self.append(part, body)
            return self.publish(part, targets)

    def publish(self, part: PartFile, targets: Sequence[TargetName]) -> list[WriteResult]:
        """Give a complete part file the first name, and its content the others.

        Raises:
            CacheError: the disk is full, or no file can be created in the folder.
        """
        first, *others = targets
        results = [self._publish(first, part)]
        can_link = self._hardlink and results[0].outcome == "written"
        return results + [
            (can_link and self._link(target, part)) or self._copy(target, part) for target in others
        ]

    def draft(self, path: bytes, body: bytes) -> PartFile:
        """Write a downloaded image to disk under a temporary name; see `publish_unless_good`.

        Args:
            path: its place in the cache. The folder exists.
            body: the image.

        Raises:
            CacheError: the folder cannot be written, or the disk is full.
        """
        part = self.begin(path)
        try:
            with self._translated():
                part.write(body)
                part.flush()
        except BaseException:
            part.close()
            raise
        return part

    def publish_unless_good(self, part: PartFile, known_bad: frozenset[bytes]) -> bool:
        """Give a draft its name unless a good or unreadable file has it; returns whether it did.

        | now under the name              | then                                               |
        |---------------------------------|----------------------------------------------------|
        | nothing                         | the draft gets the name                            |
        | a file whose verdict is `ok`    | it stays: another download was faster              |
        | a bad file                      | the draft replaces it in one step                  |
        | unreadable, or no regular file  | it stays: it cannot be judged                      |

        Args:
            part: from `draft`; the caller closes it.
            known_bad: hashes of contents that are known placeholders.

        Raises:
            CacheError: the folder cannot be written.
        """
        result = self._publish(TargetName(part.path, replace=False), part)
        if result.outcome == "kept":
            # A good file that appears right after this check is replaced: this one is as good.
            if judge_place(self._root, part.path, known_bad) in ("good", "unreadable"):
                return False
            result = self._publish(TargetName(part.path, replace=True), part)
        if result.outcome == "failed":
            raise self._error(result.reason)
        with self._translated():
            part.flush_folder()
        return True

    def flush(self) -> None:
        """Flush the names directly in the cache to disk. Raises: CacheError."""
        with self._translated():
            self._tree.flush()

    @contextmanager
    def alone(self, command: str) -> Iterator[None]:
        """Hold the cache's lock, and first delete part files that a killed run left.

        Those in sub-folders stay; every scan ignores them. So do all where the file system has no
        locks, because they may be those of a living run.

        Raises:
            Busy: another run is writing to the cache, on this machine or another.
            CacheError: the lock file cannot be created.
        """
        with ExitStack() as stack:
            with self._translated():
                if stack.enter_context(cache_locked(self._tree, self._root, command)):
                    self._tree.remove_parts()
            yield

    def remove(self, path: bytes, signature: bytes) -> bool:
        """Delete a file if it still has this signature; returns whether it was deleted."""
        try:
            status = self._tree.status(path)
            if status is None or Entry(path, Identity.of(status)).signature != signature:
                return False
            self._tree.remove(path)
        except OSError:
            return False
        return True

    def _link(self, target: TargetName, part: PartFile) -> WriteResult | None:
        """None if the name needs a copy."""
        if target.replace:
            return None
        try:
            part.link(target.name)
        except FileExistsError:
            return WriteResult(target, "kept", "appeared meanwhile")
        except OSError as error:
            if error.errno in NO_LINK:
                return None
            return WriteResult(target, "failed", _reason(error))
        return WriteResult(target, "written")

    def _copy(self, target: TargetName, part: PartFile) -> WriteResult:
        with self.begin(target.name) as copy:
            with self._translated():
                copy.copy(part)
            return self._publish(target, copy)

    def _publish(self, target: TargetName, part: PartFile) -> WriteResult:
        try:
            part.publish(replace=target.replace)
        except FileExistsError:
            return WriteResult(target, "kept", "appeared meanwhile")
        except OSError as error:
            if error.errno in _FULL | _NOT_ALLOWED:
                raise self._translation(error) from None
            return WriteResult(target, "failed", _reason(error))
        return WriteResult(target, "written")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors that every other file would meet too into `CacheError`."""
        try:
            yield
        except OSError as error:
            raise self._translation(error) from None

    def _translation(self, error: OSError) -> CacheError:
        if error.errno in _FULL:
            return CacheError(
                f"The disk under {display(self._root)} is full; make room and run again: the run "
                "continues where it stopped."
            )
        return self._error(_reason(error))

    def _error(self, reason: str) -> CacheError:
        return CacheError(
            f"A file in the cache folder {display(self._root)} {reason}; make the folder writable "
            "for this user and run again."
        )


def _reason(error: OSError) -> str:
    return f"cannot be written: {error.strerror or error}"


@contextmanager
def backfill_writer(root: bytes) -> Iterator[CacheWriter]:
    """Open a cache for a backfill and hold its lock; see `CacheWriter.alone`.

    Raises:
        Busy: another run is writing to the cache.
        CacheError: the folder cannot be opened or locked.
    """
    try:
        tree = SafeFolder(root)
    except OSError as error:
        raise unreadable(root, error) from None
    writer = CacheWriter(tree, root)
    with tree, writer.alone("backfill"):
        yield writer
