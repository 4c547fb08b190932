"""Which licences a record may have to be written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.fields import MISSING, FieldPath
from mirror.dataset.licenses import license_name
from mirror.dataset.records import Batch, whole

_SHOWN_LENGTH: Final = 40


@dataclass(frozen=True)
class LicenseRule:
    """Which licences may be written. If a record has several, each of them must pass.

    Attributes:
        path: the field that holds a record's licence; None to check no licences.
        allowed: licences as `license_name` spells them; empty to allow any.
        required: drop records without a licence.
    """

    path: FieldPath | None = None
    allowed: frozenset[str] = frozenset()
    required: bool = False

    @property
    def paths(self) -> tuple[FieldPath, ...]:
        """The paths that must be read of each record."""
        return () if self.path is None else whole(self.path)

    def permits(self, batch: Batch) -> NDArray[np.bool_] | None:
        """For each record whether it may be written; None if the rule checks nothing."""
        if self.path is None or not (self.allowed or self.required):
            return None
        values = batch.all_values(self.path)
        return np.array([all(map(self._permits, licenses)) for licenses in values], np.bool_)

    def _permits(self, value: Any) -> bool:
        name = _name(value) if isinstance(value, str) else None
        return name in self.allowed if self.allowed else name is not None

    def shown(self, batch: Batch, position: int) -> str:
        """The licences of one record, as text for people."""
        assert self.path is not None
        return ", ".join(dict.fromkeys(map(_shown, batch.all_values(self.path)[position])))


_name = lru_cache(maxsize=4096)(license_name)


def _shown(value: Any) -> str:
    if value is MISSING or value is None or value == "":
        return "no licence"
    text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"
