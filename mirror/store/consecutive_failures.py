"""When a run stops asking a store that no longer answers."""

from __future__ import annotations

from typing import Final

from mirror.errors import Busy, StoreError, StoreSetupError, Transient

# Each of them has failed after all its attempts.
_MAX_FAILURES: Final = 20


class ConsecutiveFailures:
    """Counts the objects in a row that the store did not answer for, and ends the run at 20.

    One object that fails is noted by the caller, and the run goes on. A failure that every other
    object would meet as well ends the run: the store is gone, or this key may not use it.
    """

    def __init__(self) -> None:
        self._failures = 0

    def succeeded(self) -> None:
        """Note an object that the store answered for."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Note an object that failed.

        Args:
            error: why. Only a `Transient` error counts; any other one says that the store answered.

        Raises:
            StoreError: every other object would fail as well.
            Busy: another process holds the lock of the mirror's folder.
        """
        if isinstance(error, (StoreSetupError, Busy)):
            raise error
        self._failures = self._failures + 1 if isinstance(error, Transient) else 0
        if self._failures >= _MAX_FAILURES:
            raise StoreError(
                f"{error} {self._failures} objects in a row had no better answer; run again when "
                "the store is back."
            )
