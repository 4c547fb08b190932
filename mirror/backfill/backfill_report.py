"""The report of a backfill: the JSON of `mirror backfill --json` and the source of its table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from mirror.backfill.answers import FAILURES
from mirror.backfill.download_plan import DownloadPlan
from mirror.backfill.estimate import DurationEstimate
from mirror.errors import MirrorError, exit_status_of

# Not requested: a link, a folder or an unreadable file has the image's place in the cache.
UNREADABLE: Final = "unreadable"


@dataclass
class BackfillReport:
    """The report of one run. Counts are distinct URLs unless they say otherwise.

    `wanted` = `downloaded` + `overtaken` + all of `failed` + `gone_before` + `given_up_before` + `left`

    Attributes:
        plan: the findings before any request.
        downloaded: images that this run put into the cache.
        overtaken: images that another program had put there meanwhile.
        failed: by kind: images that this run requested without success or could not request.
        failures: `(url, kind, reason)` of the first failures.
        throttled: answers 429 and 503.
        requests: that were sent, redirects and robots.txt included.
        bytes: of all bodies that came.
        replaced: of `downloaded`, images that replaced a bad file.
        taken_back: files that were removed again because they turned out to be placeholders. Those of
            earlier runs were among `already`, and are in no other count.
        stopped: why the run ended early; else empty.
        next_try: seconds until the next URL may be requested, if every URL that is left must wait.
        estimate: of the time for the queue, made before the first request.
        left_estimate: of the time for what is left.
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
        """URLs that a later run may still download."""
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
