"""The report of a rewrite: the JSON of `mirror rewrite --json` and the source of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from mirror.catalog.lookup import OUTCOMES
from mirror.content.photo import photo_key
from mirror.dataset.records import Rejected, field_names
from mirror.dataset.splits.assign import Imbalance
from mirror.errors import MirrorError, exit_status_of

Place = Literal["mirror", "cache"]

EXAMPLES: Final = 10

# Why a record is not written, in the order in which reasons are checked.
REASONS: Final = (*OUTCOMES[1:], "invalid", "label_conflict", "near_duplicate", "sample")

# The reason of an invalid record begins with this if it lacks the field of the URL.
_NO_FIELD: Final = "no field "


class Example(NamedTuple):
    """A dropped record. `number` is its line or its position in its input, from 1."""

    input: str
    number: int
    what: str


class LabelConflict(NamedTuple):
    """A photograph in records of different classes.

    Attributes:
        classes: their names.
        records: the first records, each as `INPUT:NUMBER`, from 1.
    """

    classes: list[str]
    records: list[str]


@dataclass
class RewriteReport:
    """Counts, examples and file names of a rewrite. Counts are records unless stated otherwise.

    Attributes:
        place: where images were looked up.
        dropped: records by reason.
        examples: the first records of each reason.
        splits: records written to each split.
        classes: for each class the records in each split, in the order of `splits`.
        imbalances: classes that do not have their shares, the largest first.
        moved: records moved from their key's split so that their class has its shares.
        pinned: records that keep the split that they have in an earlier output.
        pin_conflicts: groups of inseparable records that earlier outputs have in several splits.
        near_duplicate_groups: groups of images that are copies of one photograph; None if copies were
            not looked for.
        groups_crossing: those that would have been in several splits without the grouping.
        without_phash: written records without a perceptual hash, among which no copies are found but
            equal ones and those of one photo.
        label_conflicts: photographs in records of different classes; None if no class was named.
        conflicts: the first of these.
        kept_missing: written records that keep an original URL.
        urls_dropped: URLs removed from lists of records that were written.
        matched_by_photo: URLs in written records that were found only under another spelling.
        outputs: files written, by split; `out` if there are no splits.
        rejected: the file of invalid records.
        config_diff: unified diff of the training configuration.
        config_backup: the file with its previous content.
        unreadable: files of a cache that could not be read; they count as missing.
        warnings: sentences about results that are probably not intended.
        error: why nothing was written, although the input was read to its end.
    """

    place: Place = "mirror"
    records: int = 0
    written: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    examples: dict[str, list[Example]] = field(
        default_factory=lambda: {reason: [] for reason in REASONS}
    )
    splits: dict[str, int] = field(default_factory=dict)
    classes: dict[str, list[int]] = field(default_factory=dict)
    imbalances: list[Imbalance] = field(default_factory=list)
    moved: int = 0
    pinned: int = 0
    pin_conflicts: int = 0
    near_duplicate_groups: int | None = None
    groups_crossing: int = 0
    without_phash: int = 0
    label_conflicts: int | None = None
    conflicts: list[LabelConflict] = field(default_factory=list)
    kept_missing: int = 0
    urls_dropped: int = 0
    matched_by_photo: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    rejected: str | None = None
    config_diff: str = ""
    config_backup: str | None = None
    unreadable: int = 0
    warnings: list[str] = field(default_factory=list)
    error: MirrorError | None = None
    dry_run: bool = False
    seconds: float = 0.0

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] += count

    def wants_example(self, reason: str) -> bool:
        return len(self.examples[reason]) < EXAMPLES

    @property
    def exit_status(self) -> int:
        failed = bool(self.dropped["invalid"] or self.unreadable)
        return exit_status_of(self.error, interrupted=False, failed=failed)

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "records": self.records,
            "written": self.written,
            "dropped": self.dropped,
            "splits": self.splits,
            "matched_by_photo": self.matched_by_photo,
            "kept_missing": self.kept_missing,
            "urls_dropped": self.urls_dropped,
            "classes": {
                name: dict(zip(self.splits, counts, strict=True))
                for name, counts in self.classes.items()
            },
            "imbalances": [imbalance._asdict() for imbalance in self.imbalances],
            "moved": self.moved,
            "pinned": self.pinned,
            "pin_conflicts": self.pin_conflicts,
            "near_duplicate_groups": self.near_duplicate_groups,
            "groups_crossing": self.groups_crossing,
            "without_phash": self.without_phash,
            "label_conflicts": self.label_conflicts,
            "conflicts": [conflict._asdict() for conflict in self.conflicts],
            "outputs": self.outputs,
            "rejected": self.rejected,
            "examples": {
                reason: [example._asdict() for example in examples]
                for reason, examples in self.examples.items()
                if examples
            },
            "config_diff": self.config_diff,
            "config_backup": self.config_backup,
            "unreadable": self.unreadable,
            "warnings": self.warnings,
            "dry_run": self.dry_run,
            "seconds": round(self.seconds, 3),
            "exit_status": self.exit_status,
        }
        if self.error is not None:
            out["error"] = str(self.error)
        return out


def explained(rejected: Rejected) -> str:
    """Why a record is invalid. If it lacks the field of the URL, also which fields it has."""
    if not rejected.reason.startswith(_NO_FIELD):
        return rejected.reason
    names = field_names(rejected.raw)
    return rejected.reason if names is None else f"{rejected.reason} among {names}"


class Lookups(NamedTuple):
    """How images were looked up, for `doubts`.

    Attributes:
        holds: URLs that the mirror or cache knows.
        found: URLs of the dataset among them.
        by_photo: other spellings were looked up as well.
    """

    holds: int
    found: int
    by_photo: bool


def doubts(report: RewriteReport, lookups: Lookups) -> Iterator[str]:
    """Sentences about a result that is probably not intended, each with its likely cause.

    no records                    an empty input
    all records are invalid       usually another field holds the URL
    no URL was found              an empty mirror, or URLs in another spelling
    no record was written         the last reason for which records were dropped
    a split has no record         too few records, or too many that belong together

    If no record was written, there is exactly one.
    """
    valid = report.records - report.dropped["invalid"]
    if not report.records:
        yield "The input has no records."
    elif not valid:
        yield _unusable(report)
    elif not lookups.found:
        yield _unknown(report, lookups, valid)
    elif not report.written:
        yield _all_dropped(report)
    if report.written:
        for name, count in report.splits.items():
            if not count:
                yield empty_split(name, report.written)


def empty_split(name: str, written: int) -> str:
    """Why a split is empty although records were written."""
    return (
        f"The split {name} is empty: there are too few records ({written:,}), or too many that "
        "belong together."
    )


def _unusable(report: RewriteReport) -> str:
    name, number, what = report.examples["invalid"][0]
    sentence = f"None of {report.records:,} records can be used; {name}, record {number}: {what}"
    if what.startswith(_NO_FIELD):
        return f"{sentence}; name the URL's field with --url-field."
    return f"{sentence}."


def _unknown(report: RewriteReport, lookups: Lookups, valid: int) -> str:
    if not lookups.holds:
        return f"The {report.place} has no images, so it has none of the {valid:,} records."
    sentence = (
        f"None of {valid:,} records is in the {report.place}, which has {lookups.holds:,} URLs; "
        "URLs must be spelled as they were when the images were cached"
    )
    examples = report.examples["not_mirrored"]
    if not lookups.by_photo and examples and photo_key(examples[0].what):
        sentence += ", or use --match photo"
    return f"{sentence}."


def _all_dropped(report: RewriteReport) -> str:
    dropped = report.dropped
    # Licences and samples are checked last, so those records had a good image.
    late = [reason for reason in ("sample", "license", "too_small") if dropped[reason]]
    reason = late[0] if late else max(dropped, key=dropped.__getitem__)
    such = "".join(f", such as {example.what}" for example in report.examples[reason][:1])
    return (
        f"No record is left: of {report.records:,} records the last {dropped[reason]:,} "
        f"were dropped as {reason!r}{such}."
    )
