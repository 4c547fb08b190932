"""One run at a time for each state folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mirror.errors import Busy, StateError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a state folder for one run; the lock goes with the process, however it ends.

    Raises:
        Busy: another run holds it.
        StateError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", blocking=False)
        lock.acquire()
    except Timeout:
        raise Busy(
            f"Another run is at work on {folder}; wait for it to end, or look at its log."
        ) from None
    except OSError as error:
        raise StateError(
            f"The state folder {folder} cannot be written ({error.strerror}); make it writable "
            "for this user, or set state.dir."
        ) from None
    try:
        yield
    finally:
        lock.release()
