"""What a rewriting did, as a value: the JSON of `mirror rewrite --json`, and what its tables show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from mirror.dataset.resolve import OUTCOMES
from mirror.errors import EXIT_DONE, EXIT_SOME_FAILED

EXAMPLES: Final = 10

# Why a record is not written, in the order in which it is asked.
REASONS: Final = (*OUTCOMES[1:], "invalid", "sample")


class Example(NamedTuple):
    """A record that was dropped. `number`: its line, or its place in its input, from 1 on."""

    input: str
    number: int
    what: str


class Imbalance(NamedTuple):
    """A class whose shares could not be held: why, and the split that is farthest off."""

    name: str
    reason: str
    records: int
    units: int
    split: str
    have: int
    want: float


@dataclass
class RewriteReport:
    """Counts are records unless they say otherwise.

    Attributes:
        dropped: by reason.
        examples: the first of each reason.
        splits: records written to each.
        classes: for each class records in each split, in the order of `splits`.
        imbalances: classes that could not have their shares.
        moved: records that are in another split than their key's, for their class's shares.
        kept_missing: of the written ones, those that keep an original URL.
        urls_dropped: URLs taken out of lists of records that were written.
        matched_by_photo: URLs that the mirror knew only under another spelling.
        outputs: files written, by split; `out` where there are no splits.
        rejected: the file that holds what was invalid.
        config_diff: what changes in the training's configuration.
    """

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
    warnings: list[str] = field(default_factory=list)
    dry_run: bool = False
    seconds: float = 0.0

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] += count

    def wants_example(self, reason: str) -> bool:
        return len(self.examples[reason]) < EXAMPLES

    @property
    def exit_status(self) -> int:
        return EXIT_SOME_FAILED if self.dropped["invalid"] else EXIT_DONE

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
            "warnings": self.warnings,
            "dry_run": self.dry_run,
            "seconds": round(self.seconds, 3),
            "exit_status": self.exit_status,
        }
