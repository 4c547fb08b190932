"""A lock on a folder, so that one run at a time uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mirror.errors import Busy, MirrorError, StateError


def _no_state(folder: Path, error: OSError) -> MirrorError:
    return StateError(
        f"The state folder {folder} cannot be written ({error.strerror}); make it writable "
        "for this user, or set state.dir."
    )


@contextmanager
def locked(
    folder: Path, name: str = "lock", unusable: Callable[[Path, OSError], MirrorError] = _no_state
) -> Iterator[None]:
    """Hold the lock of a folder for one run, and make the folder if it does not exist.

    The operating system frees the lock when the process ends, however it ends.

    Args:
        folder: holds the lock file.
        name: the name of the lock file.
        unusable: makes the error for a folder that cannot be made or written.

    Raises:
        Busy: another run holds the lock.
        StateError: the folder cannot be made or written, unless `unusable` makes another error.
    """
    lock = FileLock(folder / name, blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Busy(
            f"Another run is at work on {folder}; wait for it to end, or look at its log."
        ) from None
    except OSError as error:
        raise unusable(folder, error) from None
    try:
        yield
    finally:
        lock.release()
