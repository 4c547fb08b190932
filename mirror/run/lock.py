"""One run at a time for each folder that a run keeps its things in."""

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
    """Holds a folder, made if need be, for one run; the lock goes with the process, however that ends.

    Args:
        folder: where the lock's file is.
        name: of that file.
        unusable: what is raised of a folder that cannot be made or written.

    Raises:
        Busy: another run holds it.
        StateError: the folder cannot be made or written, where `unusable` has no other error.
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
