"""Stage 2 of a rewrite: decide which records of a batch are written. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.lookup import LICENSE, NOT_MIRRORED, OK
from mirror.dataset.records import Batch, Rejected
from mirror.dataset.rewrite.resolve import ResolvedBatch
from mirror.dataset.rewrite.rewrite_options import Missing, RewriteOptions
from mirror.dataset.splits.split import sample_share
from mirror.urls import content_hash_in


@dataclass(frozen=True)
class Judgement:
    """The decision on each record of a batch. `drop` changes the arrays in place.

    Attributes:
        usable: for each URL whether it is written if its record is.
        kept: for each record whether it is written.
        reason: for each dropped record a code of `OUTCOMES`; `OK` if the report counts the record
            as invalid or left out of the sample instead. Of kept records it means nothing.
        blamed: for each record the position of the URL that its reason comes from.
    """

    usable: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    reason: NDArray[np.uint8]
    blamed: NDArray[np.intp]

    def drop(self, records: NDArray[np.bool_], reason: int) -> int:
        """Drop these records for a reason; records dropped before keep their first reason.

        Returns: how many were dropped.
        """
        dropped = records & self.kept
        self.reason[dropped] = reason
        self.kept[dropped] = False
        return int(np.count_nonzero(dropped))


class JudgedBatch(NamedTuple):
    """A batch, the decision on its records, and what follows from it.

    Attributes:
        resolved: the batch.
        judgement: the decision.
        rejected: the invalid records, by number.
        not_sampled: how many records were left out of a sample that is a share.
        keep: positions of the records that are written, ascending.
        written_urls: for each URL whether it is written.
    """

    resolved: ResolvedBatch
    judgement: Judgement
    rejected: list[Rejected]
    not_sampled: int
    keep: NDArray[np.intp]
    written_urls: NDArray[np.bool_]


def judge(resolved: ResolvedBatch, options: RewriteOptions, *, replaces_urls: bool) -> JudgedBatch:
    """Decide which records of a batch are written.

    Args:
        resolved: the batch.
        options: of the rewrite.
        replaces_urls: False if the rewrite only filters and leaves URLs unchanged.
    """
    batch = resolved.batch
    judgement = _judge_urls(batch, resolved.outcomes, options.missing)
    permitted = options.license.permits(batch)
    if permitted is not None:
        judgement.drop(~permitted, LICENSE)
    rejected = list(batch.rejected)
    if replaces_urls and batch.sourced:
        source = options.reading.source
        rejected += _overwriting(batch, judgement, resolved.outcomes, source)
    not_sampled = 0
    if isinstance(options.sample, Fraction):
        keys = resolved.url_keys[firsts_of(batch)]
        not_sampled = judgement.drop(~sample_share(keys, options.seed, options.sample), OK)
    return JudgedBatch(
        resolved,
        judgement,
        sorted(rejected, key=lambda record: record.number),
        not_sampled,
        np.flatnonzero(judgement.kept),
        judgement.usable & judgement.kept[owners_of(batch)],
    )


def _judge_urls(batch: Batch, outcomes: NDArray[np.uint8], missing: Missing) -> Judgement:
    """Judge records by the outcomes of their URLs.

    missing   a record is kept if                 otherwise its reason is that of
    drop      one URL is ok                       its first URL
    keep      one URL is ok or not mirrored       its first URL
    fail      one URL is ok, none not mirrored    its first URL not mirrored, or its first URL
    """
    absent = outcomes == NOT_MIRRORED
    usable = outcomes == OK
    if missing == "keep":
        usable = usable | absent
    if batch.owners is None:
        return Judgement(usable, usable.copy(), outcomes.copy(), firsts_of(batch))
    kept = per_record(batch, usable) > 0
    blamed = firsts_of(batch)
    if missing == "fail":
        lacking, first = np.unique(batch.owners[absent], return_index=True)
        kept[lacking] = False
        blamed[lacking] = np.flatnonzero(absent)[first]
    return Judgement(usable, kept, outcomes[blamed], blamed)


def _overwriting(
    batch: Batch, judgement: Judgement, outcomes: NDArray[np.uint8], source: str
) -> list[Rejected]:
    """Drop records whose original URL would overwrite another value, and return them.

    A dataset that was rewritten before already has its original URLs in that field. They stay, and
    its records are not dropped.

    Args:
        batch: the records.
        judgement: the decision on them; changed in place.
        outcomes: codes of `OUTCOMES` for their URLs.
        source: the field for original URLs.
    """
    owners = owners_of(batch)
    rejected = []
    for position in sorted(batch.sourced):
        begin, end = np.searchsorted(owners, [position, position + 1]).tolist()
        changes = bool(judgement.kept[position]) and bool((outcomes[begin:end] == OK).any())
        if changes and not any(map(content_hash_in, batch.urls[begin:end])):
            judgement.kept[position] = False
            judgement.reason[position] = OK
            reason = f"its field {source!r} holds something else; name another with --source-field"
            rejected.append(Rejected(batch.numbers[position], reason, batch.raw(position)))
    return rejected


def owners_of(batch: Batch) -> NDArray[np.intp]:
    """For each URL the position of its record."""
    return np.arange(len(batch)) if batch.owners is None else batch.owners


def firsts_of(batch: Batch) -> NDArray[np.intp]:
    """For each record the position of its first URL."""
    if batch.owners is None:
        return np.arange(len(batch))
    firsts: NDArray[np.intp] = np.searchsorted(batch.owners, np.arange(len(batch)))
    return firsts


def per_record(batch: Batch, urls: NDArray[np.bool_]) -> NDArray[np.intp]:
    """For each record how many of its URLs are selected."""
    return np.bincount(owners_of(batch)[urls], minlength=len(batch))
