"""Walk over the cache, and keep its files in compact arrays rather than objects.

A file of the cache is named `<32 hex digits>.<image extension>`, with the extension in any case. It
is directly in the folder or in a sub-folder. Everything else is ignored and counted: partial
downloads, sidecars, dot-files, symbolic links. The walk opens no file.
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

from mirror.content.digest import Identity, signed_64
from mirror.errors import CacheError

SIGNATURE_BYTES = 16
_FARTHEST_NS = (1 << 63) - 1  # from 1970, in 64 bits


class Entry(NamedTuple):
    """A file of the cache. `path` is relative to the cache, in the bytes of the file system."""

    path: bytes
    identity: Identity

    @property
    def url_md5(self) -> bytes:
        return unhexlify(self.path.rpartition(b"/")[2][:32])

    @property
    def signature(self) -> bytes:
        return signature((self.path, *self.identity))


File = tuple[bytes, int, int, int]  # path, size, mtime_ns, inode; inode 0: not to be compared


def signature(file: File) -> bytes:
    """Return 16 bytes that change with the path, size, mtime or inode.

    By its signature a run recognises a file that an earlier run acknowledged. With 128 bits, two
    different files do not have the same signature by chance.
    """
    return xxhash.xxh3_128_digest(b"%b\0%d %d %d" % file)


def display(path: bytes) -> str:
    """Return a path as text for people and JSON, whatever bytes the file system has."""
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode()


@dataclass
class Entries:
    """Many entries at about 80 bytes each: all paths in one buffer, the numbers in arrays."""

    _paths: bytearray = field(default_factory=bytearray)
    _ends: array[int] = field(default_factory=lambda: array("Q"))
    _numbers: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, path: bytes, size: int, mtime_ns: int, inode: int) -> None:
        self._paths += path
        self._ends.append(len(self._paths))
        # Inodes are unsigned 64-bit numbers; the array holds the signed number with the same bits.
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
        """Return positions ordered by inode, which on a spinning disk is roughly data order."""
        inodes = np.asarray(self._numbers[2::3], "q")
        return array("q", np.argsort(inodes, kind="stable").astype("q").tobytes())


@dataclass
class ScanCount:
    """The files and folders that the walk skipped.

    Attributes:
        ignored: number of files that are not images of a cache, links among them.
        ignored_example: path of one of them, which is no link.
        links: number of symbolic links in place of a cache's file or sub-folder.
        link_example: path of one of them.
        unreadable: `(path, reason)` of folders and files that could not be read.
    """

    ignored: int = 0
    ignored_example: bytes = b""
    links: int = 0
    link_example: bytes = b""
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def skip(self, path: bytes, error: OSError) -> None:
        """Note a file or folder that could not be read."""
        self.unreadable.append((display(path) or ".", str(error.strerror)))

    def ignore(self, item: os.DirEntry[bytes], path: bytes, *, named_like_a_file: bool) -> None:
        """Note a file that is not an image of a cache."""
        self.ignored += 1
        if not item.is_symlink():
            self.ignored_example = self.ignored_example or path
        elif named_like_a_file or os.path.isdir(item.path):
            self.links += 1
            self.link_example = self.link_example or path

    def failures(self) -> list[tuple[str, str]]:
        """Return `(path, reason)` of everything unreadable, in the words of reports."""
        return [(path, f"cannot be read: {reason}") for path, reason in self.unreadable]

    @property
    def links_warning(self) -> str:
        """A sentence about links; empty where there are none."""
        if not self.links:
            return ""
        return (
            f"Symbolic links in the cache are not followed ({self.links:,}, for example "
            f"{display(self.link_example)}); put the files themselves there, or mount a folder there."
        )


def walk(
    root: bytes, extensions: Sequence[str], count: ScanCount, *, trust_inode: bool = True
) -> Iterator[File]:
    """Yield `(path, size, mtime_ns, inode)` of every file of the cache, in directory order.

    Args:
        root: the cache's folder.
        extensions: extensions of image files, lower case.
        count: counts ignored files and notes unreadable ones.
        trust_inode: False for a file system that gives files other inodes at each mount; each
            inode is 0 then.

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
                # Where the file system does not tell the kind of an entry, each look may fail.
                try:
                    named_like_a_file = is_cache_file(name) is not None
                    if named_like_a_file:
                        if item.is_file(follow_symlinks=False):
                            stat = item.stat(follow_symlinks=False)
                            mtime_ns = stat.st_mtime_ns
                            if abs(mtime_ns) > _FARTHEST_NS:
                                mtime_ns = signed_64(mtime_ns)
                            inode = stat.st_ino if trust_inode else 0
                            yield prefix + name, stat.st_size, mtime_ns, inode
                            continue
                    elif not name.startswith(b".") and item.is_dir(follow_symlinks=False):
                        folders.append(prefix + name)
                        continue
                    count.ignore(item, prefix + name, named_like_a_file=named_like_a_file)
                except FileNotFoundError:
                    continue  # deleted since the folder was listed
                except OSError as error:
                    count.skip(prefix + name, error)


def _entries(
    scan: Iterator[os.DirEntry[bytes]], folder: bytes, count: ScanCount
) -> Iterator[os.DirEntry[bytes]]:
    """Yield a folder's entries; an error in the middle is noted and ends them."""
    try:
        yield from scan
    except OSError as error:
        count.skip(folder, error)


def require_cache_files(root: bytes, extensions: Sequence[str]) -> None:
    """Refuse a folder that has files, but none that is named like a file of a cache.

    Raises:
        CacheError: it has none, or cannot be read.
    """
    count = ScanCount()
    if next(walk(root, extensions, count), None) is None and count.ignored:
        raise misnamed(root, count)


def misnamed(root: bytes, count: ScanCount) -> CacheError:
    """Return the error for a folder whose files are all ignored."""
    if count.links:
        return CacheError(f"{display(root)} has no file of a cache. {count.links_warning}")
    return CacheError(
        f"No file in {display(root)} is named <md5 of its URL>.<extension> (for example "
        f"{display(count.ignored_example)} is not); check cache.dir and cache.extensions."
    )


def unreadable(root: bytes, error: OSError) -> CacheError:
    """Return the error for a cache folder that cannot be opened."""
    path = display(root)
    if isinstance(error, FileNotFoundError):
        message = (
            f"The cache folder {path} does not exist; check that its disk is mounted and that "
            "cache.dir is right."
        )
    elif isinstance(error, NotADirectoryError):
        message = f"{path} is not a folder; set cache.dir to the folder with the images."
    else:
        message = (
            f"The cache folder {path} cannot be read ({error.strerror}); give this user access."
        )
    return CacheError(message)
