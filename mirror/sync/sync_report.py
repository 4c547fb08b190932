"""The report of a sync: the JSON of `mirror sync --json`, and the source of the printed table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from mirror.catalog.cost import CostEstimate
from mirror.content.image import VERDICTS
from mirror.errors import MirrorError, exit_status_of
from mirror.run.failures import Failures
from mirror.sync.plan import SyncPlan

# Collisions that `warnings` names; the log has all.
_COLLISIONS_LISTED: Final = 10


@dataclass
class SyncReport:
    """What a sync did. Counts are files unless stated otherwise.

    Attributes:
        described: unchanged files whose source was added to the catalog (`--dataset`).
        flagged: files by verdict.
        failures: `(path, reason)` of the first files that failed.
        collided: files with the XXH3-128 of another image, which are not in the mirror.
        warnings: sentences that the user should read.
        requests: requests that were sent, by operation.
        catalog_version: after the last commit; None where there was no commit.
        estimate: what the plan would cost, in a dry run.
        error: the error that ended the run early, if one did.
    """

    run_id: str
    scanned: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    vanished: int = 0
    ignored: int = 0
    uploaded: int = 0
    deduplicated: int = 0
    described: int = 0
    flagged: dict[str, int] = field(
        default_factory=lambda: {verdict: 0 for verdict in VERDICTS if verdict != "ok"}
    )
    failed: int = 0
    failures: Failures = field(default_factory=Failures)
    collided: int = 0
    warnings: list[str] = field(default_factory=list)
    bytes_uploaded: int = 0
    requests: dict[str, int] = field(
        default_factory=lambda: {"put": 0, "get": 0, "head": 0, "list": 0, "delete": 0}
    )
    retries: int = 0
    catalog_version: int | None = None
    catalog_commits: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    interrupted: bool = False
    estimate: CostEstimate | None = None
    error: MirrorError | None = None

    def take_plan(self, plan: SyncPlan) -> None:
        """Copy a plan's counts."""
        self.scanned, self.ignored = plan.scanned, plan.ignored
        self.new, self.changed, self.unchanged = plan.new, plan.changed, plan.unchanged
        self.vanished = plan.vanished
        for path, reason in plan.unreadable:
            self.fail(path, reason)

    def fail(self, path: str, reason: str) -> None:
        self.failed += 1
        self.failures.note(path, reason)

    def collide(self, path: str, other: str, content: bytes) -> str:
        """Note a file with the XXH3-128 of another image; returns the warning.

        Args:
            path: of the file.
            other: the name of the other image.
            content: their XXH3-128.
        """
        self.collided += 1
        warning = (
            f"{path} and {other} are two images with one XXH3-128 ({content.hex()}), so one is "
            "forged. The mirror keeps the second; docs/security.md says how to change that, under "
            '"Two images with one hash".'
        )
        if self.collided <= _COLLISIONS_LISTED:
            self.warnings.append(warning)
        return warning

    @property
    def flagged_total(self) -> int:
        return sum(self.flagged.values())

    @property
    def exit_status(self) -> int:
        return exit_status_of(self.error, interrupted=self.interrupted, failed=self.failed > 0)

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints; docs/cli.md names its keys."""
        out: dict[str, Any] = {
            "run_id": self.run_id,
            "scanned": self.scanned,
            "new": self.new,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "vanished": self.vanished,
            "ignored": self.ignored,
            "uploaded": self.uploaded,
            "deduplicated": self.deduplicated,
            "described": self.described,
            "flagged": self.flagged,
            "failed": self.failed,
            "failures": self.failures.as_json(),
            "collided": self.collided,
            "bytes_uploaded": self.bytes_uploaded,
            "requests": self.requests,
            "retries": self.retries,
            "catalog_version": self.catalog_version,
            "catalog_commits": self.catalog_commits,
            "seconds": round(self.seconds, 3),
            "dry_run": self.dry_run,
            "interrupted": self.interrupted,
            "warnings": self.warnings,
        }
        if self.estimate is not None:
            e = self.estimate
            out["estimate"] = {
                "puts": e.puts,
                "requests": e.requests,
                "bytes": e.bytes,
                "request_usd": round(e.request_usd, 4),
                "storage_usd_month": round(e.storage_usd_month, 4),
                "seconds": None if e.seconds is None else round(e.seconds, 1),
            }
        if self.error is not None:
            out["error"] = str(self.error)
        return out
