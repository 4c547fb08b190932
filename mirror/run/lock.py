"""A lock on a folder, so that one run at a time uses it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mirror.errors import Busy, MirrorError, StateError
from mirror.run.lock_holder import LONGEST, as_shown, write_holder
from mirror.system.files import open_regular, open_sole_name


def _no_state(folder: Path, error: OSError) -> MirrorError:
    return StateError(
        f"The state folder {folder} cannot be written ({error.strerror}); make it writable "
        "for this user, or set state.dir."
    )


@contextmanager
def locked(
    folder: Path,
    command: str,
    name: str = "lock",
    unusable: Callable[[Path, OSError], MirrorError] = _no_state,
) -> Iterator[None]:
    """Hold the lock of a folder for one run, and make the folder if it does not exist.

    The operating system frees the lock when the process ends, however it ends.

    Args:
        folder: holds the lock file.
        command: of this run; another run that is refused tells it.
        name: the name of the lock file.
        unusable: makes the error for a folder that cannot be made or written.

    Raises:
        Busy: another run holds the lock.
        StateError: the folder cannot be made or written, unless `unusable` makes another error.
    """
    lock = FileLock(folder / name, blocking=False)
    # A file of its own: every attempt to take the lock empties the lock file.
    holder = folder / f"{name}.holder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Busy(
            f"Another run is at work on {folder}{_shown(holder)}; wait for it to end, or look at "
            "its log."
        ) from None
    except OSError as error:
        raise unusable(folder, error) from None
    try:
        _note(holder, command)
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _note(holder: Path, command: str) -> None:
    with suppress(OSError):  # the run does not need it
        file = open_sole_name(holder, os.O_WRONLY | os.O_CREAT)
        try:
            write_holder(file, command)
        finally:
            os.close(file)


def _shown(holder: Path) -> str:
    try:
        descriptor, _ = open_regular(holder)
        with open(descriptor, "rb") as file:
            return as_shown(file.read(LONGEST))
    except OSError:
        return ""
