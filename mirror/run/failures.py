"""The files that failed, as a report lists them."""

from __future__ import annotations

from typing import Final

# A disk that fails for every file must not give a report of a million lines.
LISTED: Final = 1000


class Failures(list[tuple[str, str]]):
    """`(path, reason)` of the first `LISTED` files that failed. Reports count all of them apart."""

    def note(self, path: str, reason: str) -> None:
        if len(self) < LISTED:
            self.append((path, reason))

    def as_json(self) -> list[dict[str, str]]:
        return [{"path": path, "reason": reason} for path, reason in self]
