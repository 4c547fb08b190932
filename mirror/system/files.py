"""Files that appear whole or not at all."""

from __future__ import annotations

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
    """A text file to write (UTF-8, lines end as written); as `replacing_bytes` in all else."""
    with replacing_bytes(path) as raw:
        text = io.TextIOWrapper(raw, "utf-8", newline="", write_through=True)
        yield text
        text.detach()


class ReplacedTogether:
    """Files that take their places in a row at the end of the block, when all of them are whole.

    None does when the block ends in an error. Only a kill between two renames leaves some of each.
    """

    def __init__(self) -> None:
        self._whole: list[tuple[Path, Path]] = []

    def add(self, written: Path, target: Path) -> None:
        """A file that is whole and on the disk, and the name that it takes."""
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
    """A file to write, which takes `path`'s place when the block ends without an error.

    What is no plain file (`/dev/null`, a pipe) is written to as it is. A file that is replaced keeps
    its permissions.

    Args:
        path: of the file.
        together: with which others it takes its place, after this block.

    Raises:
        UsageError: the file cannot be made there; said at once, before any work is done for it.
        MirrorError: what is written does not go there: the disk is full.
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


def settle(folder: Path) -> None:
    """Return when all that was written to the folder's file system is on its disk.

    Not `os.sync`, which waits for every other disk as well: one may be slow, or a share that hangs.

    Raises:
        OSError: it cannot be written there.
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
    """What to raise where writing fails: an OSError could be any other file's."""
    return MirrorError(
        f"{path} cannot be written to its end ({error.strerror or error}); "
        "make room, or name another place."
    )


class _RawFile(io.FileIO):
    """A file that knows what to call itself when it cannot be written to."""

    shown: Path

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # the reader of a pipe has gone: nobody's error
        except OSError as error:
            raise cut_short(self.shown, error) from None

    def sync(self) -> None:
        try:
            os.fsync(self.fileno())
        except OSError as error:
            raise cut_short(self.shown, error) from None
