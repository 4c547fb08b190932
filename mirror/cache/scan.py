"""One walk over the cache: which files are there, as compact arrays and not as objects.

A file of the cache is `<32 hex digits>.<image extension>`, the extension in any case, directly in
the folder or in sub-folders. Everything else is ignored and counted: partial downloads, sidecars,
dot-files, symbolic links. Nothing is opened.
"""

from __future__ import annotations

import os
import re
from array import array
from binascii import unhexlify
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import xxhash

from mirror.content.digest import Identity
from mirror.errors import CacheError

SIGNATURE_BYTES = 16


class Entry(NamedTuple):
    """A file of the cache. `path`: relative to it, bytes as the file system has them."""

    path: bytes
    identity: Identity

    @property
    def url_md5(self) -> bytes:
        return unhexlify(self.path.rpartition(b"/")[2][:32])

    @property
    def signature(self) -> bytes:
        return signature((self.path, *self.identity))


File = tuple[bytes, int, int, int]  # path, size, mtime_ns, inode, as `walk` gives them


def signature(file: File) -> bytes:
    """16 bytes that differ when name, size, mtime or inode do.

    Comparing signatures is how a run knows, for the price of a hash, that a file is the one that
    was acknowledged; at 128 bits no two differing ones meet by chance.
    """
    return xxhash.xxh3_128_digest(b"%b\0%d %d %d" % file)


def display(path: bytes) -> str:
    """A path for people and for JSON: printable, whatever bytes the file system holds."""
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode()


@dataclass
class Entries:
    """Many entries, about 80 bytes each: paths end to end in one buffer, numbers in arrays."""

    _paths: bytearray = field(default_factory=bytearray)
    _ends: array[int] = field(default_factory=lambda: array("Q"))
    _numbers: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, path: bytes, size: int, mtime_ns: int, inode: int) -> None:
        self._paths += path
        self._ends.append(len(self._paths))
        # inodes are unsigned 64-bit; kept as the signed number of the same bits
        self._numbers.extend((size, mtime_ns, inode if inode < 1 << 63 else inode - (1 << 64)))

    def __getitem__(self, at: int) -> Entry:
        begin = self._ends[at - 1] if at else 0
        size, mtime_ns, inode = self._numbers[3 * at : 3 * at + 3]
        identity = Identity(size, mtime_ns, inode if inode >= 0 else inode + (1 << 64))
        return Entry(bytes(self._paths[begin : self._ends[at]]), identity)

    def __iter__(self) -> Iterator[Entry]:
        return (self[at] for at in range(len(self)))

    @property
    def total_bytes(self) -> int:
        return sum(self._numbers[0::3])

    def by_inode(self) -> array[int]:
        """Positions in the order of inodes: on a spinning disk close to the order of the data."""
        inodes = np.asarray(self._numbers[2::3], "q")
        return array("q", np.argsort(inodes, kind="stable").astype("q").tobytes())


@dataclass
class ScanCount:
    """What the walk passed over.

    Attributes:
        ignored: files that are no images of a cache.
        unreadable: `(path, why)` of folders and files, the path as people see it.
    """

    ignored: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def skip(self, path: bytes, error: OSError) -> None:
        self.unreadable.append((display(path) or ".", str(error.strerror)))

    def failures(self) -> list[tuple[str, str]]:
        """`(path, reason)` of what could not be read, as reports list what failed."""
        return [(path, f"cannot be read: {why}") for path, why in self.unreadable]


def walk(root: bytes, extensions: Sequence[str], count: ScanCount) -> Iterator[File]:
    """`(path, size, mtime_ns, inode)` of every file of the cache, in the folder's own order.

    Args:
        root: the cache's folder.
        extensions: what a file's name may end with, lower case.
        count: is told what was passed over, and which sub-folders could not be read.

    Raises:
        CacheError: the cache's folder itself cannot be read.
    """
    allowed = "|".join(re.escape(extension.lower()) for extension in extensions)
    is_cache_file = re.compile(rb"[0-9a-fA-F]{32}\.(?i:%b)" % allowed.encode()).fullmatch
    folders = [b""]
    while folders:
        folder = folders.pop()
        try:
            scan = os.scandir(root + b"/" + folder if folder else root)
        except OSError as error:
            if not folder:
                raise unreadable(root, error) from None
            count.skip(folder, error)
            continue
        prefix = folder + b"/" if folder else b""
        with scan:
            for item in _entries(scan, folder, count):
                name = item.name
                if is_cache_file(name):
                    try:
                        if item.is_file(follow_symlinks=False):
                            stat = item.stat(follow_symlinks=False)
                            yield prefix + name, stat.st_size, stat.st_mtime_ns, stat.st_ino
                            continue
                    except OSError as error:
                        if not isinstance(error, FileNotFoundError):
                            count.skip(prefix + name, error)
                        continue  # gone between the listing and the look
                elif not name.startswith(b".") and item.is_dir(follow_symlinks=False):
                    folders.append(prefix + name)
                    continue
                count.ignored += 1


def _entries(
    scan: Iterator[os.DirEntry[bytes]], folder: bytes, count: ScanCount
) -> Iterator[os.DirEntry[bytes]]:
    """A folder's entries as far as the disk gives them; a folder that breaks off is said to."""
    try:
        yield from scan
    except OSError as error:
        count.skip(folder, error)


def unreadable(root: bytes, error: OSError) -> CacheError:
    """What to raise of a cache's folder that cannot be opened."""
    where = display(root)
    if isinstance(error, FileNotFoundError):
        what = f"The cache folder {where} does not exist; is its disk mounted, is cache.dir right?"
    elif isinstance(error, NotADirectoryError):
        what = f"{where} is not a folder; set cache.dir to the folder that holds the images."
    else:
        what = f"The cache folder {where} cannot be read ({error.strerror}); give this user access."
    return CacheError(what)
