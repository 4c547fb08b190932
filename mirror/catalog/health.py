"""Reports of the commands that check and maintain a mirror, and the problems that they list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from mirror.errors import MirrorError, exit_status_of

# Examples of each kind of problem in a report. The file that `--report` names has all problems.
EXAMPLES: Final = 20

Kind = Literal["missing", "mismatched", "unread", "orphaned", "flagged", "failed", "kept"]


class Problem(NamedTuple):
    """One problem of a mirror or of a cache.

    Attributes:
        kind: what is wrong.
        key: of the object, or the path of the file.
        reason: in a few words.
        rows: how many live rows of the catalog name the object.
        urls: MD5s of the first of their URLs, 16 bytes each, end to end.
        size: bytes by the catalog; of the object in the bucket where the catalog does not have it.
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
    """The report of a command that checks or maintains a mirror; each command fills a part of it.

    Counts are objects unless stated otherwise.

    Attributes:
        checked: objects that were checked.
        missing: objects that live rows name and the bucket lacks.
        mismatched: objects with other bytes than the catalog says.
        orphaned: objects that no live row names.
        repaired: objects that were written again.
        deleted: objects that were deleted from the bucket.
        pulled: files that were written to the cache.
        failed: objects or files that could not be handled.
        rows_without_object: live rows that name a missing object.
        bytes: bytes that were read, written or deleted.
        examples: the first problems of each kind.
        warnings: sentences that the user should read.
        requests: requests that were sent, by operation.
        error: the error that ended the run early, if one did.
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
        """Add a problem to the examples, unless there are enough of its kind."""
        if sum(example.kind == problem.kind for example in self.examples) < EXAMPLES:
            self.examples.append(problem)

    @property
    def has_problems(self) -> bool:
        """Whether there is a problem that the user should look at."""
        return bool(self.missing or self.mismatched or self.failed)

    @property
    def exit_status(self) -> int:
        return exit_status_of(self.error, interrupted=self.interrupted, failed=self.has_problems)

    def extra_json(self) -> dict[str, Any]:
        """The keys that one command adds to the JSON."""
        return {}

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints; docs/cli.md names its keys."""
        names = (
            "checked", "missing", "mismatched", "orphaned", "repaired", "deleted", "pulled",
            "failed", "rows_without_object", "bytes",
        )  # fmt: skip
        out: dict[str, Any] = {name: getattr(self, name) for name in names}
        out |= self.extra_json()
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
