"""A folder whose files are read, written and moved without following symbolic links below it.

Every step uses file descriptors. A name still means the same file between its check and its use,
and a link that appears in between cannot lead out of the folder.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, Self

from mirror.content.digest import CHUNK_BYTES, Digest, Hasher
from mirror.system.files import flush_folder, open_regular
from mirror.system.folders import folder_below

# A hard link is impossible: another file system, one without links, or another user's file.
NO_LINK = {
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EINVAL,
}
# A part file is named `.<name>.<16 random hex digits>.mirror-part`, so no two writers share one. A
# move has no random digits: by the name alone it finds what a killed run left of the same file.
_PART_SUFFIX = b".mirror-part"
# Earlier versions left `.<name>.mirror-part` and `.backfill-<16 hex digits>.tmp`.
_IS_PART = re.compile(
    rb"\.[0-9a-fA-F]{32}\.[0-9A-Za-z]+(\.[0-9a-f]{16})?\.mirror-part|\.backfill-[0-9a-f]{16}\.tmp"
).fullmatch


class ReadIdentity(NamedTuple):
    """A file at the time its bytes were read."""

    digest: Digest
    device: int
    inode: int
    mtime_ns: int


class SafeFolder:
    """An open folder. Use it as a context manager.

    Args:
        root: path of the folder.

    Raises:
        OSError: the folder cannot be opened.
    """

    def __init__(self, root: bytes) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    @contextmanager
    def parent(self, path: bytes, *, make: bool = False) -> Iterator[int]:
        """Open the folder that contains `path`; yields its descriptor.

        Args:
            path: relative to this folder, without `.` and `..`.
            make: create missing folders.

        Raises:
            OSError: a folder on the way is missing, is a symbolic link or is not a folder.
        """
        names = path.split(b"/")[:-1]
        with folder_below(self._root, *names, make=make, durable=True) as folder:
            yield folder

    def status(self, path: bytes) -> os.stat_result | None:
        """Return the status of a path (of a symbolic link itself), or None if nothing is there.

        Raises:
            OSError: something on the way is not a folder.
        """
        try:
            with self.parent(path) as folder:
                return _status(folder, os.path.basename(path))
        except FileNotFoundError:
            return None

    def read(self, path: bytes) -> ReadIdentity | None:
        """Read and digest a file; None if it or a folder on the way does not exist.

        Raises:
            OSError: the file cannot be read, or is not a regular file.
        """
        try:
            with self.parent(path) as folder:
                return _read(folder, os.path.basename(path))
        except FileNotFoundError:
            return None

    def remove(self, path: bytes) -> None:
        """Delete a file. Raises: OSError."""
        with self.parent(path) as folder:
            os.unlink(os.path.basename(path), dir_fd=folder)

    def flush(self) -> None:
        """Flush the names directly in the folder to disk. Raises: OSError."""
        flush_folder(self._root)

    def remove_parts(self) -> None:
        """Delete part files that a killed process left directly in the folder.

        The caller holds the cache's lock: without it they may be those of a living process.
        """
        with os.scandir(self._root) as entries:
            names = [os.fsencode(entry.name) for entry in entries]
        for name in names:
            if _IS_PART(name):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._root)


class PartFile:
    """A new file under a temporary name. `publish` gives it its real name once it is on disk.

    Use it as a context manager: a file that was not published is deleted at the end.

    Args:
        tree: the folder to write in.
        path: the real name, relative to the folder.
        temporary: another temporary name in the same folder, instead of a random one; deleted
            first if it exists. Only for a folder that the caller has locked.
        mode: permissions, before the umask.

    Raises:
        OSError: the file cannot be created there.
    """

    def __init__(
        self, tree: SafeFolder, path: bytes, temporary: bytes | None = None, mode: int = 0o666
    ) -> None:
        self.path = path
        self._name = os.path.basename(path)
        token = secrets.token_hex(8).encode()
        self._temporary = temporary or _part(self._name + b"." + token)
        self._is_flushed = False
        with ExitStack() as stack:
            self._folder = stack.enter_context(tree.parent(path))
            if temporary:
                _remove(self._folder, temporary)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.open(self._temporary, flags, mode, dir_fd=self._folder)
            stack.callback(os.close, self._file)
            self._stack = stack.pop_all()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._is_flushed = False
        _write_all(self._file, data)

    def copy(self, other: PartFile) -> None:
        """Append everything that another part file holds."""
        os.lseek(other._file, 0, os.SEEK_SET)
        while chunk := os.read(other._file, CHUNK_BYTES):
            self.write(chunk)

    def set_times(self, status: os.stat_result) -> None:
        """Take over the access and modification times of another file."""
        os.utime(self._file, ns=(status.st_atime_ns, status.st_mtime_ns))

    def flush(self) -> None:
        """Flush the content to disk."""
        if not self._is_flushed:
            os.fsync(self._file)
            self._is_flushed = True

    def status(self) -> os.stat_result:
        """Return the status of the file. Publishing it changes neither inode nor mtime."""
        return os.fstat(self._file)

    def read_back(self) -> Digest:
        """Flush the file, and digest it as the disk has it rather than the page cache."""
        self.flush()
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(self._file, 0, os.SEEK_SET)
        return _digest(self._file)

    def publish(self, *, replace: bool) -> None:
        """Flush the file and give it its real name.

        Raises:
            FileExistsError: the name is taken, and `replace` is False.
            OSError: it failed, or the temporary name belongs to another file by now.
        """
        self.flush()
        if not self._is_under(self._temporary):
            raise OSError(errno.ESTALE, "another program took its temporary name")
        names = self._temporary, self._name
        if replace:
            os.rename(*names, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        else:
            _rename_to_free_name(self._folder, *names)

    def link(self, name: bytes) -> None:
        """Give the published file one more name in its folder.

        Raises:
            FileExistsError: the name is taken.
            OSError: the file system cannot make the link, or the published name belongs to another
                file by now.
        """
        os.link(
            self._name,
            name,
            src_dir_fd=self._folder,
            dst_dir_fd=self._folder,
            follow_symlinks=False,
        )
        if not self._is_under(name):
            _remove(self._folder, name)
            raise OSError(errno.EXDEV, "another program replaced the published file")

    def flush_folder(self) -> None:
        """Flush the published name to disk. Raises: OSError."""
        flush_folder(self._folder)

    def close(self) -> None:
        """Close the file, and delete it if it was not published."""
        with suppress(OSError):
            if self._is_under(self._temporary):
                os.unlink(self._temporary, dir_fd=self._folder)
        self._stack.close()

    def _is_under(self, name: bytes) -> bool:
        """Whether the name in the folder means this file."""
        status = _status(self._folder, name)
        return status is not None and os.path.samestat(status, os.fstat(self._file))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def move(source: SafeFolder, target: SafeFolder, path: bytes, expected: ReadIdentity) -> bool:
    """Move a file to the same path of another folder, never over another file.

    The file gets its second name before it loses the first. Across file systems the second name
    belongs to a copy that was flushed and read back. A killed process leaves one name or both.

    Args:
        source: the folder that has the file.
        target: the folder that gets it, locked by the caller; missing sub-folders are created.
        path: path of the file in both.
        expected: the result of reading the file. If the file has changed since, it stays.

    Returns:
        Whether the file was moved; False if it changed meanwhile.

    Raises:
        FileExistsError: the target has another file of that name.
        OSError: the file cannot be moved, or both folders are the same; it is still in `source`.
    """
    name = os.path.basename(path)
    with source.parent(path) as old_folder, target.parent(path, make=True) as new_folder:
        if not _is_still(old_folder, name, expected):
            return False
        if (placed := _status(new_folder, name)) is None:
            if not _place(old_folder, new_folder, target, path, expected):
                return False
        elif _is_one_folder(old_folder, new_folder):  # it found the file itself, not a second one
            raise OSError(errno.EINVAL, "both places are one folder, mounted twice")
        elif not _is_same(placed, expected) and _read(new_folder, name).digest != expected.digest:
            raise FileExistsError(errno.EEXIST, "another file is there")
        # A killed run may have left its part file right after it named the copy.
        _remove(new_folder, _part(name))
        flush_folder(new_folder)
        if not _is_still(old_folder, name, expected):
            return False  # replaced at this very moment: keep both files
        os.unlink(name, dir_fd=old_folder)
        flush_folder(old_folder)
    return True


def _is_one_folder(old_folder: int, new_folder: int) -> bool:
    """Whether two descriptors are one folder, even if two mounts of it show two device numbers."""
    old, new = os.fstat(old_folder), os.fstat(new_folder)
    if old.st_dev == new.st_dev:
        return old.st_ino == new.st_ino
    probe = _part(secrets.token_hex(8).encode())
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=new_folder))
    try:
        return _status(old_folder, probe) is not None
    finally:
        os.unlink(probe, dir_fd=new_folder)


def _place(
    old_folder: int, new_folder: int, target: SafeFolder, path: bytes, expected: ReadIdentity
) -> bool:
    """Link or copy the file into the target. False if it is not the file that was read."""
    name = os.path.basename(path)
    try:
        os.link(name, name, src_dir_fd=old_folder, dst_dir_fd=new_folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return _copy(old_folder, target, path, expected)
    placed = _status(new_folder, name)
    if placed is None or not _is_same(placed, expected):
        os.unlink(name, dir_fd=new_folder)  # the link that this call made, to a newer file
        return False
    return True


def _copy(old_folder: int, target: SafeFolder, path: bytes, expected: ReadIdentity) -> bool:
    """Copy a file with its times and mode; the copy is read back before it gets its name."""
    original, status = open_regular(os.path.basename(path), dir_fd=old_folder)
    try:
        part_name = _part(os.path.basename(path))
        with PartFile(target, path, part_name, stat.S_IMODE(status.st_mode)) as part:
            while chunk := os.read(original, CHUNK_BYTES):
                part.write(chunk)
            part.set_times(status)
            if part.read_back() != expected.digest:
                return False
            part.publish(replace=False)
            return True
    finally:
        os.close(original)


def _part(name: bytes) -> bytes:
    return b"." + name + _PART_SUFFIX


def _remove(folder: int, name: bytes) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _rename_to_free_name(folder: int, old: bytes, new: bytes) -> None:
    """Raises: FileExistsError if the new name is taken."""
    try:
        os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        # Without hard links the check and the rename are two steps: another program could take
        # the name in between.
        if _status(folder, new) is not None:
            raise FileExistsError(errno.EEXIST, "another file is there") from None
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        _remove(folder, old)


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _read(folder: int, name: bytes) -> ReadIdentity:
    file, status = open_regular(name, dir_fd=folder)
    try:
        return ReadIdentity(_digest(file), status.st_dev, status.st_ino, status.st_mtime_ns)
    finally:
        os.close(file)


def _digest(file: int) -> Digest:
    hasher = Hasher()
    while chunk := os.read(file, CHUNK_BYTES):
        hasher.update(chunk)
    return hasher.digest()


def _status(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_same(status: os.stat_result, expected: ReadIdentity) -> bool:
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size) == (
        expected.device,
        expected.inode,
        expected.mtime_ns,
        expected.digest.size,
    )


def _is_still(folder: int, name: bytes, expected: ReadIdentity) -> bool:
    status = _status(folder, name)
    return status is not None and _is_same(status, expected)
