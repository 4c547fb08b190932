"""Store downloaded images in the cache, record results, and remove placeholders again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mirror.backfill.answers import (
    BAD_ANSWERS,
    BLOCK_PAUSE,
    REFUSAL_STATUSES,
    Kind,
    Reply,
    State,
    UrlOutcome,
    next_attempt,
    request_outcome,
)
from mirror.backfill.backfill_report import BackfillReport
from mirror.backfill.request_log import (
    ItemResult,
    QueueItem,
    RecordedVerdict,
    RequestLog,
    UrlRecord,
)
from mirror.backfill.scheduler import Scheduler
from mirror.cache.cache_writer import CacheWriter
from mirror.cache.scan import Entry
from mirror.content.digest import Identity
from mirror.content.placeholder import distinct_photos, shared_reason


@dataclass
class ResultRecorder:
    """Records results, one at a time.

    Attributes:
        writer: writes into the cache.
        request_log: where results are recorded.
        scheduler: the paces, which are saved in the same transaction.
        report: counts what was downloaded.
        known_bad: hashes of contents that are placeholders; those that are detected are added.
        placeholder_photos: this many photos with one content make it a placeholder.
        warn: receives sentences that a person should read.
    """

    writer: CacheWriter
    request_log: RequestLog
    scheduler: Scheduler
    report: BackfillReport
    known_bad: frozenset[bytes]
    placeholder_photos: int
    warn: Callable[[str], object]
    _replaced: set[bytes] = field(default_factory=set)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def record(
        self, item: QueueItem, place_in_cache: bytes, outcome: UrlOutcome, reply: Reply, source: str
    ) -> tuple[Kind, State]:
        """Store a good image in the cache, and record the result.

        Args:
            item: that was requested.
            place_in_cache: where its image goes.
            outcome: for the URL.
            reply: the last answer.
            source: that gave the last answer; empty if no request was sent.

        Returns:
            The kind of the final outcome, and the item's state from now on.

        Raises:
            MirrorError: the cache or the request log cannot be written.
        """
        # One at a time: each image is compared with the ones before it.
        async with self._lock:
            if outcome.kind == "had":
                outcome = await self._store(item, place_in_cache, outcome, reply.body)
            return self._record(item, outcome, reply, source or item.source)

    async def _store(
        self, item: QueueItem, path: bytes, outcome: UrlOutcome, body: bytes
    ) -> UrlOutcome:
        """Store a good image in the cache, unless other photos had the same content."""
        assert outcome.digest is not None
        content = outcome.digest.content_hash
        photos = distinct_photos([*self.request_log.urls_with(content), item.url])
        if photos >= self.placeholder_photos:
            reason = shared_reason(photos)
            self._withdraw(content, outcome.digest.sha256, reason)
            return outcome._replace(kind="placeholder", reason=reason)
        with await asyncio.to_thread(self.writer.draft, path, body) as part:
            # Recorded before the file gets its name: after a kill the next run still knows that a
            # backfill wrote it.
            signature = Entry(path, Identity.of(part.status())).signature
            self.request_log.save_verdicts(
                [RecordedVerdict(signature, item.url_md5, content, "ok", path)]
            )
            placed = await asyncio.to_thread(self.writer.publish_unless_good, part, self.known_bad)
        if placed:
            self.report.downloaded += 1
            if item.path is not None:
                self._replaced.add(item.url_md5)
        else:
            self.report.overtaken += 1
            self.request_log.forget_file(content, item.url_md5)
        self.report.replaced = len(self._replaced)
        return outcome

    def _withdraw(self, content: bytes, sha256: bytes, reason: str) -> None:
        """Remove a placeholder's files from the cache, and refuse its content from now on."""
        files = self.request_log.files_with(content)
        removed = sum(
            file.path is not None and self.writer.remove(file.path, file.signature)
            for file in files
        )
        self.report.downloaded -= self.request_log.withdraw(files, reason, self.report.run_id)
        self.report.taken_back += removed
        self._replaced -= {file.url_md5 for file in files}
        self.report.replaced = len(self._replaced)
        self.known_bad |= {content}
        self.warn(
            f"{reason[0].upper()}{reason[1:]}: it is a placeholder, and {removed} files with it were "
            "removed from the cache again. To drop copies that were synced meanwhile, add "
            f"{sha256.hex()} to inspect.known_bad."
        )

    def _record(
        self, item: QueueItem, outcome: UrlOutcome, reply: Reply, source: str
    ) -> tuple[Kind, State]:
        now = self.scheduler.clock()
        previous = self.request_log.record_of(item.url_md5)
        refused = request_outcome(reply) == "refused"
        if refused and previous is not None and self._is_fault_of_url(item, previous, source):
            outcome = outcome._replace(kind="server_error", reason=f"{outcome.reason}, repeatedly")
        strikes = strikes_after(previous, outcome.kind)
        state, pause = next_attempt(outcome.kind, strikes, refused=refused)
        pace = self.scheduler.pace(source)
        result = ItemResult(
            item=item,
            source=source,
            state=state,
            strikes=strikes,
            kind=outcome.kind,
            status=reply.status,
            reason=outcome.reason,
            tried_at=now,
            next_try=now + pause if pause else 0.0,
            content_hash=None if outcome.digest is None else outcome.digest.content_hash,
            size=0 if outcome.digest is None else outcome.digest.size,
        )
        clock = self.scheduler.clock.to_save()
        self.request_log.record(result, self.report.run_id, pace.as_value(), clock)
        if pace.is_blocked and request_outcome(reply) == "forbidden":
            again = self.request_log.reopen_after_block(
                source, pace.forbidden_since, now + BLOCK_PAUSE
            )
            self.warn(
                f"{source} answered 403 for {again:,} images in a row: it may have blocked this "
                "address. They do not count as gone, and are requested once more after a day."
            )
        return outcome.kind, state

    def _is_fault_of_url(self, item: QueueItem, previous: UrlRecord, source: str) -> bool:
        """Whether a repeated refusal is the URL's own fault, and not the state of its source.

        | since the first refusal the source              | the URL's fault                        |
        |-------------------------------------------------|----------------------------------------|
        | has answered for other URLs                     | yes                                    |
        | has not, and other URLs are queued for it       | no: it refuses all requests            |
        | has not, and no other URL is queued for it      | yes: there is no way to find out more  |

        A URL that was once found at fault stays so.
        """
        if previous.kind != "throttled":
            return previous.kind == "server_error" and previous.status in REFUSAL_STATUSES
        if self.request_log.next_due(item.source) is None:
            return True
        return self.request_log.has_answered_since(source, previous.tried_at)


def strikes_after(previous: UrlRecord | None, kind: Kind) -> int:
    """How often in a row a URL failed in the same way, this time included.

    A `throttled` answer says nothing about the image, so it neither counts nor restarts the count.
    """
    before = 0 if previous is None else previous.strikes
    if kind == "throttled":
        return before
    if kind == "had" or previous is None:
        return 0 if kind == "had" else 1
    same = previous.kind == "throttled" or _failure_group(previous.kind) == _failure_group(kind)
    return before + 1 if same else 1


def _failure_group(kind: Kind) -> str:
    if kind in BAD_ANSWERS:
        return "bad answer"
    return "no answer" if kind in ("network", "server_error") else kind
