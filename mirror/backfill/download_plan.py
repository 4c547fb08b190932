"""Plan a backfill: find the images of a dataset that are neither mirrored nor cached.

    dataset ──► named: each URL once ──► the request log's queue: URLs that are neither mirrored nor
                                         known to be gone, and have no good file in the cache

All of this happens in temporary tables of the request log's connection, so no list of URLs or files
is held in memory. Only files that the dataset names and the mirror lacks are judged, each once: their
verdicts are remembered by a signature of name, size, mtime and inode.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import msgspec

from mirror.backfill.pacing import LONGEST_PAUSE
from mirror.backfill.request_log import RecordedVerdict, RequestLog
from mirror.backfill.url_policy import Refusal, UrlPolicy, base_of, source_of
from mirror.cache.scan import Entries, ScanCount, signature, walk
from mirror.catalog.lookup import OK, UrlLookup, digests_of
from mirror.config.settings import CacheSettings
from mirror.content.photo import photo_key, size_code
from mirror.content.placeholder import distinct_photos
from mirror.dataset.fields import MISSING, FieldPath
from mirror.dataset.inputs import Input, read
from mirror.dataset.licenses import license_name
from mirror.dataset.records import Batch, ReadOptions
from mirror.errors import CacheError, UsageError
from mirror.inspection.inspect_cache import judge_all
from mirror.run.failures import Failures
from mirror.run.progress import Progress, Stage

# Values of the column `outcome`. The SQL below has them as numbers.
_WANTED, _MIRRORED, _UNLICENSED, _NOT_ALLOWED, _CACHED = range(5)
_CHUNK_FILES: Final = 50_000
_NO_CLASS: Final = -1
_CONTENT_HASH_BYTES: Final = 16

# Millions of rows in random order are sorted and merged, never looked up one by one.
_TABLES: Final = """
DROP TABLE IF EXISTS temp.read;
DROP TABLE IF EXISTS temp.named;
DROP TABLE IF EXISTS temp.classes;
DROP TABLE IF EXISTS temp.walked;
DROP TABLE IF EXISTS temp.files;
DROP TABLE IF EXISTS temp.good;
DROP TABLE IF EXISTS temp.bad;
CREATE TEMP TABLE read (
    seq INTEGER PRIMARY KEY, url_md5 BLOB, url TEXT, source TEXT, class INTEGER, outcome INTEGER
);
-- Each URL of the dataset once. The first record that names it counts, if possible one with an
-- allowed licence.
CREATE TEMP TABLE named (
    url_md5 BLOB PRIMARY KEY, seq INTEGER NOT NULL, url TEXT, source TEXT, class INTEGER NOT NULL,
    outcome INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TEMP TABLE classes (class INTEGER PRIMARY KEY, records INTEGER NOT NULL);
CREATE TEMP TABLE walked (
    url_md5 BLOB, path BLOB, size INTEGER, mtime_ns INTEGER, inode BLOB, signature BLOB, place BLOB
);
-- Files of the cache that the dataset names and the mirror lacks. place: the path, if a new image may
-- replace the file there.
CREATE TEMP TABLE files (
    id INTEGER PRIMARY KEY, url_md5 BLOB NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, inode BLOB NOT NULL, signature BLOB NOT NULL, place BLOB
);
-- good: contents of files that are ok when judged alone. bad: contents that are known placeholders.
CREATE TEMP TABLE good (url_md5 BLOB NOT NULL, content_hash BLOB NOT NULL);
CREATE TEMP TABLE bad (content_hash BLOB PRIMARY KEY) WITHOUT ROWID;
"""
_READ: Final = "INSERT INTO temp.read (url_md5, url, source, class, outcome) VALUES (?, ?, ?, ?, ?)"
# In SQLite, bare columns beside min() have the values of the row with the minimum.
_NAME: Final = """
INSERT INTO temp.named (url_md5, url, source, class, outcome, seq)
SELECT url_md5, url, source, class, outcome, min(CASE WHEN outcome = 2 THEN seq + (1 << 62) ELSE seq END)
FROM temp.read GROUP BY url_md5 ORDER BY url_md5
"""
_WALK: Final = "INSERT INTO temp.walked VALUES (?, ?, ?, ?, ?, ?, ?)"
_FILE: Final = """
INSERT INTO temp.files (url_md5, path, size, mtime_ns, inode, signature, place)
SELECT w.* FROM (SELECT * FROM temp.walked ORDER BY url_md5) AS w
CROSS JOIN temp.named AS n ON n.url_md5 = w.url_md5 WHERE n.outcome IN (0, 3)
"""


@dataclass(frozen=True)
class DownloadSelection:
    """The images of a dataset to download.

    Attributes:
        url: path of the field with URLs.
        license: path of the field with licences; None if licences do not matter.
        allowed: allowed licences, as `license_name` spells them; empty for any.
        balance: path of the field with classes. Images of the rarest classes come first.
        retry_failed: also request images that earlier runs gave up.
        from_empty: accept an empty cache that was not empty before.
        placeholder_photos: this many photos with one content make it a placeholder.
        known_bad: hashes of contents that count as placeholders.
    """

    url: FieldPath = ("image_url",)
    license: FieldPath | None = None
    allowed: frozenset[str] = frozenset()
    balance: FieldPath | None = None
    retry_failed: bool = False
    from_empty: bool = False
    placeholder_photos: int = 5
    known_bad: frozenset[bytes] = frozenset()


@dataclass
class DownloadPlan:
    """The result of planning. Counts are distinct URLs unless they say otherwise.

    Attributes:
        records: records of the dataset.
        invalid: records without a URL.
        mirrored: URLs whose image the mirror has.
        cached: URLs whose image the cache has.
        unlicensed: URLs that are left out for their licence.
        wanted: all other URLs.
        not_allowed: of the wanted, URLs at hosts that are not listed.
        gone: of the wanted, URLs that are known to be gone.
        given_up: of the wanted, URLs that earlier runs gave up.
        postponed: of the queued, URLs that must wait before their next try.
        flagged: of the wanted, URLs with a bad file in the cache.
        queued: URLs to request, by source.
        sizes: URLs to request, by the `size_code` of their size.
        reasons: how often each reason for `not_allowed` occurred.
        placeholders: contents that the cache has in place of many photos.
        unreadable: files and folders of the cache that could not be read.
        failures: the first of these, with reasons.
    """

    records: int = 0
    invalid: int = 0
    mirrored: int = 0
    cached: int = 0
    unlicensed: int = 0
    wanted: int = 0
    not_allowed: int = 0
    gone: int = 0
    given_up: int = 0
    postponed: int = 0
    flagged: int = 0
    queued: dict[str, int] = field(default_factory=dict)
    sizes: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    placeholders: frozenset[bytes] = frozenset()
    unreadable: int = 0
    failures: Failures = field(default_factory=Failures)

    @property
    def already(self) -> int:
        """URLs whose image is there already."""
        return self.mirrored + self.cached

    @property
    def to_request(self) -> int:
        """URLs to request."""
        return sum(self.queued.values())

    def sentences(self) -> Iterator[str]:
        """Sentences about the plan that a person should read."""
        if self.not_allowed:
            reason = self.reasons.most_common(1)[0][0]
            yield (
                f"{self.not_allowed:,} URLs may not be requested ({reason}); "
                "list their hosts in backfill.hosts to allow them."
            )
        if self.invalid:
            yield f"{self.invalid:,} of {self.records:,} records have no URL."
        if self.unreadable:
            path, reason = self.failures[0]
            yield (
                f"{self.unreadable:,} files or folders of the cache could not be read, "
                f"the first: {path}: {reason}."
            )


def make_plan(
    request_log: RequestLog,
    inputs: Sequence[Input],
    selection: DownloadSelection,
    policy: UrlPolicy,
    lookup: UrlLookup | None,
    *,
    root: bytes,
    cache: CacheSettings,
    now: float,
    progress: Progress,
) -> DownloadPlan:
    """Find the images to download, and fill the request log's queue with them.

    Args:
        request_log: knows which URLs are gone, and the verdicts on files.
        inputs: the dataset.
        selection: the images of the dataset to download.
        policy: which hosts may be contacted.
        lookup: finds mirrored images; None if only the cache counts.
        root: the cache's folder.
        cache: which files belong to the cache, and how a change is recognised.
        now: the time, by the run's clock.
        progress: receives the stages of planning.

    Raises:
        UsageError: the dataset cannot be read, or has no records.
        CacheError: the cache cannot be read, or is empty and was not before.
        StateError: the request log cannot be written.
    """
    return _Planner(request_log, selection, policy, lookup, progress).run(inputs, root, cache, now)


class _Planner:
    """Builds one plan, step by step, in temporary tables."""

    def __init__(
        self,
        request_log: RequestLog,
        selection: DownloadSelection,
        policy: UrlPolicy,
        lookup: UrlLookup | None,
        progress: Progress,
    ) -> None:
        self._request_log = request_log
        self._db: sqlite3.Connection = request_log.db
        self._selection = selection
        self._bad_contents = {h for h in selection.known_bad if len(h) == _CONTENT_HASH_BYTES}
        self._lookup = lookup
        self._progress = progress
        self._plan = DownloadPlan()
        self._codes: dict[str, int] = {}
        self._records_per_class = array("q")
        # A million URLs have few hosts, so each part before the path is judged once.
        self._judged_base = lru_cache(4096)(lambda base: _judge_base(policy, base))

    def run(
        self, inputs: Sequence[Input], root: bytes, cache: CacheSettings, now: float
    ) -> DownloadPlan:
        plan = self._plan
        with self._request_log.translated():
            self._db.executescript(_TABLES)
        self._read(inputs)
        self._scan(root, cache)
        self._judge(root)
        self._exclude_cached()
        self._fill_queue(now)
        plan.queued = self._request_log.queued()
        self._count(now)
        return plan

    # --- the dataset ---

    def _read(self, inputs: Sequence[Input]) -> None:
        selection, plan = self._selection, self._plan
        others = tuple(
            dict.fromkeys(p for p in (selection.license, selection.balance) if p is not None)
        )
        self._progress.begin(Stage("records read"))
        for source in inputs:
            for batch in read(source, ReadOptions(selection.url, others=others)):
                plan.records += len(batch) + len(batch.rejected)
                plan.invalid += len(batch.rejected)
                with self._request_log.translated():
                    self._db.execute("BEGIN")
                    self._db.executemany(_READ, self._rows_of(batch))
                    self._db.execute("COMMIT")
                self._progress.advance(len(batch) + len(batch.rejected))
        if plan.records == plan.invalid:
            what = ", ".join(source.shown for source in inputs)
            field_name = ".".join(selection.url)
            raise UsageError(
                f"{what} has no records with a URL in {field_name!r}; "
                "name the URL's field with --url-field."
            )
        with self._request_log.translated():
            self._db.execute("BEGIN")
            self._db.execute(_NAME)
            self._db.execute("DROP TABLE temp.read")
            self._db.executemany(
                "INSERT INTO temp.classes VALUES (?, ?)", enumerate(self._records_per_class)
            )
            self._db.execute("COMMIT")

    def _rows_of(self, batch: Batch) -> Iterator[tuple[bytes, str | None, str | None, int, int]]:
        """The rows of table `read` for a batch."""
        digests = digests_of(batch.urls)
        owners = range(len(batch)) if batch.owners is None else batch.owners.tolist()
        licensed = self._licensed(batch)
        classes = self._classes(batch)
        mirrored = [False] * len(batch.urls)
        if self._lookup is not None:
            found = self._lookup.find(batch.urls, digests)
            mirrored = (self._lookup.outcomes(found.positions) == OK).tolist()
        for number, (url, owner) in enumerate(zip(batch.urls, owners, strict=True)):
            digest = digests[16 * number : 16 * number + 16]
            class_number = classes[owner] if classes else _NO_CLASS
            if mirrored[number]:
                yield digest, None, None, class_number, _MIRRORED
            elif licensed and not licensed[owner]:
                yield digest, None, None, class_number, _UNLICENSED
            else:
                text = url.decode()
                judged = self._judged_base(base_of(text))
                if isinstance(judged, Refusal):
                    self._plan.reasons[judged.reason] += 1
                    yield digest, text, None, class_number, _NOT_ALLOWED
                else:
                    yield digest, text, judged, class_number, _WANTED

    def _licensed(self, batch: Batch) -> list[bool]:
        """Whether each record's licence is allowed; empty if licences do not matter."""
        path, allowed = self._selection.license, self._selection.allowed
        if path is None or not allowed:
            return []
        # A dataset has few licences, each repeated very often.
        name_of = lru_cache(1024)(license_name)
        return [
            isinstance(value, str) and name_of(value) in allowed for value in batch.others[path]
        ]

    def _classes(self, batch: Batch) -> list[int]:
        """The number of each record's class; empty if classes do not matter."""
        path = self._selection.balance
        if path is None:
            return []
        found = []
        for value in batch.others[path]:
            if value is MISSING or value is None or value == "":
                found.append(_NO_CLASS)
                continue
            name = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            code = self._codes.setdefault(name, len(self._codes))
            if code == len(self._records_per_class):
                self._records_per_class.append(0)
            self._records_per_class[code] += 1
            found.append(code)
        return found

    # --- the cache ---

    def _scan(self, root: bytes, cache: CacheSettings) -> None:
        count = ScanCount()
        files = 0

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal files
            for file in walk(root, cache.extensions, count, trust_inode=cache.trust_inode):
                files += 1
                path, size, mtime_ns, inode = file
                name = os.path.basename(path)
                signed = signature(file)
                place = path if name[32:].lower() == b".jpg" else None
                digest = bytes.fromhex(name[:32].decode())
                # An inode may exceed SQLite's integers.
                yield digest, path, size, mtime_ns, inode.to_bytes(8, "big"), signed, place

        with self._request_log.translated():
            self._db.execute("BEGIN")
            self._db.executemany(_WALK, rows())
            self._db.execute(_FILE)
            self._db.execute("DROP TABLE temp.walked")
            self._db.execute("CREATE INDEX temp.files_by_url ON files (url_md5)")
            self._db.execute("COMMIT")
        for path, why in count.unreadable:
            self._unreadable(path, why)
        known = self._request_log.known_files()
        if not files and known and not self._selection.from_empty:
            raise CacheError(
                f"The cache folder is empty, and {known:,} files were there before: is its disk "
                "mounted? If it was emptied on purpose, use --from-empty."
            )

    def _judge(self, root: bytes) -> None:
        """Judge the files that have no verdict yet."""
        # Hashes of 16 bytes are compared with the verdicts' own later, so they need no new verdicts.
        listed = self._selection.known_bad - self._bad_contents
        digest = hashlib.sha256(b"".join(sorted(listed))).hexdigest()
        self._request_log.invalidate_verdicts(digest)
        readers = max(2, os.cpu_count() or 2)
        last = 0
        self._progress.begin(Stage("files of the cache judged"))
        while chunk := self._unjudged(last):
            last, entries = chunk
            signatures = {entry.path: entry.signature for entry in entries}
            ordered = (entries[at] for at in entries.by_inode())
            for judged, failures in judge_all(root, ordered, "decode", listed, readers):
                self._request_log.save_verdicts(
                    RecordedVerdict(
                        signatures[file.path], file.url_md5, file.content_hash, file.verdict, None
                    )
                    for file in judged
                )
                for path, reason in failures:
                    self._unreadable(path, reason)
                self._progress.advance(len(judged) + len(failures))

    def _unreadable(self, path: str, reason: str) -> None:
        self._plan.unreadable += 1
        self._plan.failures.note(path, reason)

    def _unjudged(self, after: int) -> tuple[int, Entries] | None:
        """The next files without a valid verdict, and the number of the last of them."""
        query = (
            "SELECT id, path, size, mtime_ns, inode FROM temp.files"
            " WHERE id > ? AND NOT EXISTS (SELECT 1 FROM verdicts AS v WHERE v.cache = ?"
            " AND v.signature = files.signature AND v.verdict <> '') ORDER BY id LIMIT ?"
        )
        entries = Entries()
        last = after
        with self._request_log.translated():
            for number, path, size, mtime_ns, inode in self._db.execute(
                query, (after, self._request_log.cache, _CHUNK_FILES)
            ):
                entries.append(path, size, mtime_ns, int.from_bytes(inode, "big"))
                last = number
        return (last, entries) if len(entries) else None

    def _exclude_cached(self) -> None:
        """Exclude URLs for which the cache has a good file."""
        least = self._selection.placeholder_photos
        bad = set(self._bad_contents)
        judged_ok = (
            "INSERT INTO temp.good SELECT f.url_md5, v.content_hash FROM temp.files AS f"
            " JOIN verdicts AS v ON v.cache = ? AND v.signature = f.signature"
            " WHERE v.verdict = 'ok'"
        )
        under_many = (
            "SELECT content_hash FROM temp.good GROUP BY 1 HAVING count(DISTINCT url_md5) >= ?"
        )
        urls_of = (
            "SELECT n.url FROM temp.good AS g JOIN temp.named AS n ON n.url_md5 = g.url_md5"
            " WHERE g.content_hash = ?"
        )
        strike = (
            "UPDATE temp.named SET outcome = ? WHERE outcome IN (0, 3) AND url_md5 IN"
            " (SELECT url_md5 FROM temp.good WHERE content_hash NOT IN temp.bad)"
        )
        with self._request_log.translated():
            self._db.execute(judged_ok, (self._request_log.cache,))
            for (content,) in self._db.execute(under_many, (least,)).fetchall():
                if (
                    distinct_photos(url for (url,) in self._db.execute(urls_of, (content,)))
                    >= least
                ):
                    bad.add(content)
            self._plan.placeholders = frozenset(bad)
            self._db.executemany("INSERT INTO temp.bad VALUES (?)", ((content,) for content in bad))
            self._db.execute(strike, (_CACHED,))

    # --- the queue ---

    def _fill_queue(self, now: float) -> None:
        also = "given_up" if self._selection.retry_failed else "had"
        # A pause longer than LONGEST_PAUSE comes from a clock that was wrong. Refused URLs come last,
        # so that one that is always refused does not hold up the others.
        select = (
            "SELECT n.url_md5, n.url, n.source,"
            " CASE WHEN u.state = 'waiting' THEN min(u.next_try, ?) ELSE 0 END,"
            " (SELECT min(place) FROM temp.files AS f WHERE f.url_md5 = n.url_md5)"
            " FROM temp.named AS n LEFT JOIN main.urls AS u ON u.url_md5 = n.url_md5"
            " LEFT JOIN temp.classes AS c ON c.class = n.class"
            " WHERE n.outcome = 0 AND (u.state IS NULL OR u.state IN ('waiting', 'had', ?))"
            " ORDER BY u.kind IS 'throttled', c.records IS NULL, c.records, n.seq"
        )
        self._request_log.fill_queue(select, (now + LONGEST_PAUSE, also))

    def _count(self, now: float) -> None:
        plan = self._plan
        with self._request_log.translated():
            outcomes = dict(
                self._db.execute("SELECT outcome, count(*) FROM temp.named GROUP BY outcome")
            )
            states = dict(
                self._db.execute(
                    "SELECT u.state, count(*) FROM temp.named AS n JOIN main.urls AS u"
                    " ON u.url_md5 = n.url_md5 WHERE n.outcome = 0 GROUP BY u.state"
                )
            )
            urls = self._db.execute("SELECT url FROM temp.queue")
            plan.sizes = Counter(size_code(photo_key(url)) for (url,) in urls)
            plan.postponed = self._db.execute(
                "SELECT count(*) FROM temp.queue WHERE next_try > ?", (now,)
            ).fetchone()[0]
            plan.flagged = self._db.execute(
                "SELECT count(DISTINCT n.url_md5) FROM temp.named AS n JOIN temp.files AS f"
                " ON f.url_md5 = n.url_md5 WHERE n.outcome IN (0, 3)"
            ).fetchone()[0]
        plan.mirrored, plan.cached = outcomes.get(_MIRRORED, 0), outcomes.get(_CACHED, 0)
        plan.unlicensed, plan.not_allowed = (
            outcomes.get(_UNLICENSED, 0),
            outcomes.get(_NOT_ALLOWED, 0),
        )
        plan.wanted = outcomes.get(_WANTED, 0) + plan.not_allowed
        plan.gone = states.get("gone", 0)
        plan.given_up = 0 if self._selection.retry_failed else states.get("given_up", 0)


def _judge_base(policy: UrlPolicy, base: str) -> str | Refusal:
    """The source of URLs with this base, or why they are refused. Each URL is judged again later."""
    judged = policy.judge(base)
    return judged if isinstance(judged, Refusal) else source_of(judged)
