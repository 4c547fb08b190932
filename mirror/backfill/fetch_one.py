"""One image: the requests that it takes, each in its turn, and what they say in the end."""

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
    fate_of,
    fate_of_redirect,
    outcome_of,
)
from mirror.backfill.backfill_report import BackfillReport
from mirror.backfill.download import OriginClient
from mirror.backfill.pacing import DAY, Wait
from mirror.backfill.request_log import RequestLog
from mirror.backfill.scheduler import Scheduler
from mirror.backfill.url_policy import Refusal, UrlPolicy, least_interval, source_of
from mirror.system.http_headers import REDIRECT_STATUSES, retry_after_seconds

_NOT_ASKED: Final = Reply()


@dataclass
class ImageRequester:
    """Asks for images.

    Attributes:
        origin: sends a request.
        rules: which may be sent.
        turns: when.
        ledger: knows robots.txt for a day.
        report: is told of requests and bytes.
        warned: is told of what a person should know.
        wall: seconds since 1970, for dates that others write.
    """

    origin: OriginClient
    rules: UrlPolicy
    turns: Scheduler
    ledger: RequestLog
    report: BackfillReport
    warned: Callable[[str], object]
    wall: Callable[[], float]
    _robots_known: set[str] = field(default_factory=set)
    _asking_robots: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def fetch(self, url: str, known_bad: frozenset[bytes]) -> tuple[UrlOutcome, Reply, str]:
        """What became of a URL, the last answer, and which source gave it; empty: nobody was asked.

        The pace of that source is not yet written down.

        Args:
            url: as the dataset has it.
            known_bad: hashes of contents that are placeholders wherever they are met.

        Raises:
            Stopped: the run is over before all was asked; nothing is known of the URL then.
        """
        at = self.rules.judge(url)
        if isinstance(at, Refusal):
            return UrlOutcome("not_allowed", at.reason), _NOT_ASKED, ""
        path = at.path
        for _ in range(MOST_REDIRECTS + 1):
            await self._know_robots(at)
            source = source_of(at)
            reply, target = await self._request(at, path)
            if target is None:
                return await asyncio.to_thread(fate_of, reply, url, known_bad), reply, source
            if isinstance(target, UrlOutcome):
                return target, reply, source
            self.turns.write_down(source)
            at = target
        return UrlOutcome("not_image", f"more than {MOST_REDIRECTS} redirects"), reply, source

    def _target(self, at: URL, reply: Reply, asked: str) -> URL | UrlOutcome | None:
        """Where a redirect leads, or what it makes of what was asked for; None: it is no redirect."""
        if reply.status not in REDIRECT_STATUSES or reply.problem:
            return None
        try:
            target = at.join(URL(reply.location)) if reply.location else None
        except ValueError:
            target = None
        if target is None:
            return UrlOutcome("not_image", f"HTTP {reply.status} that leads nowhere")
        if fate := fate_of_redirect(target.path_qs, asked):
            return fate
        judged = self.rules.judge(str(target))
        if isinstance(judged, Refusal):
            return UrlOutcome(
                "not_allowed", f"redirects where nobody may be asked: {judged.reason}"
            )
        return judged

    async def _know_robots(self, url: URL) -> None:
        """Ask for the source's robots.txt once a day, and keep to the rate that it states."""
        source, origin = source_of(url), url.origin()
        key = str(origin)
        async with self._asking_robots:
            if key in self._robots_known:
                return
            interval = self.ledger.least_interval(key, self.turns.clock() - DAY)
            if interval is None:
                reply, _ = await self._request(origin / "robots.txt")
                self.turns.write_down(source)
                states = reply.status == 200 and not reply.problem
                interval = least_interval(reply.body) if states else 0.0
                if outcome_of(reply) in ("answered", "forbidden"):
                    self.ledger.keep_least_interval(key, self.turns.clock(), interval)
            self._robots_known.add(key)
            self.turns.pace(source).keep_interval(interval)

    async def _request(
        self, url: URL, asked: str | None = None
    ) -> tuple[Reply, URL | UrlOutcome | None]:
        """An answer, and its `_target` where it was asked for the sake of a path."""
        source = source_of(url)
        ticket = await self.turns.enter(source)
        reply = await self.origin.get(url)
        outcome = outcome_of(reply)
        target = None if asked is None else self._target(url, reply, asked)
        if isinstance(target, URL) and source_of(target) == source:
            outcome = "redirected"
        self.report.requests += 1
        self.report.bytes += reply.received
        self.report.throttled += outcome == "refused"
        retry_after = retry_after_seconds(reply.retry_after, date=reply.date, now=self.wall())
        self.turns.leave(source, ticket, outcome, reply.cost, retry_after)
        self._tell_of_the_breaker(source)
        return reply, target

    def _tell_of_the_breaker(self, source: str) -> None:
        pace, now = self.turns.pace(source), self.turns.clock()
        decision = pace.may_start(now)
        if pace.breaker(now) == "open" and isinstance(decision, Wait):
            when = time.strftime("%d %B, %H:%M", time.localtime(self.wall() + decision.seconds))
            self.warned(f"{source} is left alone until {when}: {decision.reason}.")
