"""One run at a time for each folder that a run keeps its things in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mirror.errors import Busy, StateError


def acquired(file: Path) -> FileLock:
    """A lock on a file, its folder made if need be; it goes with the process, however that ends.

    Raises:
        Busy: another run holds it.
        OSError: the folder cannot be made or written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise Busy(
            f"Another run is at work on {file.parent}; wait for it to end, or look at its log."
        ) from None
    return lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a state folder for one run.

    Raises:
        Busy: another run holds it.
        StateError: the folder cannot be made or written.
    """
    try:
        lock = acquired(folder / "lock")
    except OSError as error:
        raise StateError(
            f"The state folder {folder} cannot be written ({error.strerror}); make it writable "
            "for this user, or set state.dir."
        ) from None
    try:
        yield
    finally:
        lock.release()
