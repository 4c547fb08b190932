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
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, TextIO, cast

from mirror.errors import MirrorError, UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Like `replacing_bytes`, for UTF-8 text; line endings are written unchanged."""
    with replacing_bytes(path) as raw:
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
def replacing_bytes(path: Path, together: ReplacedTogether | None = None) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` when the block ends without an error.

    It is flushed to disk first, and takes over the permissions of the file it replaces. If `path`
    is not a regular file (`/dev/null`, a pipe), it is written in place.

    Args:
        path: path of the file.
        together: other files to wait for; this one then takes its name with them.

    Raises:
        UsageError: the file cannot be created. Raised at the beginning, before the work is done.
        MirrorError: a write failed, for example because the disk is full.
    """
    try:
        in_place = path.exists() and not path.is_file()
        target = path if in_place else Path(os.path.realpath(path))
        written = target if in_place else target.with_name(f".mirror-{secrets.token_hex(6)}.tmp")
        raw = _RawFile(written, "wb" if in_place else "xb")
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
                with suppress(FileNotFoundError):
                    os.fchmod(raw.fileno(), stat.S_IMODE(target.stat().st_mode))
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
