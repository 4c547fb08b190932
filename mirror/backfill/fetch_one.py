"""Download one image: its requests, redirects included, and the outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from mirror.backfill.answers import (
    MOST_REDIRECTS,
    Reply,
    UrlOutcome,
    redirect_outcome,
    request_outcome,
    url_outcome,
)
from mirror.backfill.backfill_report import BackfillReport
from mirror.backfill.download import OriginClient
from mirror.backfill.pacing import DAY, Wait
from mirror.backfill.request_log import RequestLog
from mirror.backfill.scheduler import Scheduler
from mirror.backfill.url_policy import Refusal, UrlPolicy, parsed, robots_interval, source_of
from mirror.system.http_headers import REDIRECT_STATUSES, retry_after_seconds

_NO_REPLY: Final = Reply()


@dataclass
class ImageRequester:
    """Downloads images.

    Attributes:
        client: sends requests.
        policy: which URLs may be requested.
        scheduler: when requests may start.
        request_log: remembers the rate of each robots.txt for a day.
        report: counts requests and bytes.
        warn: receives sentences that a person should read.
        wall: seconds since 1970, to compare with a server's dates.
    """

    client: OriginClient
    policy: UrlPolicy
    scheduler: Scheduler
    request_log: RequestLog
    report: BackfillReport
    warn: Callable[[str], object]
    wall: Callable[[], float]
    _robots_known: set[str] = field(default_factory=set)
    _robots_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def fetch(self, url: str, known_bad: frozenset[bytes]) -> tuple[UrlOutcome, Reply, str]:
        """Download an image. The caller saves the pace of the source that answered last.

        Args:
            url: as the dataset has it.
            known_bad: hashes of contents that count as placeholders.

        Returns:
            The outcome for the URL, the last answer, and the source that gave it. The source is
            empty if no request was allowed.

        Raises:
            Stopped: the run ends before the last request. Nothing is known of the URL then.
        """
        at = self.policy.judge(url)
        if isinstance(at, Refusal):
            return UrlOutcome("not_allowed", at.reason), _NO_REPLY, ""
        path = at.path
        for _ in range(MOST_REDIRECTS + 1):
            await self._know_robots(at)
            source = source_of(at)
            reply, target = await self._request(at, path)
            if target is None:
                return await asyncio.to_thread(url_outcome, reply, url, known_bad), reply, source
            if isinstance(target, UrlOutcome):
                return target, reply, source
            self.scheduler.save_pace(source)
            at = target
        return UrlOutcome("not_image", f"more than {MOST_REDIRECTS} redirects"), reply, source

    def _target(self, at: URL, reply: Reply, requested_path: str) -> URL | UrlOutcome | None:
        """The target of a redirect, or the outcome if it must not be followed; None if no redirect."""
        if reply.status not in REDIRECT_STATUSES or reply.problem:
            return None
        location = parsed(reply.location) if reply.location else None
        try:
            target = None if location is None else at.join(location)
        except ValueError:
            target = None
        if target is None:
            return UrlOutcome("not_image", f"HTTP {reply.status} without a usable target")
        if outcome := redirect_outcome(target.path_qs, requested_path):
            return outcome
        judged = self.policy.judge(str(target))
        if isinstance(judged, Refusal):
            return UrlOutcome(
                "not_allowed", f"redirects to a URL that may not be requested: {judged.reason}"
            )
        return judged

    async def _know_robots(self, url: URL) -> None:
        """Read the source's robots.txt once a day, and keep to the rate that it states."""
        source, origin = source_of(url), url.origin()
        key = str(origin)
        async with self._robots_lock:
            if key in self._robots_known:
                return
            interval = self.request_log.robots_interval(key, self.scheduler.clock() - DAY)
            if interval is None:
                reply, _ = await self._request(origin / "robots.txt")
                self.scheduler.save_pace(source)
                usable = reply.status == 200 and not reply.problem
                interval = robots_interval(reply.body) if usable else 0.0
                if request_outcome(reply) in ("answered", "forbidden"):
                    self.request_log.save_robots_interval(key, self.scheduler.clock(), interval)
            self._robots_known.add(key)
            self.scheduler.pace(source).raise_min_interval(interval)

    async def _request(
        self, url: URL, image_path: str | None = None
    ) -> tuple[Reply, URL | UrlOutcome | None]:
        """Send a request when its source's pace allows; returns the answer and its `_target`.

        Args:
            url: to request.
            image_path: path of the image's URL in the dataset; None for robots.txt, whose redirects
                are not followed.
        """
        source = source_of(url)
        ticket = await self.scheduler.start_request(source)
        reply = await self.client.get(url)
        outcome = request_outcome(reply)
        target = None if image_path is None else self._target(url, reply, image_path)
        if isinstance(target, URL) and source_of(target) == source:
            outcome = "redirected"
        self.report.requests += 1
        self.report.bytes += reply.received
        self.report.throttled += outcome == "refused"
        retry_after = retry_after_seconds(reply.retry_after, date=reply.date, now=self.wall())
        self.scheduler.end_request(source, ticket, outcome, reply.cost, retry_after)
        self._warn_if_breaker_is_open(source)
        return reply, target

    def _warn_if_breaker_is_open(self, source: str) -> None:
        pace, now = self.scheduler.pace(source), self.scheduler.clock()
        decision = pace.may_start(now)
        if pace.breaker(now) == "open" and isinstance(decision, Wait):
            when = time.strftime("%d %B, %H:%M", time.localtime(self.wall() + decision.seconds))
            self.warn(f"No more requests to {source} until {when}: {decision.reason}.")
