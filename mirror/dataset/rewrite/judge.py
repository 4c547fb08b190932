"""Which records of a batch are written, decided by what became of their URLs. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.lookup import LICENSE, NOT_MIRRORED, OK
from mirror.dataset.fields import MISSING, FieldPath
from mirror.dataset.licenses import license_name
from mirror.dataset.records import Batch, Rejected, whole
from mirror.urls import content_hash_in

Missing = Literal["drop", "keep", "fail"]


class Judgement(NamedTuple):
    """What becomes of a batch. `kept` and `fate` are changed in place by who judges next.

    Attributes:
        usable: is a URL written, if its record is?
        kept: is a record written?
        fate: why a record is not, as a code of `OUTCOMES`; `OK` for one that is set aside as invalid.
        blamed: for each record the place of the URL that its fate is that of.
    """

    usable: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    fate: NDArray[np.uint8]
    blamed: NDArray[np.intp]

    def drop(self, which: NDArray[np.bool_], fate: int) -> None:
        """Let these records meet a fate, but for those that have met another before."""
        which = which & self.kept
        self.fate[which] = fate
        self.kept[which] = False


def judge(batch: Batch, outcome: NDArray[np.uint8], missing: Missing) -> Judgement:
    """What becomes of records by the outcomes of their URLs.

    missing   a record is kept if                 else its fate is that of
    drop      one URL is ok                       its first URL
    keep      one URL is ok or not mirrored       its first URL
    fail      one URL is ok, none not mirrored    its first that is not mirrored, or its first
    """
    absent = outcome == NOT_MIRRORED
    usable = outcome == OK
    if missing == "keep":
        usable = usable | absent
    if batch.owners is None:
        return Judgement(usable, usable.copy(), outcome.copy(), firsts_of(batch))
    kept = per_record(batch, usable) > 0
    blamed = firsts_of(batch)
    if missing == "fail":
        lacking, first = np.unique(batch.owners[absent], return_index=True)
        kept[lacking] = False
        blamed[lacking] = np.flatnonzero(absent)[first]
    return Judgement(usable, kept, outcome[blamed], blamed)


@dataclass(frozen=True)
class LicenseRule:
    """Which licences may be written. A record that has several needs all of them to be fine.

    Attributes:
        path: where a record holds its licence; None asks for none.
        allowed: as `license_name` spells them; empty allows any.
        required: a record without a licence is not written.
    """

    path: FieldPath | None = None
    allowed: frozenset[str] = frozenset()
    required: bool = False

    @property
    def paths(self) -> tuple[FieldPath, ...]:
        """What has to be read of each record."""
        return () if self.path is None else whole(self.path)

    def apply(self, batch: Batch, judgement: Judgement) -> None:
        if self.path is None or not (self.allowed or self.required):
            return
        fine = [all(map(self._is_fine, licenses)) for licenses in batch.all_values(self.path)]
        judgement.drop(~np.array(fine, np.bool_), LICENSE)

    def _is_fine(self, value: Any) -> bool:
        name = _name(value) if isinstance(value, str) else None
        return name in self.allowed if self.allowed else name is not None

    def shown(self, batch: Batch, at: int) -> str:
        """The licences of a record, for people."""
        assert self.path is not None
        return ", ".join(dict.fromkeys(map(_shown, batch.all_values(self.path)[at])))


_name = lru_cache(maxsize=4096)(license_name)


def _shown(value: Any) -> str:
    if value is MISSING or value is None or value == "":
        return "no licence"
    return repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:40]}…"


def set_aside_overwriting(
    batch: Batch, judgement: Judgement, outcome: NDArray[np.uint8], source: str
) -> list[Rejected]:
    """Records that would get a new URL where the place of the old one is taken; no longer kept.

    In a dataset that was rewritten before, the original's original stands there: right so.

    Args:
        batch: the records.
        judgement: of them.
        outcome: of their URLs.
        source: the field that the old URL would go to.
    """
    owners = owners_of(batch)
    refused = []
    for position in sorted(batch.sourced):
        begin, end = np.searchsorted(owners, [position, position + 1]).tolist()
        changes = bool(judgement.kept[position]) and bool((outcome[begin:end] == OK).any())
        if changes and not any(map(content_hash_in, batch.urls[begin:end])):
            judgement.kept[position] = False
            judgement.fate[position] = OK
            reason = f"its field {source!r} holds something else; name another with --source-field"
            refused.append(Rejected(batch.numbers[position], reason, batch.raw(position)))
    return refused


def owners_of(batch: Batch) -> NDArray[np.intp]:
    """For each URL the position of its record."""
    return np.arange(len(batch)) if batch.owners is None else batch.owners


def firsts_of(batch: Batch) -> NDArray[np.intp]:
    """For each record the place of its first URL."""
    if batch.owners is None:
        return np.arange(len(batch))
    firsts: NDArray[np.intp] = np.searchsorted(batch.owners, np.arange(len(batch)))
    return firsts


def per_record(batch: Batch, which: NDArray[np.bool_]) -> NDArray[np.intp]:
    """For each record how many of its URLs are among these."""
    return np.bincount(owners_of(batch)[which], minlength=len(batch))
