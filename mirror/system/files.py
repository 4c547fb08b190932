"""Write files that appear complete or not at all, and open regular files and nothing else.

Three other writers have their own rules. `cache.cache_writer` works by descriptors and never
overwrites a good image. `store.engines.file` makes a conditional PUT from a hard link.
`fetch.disk_cache` does not flush, because its files can be downloaded again.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, TextIO, cast

from mirror.errors import MirrorError, UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Access(Enum):
    """Who may read a file that is written."""

    INHERITED = "those who may read the file that it replaces; for a new file, as the umask says"
    OWNER = "its owner only, because it holds secrets"
    EVERYONE = "all users, because a service of another user reads it"


@contextmanager
def replacing(
    path: Path, *, access: Access = Access.INHERITED, follow: bool = True
) -> Iterator[TextIO]:
    """Like `replacing_bytes`, for UTF-8 text; line endings are written unchanged."""
    with replacing_bytes(path, access=access, follow=follow) as raw:
        text = io.TextIOWrapper(raw, "utf-8", newline="", write_through=True)
        yield text
        text.detach()


class ReplacedTogether:
    """Files that all take their names at the end of a block, once all are complete.

    If the block ends in an error, none does. Only a kill between two renames can leave a mixture of
    old and new files.
    """

    def __init__(self) -> None:
        self._whole: list[tuple[Path, Path]] = []

    def add(self, written: Path, target: Path) -> None:
        """Add a complete file that is on disk, and the name that it will take."""
        self._whole.append((written, target))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._whole:
                written, target = self._whole[0]
                written.replace(target)
                self._whole.pop(0)
        finally:
            for written, _target in self._whole:
                with suppress(OSError):
                    written.unlink()


@contextmanager
def replacing_bytes(
    path: Path,
    together: ReplacedTogether | None = None,
    *,
    access: Access = Access.INHERITED,
    follow: bool = True,
) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` when the block ends without an error.

    It is flushed to disk first, and takes over the permissions of the file it replaces. Until then
    only its owner can read it. If `path` is not a regular file (`/dev/null`, a pipe), it is written
    in place.

    Args:
        path: path of the file.
        together: other files to wait for; this one then takes its name with them.
        access: who may read the file.
        follow: replace the file that a symbolic link names, and write pipes in place. False
            replaces whatever has the name: for a folder where other users may put links.

    Raises:
        UsageError: the file cannot be created. Raised at the beginning, before the work is done.
        MirrorError: a write failed, for example because the disk is full.
    """
    try:
        old = _status(path, follow=follow)
        if old is not None and not follow and stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        in_place = follow and old is not None and not stat.S_ISREG(old.st_mode)
        target = Path(os.path.realpath(path)) if follow and not in_place else path
        written = target if in_place else target.with_name(f".mirror-{secrets.token_hex(6)}.tmp")
        if old is not None and not stat.S_ISREG(old.st_mode):
            old = None
        is_new = old is None and access is Access.INHERITED
        raw = _RawFile(written, in_place=in_place, mode=0o666 if is_new else 0o600)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}); name another file."
        ) from None
    raw.shown = path
    try:
        with io.BufferedWriter(raw) as file:
            yield cast("BinaryIO", file)
            file.flush()
            if not in_place:
                if access is Access.EVERYONE:
                    os.fchmod(raw.fileno(), 0o644)
                elif old is not None:
                    keep_permissions(raw.fileno(), old, access)
                raw.sync()
        if together is not None and not in_place:
            together.add(written, target)
        elif not in_place:
            written.replace(target)
    except BaseException:
        if not in_place:
            with suppress(OSError):
                written.unlink()
        raise


def _status(path: Path, *, follow: bool) -> os.stat_result | None:
    try:
        return path.stat(follow_symlinks=follow)
    except FileNotFoundError:
        return None


def keep_permissions(file: int, old: os.stat_result, access: Access = Access.INHERITED) -> None:
    """Give a complete file the permissions of the file that it replaces or copies, and none beyond.

    Args:
        file: its descriptor.
        old: the status of the other file.
        access: `Access.OWNER` drops the permissions of all other users.
    """
    mode = stat.S_IMODE(old.st_mode)
    if access is Access.OWNER:
        mode &= 0o600
    if os.fstat(file).st_gid != old.st_gid:
        try:
            os.fchown(file, -1, old.st_gid)
        except OSError:
            # The file's own group is another one: it gets no more than all users have.
            mode &= 0o707 | (mode & 0o007) << 3
    os.fchmod(file, mode)


def open_private(name: str, flags: int) -> int:
    """An `opener` for `open`: only the owner may read a file that it creates."""
    return os.open(name, flags | os.O_CLOEXEC, 0o600)


@contextmanager
def folders_made(*paths: Path) -> Iterator[None]:
    """Make the folders of these files. If the block fails, the new ones that are empty go again.

    Raises:
        UsageError: a folder cannot be made.
    """
    made: list[Path] = []
    try:
        for path in paths:
            missing = [each for each in path.absolute().parents if not each.exists()]
            for folder in reversed(missing):
                _make(folder)
                made.append(folder)
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The folder {folder} cannot be made ({error.strerror}); name another file."
        ) from None


def open_regular(
    path: bytes | str | os.PathLike[str], *, dir_fd: int | None = None, follow: bool = False
) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; returns its descriptor and its status.

    The name may mean something else by now than when it was listed. A plain `open` of a FIFO waits
    for a writer that never comes; this one fails at once.

    Args:
        path: the file.
        dir_fd: descriptor of the folder that a relative path starts in.
        follow: accept a symbolic link to a regular file.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    file = os.open(path, flags, dir_fd=dir_fd)
    try:
        status = os.fstat(file)
        _require_regular(status)
        os.set_blocking(file, True)
    except BaseException:
        os.close(file)
        raise
    return file, status


def open_sole_name(
    path: str | os.PathLike[str], flags: int, mode: int = 0o666, *, dir_fd: int | None = None
) -> int:
    """Open a regular file for writing in a folder where other users may write.

    They cannot make the caller write to another file by a symbolic or a hard link, nor make it wait
    by a FIFO.

    Args:
        path: the file.
        flags: as for `os.open`.
        mode: permissions of a new file, before the umask.
        dir_fd: descriptor of the folder that a relative path starts in.

    Raises:
        OSError: the file cannot be opened, is not a regular file, or has another name.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(path, flags, mode, dir_fd=dir_fd)
    try:
        status = os.fstat(file)
        _require_regular(status)
        _require_sole_name(status)
    except BaseException:
        os.close(file)
        raise
    return file


def flush_folder(descriptor: int) -> None:
    """Flush the names in an open folder to disk, if its file system can do that.

    Raises:
        OSError: the flush failed.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")


def _require_sole_name(status: os.stat_result) -> None:
    if status.st_nlink > 1:  # 0: it was deleted meanwhile
        raise OSError(errno.EMLINK, "has another name, a hard link")


def settle(folder: Path) -> None:
    """Wait until everything written to the folder's file system is on its disk.

    `os.sync` would wait for all other disks too, and one may be slow or a share that hangs.

    Raises:
        OSError: the file system cannot be written.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):  # not Linux
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def cut_short(path: Path, error: OSError) -> MirrorError:
    """Return the error for a failed write. It names the file, which an OSError may not."""
    return MirrorError(
        f"{path} cannot be written to its end ({error.strerror or error}); "
        "make room, or name another place."
    )


class _RawFile(io.FileIO):
    """A file whose errors name the path that the user gave."""

    shown: Path

    def __init__(self, path: Path, *, in_place: bool, mode: int) -> None:
        def opened(name: str, flags: int) -> int:
            # A temporary name that exists already, even as a link, is an error ("x").
            return os.open(name, flags | os.O_CLOEXEC, mode)

        super().__init__(path, "wb" if in_place else "xb", opener=opened)

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # the reader of a pipe has left, which is not an error
        except OSError as error:
            raise cut_short(self.shown, error) from None

    def sync(self) -> None:
        try:
            os.fsync(self.fileno())
        except OSError as error:
            raise cut_short(self.shown, error) from None
