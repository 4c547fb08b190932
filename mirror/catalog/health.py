"""What was found of a mirror's health, and what was done for it, as a value: the JSON of `--json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from mirror.errors import MirrorError, exit_status_of

# Examples of each kind of problem in a report; all of them go to the file that `--report` names.
EXAMPLES: Final = 20

Kind = Literal["missing", "mismatched", "unread", "orphaned", "flagged", "failed", "kept"]


class Problem(NamedTuple):
    """Something that is not as it should be.

    Attributes:
        kind: what is wrong.
        key: of an object, or the path of a file.
        reason: in a few words.
        rows: how many live rows of the catalog name it.
        urls: MD5s of the first of their URLs, 16 bytes each, end to end.
        size: bytes, as the catalog has it, or of what is there where the catalog has nothing.
    """

    kind: Kind
    key: str
    reason: str
    rows: int = 0
    urls: bytes = b""
    size: int = 0

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"problem": self.kind, "key": self.key, "reason": self.reason}
        if self.size:
            out["size"] = self.size
        if self.rows:
            urls = (self.urls[at : at + 16].hex() for at in range(0, len(self.urls), 16))
            out |= {"rows": self.rows, "url_md5": list(urls)}
        return out


@dataclass
class UpkeepReport:
    """Counts are objects, but of `pulled`, which are files; each command fills those it is about.

    Attributes:
        checked: that were looked at.
        missing: named by live rows, and not there.
        mismatched: other bytes than the catalog says.
        orphaned: there, and named by no live row.
        repaired: written again.
        deleted: removed from the bucket.
        pulled: files written to the cache.
        failed: that could not be dealt with.
        rows_without_object: live rows that name what is missing.
        bytes: that were moved or removed.
        examples: the first problems of each kind.
        warnings: sentences that a person should read.
        error: what ended the run early, if anything did.
    """

    checked: int = 0
    missing: int = 0
    mismatched: int = 0
    orphaned: int = 0
    repaired: int = 0
    deleted: int = 0
    pulled: int = 0
    failed: int = 0
    rows_without_object: int = 0
    bytes: int = 0
    examples: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    dry_run: bool = False
    interrupted: bool = False
    error: MirrorError | None = None

    def example(self, problem: Problem) -> None:
        if sum(one.kind == problem.kind for one in self.examples) < EXAMPLES:
            self.examples.append(problem)

    @property
    def wrong(self) -> bool:
        """Whether there is something that a person should look at."""
        return bool(self.missing or self.mismatched or self.failed)

    @property
    def exit_status(self) -> int:
        return exit_status_of(self.error, interrupted=self.interrupted, failed=self.wrong)

    def more(self) -> dict[str, Any]:
        """What one command tells beyond the others."""
        return {}

    def as_json(self) -> dict[str, Any]:
        names = (
            "checked", "missing", "mismatched", "orphaned", "repaired", "deleted", "pulled",
            "failed", "rows_without_object", "bytes",
        )  # fmt: skip
        out: dict[str, Any] = {name: getattr(self, name) for name in names}
        out |= self.more()
        out |= {
            "examples": [problem.as_json() for problem in self.examples],
            "warnings": self.warnings,
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "dry_run": self.dry_run,
            "interrupted": self.interrupted,
            "exit_status": self.exit_status,
        }
        if self.error is not None:
            out["error"] = str(self.error)
        return out
