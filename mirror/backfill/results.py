"""What came of an image: into the cache, into the ledger; out of the cache again if it was no image."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mirror.backfill.answers import (
    AFTER_A_BLOCK,
    BAD_ANSWERS,
    REFUSALS,
    Kind,
    Reply,
    State,
    UrlOutcome,
    outcome_of,
    what_next,
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
class Results:
    """Takes results, one at a time.

    Attributes:
        writer: writes into the cache.
        ledger: where all is written down.
        turns: the paces, which are written down in the same step.
        report: is told of what is had and what is not.
        known_bad: hashes of contents that are placeholders; grows by those that are found out.
        placeholder_photos: so many photos under one content make it one.
        warn: is told of what a person should know.
    """

    writer: CacheWriter
    ledger: RequestLog
    turns: Scheduler
    report: BackfillReport
    known_bad: frozenset[bytes]
    placeholder_photos: int
    warn: Callable[[str], object]
    _replaced: set[bytes] = field(default_factory=set)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take(
        self, item: QueueItem, place_in_cache: bytes, fate: UrlOutcome, reply: Reply, source: str
    ) -> tuple[Kind, State]:
        """Keep an image that is good, and write down what came of it.

        Args:
            item: what was asked for.
            place_in_cache: where its image goes.
            fate: what became of it.
            reply: the last answer.
            source: who gave it; empty where nobody was asked.

        Returns:
            What became of it in the end, and whether it waits to be asked for again.

        Raises:
            MirrorError: the cache or the ledger cannot be written.
        """
        # Evidence of one is weighed with that of all before it.
        async with self._one_at_a_time:
            if fate.kind == "had":
                fate = await self._keep(item, place_in_cache, fate, reply.body)
            return self._record(item, fate, reply, source or item.source)

    async def _keep(
        self, item: QueueItem, path: bytes, fate: UrlOutcome, body: bytes
    ) -> UrlOutcome:
        """A good image into the cache, unless the same came for other photos too."""
        assert fate.digest is not None
        content = fate.digest.content_hash
        photos = distinct_photos([*self.ledger.urls_with(content), item.url])
        if photos >= self.placeholder_photos:
            reason = shared_reason(photos)
            self._take_back(content, fate.digest.sha256, reason)
            return fate._replace(kind="placeholder", reason=reason)
        with await asyncio.to_thread(self.writer.draft, path, body) as part:
            # Recorded before the file has its name: after a kill the next run knows that the file
            # is a backfill's own.
            signature = Entry(path, Identity.of(part.status())).signature
            self.ledger.judge([RecordedVerdict(signature, item.url_md5, content, "ok", path)])
            placed = await asyncio.to_thread(self.writer.publish_unless_good, part, self.known_bad)
        if placed:
            self.report.downloaded += 1
            if item.path is not None:
                self._replaced.add(item.url_md5)
        else:
            self.report.overtaken += 1
            self.ledger.disown(content, item.url_md5)
        self.report.replaced = len(self._replaced)
        return fate

    def _take_back(self, content: bytes, sha256: bytes, reason: str) -> None:
        """A picture that came in place of images: out of the cache with it, and never again."""
        files = self.ledger.written_with(content)
        out = sum(
            file.path is not None and self.writer.remove(file.path, file.signature)
            for file in files
        )
        self.report.downloaded -= self.ledger.take_back(files, reason, self.report.run_id)
        self.report.taken_back += out
        self._replaced -= {file.url_md5 for file in files}
        self.report.replaced = len(self._replaced)
        self.known_bad |= {content}
        self.warn(
            f"{reason[0].upper()}{reason[1:]}: it is a placeholder, and {out} files with it were "
            "taken out of the cache again. For what was synced meanwhile, add "
            f"{sha256.hex()} to inspect.known_bad."
        )

    def _record(
        self, item: QueueItem, fate: UrlOutcome, reply: Reply, source: str
    ) -> tuple[Kind, State]:
        now = self.turns.clock()
        told = self.ledger.told(item.url_md5)
        refused = outcome_of(reply) == "refused"
        if refused and told is not None and self._is_its_own(item, told, source):
            fate = fate._replace(kind="server_error", reason=f"{fate.reason}, again and again")
        strikes = strikes_with(told, fate.kind)
        state, pause = what_next(fate.kind, strikes, refused=refused)
        pace = self.turns.pace(source)
        result = ItemResult(
            item=item,
            source=source,
            state=state,
            strikes=strikes,
            kind=fate.kind,
            status=reply.status,
            reason=fate.reason,
            tried_at=now,
            next_try=now + pause if pause else 0.0,
            content_hash=None if fate.digest is None else fate.digest.content_hash,
            size=0 if fate.digest is None else fate.digest.size,
        )
        clock = self.turns.clock.to_keep()
        self.ledger.record(result, self.report.run_id, pace.as_value(), clock)
        if pace.is_blocked and outcome_of(reply) == "forbidden":
            again = self.ledger.ask_again_after_a_block(
                source, pace.forbidden_since, now + AFTER_A_BLOCK
            )
            self.warn(
                f"{source} forbade {again:,} images in a row: it may have blocked this "
                "address. They are not taken for gone, and are asked for once more tomorrow."
            )
        return fate.kind, state

    def _is_its_own(self, item: QueueItem, told: UrlRecord, source: str) -> bool:
        """Whether a refusal is the fault of its URL and not of all that its source is asked for.

        | refused before, and since then the source       | its own                                |
        |-------------------------------------------------|----------------------------------------|
        | has answered for others                         | yes                                    |
        | has not, and others wait for it too             | no: it refuses whoever asks            |
        | has not, and nothing else is to be asked of it  | yes, as far as anybody will ever know  |

        Once that is found out it stays so.
        """
        if told.kind != "throttled":
            return told.kind == "server_error" and told.status in REFUSALS
        if self.ledger.next_due(item.source) is None:
            return True
        return self.ledger.has_answered_since(source, told.tried_at)


def strikes_with(told: UrlRecord | None, kind: Kind) -> int:
    """How often in a row a URL failed in the same way, this time included.

    A refusal for the pace's sake says nothing of the image: it neither counts nor breaks the row.
    """
    before = 0 if told is None else told.strikes
    if kind == "throttled":
        return before
    if kind == "had" or told is None:
        return 0 if kind == "had" else 1
    same = told.kind == "throttled" or _way(told.kind) == _way(kind)
    return before + 1 if same else 1


def _way(kind: Kind) -> str:
    if kind in BAD_ANSWERS:
        return "bad answer"
    return "no answer" if kind in ("network", "server_error") else kind
