"""What a rewriting did, as a value: the JSON of `mirror rewrite --json`, and what its tables show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import msgspec

from mirror.catalog.lookup import OUTCOMES
from mirror.content.photo import photo_key
from mirror.dataset.records import Rejected
from mirror.dataset.splits.assign import Imbalance
from mirror.errors import EXIT_DONE, EXIT_SOME_FAILED

Place = Literal["mirror", "cache"]

EXAMPLES: Final = 10

# Why a record is not written, in the order in which it is lookups.
REASONS: Final = (*OUTCOMES[1:], "invalid", "sample")

# What the reason of an invalid record begins with that does not have the URL's field.
_NO_FIELD: Final = "no field "
_NAMES_SHOWN: Final = 12


class Example(NamedTuple):
    """A record that was dropped. `number`: its line, or its place in its input, from 1 on."""

    input: str
    number: int
    what: str


@dataclass
class RewriteReport:
    """Counts are records unless they say otherwise.

    Attributes:
        place: what was asked for images.
        dropped: by reason.
        examples: the first of each reason.
        splits: records written to each.
        classes: for each class records in each split, in the order of `splits`.
        imbalances: classes that could not have their shares, the largest first.
        moved: records that are in another split than their key's, for their class's shares.
        kept_missing: of the written ones, those that keep an original URL.
        urls_dropped: URLs taken out of lists of records that were written.
        matched_by_photo: URLs in written records that the mirror knew only under another spelling.
        outputs: files written, by split; `out` where there are no splits.
        rejected: the file that holds what was invalid.
        config_diff: what changes in the training's configuration.
        unreadable: files of a cache that could not be read, and so counted as not there.
        warnings: sentences about what is probably not meant so.
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
    kept_missing: int = 0
    urls_dropped: int = 0
    matched_by_photo: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    rejected: str | None = None
    config_diff: str = ""
    config_backup: str | None = None
    unreadable: int = 0
    warnings: list[str] = field(default_factory=list)
    dry_run: bool = False
    seconds: float = 0.0

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] += count

    def wants_example(self, reason: str) -> bool:
        return len(self.examples[reason]) < EXAMPLES

    @property
    def exit_status(self) -> int:
        return EXIT_SOME_FAILED if self.dropped["invalid"] or self.unreadable else EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        return {
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


def explained(rejected: Rejected) -> str:
    """Why a record is invalid; where it lacks the URL's field, also which fields it has."""
    if not rejected.reason.startswith(_NO_FIELD):
        return rejected.reason
    try:
        names = list(msgspec.json.decode(rejected.raw, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return rejected.reason
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
    return f"{rejected.reason} among {shown or 'none at all'}"


class Lookups(NamedTuple):
    """What `doubts` must know of the question to judge the answer.

    Attributes:
        holds: how many URLs the place knows that was asked for images.
        found: how many of the dataset's URLs are among them.
        by_photo: other spellings were asked for too.
    """

    holds: int
    found: int
    by_photo: bool


def doubts(report: RewriteReport, lookups: Lookups) -> Iterator[str]:
    """Sentences about a result that nobody means to have.

    no record at all                an empty input
    all are invalid                 most often another field holds the URL: what the first has
    no URL of a valid one is known  an empty mirror, or URLs that are spelled otherwise
    nothing is written else         what the best of them were dropped for
    a split has no record           where others have some
    """
    valid = report.records - report.dropped["invalid"]
    if not report.records:
        yield "There is no record in the input; nothing is in the output."
    elif not valid:
        yield _unusable(report)
    elif not lookups.found:
        yield _unknown(report, lookups, valid)
    elif not report.written:
        yield _all_dropped(report)
    if report.written:
        for name, count in report.splits.items():
            if not count:
                yield (
                    f"The split {name} is empty: the {report.written:,} records are too few, or "
                    "too many of them belong together."
                )


def _unusable(report: RewriteReport) -> str:
    name, number, what = report.examples["invalid"][0]
    sentence = f"Not one of {report.records:,} records can be used; {name}, record {number}: {what}"
    if what.startswith(_NO_FIELD):
        return f"{sentence}; name the URL's field with --url-field."
    return f"{sentence}."


def _unknown(report: RewriteReport, lookups: Lookups, valid: int) -> str:
    if not lookups.holds:
        return f"The {report.place} knows no image at all, and so none of {valid:,} records."
    sentence = (
        f"Not one of {valid:,} records is in the {report.place}, which knows {lookups.holds:,} URLs; "
        "a URL must be spelled as it was when its image was cached"
    )
    examples = report.examples["not_mirrored"]
    if not lookups.by_photo and examples and photo_key(examples[0].what):
        sentence += ", or --match photo be asked for"
    return f"{sentence}."


def _all_dropped(report: RewriteReport) -> str:
    dropped = report.dropped
    # Who came so far as to be asked for a licence had an image that is fine.
    late = [reason for reason in ("sample", "license", "too_small") if dropped[reason]]
    reason = late[0] if late else max(dropped, key=dropped.__getitem__)
    such = "".join(f", such as {example.what}" for example in report.examples[reason][:1])
    return (
        f"Nothing is in the output: of {report.records:,} records the last {dropped[reason]:,} "
        f"were dropped as {reason!r}{such}."
    )
