"""Counts what the stages of a rewrite decided, into its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.lookup import LICENSE, NOT_MIRRORED, OK, OUTCOMES, UrlLookup
from mirror.dataset.fields import FieldPath
from mirror.dataset.rewrite.judge import JudgedBatch, per_record
from mirror.dataset.rewrite.output_files import has_records
from mirror.dataset.rewrite.rewrite_options import RewriteOptions
from mirror.dataset.rewrite.rewrite_report import (
    EXAMPLES,
    Example,
    LabelConflict,
    Lookups,
    Place,
    RewriteReport,
    doubts,
    empty_split,
    explained,
)
from mirror.dataset.splits.assign import LEFT_OUT, SplitAssignment
from mirror.dataset.splits.image_keys import Conflicts
from mirror.dataset.splits.pins import KeptSplits
from mirror.errors import DatasetError, NothingLeft
from mirror.system.display_text import plural


class _RecordNotes(NamedTuple):
    """Facts about records that may be written, one element per record."""

    missing: NDArray[np.bool_]
    urls_dropped: NDArray[np.int32]
    by_photo: NDArray[np.int32]

    @classmethod
    def of(cls, judged: JudgedBatch) -> _RecordNotes:
        batch, _, by_photo, outcomes, _ = judged.resolved
        keep, written = judged.keep, judged.written_urls
        return cls(
            per_record(batch, written & (outcomes == NOT_MIRRORED))[keep] > 0,
            per_record(batch, ~judged.judgement.usable)[keep].astype(np.int32),
            per_record(batch, written & by_photo)[keep].astype(np.int32),
        )


class Tally:
    """Fills in the report of a rewrite, batch by batch.

    Args:
        options: of the rewrite.
        lookup: finds the images.
    """

    def __init__(self, options: RewriteOptions, lookup: UrlLookup) -> None:
        place: Place = "mirror" if lookup.of_mirror else "cache"
        self.report = RewriteReport(place, dry_run=options.dry_run)
        self._options = options
        self._lookup = lookup
        self._urls_found = 0
        # Of records some of which may yet be left out.
        self._defers = isinstance(options.sample, int) or options.copies.need_all
        self._notes: list[_RecordNotes] = []
        # Input and number of each record, to name those whose classes conflict.
        self._records: list[tuple[str, NDArray[np.intp]]] = []

    def add(self, judged: JudgedBatch, source: str) -> None:
        """Count a batch.

        Args:
            judged: the batch.
            source: the name of its input.
        """
        report = self.report
        batch = judged.resolved.batch
        self._urls_found += judged.resolved.found
        report.records += len(batch) + len(batch.rejected)
        for record in judged.rejected:
            report.drop("invalid")
            if report.wants_example("invalid"):
                example = Example(source, record.number, explained(record))
                report.examples["invalid"].append(example)
        self._add_dropped(judged, source)
        report.drop("sample", judged.not_sampled)
        if self._options.label is not None:
            numbers = judged.resolved.batch.numbers
            self._records.append((source, np.array([numbers[at] for at in judged.keep.tolist()])))
        if self._defers:
            self._notes.append(_RecordNotes.of(judged))
        else:
            self._add_notes(_RecordNotes.of(judged))

    def _add_dropped(self, judged: JudgedBatch, source: str) -> None:
        report, batch, judgement = self.report, judged.resolved.batch, judged.judgement
        dropped, reasons = ~judgement.kept, judgement.reason
        counts = np.bincount(reasons[dropped], minlength=len(OUTCOMES))
        counts[OK] = 0  # counted as invalid or left out of the sample
        for code in np.flatnonzero(counts).tolist():
            reason = OUTCOMES[code]
            report.drop(reason, int(counts[code]))
            examples = report.examples[reason]
            for position in self._first_of(dropped & (reasons == code), len(examples)):
                what = batch.urls[int(judgement.blamed[position])].decode(errors="replace")
                if code == LICENSE:
                    what = f"{self._options.license.shown(batch, position)}: {what}"
                examples.append(Example(source, batch.numbers[position], what))

    @staticmethod
    def _first_of(records: NDArray[np.bool_], known: int) -> list[int]:
        """Positions of as many records as the examples lack."""
        return [] if known >= EXAMPLES else np.flatnonzero(records)[: EXAMPLES - known].tolist()

    def _add_notes(self, notes: _RecordNotes) -> None:
        self.report.kept_missing += int(notes.missing.sum())
        self.report.urls_dropped += int(notes.urls_dropped.sum())
        self.report.matched_by_photo += int(notes.by_photo.sum())

    def add_assignment(self, assignment: SplitAssignment) -> None:
        """Count where the records of all batches were assigned to.

        Raises:
            DatasetError: no record has the field to group or to stratify by.
        """
        report, options = self.report, self._options
        report.drop("sample", assignment.left_out)
        report.drop("near_duplicate", assignment.near_duplicates)
        report.drop("label_conflict", assignment.conflicting)
        report.written += assignment.written
        report.moved = assignment.moved
        report.imbalances = assignment.imbalances
        if self._notes:
            chosen = assignment.split != LEFT_OUT
            columns = (np.concatenate(parts) for parts in zip(*self._notes, strict=True))
            self._add_notes(_RecordNotes(*(column[chosen] for column in columns)))
        if options.splits:
            names = [split.name for split in options.splits]
            report.splits = dict(zip(names, assignment.counts.tolist(), strict=True))
            report.classes = assignment.classes
            self._add_pins(assignment.pins)
            self._check_field(options.group, assignment.ungrouped, "--group-by", "group")
            self._check_field(options.stratify, assignment.unclassed, "--stratify-by", "class")
        if assignment.copies is not None:
            report.near_duplicate_groups, report.groups_crossing = assignment.copies
            report.without_phash = assignment.unhashed
        if assignment.conflicts is not None:
            self._add_conflicts(assignment.conflicts)

    def _add_conflicts(self, conflicts: Conflicts) -> None:
        report = self.report
        report.label_conflicts = conflicts.photographs
        begins = np.cumsum([0, *(len(numbers) for _, numbers in self._records)])
        for conflict in conflicts.listed:
            named = []
            for record in conflict.records:
                part = int(np.searchsorted(begins, record, side="right")) - 1
                source, numbers = self._records[part]
                named.append(f"{source}:{numbers[record - begins[part]]}")
            report.conflicts.append(LabelConflict(conflict.classes, named))
        if conflicts.photographs and self._options.label_conflicts == "keep":
            field = ".".join(self._options.label or ())
            report.warnings.append(
                f"{plural(conflicts.photographs, 'photograph', 'are')} in records "
                f"with different values of {field!r}; --label-conflicts drop leaves these records out, "
                "and --report lists them."
            )

    def _add_pins(self, pins: KeptSplits | None) -> None:
        report = self.report
        if pins is None:
            return
        report.pinned, report.pin_conflicts = pins.kept, pins.conflicts
        if pins.conflicts:
            report.warnings.append(
                f"Earlier outputs have {pins.conflicts:,} inseparable groups of records in several "
                f"splits: each is now in the smallest of these, and {pins.moved:,} records moved to it."
            )
        elif report.written and not pins.kept:
            report.warnings.append(
                "No record that is written stands in the files of --pin; check that they are earlier "
                "outputs for this dataset."
            )

    def _check_field(self, path: FieldPath | None, lacking: int, option: str, noun: str) -> None:
        """Warn if some records lack a field; a field that no record has is probably misspelt."""
        report = self.report
        if path is None or not lacking:
            return
        name = ".".join(path)
        if lacking == report.written:
            raise DatasetError(
                f"None of {lacking:,} records has a value in {name!r}, the field of {option}; "
                "nothing was written. Name another field, or leave the option out."
            )
        report.warnings.append(
            f"{lacking:,} of {report.written:,} records have no value in {name!r}: "
            f"they belong to no {noun}."
        )

    def check_missing(self) -> None:
        """Raise DatasetError if images are missing and none may be."""
        report = self.report
        missing = report.dropped["not_mirrored"]
        if self._options.missing != "fail" or not missing:
            return
        first = report.examples["not_mirrored"][0]
        remedy = "download them" if report.place == "cache" else "sync them"
        raise DatasetError(
            f"{missing:,} of {report.records:,} records have an image that is not in the "
            f"{report.place}, the first in {first.input}, record {first.number}: {first.what}. "
            f"Nothing was written; {remedy} first, or drop the records with --missing drop."
        )

    def check_left(self, outputs: Mapping[str, Path]) -> None:
        """Raise and note an error if no record is left, or an empty split would replace records.

        Args:
            outputs: the files to write, by split.

        Raises:
            NothingLeft: nothing may be written.
        """
        report, reading = self.report, self._options.reading
        why = None
        if not report.written:
            why = f"{next(self._doubts())} Nothing was written; --allow-empty writes empty outputs."
        for name, count in report.splits.items():
            if why is None and not count and has_records(outputs[name], reading):
                why = (
                    f"{empty_split(name, report.written)} It would replace the records of "
                    f"{outputs[name]}. Nothing was written; --allow-empty replaces them."
                )
        if why is not None:
            report.error = NothingLeft(why)
            raise report.error

    def _doubts(self) -> Iterator[str]:
        lookup = self._lookup
        lookups = Lookups(len(lookup.index), self._urls_found, lookup.match == "photo")
        return doubts(self.report, lookups)

    def warnings(self) -> Iterator[str]:
        """Sentences about a result that is probably not intended."""
        report, options = self.report, self._options
        yield from self._doubts()
        if options.splits and options.group is None and report.kept_missing:
            yield (
                f"{plural(report.kept_missing, 'record', 'are')} kept although the mirror lacks their images. Their URLs "
                "decide their splits, so another URL of the same photo may be in another split, and "
                "they may move once it is mirrored. Use --group-by to keep them together and in place."
            )
