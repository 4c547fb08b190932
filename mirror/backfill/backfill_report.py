"""What a backfill did, as a value: the JSON of `mirror backfill --json`, and what its table shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from mirror.backfill.answers import FAILURES
from mirror.backfill.download_plan import DownloadPlan
from mirror.backfill.estimate import DurationEstimate
from mirror.errors import MirrorError, exit_status_of

# Nobody was asked: what is in an image's place in the cache is not ours to judge.
UNREADABLE: Final = "unreadable"


@dataclass
class BackfillReport:
    """Counts are distinct URLs unless they say otherwise.

    `wanted` = `downloaded` + `overtaken` + all of `failed` + `gone_before` + `given_up_before` + `left`

    Attributes:
        plan: what was found before anything was asked.
        downloaded: images that are in the cache by this run.
        overtaken: images that somebody else had put there meanwhile.
        failed: by why: what this run asked for and did not get, and what it may not ask for.
        failures: `(url, kind, reason)` of the first of them.
        throttled: answers 429 and 503.
        requests: that were sent, redirects and robots.txt included.
        bytes: of the bodies that came, of whatever kind.
        replaced: of `downloaded`, those that took the place of a flagged file.
        taken_back: files that turned out to be placeholders after they were kept; those of earlier
            runs were `already`, and are in no other count.
        stopped: why it ended before all was had; empty where it did not.
        next_try: seconds until the next URL may be asked, where only such are left.
        estimate: for what was queued, made before anything was asked.
        left_estimate: for what is left.
    """

    run_id: str
    plan: DownloadPlan = field(default_factory=DownloadPlan)
    downloaded: int = 0
    overtaken: int = 0
    failed: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((*FAILURES, UNREADABLE), 0)
    )
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    throttled: int = 0
    requests: int = 0
    bytes: int = 0
    replaced: int = 0
    taken_back: int = 0
    stopped: str = ""
    next_try: float | None = None
    estimate: DurationEstimate | None = None
    left_estimate: DurationEstimate | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    dry_run: bool = False
    interrupted: bool = False
    error: MirrorError | None = None

    @property
    def failed_total(self) -> int:
        return sum(self.failed.values())

    @property
    def left(self) -> int:
        """What may still be had, by a later run."""
        plan = self.plan
        known = self.failed_total + plan.gone + plan.given_up
        return max(0, plan.wanted - self.downloaded - self.overtaken - known)

    @property
    def exit_status(self) -> int:
        failed = self.failed_total > 0 and not self.dry_run
        return exit_status_of(self.error, interrupted=self.interrupted, failed=failed)

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints; docs/backfill.md names its keys."""
        plan = self.plan
        estimate = self.estimate if self.dry_run else self.left_estimate
        out: dict[str, Any] = {
            "run_id": self.run_id,
            "records": plan.records,
            "invalid": plan.invalid,
            "wanted": plan.wanted,
            "already": plan.already,
            "mirrored": plan.mirrored,
            "cached": plan.cached,
            "unlicensed": plan.unlicensed,
            "flagged": plan.flagged,
            "downloaded": self.downloaded,
            "replaced": self.replaced,
            "overtaken": self.overtaken,
            "failed": self.failed,
            "failures": [
                {"url": url, "kind": kind, "reason": reason} for url, kind, reason in self.failures
            ],
            "gone_before": plan.gone,
            "given_up_before": plan.given_up,
            "left": self.left,
            "throttled": self.throttled,
            "requests": self.requests,
            "bytes": self.bytes,
            "taken_back": self.taken_back,
            "stopped": self.stopped,
            "next_try": None if self.next_try is None else round(self.next_try, 1),
            "eta": 0.0 if estimate is None else round(estimate.seconds, 1),
            "arithmetic": "" if estimate is None else estimate.arithmetic,
            "seconds": round(self.seconds, 3),
            "dry_run": self.dry_run,
            "interrupted": self.interrupted,
            "warnings": self.warnings,
            "exit_status": self.exit_status,
        }
        if self.error is not None:
            out["error"] = str(self.error)
        return out
