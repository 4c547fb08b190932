"""When to stop asking a store that does not answer."""

from __future__ import annotations

from typing import Final

from mirror.errors import StoreError, StoreSetupError, Transient

# So many objects in a row that the store did not answer for, each after all its attempts.
_GIVE_UP_AFTER: Final = 20


class Patience:
    """Passes over an object that the store did not give, but not over a store that gives none."""

    def __init__(self) -> None:
        self._unanswered = 0

    def answered(self) -> None:
        self._unanswered = 0

    def refused(self, error: StoreError) -> None:
        """Raises: StoreError: `error`, when it would meet every other object as well."""
        self._unanswered = self._unanswered + 1 if isinstance(error, Transient) else 0
        if isinstance(error, StoreSetupError) or self._unanswered >= _GIVE_UP_AFTER:
            raise error
