"""The fetch cache: images on a local disk by their content, shared by processes and by runs.

    <folder>/dataset-mirror-fetch-cache      the mark: this folder is ours, files in it may go
    <folder>/usage                           bytes that are kept or reserved (`usage.py`)
    <folder>/objects/ab/ab….                 an image, named by its content hash
    <folder>/objects/ab/ab….part             one that is being written, locked by who writes it

There is no list of what is in it, so there is none to be wrong: a file is a hit if it is there, has
the size, and has the bytes of its name when it is read.

One process fetches what several want at once: it holds the lock (flock) on the `.part` file, and
the lock goes with its holder, so that after a kill another takes over. The bytes are written under
that name and appear by a rename. A full disk, or a folder that may only be read, costs the keeping
and not the image.

`pin` fills the cache and then keeps what is there; `lru` makes room by removing what was not used
for long (`eviction.py`). Only files of our own naming, in our own folder, are ever removed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
import threading
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Final, Literal, NamedTuple

from mirror.errors import ConfigError
from mirror.fetch.disk_cache.eviction import Eviction
from mirror.fetch.disk_cache.usage import COUNT_EVERY, COUNT_FIRST, DiskUsage

Admission = Literal["pin", "lru"]

MARK: Final = "dataset-mirror-fetch-cache"
_MARK_TEXT: Final = (
    b"Images that mirror.fetch keeps. Files below objects/ may be deleted at any time.\n"
)
_OBJECTS: Final = "objects"
_PART: Final = ".part"
_IS_IMAGE: Final = re.compile(r"[0-9a-f]{32}").fullmatch
_IS_PART: Final = re.compile(r"[0-9a-f]{32}\.part").fullmatch
_SHARDS: Final = tuple(f"{number:02x}" for number in range(256))

# After a disk refused, seconds until it is tried again.
_REST: Final = 30.0
# A cache that is full and keeps what it has is asked again after so long.
_FULL: Final = 1.0
# A hit is noted in the file's time once in so many seconds.
_TOUCH: Final = 60.0

_log = logging.getLogger(__name__)


class Begun(Enum):
    """What `FetchCache.begin` says where the caller is not to write."""

    KEPT = "it is there now"
    BUSY = "another writer is at it"
    NO_ROOM = "it is not to be kept"


class WriteTicket(NamedTuple):
    """The right to write one image; to be kept or dropped, once.

    Attributes:
        path: of the image.
        descriptor: of its part, which is locked.
        reserved: bytes of room that a writer who was killed has left; they are still counted.
    """

    path: str
    descriptor: int
    reserved: int


class FetchCache:
    """The cache in one process. Reading is for any thread, writing for one.

    That one writes while it reads from the network: a thread of its own would take the
    interpreter's lock from it and back at each system call, which costs five times the writing.

    Args:
        folder: made when it is not there.
        most: bytes that it may hold.
        admission: what happens when it is full.

    Attributes:
        kept, not_kept: images that were written, and that could not be or had no room.

    Raises:
        ConfigError: the folder holds what is not ours.
    """

    def __init__(self, folder: Path, most: int, admission: Admission) -> None:
        self._folder = folder
        self._root = str(folder / _OBJECTS)
        self._most = most
        self._admission = admission
        self._eviction = Eviction(self._root, _SHARDS, _IS_IMAGE)
        self.kept = self.not_kept = 0
        self._said: set[str] = set()
        self._rests_until = self._full_until = float("-inf")
        self._lacked = 0  # bytes that there was no room for, the last time that there was none
        self._usage: DiskUsage | None = None
        if claim(folder):
            with suppress(OSError):
                self._usage = DiskUsage(folder / "usage", self._count)
        if self._usage is None:
            self._say("cannot be written; images are read from it, and none are kept")

    # --- reading ---

    def path(self, content_hash: bytes) -> str:
        """The file of an image, whether it is there or not."""
        digits = content_hash.hex()
        return f"{self._root}/{digits[:2]}/{digits}"

    def has(self, content_hash: bytes, size: int) -> bool:
        """Whether an image is there with that size; its bytes are not read."""
        try:
            status = os.lstat(self.path(content_hash))
        except OSError:
            return False
        return status.st_size == size and stat.S_ISREG(status.st_mode)

    def used(self, path: str) -> None:
        """Note that a file was a hit, for the choice of what is removed."""
        if self._admission == "lru":
            with suppress(OSError):
                if time.time() - os.lstat(path).st_mtime > _TOUCH:
                    os.utime(path, follow_symlinks=False)

    def discard(self, path: str) -> None:
        """Remove a file whose bytes are not those of its name."""
        with suppress(OSError):
            size = os.stat(path, follow_symlinks=False).st_size
            os.unlink(path)
            self._release(size)

    # --- writing ---

    @property
    def has_room(self) -> bool:
        """Whether images are kept, as far as is known: not full, not read-only."""
        usage = self._usage
        if usage is None or time.monotonic() < self._rests_until:
            return False
        if self._admission == "lru" or not self._lacked:
            return True
        try:
            return usage.used + self._lacked <= self._most
        except OSError:
            return False

    def count_again(self) -> None:
        """Count what is really there, which may take long: anybody may have deleted files."""
        if self._usage is not None:
            self._count_again(self._usage)

    def begin(self, content_hash: bytes, size: int) -> WriteTicket | Begun:
        """Ask for the right to write an image. Does not wait for another process."""
        if self._usage is None or time.monotonic() < max(self._rests_until, self._full_until):
            return self._no_room()
        path = self.path(content_hash)
        try:
            ticket = self._lock(path)
        except OSError as error:
            self._refused(error)
            return self._no_room()
        if ticket is None:
            return Begun.BUSY
        if os.path.lexists(path):
            if self.has(content_hash, size):
                self.drop(ticket)
                return Begun.KEPT
            self.discard(path)  # of a wrong size, it was no hit either
        return ticket

    def keep(self, ticket: WriteTicket, data: bytes) -> None:
        """Write an image's bytes, which were checked; where that fails they are not kept."""
        if ticket.reserved != len(data):
            self._release(ticket.reserved)
            ticket = ticket._replace(reserved=0)
            if not self._reserve(len(data)):
                self.drop(ticket)
                self._no_room()
                return
            ticket = ticket._replace(reserved=len(data))
        try:
            written = 0
            while written < len(data):
                piece = data[written:] if written else data
                written += os.pwrite(ticket.descriptor, piece, written)
            os.replace(ticket.path + _PART, ticket.path)
        except OSError as error:
            self.drop(ticket)
            self._refused(error)
            self._no_room()
        else:
            with suppress(OSError):
                os.close(ticket.descriptor)
            self.kept += 1

    def drop(self, ticket: WriteTicket) -> None:
        """Give the right to write, and the room, back."""
        self._release(ticket.reserved)
        with suppress(OSError):
            os.unlink(ticket.path + _PART)
        with suppress(OSError):
            os.close(ticket.descriptor)

    def _no_room(self) -> Begun:
        self.not_kept += 1
        return Begun.NO_ROOM

    def close(self) -> None:
        usage, self._usage = self._usage, None
        if usage is not None:
            with suppress(OSError):
                usage.close()

    def _lock(self, path: str) -> WriteTicket | None:
        """The right of this process alone to write an image, or None while another has it."""
        part = path + _PART
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            try:
                descriptor = os.open(part, flags, 0o644)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(part), exist_ok=True)
                descriptor = os.open(part, flags, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(descriptor)
                # Its writer may have renamed or removed it between our opening and our locking it.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.stat(part, follow_symlinks=False), status):
                        return WriteTicket(path, descriptor, status.st_size)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _refused(self, error: OSError) -> None:
        self._rests_until = time.monotonic() + _REST
        self._say(f"cannot be written ({error.strerror}); images are read without being kept")

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            _log.warning("The fetch cache %s %s.", self._folder, what)

    # --- room ---

    def _reserve(self, size: int) -> bool:
        usage = self._usage
        if usage is None or size > self._most:
            return False
        try:
            return self._made_room(usage, size)
        except OSError as error:
            self._refused(error)
            return False

    def _made_room(self, usage: DiskUsage, size: int) -> bool:
        if usage.reserve(size, self._most):
            return True
        due = usage.count_is_due(COUNT_EVERY if self._lacked else COUNT_FIRST)
        self._lacked = size
        if due:
            # Not waited for: until it is through, the cache counts as full.
            name = "mirror-fetch-count"
            threading.Thread(
                target=self._count_again, args=(usage,), name=name, daemon=True
            ).start()
        if self._admission == "pin":
            self._full_until = time.monotonic() + _FULL
            self._say(f"is full ({self._most:,} bytes); what is there is kept, the rest is read")
            return False
        freed = self._eviction.remove(max(size, usage.used + size - self._most))
        usage.release(freed)
        return usage.reserve(size, self._most)

    def _count_again(self, usage: DiskUsage) -> None:
        with suppress(OSError):  # closed meanwhile
            usage.count_again()
            self._full_until = float("-inf")

    def _release(self, size: int) -> None:
        if size and (usage := self._usage) is not None:
            try:
                usage.release(size)
            except OSError as error:  # the number stays too high until the next count
                self._refused(error)

    def _count(self) -> int:
        """Bytes that are really there; parts whose writer was killed are cleared away."""
        total = 0
        for shard in _SHARDS:
            with suppress(OSError), os.scandir(f"{self._root}/{shard}") as entries:
                for entry in entries:
                    if _IS_PART(entry.name):
                        total += self._swept(entry.path)
                    elif _IS_IMAGE(entry.name) and entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        return total

    def _swept(self, part: str) -> int:
        """Bytes that the writer of a part has reserved; without a writer it is removed."""
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(part, follow_symlinks=False), os.fstat(descriptor)):
                    os.unlink(part)
            except BlockingIOError:
                return os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
        return 0


def claim(folder: Path) -> bool:
    """Make a folder the fetch cache's, or see that it is; returns whether it may be written.

    Raises:
        ConfigError: it holds what is not ours, or is no folder.
    """
    mark = folder / MARK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The mark is the first thing in it: of several processes that make it one does.
        if (names := os.listdir(folder)) and MARK not in names:
            raise ConfigError(
                f"fetch.cache_dir {folder} holds files that are not the fetch cache's, which deletes "
                "what it has no room for; name an empty folder, or one of its own."
            )
        with suppress(FileExistsError):
            descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with open(descriptor, "wb") as file:
                file.write(_MARK_TEXT)
        return os.access(folder, os.W_OK)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"fetch.cache_dir {folder} is no folder; name another.") from None
    except OSError:
        return False
