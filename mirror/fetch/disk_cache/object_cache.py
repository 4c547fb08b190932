"""The fetch cache: images on a local disk by content hash, shared by processes and runs.

    <folder>/dataset-mirror-fetch-cache      the mark: this folder is ours, and files in it may go
    <folder>/usage                           bytes that are kept or reserved (`usage.py`)
    <folder>/objects/ab/ab….                 an image, named by its content hash
    <folder>/objects/ab/ab….part             an image being written, locked by its writer

There is no list of the images, so no list can be wrong. A file is a hit if it exists, has the right
size, and its bytes have the catalog's SHA-256 when they are read. In a folder that this user alone may
write, the hash in the file's name is enough.

When several processes want an image, one downloads it: it holds a lock (flock) on the `.part` file. A
process that is killed loses the lock, and another takes over; its forked children do not inherit the
lock. The bytes are written to the `.part`
file, which is then renamed. On a full disk or in a read-only folder, images are read without being
kept.

With `pin`, a full cache keeps its images and adds none. With `lru`, it deletes the least
recently used images (`eviction.py`). It deletes only files with names of our own, in our own folder.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Final, Literal, NamedTuple

from mirror.errors import ConfigError
from mirror.fetch.disk_cache.eviction import Eviction
from mirror.fetch.disk_cache.usage import RECOUNT_EVERY, RECOUNT_FIRST, DiskUsage
from mirror.fetch.fork_lock import close_unshared, open_unshared
from mirror.system.display_text import printable
from mirror.system.folders import folder_below
from mirror.system.private_folder import is_own, is_private_folder

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

# Seconds without a write after the disk has refused one.
_PAUSE: Final = 30.0
# Seconds until a full cache that pins is asked for room again.
_FULL_PAUSE: Final = 1.0
# Seconds without a write after the lock of the usage was not free in time. The pause doubles up to the
# longest, because each try takes half a second.
_FIRST_BUSY_PAUSE: Final = 1.0
_LONGEST_BUSY_PAUSE: Final = 60.0
# Seconds between two updates of a file's time by hits.
_TOUCH_EVERY: Final = 60.0

_log = logging.getLogger(__name__)


class WriteRefusal(Enum):
    """Why `FetchCache.begin` gives no ticket."""

    ALREADY_KEPT = "the image is in the cache"
    BUSY = "another process is writing the image"
    NO_ROOM = "the cache is full, or cannot be written"


class WriteTicket(NamedTuple):
    """The right to write one image. Pass it to `keep` or to `drop`, once.

    Attributes:
        path: the image's path.
        descriptor: the open `.part` file, which is locked.
        reserved: bytes reserved for it; at first those of a writer that was killed.
    """

    path: str
    descriptor: int
    reserved: int


class FetchCache:
    """The fetch cache in one process. Any thread may read, one thread writes.

    The mirror thread writes between its reads from the network. A separate writer thread would pass
    the interpreter's lock back and forth at each system call, which costs five times the writing.

    Args:
        folder: the cache folder, made if it is not there.
        max_bytes: bytes that it may hold.
        admission: `pin` to add no images to a full cache, or `lru` to evict old ones.

    Attributes:
        kept: images that were written.
        not_kept: images that had no room, or could not be written.
        is_private: whether this user alone could change the folder when it was opened. Each file that
            is read must be this user's own as well.

    Raises:
        ConfigError: the folder holds other files.
    """

    def __init__(self, folder: Path, max_bytes: int, admission: Admission) -> None:
        self._folder = folder
        self._root = str(folder / _OBJECTS)
        self._max_bytes = max_bytes
        self._admission = admission
        self._eviction = Eviction(self._open_shard, _SHARDS, _IS_IMAGE)
        self.kept = self.not_kept = 0
        self._warned: set[str] = set()
        self._paused_until = self._full_until = self._busy_until = float("-inf")
        self._busy_pause = _FIRST_BUSY_PAUSE
        self._missing_bytes = 0  # of the last image that found no room
        self._usage: DiskUsage | None = None
        if claim_folder(folder):
            with suppress(OSError):
                self._usage = DiskUsage(folder / "usage", self._count)
        self.is_private = is_private_folder(folder) and all(
            is_own(status) for status in self._folder_statuses()
        )
        if self._usage is None:
            self._warn_once("cannot be written; its images are used, and no new ones are kept")

    def _folder_statuses(self) -> Iterator[os.stat_result]:
        """The status of each folder below the cache's own, of those that exist."""
        for path in (self._root, *(f"{self._root}/{shard}" for shard in _SHARDS)):
            with suppress(FileNotFoundError):
                yield os.lstat(path)

    # --- reading ---

    def path(self, content_hash: bytes) -> str:
        """The path of an image, whether it is there or not."""
        digits = content_hash.hex()
        return f"{self._root}/{digits[:2]}/{digits}"

    def has(self, content_hash: bytes, size: int) -> bool:
        """Whether an image is there and has that size; its bytes are not read."""
        try:
            status = os.lstat(self.path(content_hash))
        except OSError:
            return False
        return status.st_size == size and stat.S_ISREG(status.st_mode)

    def touch(self, path: str) -> None:
        """Note a hit in the file's time, for eviction."""
        if self._admission == "lru":
            with suppress(OSError):
                status = os.lstat(path)
                # A hard link would be another file as well.
                if time.time() - status.st_mtime > _TOUCH_EVERY and status.st_nlink == 1:
                    with self._shard_of(path) as (folder, name):
                        os.utime(name, dir_fd=folder, follow_symlinks=False)

    def discard(self, path: str) -> None:
        """Delete a file whose bytes do not have the hash in its name."""
        with suppress(OSError), self._shard_of(path) as (folder, name):
            size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
            os.unlink(name, dir_fd=folder)
            self._release(size)

    # --- writing ---

    @property
    def has_room(self) -> bool:
        """Whether another image would be kept, as far as is known: not full, not read-only."""
        usage = self._usage
        if usage is None or time.monotonic() < self._paused_until:
            return False
        if self._admission == "lru" or not self._missing_bytes:
            return True
        if time.monotonic() < self._busy_until:
            return False
        try:
            return usage.used + self._missing_bytes <= self._max_bytes
        except OSError as error:
            self._pause(error)
            return False

    def recount(self) -> None:
        """Count the files, because users may have deleted some. May take long."""
        if self._usage is not None:
            self._recount(self._usage)

    def begin(self, content_hash: bytes, size: int) -> WriteTicket | WriteRefusal:
        """Ask for the right to write an image. Does not wait for other processes."""
        if self._usage is None or time.monotonic() < max(
            self._paused_until, self._full_until, self._busy_until
        ):
            return self._no_room()
        path = self.path(content_hash)
        try:
            ticket = self._lock(path)
        except OSError as error:
            self._pause(error)
            return self._no_room()
        if ticket is None:
            return WriteRefusal.BUSY
        if os.path.lexists(path):
            if self.has(content_hash, size):
                self.drop(ticket)
                return WriteRefusal.ALREADY_KEPT
            self.discard(path)  # it has the wrong size, so it was no hit
        return ticket

    def keep(self, ticket: WriteTicket, data: bytes) -> None:
        """Write an image's verified bytes. A failure is counted and logged, not raised."""
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
            with self._shard_of(ticket.path) as (folder, name):
                os.replace(name + _PART, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            self.drop(ticket)
            self._pause(error)
            self._no_room()
        else:
            with suppress(OSError):
                close_unshared(ticket.descriptor)
            self.kept += 1

    def drop(self, ticket: WriteTicket) -> None:
        """Give back the right to write, and the reserved bytes."""
        self._release(ticket.reserved)
        with suppress(OSError), self._shard_of(ticket.path) as (folder, name):
            os.unlink(name + _PART, dir_fd=folder)
        with suppress(OSError):
            close_unshared(ticket.descriptor)

    def _no_room(self) -> WriteRefusal:
        self.not_kept += 1
        return WriteRefusal.NO_ROOM

    def close(self) -> None:
        usage, self._usage = self._usage, None
        if usage is not None:
            with suppress(OSError):
                usage.close()

    def _lock(self, path: str) -> WriteTicket | None:
        """The ticket for an image; None while another process holds its lock."""
        with self._shard_of(path, make=True) as (folder, name):
            return self._lock_part(path, folder, name + _PART)

    def _lock_part(self, path: str, folder: int, part: str) -> WriteTicket | None:
        while True:
            descriptor = open_unshared(part, os.O_RDWR | os.O_CREAT, dir_fd=folder)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(descriptor)
                # Its writer may have renamed or deleted it after we opened it.
                with suppress(FileNotFoundError):
                    if _has_name(part, folder, status):
                        return WriteTicket(path, descriptor, status.st_size)
            except BlockingIOError:
                close_unshared(descriptor)
                return None
            except OSError:
                close_unshared(descriptor)
                raise
            close_unshared(descriptor)

    def _pause(self, error: OSError) -> None:
        if isinstance(error, TimeoutError):
            # The cache may have room, so it is neither full nor broken.
            self._busy_until = time.monotonic() + self._busy_pause
            self._busy_pause = min(2 * self._busy_pause, _LONGEST_BUSY_PAUSE)
            self._warn_once(
                f"is busy ({error.strerror}); images are read without being kept until it is free"
            )
            return
        self._paused_until = time.monotonic() + _PAUSE
        self._warn_once(f"cannot be written ({error.strerror}); images are read without being kept")

    def _warn_once(self, what: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            _log.warning("The fetch cache %s %s.", printable(str(self._folder)), what)

    # --- room ---

    def _reserve(self, size: int) -> bool:
        usage = self._usage
        if usage is None or size > self._max_bytes or time.monotonic() < self._busy_until:
            return False
        try:
            has_room = self._make_room(usage, size)
        except OSError as error:
            self._pause(error)
            return False
        self._busy_pause = _FIRST_BUSY_PAUSE
        return has_room

    def _make_room(self, usage: DiskUsage, size: int) -> bool:
        if usage.reserve(size, self._max_bytes):
            return True
        due = usage.claim_recount(RECOUNT_EVERY if self._missing_bytes else RECOUNT_FIRST)
        self._missing_bytes = size
        if due:
            # Runs in the background; the cache counts as full until it ends.
            name = "mirror-fetch-count"
            threading.Thread(target=self._recount, args=(usage,), name=name, daemon=True).start()
        if self._admission == "pin":
            self._full_until = time.monotonic() + _FULL_PAUSE
            self._warn_once(
                f"is full ({self._max_bytes:,} bytes); it keeps its images and adds no others"
            )
            return False
        freed = self._eviction.remove(max(size, usage.used + size - self._max_bytes))
        usage.release(freed)
        return usage.reserve(size, self._max_bytes)

    def _recount(self, usage: DiskUsage) -> None:
        with suppress(OSError):  # closed meanwhile
            usage.recount()
            self._full_until = float("-inf")

    def _release(self, size: int) -> None:
        usage = self._usage
        # If it fails, the number stays too high until the next recount.
        if size and usage is not None and time.monotonic() >= self._busy_until:
            try:
                usage.release(size)
            except OSError as error:
                self._pause(error)

    def _count(self) -> int:
        """The bytes of all files; `.part` files without a writer are deleted."""
        total = 0
        for shard in _SHARDS:
            with (
                suppress(OSError),
                self._open_shard(shard) as folder,
                os.scandir(folder) as entries,
            ):
                for entry in entries:
                    if _IS_PART(entry.name):
                        total += self._sweep(folder, entry.name)
                    elif _IS_IMAGE(entry.name) and entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        return total

    def _open_shard(self, name: str, *, make: bool = False) -> AbstractContextManager[int]:
        """Open a folder of images. No link below the cache's own folder is followed."""
        return folder_below(self._folder, _OBJECTS, name, make=make)

    @contextmanager
    def _shard_of(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder of an image; yields its descriptor and the image's name in it."""
        name = os.path.basename(path)
        with self._open_shard(name[:2], make=make) as folder:
            yield folder, name

    def _sweep(self, folder: int, part: str) -> int:
        """The bytes that a `.part` file's writer has reserved; without a writer it is deleted."""
        with suppress(OSError):
            descriptor = open_unshared(part, os.O_RDWR, dir_fd=folder)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _has_name(part, folder, os.fstat(descriptor)):
                    os.unlink(part, dir_fd=folder)
            except BlockingIOError:
                return os.fstat(descriptor).st_size
            finally:
                close_unshared(descriptor)
        return 0


def _has_name(name: str, folder: int, status: os.stat_result) -> bool:
    return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), status)


def claim_folder(folder: Path) -> bool:
    """Make a folder the fetch cache's, unless it is already; returns whether it can be written.

    Raises:
        ConfigError: the folder holds other files, or is no folder.
    """
    mark = folder / MARK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The mark is the first file in it. Several processes may try to write it; one does.
        if (names := os.listdir(folder)) and MARK not in names:
            raise ConfigError(
                f"fetch.cache_dir {folder} holds files that are not the fetch cache's; the cache "
                "deletes files to make room, so name an empty folder."
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
