"""Which images are to be fetched: the dataset's, less what is mirrored or cached and good.

    dataset ──► named: each URL once; less what is mirrored, less what is cached and good,
                less what is known to be gone ──► the ledger's queue

All of it in temporary tables of the ledger's connection: no list of URLs or files in memory. Only
files that the dataset names and the mirror lacks are looked at, and each only once: verdicts are
remembered by the signature of name, size, mtime and inode.
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

from mirror.backfill.answers import LONGEST_PAUSE
from mirror.backfill.request_log import RecordedVerdict, RequestLog
from mirror.backfill.url_policy import Refusal, UrlPolicy, base_of, source_of
from mirror.cache.scan import Entries, ScanCount, signature, walk
from mirror.catalog.lookup import OK, UrlLookup, digests_of
from mirror.content.placeholder import distinct_photos
from mirror.dataset.fields import MISSING, FieldPath
from mirror.dataset.inputs import Input, read
from mirror.dataset.licenses import license_name
from mirror.dataset.records import Batch, ReadOptions
from mirror.errors import CacheError, UsageError
from mirror.inspection.inspect_cache import judge_all
from mirror.run.failures import Failures
from mirror.run.progress import Progress, Stage

_WANTED, _MIRRORED, _UNLICENSED, _NOT_ALLOWED, _CACHED = range(5)
_CHUNK_FILES: Final = 50_000
_NO_CLASS: Final = -1
_CONTENT_HASH_BYTES: Final = 16

# Millions of rows in the order of chance are sorted and merged, never looked up one by one.
_TABLES: Final = """
DROP TABLE IF EXISTS temp.read;
DROP TABLE IF EXISTS temp.named;
DROP TABLE IF EXISTS temp.classes;
DROP TABLE IF EXISTS temp.walked;
DROP TABLE IF EXISTS temp.files;
DROP TABLE IF EXISTS temp.good;
DROP TABLE IF EXISTS temp.bad;
CREATE TEMP TABLE read (
    seq INTEGER PRIMARY KEY, url_md5 BLOB, url TEXT, source TEXT, class INTEGER, fate INTEGER
);
-- Each URL of the dataset once: the first record that names it counts, of those with a good licence.
CREATE TEMP TABLE named (
    url_md5 BLOB PRIMARY KEY, seq INTEGER NOT NULL, url TEXT, source TEXT, class INTEGER NOT NULL,
    fate INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TEMP TABLE classes (class INTEGER PRIMARY KEY, records INTEGER NOT NULL);
CREATE TEMP TABLE walked (
    url_md5 BLOB, path BLOB, size INTEGER, mtime_ns INTEGER, inode BLOB, signature BLOB, place BLOB
);
-- Files of the cache that the dataset names and the mirror lacks. place: the path, where a new
-- image may take it.
CREATE TEMP TABLE files (
    id INTEGER PRIMARY KEY, url_md5 BLOB NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, inode BLOB NOT NULL, signature BLOB NOT NULL, place BLOB
);
-- What those hold that are good, as far as each was judged by itself; and contents that are not.
CREATE TEMP TABLE good (url_md5 BLOB NOT NULL, content_hash BLOB NOT NULL);
CREATE TEMP TABLE bad (content_hash BLOB PRIMARY KEY) WITHOUT ROWID;
"""
_READ: Final = "INSERT INTO temp.read (url_md5, url, source, class, fate) VALUES (?, ?, ?, ?, ?)"
# SQLite gives bare columns beside min() the values of the row where the minimum is.
_NAME: Final = """
INSERT INTO temp.named (url_md5, url, source, class, fate, seq)
SELECT url_md5, url, source, class, fate, min(CASE WHEN fate = 2 THEN seq + (1 << 62) ELSE seq END)
FROM temp.read GROUP BY url_md5 ORDER BY url_md5
"""
_WALK: Final = "INSERT INTO temp.walked VALUES (?, ?, ?, ?, ?, ?, ?)"
_FILE: Final = """
INSERT INTO temp.files (url_md5, path, size, mtime_ns, inode, signature, place)
SELECT w.* FROM (SELECT * FROM temp.walked ORDER BY url_md5) AS w
CROSS JOIN temp.named AS n ON n.url_md5 = w.url_md5 WHERE n.fate IN (0, 3)
"""


@dataclass(frozen=True)
class DownloadSelection:
    """What of a dataset is asked for.

    Attributes:
        url: path of the field of URLs.
        license: path of the licence, where it is asked for.
        allowed: licences that may be fetched, as `license_name` spells them; empty for any.
        balance: path of the class whose rarest members come first.
        retry_failed: ask once more for what was given up.
        from_empty: an empty cache is no mistake.
        placeholder_photos: so many photos under one content make it a placeholder.
        known_bad: hashes of contents that are placeholders wherever they are met.
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
    """What was found. Counts are distinct URLs unless they say otherwise.

    Attributes:
        records: of the dataset. invalid: of them, those without a URL.
        mirrored, cached: had already.
        unlicensed: not wanted, for their licence.
        wanted: the rest; of them:
        not_allowed: at hosts that are not on the list, and why (the commonest reasons).
        gone: known to be gone. given_up: tried too often.
        queued: to be asked for, by source; postponed: of them, those that must wait.
        flagged: of the wanted, those that the cache has a bad file for.
        placeholders: contents that the cache has in place of many photos.
        unreadable: files and folders of the cache; failures: the first of them, and why.
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
    reasons: Counter[str] = field(default_factory=Counter)
    placeholders: frozenset[bytes] = frozenset()
    unreadable: int = 0
    failures: Failures = field(default_factory=Failures)

    @property
    def already(self) -> int:
        return self.mirrored + self.cached

    @property
    def to_ask(self) -> int:
        return sum(self.queued.values())

    def sentences(self) -> Iterator[str]:
        """What a person should know of it."""
        if self.not_allowed:
            reason = self.reasons.most_common(1)[0][0]
            yield (
                f"{self.not_allowed:,} URLs may not be asked for ({reason}); "
                "backfill.hosts says which hosts may be asked."
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
    ledger: RequestLog,
    inputs: Sequence[Input],
    selection: DownloadSelection,
    rules: UrlPolicy,
    resolver: UrlLookup | None,
    *,
    root: bytes,
    extensions: Sequence[str],
    now: float,
    progress: Progress,
) -> DownloadPlan:
    """Find what is wanted, and fill the ledger's queue with it.

    Args:
        ledger: knows what is gone, and verdicts.
        inputs: the dataset.
        selection: what of it.
        rules: which hosts may be asked.
        resolver: finds what is mirrored; None where only the cache counts.
        root: the cache's folder.
        extensions: what a file of the cache may end with.
        now: by the ledger's time.
        progress: receives the stages of planning.

    Raises:
        UsageError: the dataset cannot be read, or has no records.
        CacheError: the cache cannot be read, or is empty and was not.
        StateError: the ledger cannot be written.
    """
    return _Planning(ledger, selection, rules, resolver, progress).run(
        inputs, root, extensions, now
    )


class _Planning:
    def __init__(
        self,
        ledger: RequestLog,
        selection: DownloadSelection,
        rules: UrlPolicy,
        resolver: UrlLookup | None,
        progress: Progress,
    ) -> None:
        self._ledger = ledger
        self._db: sqlite3.Connection = ledger.db
        self._selection = selection
        self._bad_contents = {h for h in selection.known_bad if len(h) == _CONTENT_HASH_BYTES}
        self._resolver = resolver
        self._progress = progress
        self._plan = DownloadPlan()
        self._codes: dict[str, int] = {}
        self._records_of = array("q")
        # Of a million URLs, the hosts are few: what stands before the path is judged once.
        self._judged_base = lru_cache(4096)(lambda base: _judge_base(rules, base))

    def run(
        self, inputs: Sequence[Input], root: bytes, extensions: Sequence[str], now: float
    ) -> DownloadPlan:
        plan = self._plan
        with self._ledger.translated():
            self._db.executescript(_TABLES)
        self._read(inputs)
        self._scan(root, extensions)
        self._judge(root)
        self._strike_cached()
        self._fill_queue(now)
        plan.queued = self._ledger.queued()
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
                with self._ledger.translated():
                    self._db.execute("BEGIN")
                    self._db.executemany(_READ, self._named(batch))
                    self._db.execute("COMMIT")
                self._progress.advance(len(batch) + len(batch.rejected))
        if plan.records == plan.invalid:
            what = ", ".join(source.shown for source in inputs)
            field_name = ".".join(selection.url)
            raise UsageError(
                f"{what} has no records with a URL in {field_name!r}; "
                "name the URL's field with --url-field."
            )
        with self._ledger.translated():
            self._db.execute("BEGIN")
            self._db.execute(_NAME)
            self._db.execute("DROP TABLE temp.read")
            self._db.executemany(
                "INSERT INTO temp.classes VALUES (?, ?)", enumerate(self._records_of)
            )
            self._db.execute("COMMIT")

    def _named(self, batch: Batch) -> Iterator[tuple[bytes, str | None, str | None, int, int]]:
        """Rows of `read`, of a batch."""
        digests = digests_of(batch.urls)
        owners = range(len(batch)) if batch.owners is None else batch.owners.tolist()
        licensed = self._licensed(batch)
        classes = self._classes(batch)
        mirrored = [False] * len(batch.urls)
        if self._resolver is not None:
            at = self._resolver.find(batch.urls, digests).positions
            mirrored = (self._resolver.outcomes(at) == OK).tolist()
        for at_url, (url, owner) in enumerate(zip(batch.urls, owners, strict=True)):
            digest = digests[16 * at_url : 16 * at_url + 16]
            of_class = classes[owner] if classes else _NO_CLASS
            if mirrored[at_url]:
                yield digest, None, None, of_class, _MIRRORED
            elif licensed and not licensed[owner]:
                yield digest, None, None, of_class, _UNLICENSED
            else:
                text = url.decode()
                judged = self._judged_base(base_of(text))
                if isinstance(judged, Refusal):
                    self._plan.reasons[judged.reason] += 1
                    yield digest, text, None, of_class, _NOT_ALLOWED
                else:
                    yield digest, text, judged, of_class, _WANTED

    def _licensed(self, batch: Batch) -> list[bool]:
        """For each record whether its licence allows it; empty where none is asked for."""
        path, allowed = self._selection.license, self._selection.allowed
        if path is None or not allowed:
            return []
        # A dataset has few licences, and each is spelled out a million times.
        name_of = lru_cache(1024)(license_name)
        return [
            isinstance(value, str) and name_of(value) in allowed for value in batch.others[path]
        ]

    def _classes(self, batch: Batch) -> list[int]:
        """For each record the number of its class; empty where none is asked for."""
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
            if code == len(self._records_of):
                self._records_of.append(0)
            self._records_of[code] += 1
            found.append(code)
        return found

    # --- the cache ---

    def _scan(self, root: bytes, extensions: Sequence[str]) -> None:
        count = ScanCount()
        files = 0

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal files
            for file in walk(root, extensions, count):
                files += 1
                path, size, mtime_ns, inode = file
                name = os.path.basename(path)
                signed = signature(file)
                place = path if name[32:].lower() == b".jpg" else None
                digest = bytes.fromhex(name[:32].decode())
                # An inode may be larger than SQLite's numbers are.
                yield digest, path, size, mtime_ns, inode.to_bytes(8, "big"), signed, place

        with self._ledger.translated():
            self._db.execute("BEGIN")
            self._db.executemany(_WALK, rows())
            self._db.execute(_FILE)
            self._db.execute("DROP TABLE temp.walked")
            self._db.execute("CREATE INDEX temp.files_by_url ON files (url_md5)")
            self._db.execute("COMMIT")
        for path, why in count.unreadable:
            self._unreadable(path, why)
        known = self._ledger.known_files()
        if not files and known and not self._selection.from_empty:
            raise CacheError(
                f"The cache folder is empty, and {known:,} files were there before: is its disk "
                "mounted? If it was emptied on purpose, say --from-empty."
            )

    def _judge(self, root: bytes) -> None:
        """Look at the files that were never looked at."""
        # Of the others the verdicts know the hash: they are struck by it, whenever it is learnt.
        listed = self._selection.known_bad - self._bad_contents
        digest = hashlib.sha256(b"".join(sorted(listed))).hexdigest()
        self._ledger.doubt_verdicts_of_another(digest)
        readers = max(2, os.cpu_count() or 2)
        last = 0
        self._progress.begin(Stage("files of the cache judged"))
        while chunk := self._unjudged(last):
            last, entries = chunk
            signatures = {entry.path: entry.signature for entry in entries}
            ordered = (entries[at] for at in entries.by_inode())
            for judged, failures in judge_all(root, ordered, "decode", listed, readers):
                self._ledger.judge(
                    RecordedVerdict(
                        signatures[one.path], one.url_md5, one.content_hash, one.verdict, None
                    )
                    for one in judged
                )
                for path, reason in failures:
                    self._unreadable(path, reason)
                self._progress.advance(len(judged) + len(failures))

    def _unreadable(self, path: str, reason: str) -> None:
        self._plan.unreadable += 1
        self._plan.failures.note(path, reason)

    def _unjudged(self, after: int) -> tuple[int, Entries] | None:
        """The next files without a verdict that holds, and the number of the last of them."""
        query = (
            "SELECT id, path, size, mtime_ns, inode FROM temp.files"
            " WHERE id > ? AND NOT EXISTS (SELECT 1 FROM verdicts AS v WHERE v.cache = ?"
            " AND v.signature = files.signature AND v.verdict <> '') ORDER BY id LIMIT ?"
        )
        entries = Entries()
        last = after
        with self._ledger.translated():
            for number, path, size, mtime_ns, inode in self._db.execute(
                query, (after, self._ledger.cache, _CHUNK_FILES)
            ):
                entries.append(path, size, mtime_ns, int.from_bytes(inode, "big"))
                last = number
        return (last, entries) if len(entries) else None

    def _strike_cached(self) -> None:
        """What the cache has a good file of is not wanted."""
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
            "UPDATE temp.named SET fate = ? WHERE fate IN (0, 3) AND url_md5 IN"
            " (SELECT url_md5 FROM temp.good WHERE content_hash NOT IN temp.bad)"
        )
        with self._ledger.translated():
            self._db.execute(judged_ok, (self._ledger.cache,))
            for (content,) in self._db.execute(under_many, (least,)).fetchall():
                if (
                    distinct_photos(url for (url,) in self._db.execute(urls_of, (content,)))
                    >= least
                ):
                    bad.add(content)
            self._plan.placeholders = frozenset(bad)
            self._db.executemany("INSERT INTO temp.bad VALUES (?)", ((one,) for one in bad))
            self._db.execute(strike, (_CACHED,))

    # --- the queue ---

    def _fill_queue(self, now: float) -> None:
        also = "given_up" if self._selection.retry_failed else "had"
        # A pause longer than any that is given was written by a clock that was wrong. What was
        # refused comes last: one that always is must not keep the others from their turn.
        select = (
            "SELECT n.url_md5, n.url, n.source,"
            " CASE WHEN u.state = 'waiting' THEN min(u.next_try, ?) ELSE 0 END,"
            " (SELECT min(place) FROM temp.files AS f WHERE f.url_md5 = n.url_md5)"
            " FROM temp.named AS n LEFT JOIN main.urls AS u ON u.url_md5 = n.url_md5"
            " LEFT JOIN temp.classes AS c ON c.class = n.class"
            " WHERE n.fate = 0 AND (u.state IS NULL OR u.state IN ('waiting', 'had', ?))"
            " ORDER BY u.kind IS 'throttled', c.records IS NULL, c.records, n.seq"
        )
        self._ledger.fill_queue(select, (now + LONGEST_PAUSE, also))

    def _count(self, now: float) -> None:
        plan = self._plan
        with self._ledger.translated():
            fates = dict(self._db.execute("SELECT fate, count(*) FROM temp.named GROUP BY fate"))
            states = dict(
                self._db.execute(
                    "SELECT u.state, count(*) FROM temp.named AS n JOIN main.urls AS u"
                    " ON u.url_md5 = n.url_md5 WHERE n.fate = 0 GROUP BY u.state"
                )
            )
            plan.postponed = self._db.execute(
                "SELECT count(*) FROM temp.queue WHERE next_try > ?", (now,)
            ).fetchone()[0]
            plan.flagged = self._db.execute(
                "SELECT count(DISTINCT n.url_md5) FROM temp.named AS n JOIN temp.files AS f"
                " ON f.url_md5 = n.url_md5 WHERE n.fate IN (0, 3)"
            ).fetchone()[0]
        plan.mirrored, plan.cached = fates.get(_MIRRORED, 0), fates.get(_CACHED, 0)
        plan.unlicensed, plan.not_allowed = fates.get(_UNLICENSED, 0), fates.get(_NOT_ALLOWED, 0)
        plan.wanted = fates.get(_WANTED, 0) + plan.not_allowed
        plan.gone = states.get("gone", 0)
        plan.given_up = 0 if self._selection.retry_failed else states.get("given_up", 0)


def _judge_base(rules: UrlPolicy, base: str) -> str | Refusal:
    """Who is asked by URLs that begin so, or why nobody is. Each is judged again before it is sent."""
    judged = rules.judge(base)
    return judged if isinstance(judged, Refusal) else source_of(judged)
