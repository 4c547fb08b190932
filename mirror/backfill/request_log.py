"""The request log (SQLite): what was requested from which source, and what became of it.

Kept for good: every URL that was requested, with its attempts, last answer and next try; the pace of
every source; verdicts on files of caches, by signature. Each request is recorded before it is sent,
and its end in one transaction. So no request of a killed process is unknown.

Not kept: the queue. Each run builds it from the dataset, the mirror and the cache, in temporary
tables of the same connection, which SQLite spills to disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from mirror.backfill.answers import Kind, State
from mirror.run.run_log import RUNS_TABLE, RunLog
from mirror.system.database import Database

FILE_NAME: Final = "ledger.sqlite"
SCHEMA_VERSION: Final = 1

_META = "TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
# verdict: empty where the file must be judged again. path: only of a file that a backfill wrote, so
# that a backfill may remove it.
_VERDICTS = """TABLE verdicts (
    cache BLOB NOT NULL, signature BLOB NOT NULL, url_md5 BLOB NOT NULL, content_hash BLOB NOT NULL,
    verdict TEXT NOT NULL, path BLOB, PRIMARY KEY (cache, signature)
) WITHOUT ROWID"""
_SCHEMA = f"""
CREATE {_META};
CREATE TABLE paces (source TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE robots (origin TEXT PRIMARY KEY, asked_at REAL NOT NULL, least_interval REAL NOT NULL)
    WITHOUT ROWID;
-- strikes: failures in a row; attempts: of any outcome, in all.
CREATE TABLE urls (
    url_md5 BLOB PRIMARY KEY, url TEXT NOT NULL, source TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, strikes INTEGER NOT NULL, kind TEXT NOT NULL, status INTEGER NOT NULL,
    reason TEXT NOT NULL, tried_at REAL NOT NULL, next_try REAL NOT NULL, content_hash BLOB,
    size INTEGER NOT NULL, run_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX urls_by_content ON urls (content_hash) WHERE content_hash IS NOT NULL;
CREATE INDEX urls_by_run ON urls (run_id, kind);
CREATE {_VERDICTS};
CREATE INDEX verdicts_by_content ON verdicts (cache, content_hash);
{RUNS_TABLE}"""

_QUEUE = """
DROP TABLE IF EXISTS temp.queue;
CREATE TEMP TABLE queue (
    rank INTEGER PRIMARY KEY, url_md5 BLOB NOT NULL, url TEXT NOT NULL, source TEXT NOT NULL,
    next_try REAL NOT NULL, path BLOB
);
"""
_QUEUE_INDICES = """
CREATE INDEX temp.fresh ON queue (source, rank) WHERE next_try = 0;
CREATE INDEX temp.postponed ON queue (source, next_try) WHERE next_try > 0;
"""


class QueueItem(NamedTuple):
    """A URL of the queue.

    Attributes:
        rank: its place in the queue.
        path: of the bad file in the cache that its image replaces; None where there is none.
    """

    rank: int
    url_md5: bytes
    url: str
    source: str
    path: bytes | None


class UrlRecord(NamedTuple):
    """The record of a URL that was requested."""

    url: str
    state: State
    attempts: int
    strikes: int
    kind: Kind
    status: int
    reason: str
    tried_at: float
    next_try: float


class ItemResult(NamedTuple):
    """The result of an attempt. `source` answered last; after a redirect it may not be the item's."""

    item: QueueItem
    source: str
    state: State
    strikes: int
    kind: Kind
    status: int
    reason: str
    tried_at: float
    next_try: float
    content_hash: bytes | None
    size: int


class RecordedVerdict(NamedTuple):
    """A verdict on a file of a cache. `path` is known only for files that a backfill wrote."""

    signature: bytes
    url_md5: bytes
    content_hash: bytes
    verdict: str
    path: bytes | None


class RequestLog:
    """The request log of one state folder, for all caches.

    Args:
        folder: where the log is.
        cache: identifies the cache in use, in a few bytes.

    Attributes:
        db: the connection, for the queries of a plan; use it within `translated`.

    Raises:
        StateError: the log cannot be opened: see `mirror.system.database.Database`.
    """

    def __init__(self, folder: Path, cache: bytes) -> None:
        remedy = "keep it and use that version: it records which images must not be requested again"
        damaged = (
            "it records what was requested and cannot be rebuilt: wait a day, so that no limit is "
            "exceeded, move it away, and run again"
        )
        self._file = Database(folder / FILE_NAME, _SCHEMA, SCHEMA_VERSION, remedy, damaged)
        self.cache = cache
        self.db = self._file.connection
        self.translated = self._file.translated
        self.runs = RunLog(self._file)
        with self.translated():
            self.db.execute("PRAGMA busy_timeout = 30000")
            self.db.execute("PRAGMA temp_store = FILE")
            self.db.execute("PRAGMA main.cache_size = -16384")
            self.db.execute("PRAGMA temp.cache_size = -32768")

    @property
    def path(self) -> Path:
        return self._file.path

    def use_temporary_verdicts(self) -> None:
        """Write verdicts to temporary tables of the same names from now on. SQLite finds those first."""
        with self.translated():
            self.db.execute(f"CREATE TEMP {_META}")
            self.db.execute("INSERT INTO temp.meta SELECT * FROM main.meta")
            self.db.execute(f"CREATE TEMP {_VERDICTS}")
            self.db.execute("INSERT INTO temp.verdicts SELECT * FROM main.verdicts")

    # --- clock, paces, robots.txt ---

    def get(self, key: str) -> Any:
        """A value that `put` has stored, or None."""
        with self.translated():
            found = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else msgspec.json.decode(found[0])

    def put(self, key: str, value: Any) -> None:
        """Store a value under a key."""
        text = msgspec.json.encode(value).decode()
        self._file.execute_all([("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, text)])])

    def paces(self) -> dict[str, dict[str, Any]]:
        """The saved pace of every source."""
        with self.translated():
            found = self.db.execute("SELECT source, value FROM paces").fetchall()
        return {source: msgspec.json.decode(value) for source, value in found}

    def save_pace(self, source: str, value: Mapping[str, Any], clock: Any) -> None:
        """Save a source's pace and the time, before a request is sent or after one was abandoned."""
        self._file.execute_all([_pace_statement(source, value), _clock_statement(clock)])

    def robots_interval(self, origin: str, since: float) -> float | None:
        """Seconds between requests that an origin's robots.txt states; 0 if it states none.

        Args:
            origin: such as `https://static.inaturalist.org`.
            since: ignore a robots.txt that was read before this time.

        Returns:
            The interval, or None if robots.txt must be read again.
        """
        query = "SELECT least_interval FROM robots WHERE origin = ? AND asked_at >= ?"
        with self.translated():
            found = self.db.execute(query, (origin, since)).fetchone()
        return None if found is None else float(found[0])

    def save_robots_interval(self, origin: str, asked_at: float, seconds: float) -> None:
        """Save what an origin's robots.txt states."""
        values = [(origin, asked_at, seconds)]
        self._file.execute_all([("INSERT OR REPLACE INTO robots VALUES (?, ?, ?)", values)])

    # --- URLs ---

    def record_of(self, url_md5: bytes) -> UrlRecord | None:
        """The record of a URL; None if it was never requested."""
        columns = ", ".join(UrlRecord._fields)
        query = f"SELECT {columns} FROM urls WHERE url_md5 = ?"  # noqa: S608 - our own names
        with self.translated():
            found = self.db.execute(query, (url_md5,)).fetchone()
        return None if found is None else UrlRecord._make(found)

    def record(
        self,
        result: ItemResult,
        run_id: str,
        pace: Mapping[str, Any],
        clock: Any,
    ) -> None:
        """Record the end of an attempt: the URL and the pace of its source in one transaction.

        Args:
            result: of the attempt.
            run_id: of the run.
            pace: of the source that answered, after the attempt.
            clock: the time, as `mirror.backfill.backfill_clock.to_save` returns it.
        """
        item = result.item
        values = (
            item.url_md5, item.url, result.source, result.state, 1, result.strikes, result.kind,
            result.status, result.reason, result.tried_at, result.next_try, result.content_hash,
            result.size, run_id,
        )  # fmt: skip
        upsert = (
            "INSERT INTO urls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (url_md5) DO UPDATE SET url = excluded.url, source = excluded.source,"
            " state = excluded.state, attempts = attempts + 1, strikes = excluded.strikes,"
            " kind = excluded.kind, status = excluded.status, reason = excluded.reason,"
            " tried_at = excluded.tried_at, next_try = excluded.next_try,"
            " content_hash = excluded.content_hash, size = excluded.size, run_id = excluded.run_id"
        )
        statements: list[tuple[str, Iterable[Any]]] = [
            (upsert, [values]),
            _clock_statement(clock),
            _pace_statement(result.source, pace),
        ]
        if result.state == "waiting":
            # Without a rank it gets the last one, so a refused URL does not hold up the others.
            back = "INSERT INTO temp.queue VALUES (NULL, ?, ?, ?, ?, ?)"
            statements.append((back, [(*item[1:4], result.next_try, item.path)]))
        self._file.execute_all(statements)

    def has_answered_since(self, source: str, since: float) -> bool:
        """Whether a source has answered for any URL after a time."""
        query = (
            "SELECT 1 FROM urls WHERE source = ? AND tried_at > ?"
            " AND kind NOT IN ('throttled', 'network', 'server_error') LIMIT 1"
        )
        with self.translated():
            return self.db.execute(query, (source, since)).fetchone() is not None

    def reopen_after_block(self, source: str, since: float, next_try: float) -> int:
        """Reopen images that were forbidden during a block, because they may still exist.

        An image that was forbidden before stays gone, so none is requested forever.

        Args:
            source: that blocked this address.
            since: when the block began.
            next_try: when to request the images again.

        Returns:
            How many images are reopened.
        """
        change = (
            "UPDATE urls SET state = 'waiting', next_try = ? WHERE source = ? AND state = 'gone'"
            " AND status = 403 AND tried_at >= ? AND strikes = 1"
        )
        before = self.db.total_changes
        self._file.execute_all([(change, [(next_try, source, since)])])
        return self.db.total_changes - before

    def clear_failure(self, url_md5: bytes, run_id: str) -> None:
        """Clear a URL's failure of this run, because a file has appeared in its place meanwhile."""
        change = "UPDATE urls SET run_id = '' WHERE url_md5 = ? AND run_id = ?"
        self._file.execute_all([(change, [(url_md5, run_id)])])

    def failures(self, run_id: str) -> dict[str, int]:
        """The number of URLs that a run could not download, by the kind of their last answer."""
        query = (
            "SELECT kind, count(*) FROM urls WHERE run_id = ?"
            " AND kind NOT IN ('had', 'throttled') GROUP BY kind"
        )
        with self.translated():
            return dict(self.db.execute(query, (run_id,)).fetchall())

    def failed_urls(self, run_id: str, limit: int) -> Iterator[tuple[str, str, str]]:
        """`(url, kind, reason)` of the first URLs that a run could not download."""
        query = (
            "SELECT url, kind, reason FROM urls WHERE run_id = ?"
            " AND kind NOT IN ('had', 'throttled') ORDER BY kind, tried_at LIMIT ?"
        )
        with self.translated():
            yield from self.db.execute(query, (run_id, limit)).fetchall()

    def mean_size(self) -> float | None:
        """Bytes of a downloaded image on average; None if there are none."""
        with self.translated():
            found = self.db.execute("SELECT avg(size) FROM urls WHERE state = 'had'").fetchone()
        return None if found[0] is None else float(found[0])

    # --- contents ---

    def urls_with(self, content_hash: bytes) -> list[str]:
        """URLs that answered with this content, and names of files in the cache that hold it."""
        had = "SELECT url FROM urls WHERE content_hash = ?"
        others = (
            "SELECT hex(url_md5) FROM verdicts WHERE cache = ? AND content_hash = ?"
            " AND NOT EXISTS (SELECT 1 FROM urls WHERE urls.url_md5 = verdicts.url_md5)"
        )
        with self.translated():
            urls = self.db.execute(had, (content_hash,)).fetchall()
            names = self.db.execute(others, (self.cache, content_hash)).fetchall()
        return [found[0] for found in (*urls, *names)]

    def files_with(self, content_hash: bytes) -> list[RecordedVerdict]:
        """Files in this cache with this content that a backfill wrote."""
        query = (
            "SELECT signature, url_md5, content_hash, verdict, path FROM verdicts"
            " WHERE cache = ? AND content_hash = ? AND path IS NOT NULL"
        )
        with self.translated():
            found = self.db.execute(query, (self.cache, content_hash)).fetchall()
        return [RecordedVerdict._make(row) for row in found]

    def forget_file(self, content_hash: bytes, url_md5: bytes) -> None:
        """Forget a file that did not get its place in the cache, because another file was there."""
        change = "DELETE FROM verdicts WHERE cache = ? AND content_hash = ? AND url_md5 = ?"
        self._file.execute_all([(change, [(self.cache, content_hash, url_md5)])])

    def withdraw(self, files: Sequence[RecordedVerdict], reason: str, run_id: str) -> int:
        """Record files as placeholders that were removed from the cache again.

        A URL that an earlier run downloaded is not a failure of this run.

        Args:
            files: that were removed.
            reason: why they are placeholders.
            run_id: of this run.

        Returns:
            How many of their URLs this run had counted as downloaded.
        """
        query = "SELECT count(*) FROM urls WHERE url_md5 = ? AND run_id = ? AND state = 'had'"
        expose = (
            "UPDATE urls SET state = 'gone', kind = 'placeholder', reason = ? WHERE url_md5 = ?"
        )
        # One URL may have had several files, one after the other.
        urls = {file.url_md5 for file in files}
        with self.translated():
            downloaded = sum(
                int(self.db.execute(query, (url, run_id)).fetchone()[0]) for url in urls
            )
        self._file.execute_all(
            [
                (
                    "DELETE FROM verdicts WHERE cache = ? AND signature = ?",
                    [(self.cache, file.signature) for file in files],
                ),
                (expose, [(reason, url) for url in urls]),
            ]
        )
        return downloaded

    def placeholders(self) -> set[bytes]:
        """Contents that came instead of images."""
        query = (
            "SELECT DISTINCT content_hash FROM urls"
            " WHERE kind = 'placeholder' AND content_hash IS NOT NULL"
        )
        with self.translated():
            return {found[0] for found in self.db.execute(query).fetchall()}

    def save_verdicts(self, files: Iterable[RecordedVerdict]) -> None:
        """Save verdicts on files of this cache."""
        self._file.execute_all([(_SAVE_VERDICT, ((self.cache, *file) for file in files))])

    def known_files(self) -> int:
        """How many files of this cache have a verdict."""
        query = "SELECT count(*) FROM verdicts WHERE cache = ?"
        with self.translated():
            return int(self.db.execute(query, (self.cache,)).fetchone()[0])

    def invalidate_verdicts(self, known_bad: str) -> None:
        """Have files judged again if the list of known bad contents has changed.

        Their rows stay, because they say which files a backfill wrote.

        Args:
            known_bad: a digest of the list.
        """
        key = f"known_bad {self.cache.hex()}"
        if self.get(key) != known_bad:
            doubt = (
                "UPDATE verdicts SET verdict = ''"
                " WHERE cache = ? AND verdict IN ('ok', 'placeholder')"
            )
            self._file.execute_all([(doubt, [(self.cache,)])])
            self.put(key, known_bad)

    # --- the queue ---

    def fill_queue(self, select: str, values: Sequence[Any]) -> None:
        """Build the queue from a query of its columns, in the order in which to request the URLs."""
        with self.translated():
            self.db.executescript(_QUEUE)
            self.db.execute("BEGIN")
            self.db.execute(
                f"INSERT INTO temp.queue (url_md5, url, source, next_try, path) {select}", values
            )
            self.db.execute("COMMIT")
            self.db.executescript(_QUEUE_INDICES)

    def queued(self) -> dict[str, int]:
        """The number of queued URLs of each source."""
        query = "SELECT source, count(*) FROM temp.queue GROUP BY source"
        with self.translated():
            return dict(self.db.execute(query).fetchall())

    def take(self, now: float, sources: Iterable[str]) -> QueueItem | None:
        """Take the next URL of one of these sources from the queue; None if there is none.

        A URL whose pause is over comes first, then those without a pause, by rank.
        """
        columns = "SELECT rank, url_md5, url, source, path FROM temp.queue"
        due = f"{columns} WHERE source = ? AND next_try > 0 AND next_try <= ? ORDER BY next_try LIMIT 1"
        fresh = f"{columns} WHERE source = ? AND next_try = 0 ORDER BY rank LIMIT 1"
        heads: list[QueueItem] = []
        with self.translated():
            for source in sources:
                found = self.db.execute(due, (source, now)).fetchone()
                if found is None:
                    found = self.db.execute(fresh, (source,)).fetchone()
                if found is not None:
                    heads.append(QueueItem._make(found))
            if not heads:
                return None
            item = min(heads)
            self.db.execute("DELETE FROM temp.queue WHERE rank = ?", (item.rank,))
        return item

    def next_due(self, source: str) -> float | None:
        """When the first URL of a source may be requested: 0 for at once, None if there is none."""
        fresh = "SELECT 1 FROM temp.queue WHERE source = ? AND next_try = 0 LIMIT 1"
        later = "SELECT min(next_try) FROM temp.queue WHERE source = ? AND next_try > 0"
        with self.translated():
            if self.db.execute(fresh, (source,)).fetchone():
                return 0.0
            found = self.db.execute(later, (source,)).fetchone()[0]
        return None if found is None else float(found)

    def close(self) -> None:
        """Close the database."""
        self._file.close()


# A file that a backfill wrote keeps its path when it is judged again.
_SAVE_VERDICT: Final = (
    "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (cache, signature) DO UPDATE"
    " SET content_hash = excluded.content_hash, verdict = excluded.verdict,"
    " path = coalesce(excluded.path, path)"
)


def _pace_statement(source: str, value: Mapping[str, Any]) -> tuple[str, list[Any]]:
    body = msgspec.json.encode(value)
    return "INSERT OR REPLACE INTO paces VALUES (?, ?)", [(source, body)]


def _clock_statement(value: Any) -> tuple[str, list[Any]]:
    text = msgspec.json.encode(value).decode()
    return "INSERT OR REPLACE INTO meta VALUES ('clock', ?)", [(text,)]
