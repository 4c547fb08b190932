"""A folder whose files are reached without following any symbolic link below it, moved and made with
care.

Every step is by file descriptor: what a name meant when it was checked is what it means when the
file is moved, and no link that somebody puts on the way leads out of the folder.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, Self

from mirror.content.digest import CHUNK_BYTES, Digest, Hasher

# No hard link can be made here: another file system, or one that knows none, or not our file.
NO_LINK = {
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EINVAL,
}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class ReadIdentity(NamedTuple):
    """A file as it was when its bytes were read."""

    digest: Digest
    device: int
    inode: int
    mtime_ns: int


class SafeFolder:
    """A folder. Use it as a context.

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
        """A descriptor of the folder that `path` is in.

        Args:
            path: relative, of plain names.
            make: make the folders that are not there.

        Raises:
            OSError: a folder is missing, or no folder, or a symbolic link.
        """
        here = os.dup(self._root)
        try:
            for name in path.split(b"/")[:-1]:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=here)
                        os.fsync(here)
                below = os.open(name, _FOLDER, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)

    def status(self, path: bytes) -> os.stat_result | None:
        """What has a name, a symbolic link itself and not what it leads to; None for nothing.

        Raises:
            OSError: a folder on the way is none.
        """
        try:
            with self.parent(path) as folder:
                return _status(folder, os.path.basename(path))
        except FileNotFoundError:
            return None

    def flush(self) -> None:
        """What was made directly in the folder outlasts a loss of power from here on."""
        os.fsync(self._root)

    def clear_parts(self) -> None:
        """Take away what a process that was killed left directly in the folder under parts' names."""
        with os.scandir(self._root) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(_PART.decode())]
        for name in names:
            if name.startswith("."):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._root)

    def read(self, path: bytes) -> ReadIdentity | None:
        """Read a file to its end; None where there is none, nor a folder for it.

        Raises:
            OSError: it cannot be read, or something else than a file has its name.
        """
        try:
            with self.parent(path) as folder:
                return _seen(folder, os.path.basename(path))
        except FileNotFoundError:
            return None


class PartFile:
    """A new file on its way: it has its name once `publish` returns, whole and flushed, or never.

    Args:
        tree: gets it.
        path: of plain names.

    Raises:
        OSError: it cannot be made there.
    """

    def __init__(self, tree: SafeFolder, path: bytes) -> None:
        self._name = os.path.basename(path)
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._folder = stack.enter_context(tree.parent(path))
            with suppress(FileNotFoundError):
                os.unlink(_part(self._name), dir_fd=self._folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            self._file = os.open(_part(self._name), flags, 0o644, dir_fd=self._folder)
            stack.callback(os.close, self._file)
            self._stack = stack.pop_all()

    def write(self, data: bytes) -> None:
        _write_all(self._file, data)

    def copy(self, other: PartFile) -> None:
        """Write what another one holds."""
        os.lseek(other._file, 0, os.SEEK_SET)
        while chunk := os.read(other._file, CHUNK_BYTES):
            _write_all(self._file, chunk)

    def publish(self, *, replace: bool) -> None:
        """Raises: FileExistsError where something has the name and it is not to be replaced."""
        os.fsync(self._file)
        if replace:
            part = _part(self._name)
            os.rename(part, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        else:
            _rename_to_nothing(self._folder, _part(self._name), self._name)

    def link(self, name: bytes) -> None:
        """Give the published file another name in its folder, never another file's.

        Raises:
            FileExistsError: something has the name.
            OSError: the file system makes no such link.
        """
        os.link(
            self._name,
            name,
            src_dir_fd=self._folder,
            dst_dir_fd=self._folder,
            follow_symlinks=False,
        )

    def close(self) -> None:
        """Let go of it; what was not published is gone."""
        with suppress(OSError):
            os.unlink(_part(self._name), dir_fd=self._folder)
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def move(source: SafeFolder, target: SafeFolder, path: bytes, seen: ReadIdentity) -> bool:
    """Move a file to the same path of another tree, never over another file.

    The file has two names before it loses the first, and across file systems a copy that was
    flushed and read back. A process that is killed leaves it under one of them or both.

    Args:
        source: has the file.
        target: gets it; its folders are made.
        path: of the file in both.
        seen: the file as it was read; it is left where it is if it is another one by now.

    Returns:
        Whether it was moved; False when it changed meanwhile.

    Raises:
        FileExistsError: the target has another file of that name.
        OSError: the file could not be moved, or both folders are one; it is still where it was.
    """
    name = os.path.basename(path)
    with source.parent(path) as here, target.parent(path, make=True) as there:
        if not _is_still(here, name, seen):
            return False
        if (placed := _status(there, name)) is None:
            if not _place(here, there, name, seen):
                return False
        elif _are_one(here, there):  # what is there is the file itself, not a second one
            raise OSError(errno.EINVAL, "both places are one folder, mounted twice")
        elif not _is_same(placed, seen) and _digest(there, name) != seen.digest:
            raise FileExistsError(errno.EEXIST, "another file is there")
        with suppress(FileNotFoundError):
            os.unlink(
                _part(name), dir_fd=there
            )  # of a run that was killed with the copy just named
        os.fsync(there)
        if not _is_still(here, name, seen):
            return False  # replaced this instant: both are kept
        os.unlink(name, dir_fd=here)
        os.fsync(here)
    return True


def _are_one(here: int, there: int) -> bool:
    """Whether two folders are one, also where two mounts of it call themselves two devices."""
    one, other = os.fstat(here), os.fstat(there)
    if one.st_dev == other.st_dev:
        return one.st_ino == other.st_ino
    probe = _part(secrets.token_hex(8).encode())
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=there))
    try:
        return _status(here, probe) is not None
    finally:
        os.unlink(probe, dir_fd=there)


def _place(here: int, there: int, name: bytes, seen: ReadIdentity) -> bool:
    """Give the file its second name, or copy it. False if it is not the file that was read."""
    try:
        os.link(name, name, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return _copy(here, there, name, seen)
    placed = _status(there, name)
    if placed is None or not _is_same(placed, seen):
        os.unlink(name, dir_fd=there)  # a second name of what came between, made by this call
        return False
    return True


_PART = b".mirror-part"


def _part(name: bytes) -> bytes:
    """The name of a copy before it has its own: one that no scan of a cache looks at."""
    return b"." + name + _PART


def _copy(here: int, there: int, name: bytes, seen: ReadIdentity) -> bool:
    """A copy that is flushed and read back before it gets its name."""
    part = _part(name)
    read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=here)
    try:
        status = os.fstat(read)
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=there)  # of a run that was killed: begun anew
        mode = stat.S_IMODE(status.st_mode)
        written = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=there)
        try:
            while chunk := os.read(read, CHUNK_BYTES):
                _write_all(written, chunk)
            os.utime(written, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(written)
            if hasattr(os, "posix_fadvise"):  # so that it is the disk that is read back
                os.posix_fadvise(written, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(written)
        if _digest(there, part) != seen.digest:
            return False
        _rename_to_nothing(there, part, name)
        return True
    finally:
        os.close(read)
        with suppress(OSError):
            os.unlink(part, dir_fd=there)


def _rename_to_nothing(folder: int, part: bytes, name: bytes) -> None:
    """Raises: FileExistsError where there is something of that name."""
    try:
        os.link(part, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        # Without hard links: nobody but the holder of the quarantine's lock writes such names.
        if _status(folder, name) is not None:
            raise FileExistsError(errno.EEXIST, "another file is there") from None
        os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _seen(folder: int, name: bytes) -> ReadIdentity:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no plain file")
        hasher = Hasher()
        while chunk := os.read(file, CHUNK_BYTES):
            hasher.update(chunk)
        return ReadIdentity(hasher.digest(), status.st_dev, status.st_ino, status.st_mtime_ns)
    finally:
        os.close(file)


def _digest(folder: int, name: bytes) -> Digest:
    return _seen(folder, name).digest


def _status(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_same(status: os.stat_result, seen: ReadIdentity) -> bool:
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size) == (
        seen.device,
        seen.inode,
        seen.mtime_ns,
        seen.digest.size,
    )


def _is_still(folder: int, name: bytes, seen: ReadIdentity) -> bool:
    status = _status(folder, name)
    return status is not None and _is_same(status, seen)
