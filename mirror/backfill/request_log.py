"""What was asked of whom, and what came of it (SQLite): kept for good. And what is still to be asked.

Kept: every URL that was ever asked for, with its attempts, last answer and next try; the pace of
every source; verdicts on files of caches, by their signature. Each request is written down before it
is sent and its end in one transaction, so a process that is killed has asked for nothing unknown.

Not kept: the queue. It is made anew from the dataset, the mirror and the cache whenever a run begins,
in temporary tables of the same connection, which SQLite spills to disk.
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
# verdict: empty where it is to be given anew. path: of a file that a backfill wrote, so that it may
# take it back; of any other none.
_VERDICTS = """TABLE verdicts (
    cache BLOB NOT NULL, signature BLOB NOT NULL, url_md5 BLOB NOT NULL, content_hash BLOB NOT NULL,
    verdict TEXT NOT NULL, path BLOB, PRIMARY KEY (cache, signature)
) WITHOUT ROWID"""
_SCHEMA = f"""
CREATE {_META};
CREATE TABLE paces (source TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE robots (origin TEXT PRIMARY KEY, asked_at REAL NOT NULL, least_interval REAL NOT NULL)
    WITHOUT ROWID;
-- strikes: failures in a row; attempts: requests' worth of trying, in all.
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
    """A URL of the queue. `path`: of the flagged file in the cache whose place its image takes."""

    rank: int
    url_md5: bytes
    url: str
    source: str
    path: bytes | None


class UrlRecord(NamedTuple):
    """What is known of a URL that was asked for."""

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
    """What came of an item. `source`: who said so; not the item's where that one redirected."""

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
    """A verdict on a file of a cache. `path` is told of files that a backfill wrote."""

    signature: bytes
    url_md5: bytes
    content_hash: bytes
    verdict: str
    path: bytes | None


class RequestLog:
    """The ledger of one folder, for all caches.

    Args:
        folder: where it is.
        cache: names the cache in use, in a few bytes.

    Attributes:
        db: the connection, for the queries that find what is wanted; within `translated`.

    Raises:
        StateError: it cannot be opened: see `mirror.system.database.Database`.
    """

    def __init__(self, folder: Path, cache: bytes) -> None:
        remedy = "keep it, and use that version: it says what must not be asked for again"
        damaged = (
            "it says what was asked of others, and cannot be made anew: wait a day, so that no limit "
            "is exceeded, move it away, and run again"
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

    def keep_no_verdicts(self) -> None:
        """From now on verdicts go to temporary tables of the same names, which SQLite finds first."""
        with self.translated():
            self.db.execute(f"CREATE TEMP {_META}")
            self.db.execute("INSERT INTO temp.meta SELECT * FROM main.meta")
            self.db.execute(f"CREATE TEMP {_VERDICTS}")
            self.db.execute("INSERT INTO temp.verdicts SELECT * FROM main.verdicts")

    # --- the time, the paces, the robots' rules ---

    def get(self, key: str) -> Any:
        """A value that was `put`, or None."""
        with self.translated():
            found = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else msgspec.json.decode(found[0])

    def put(self, key: str, value: Any) -> None:
        text = msgspec.json.encode(value).decode()
        self._file.execute_all([("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, text)])])

    def paces(self) -> dict[str, dict[str, Any]]:
        """What was kept of every source's pace."""
        with self.translated():
            found = self.db.execute("SELECT source, value FROM paces").fetchall()
        return {source: msgspec.json.decode(value) for source, value in found}

    def keep_pace(self, source: str, value: Mapping[str, Any], clock: Any) -> None:
        """Before a request is sent, and after an abandoned one: the pace, and what time it was."""
        self._file.execute_all([_pace(source, value), _clock(clock)])

    def least_interval(self, origin: str, since: float) -> float | None:
        """Seconds between requests that an origin's robots.txt states; 0 where it states none.

        Args:
            origin: such as `https://static.inaturalist.org`.
            since: what was asked earlier than this is no longer known: None.
        """
        query = "SELECT least_interval FROM robots WHERE origin = ? AND asked_at >= ?"
        with self.translated():
            found = self.db.execute(query, (origin, since)).fetchone()
        return None if found is None else float(found[0])

    def keep_least_interval(self, origin: str, asked_at: float, seconds: float) -> None:
        values = [(origin, asked_at, seconds)]
        self._file.execute_all([("INSERT OR REPLACE INTO robots VALUES (?, ?, ?)", values)])

    # --- URLs ---

    def told(self, url_md5: bytes) -> UrlRecord | None:
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
        """An attempt has ended: the URL and the pace of its source, both or none.

        Args:
            result: what came of it.
            run_id: of the run.
            pace: of the source that answered, afterwards.
            clock: what time it is (`mirror.backfill.backfill_clock.to_keep`).
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
            _clock(clock),
            _pace(result.source, pace),
        ]
        if result.state == "waiting":
            # Without a rank it gets the last one: nobody else has to wait for what was refused.
            back = "INSERT INTO temp.queue VALUES (NULL, ?, ?, ?, ?, ?)"
            statements.append((back, [(*item[1:4], result.next_try, item.path)]))
        self._file.execute_all(statements)

    def has_answered_since(self, source: str, since: float) -> bool:
        """Whether a source has answered for any URL after that time."""
        query = (
            "SELECT 1 FROM urls WHERE source = ? AND tried_at > ?"
            " AND kind NOT IN ('throttled', 'network', 'server_error') LIMIT 1"
        )
        with self.translated():
            return self.db.execute(query, (source, since)).fetchone() is not None

    def ask_again_after_a_block(self, source: str, since: float, next_try: float) -> int:
        """A row of 403s was a block and not the images: they wait; returns how many.

        Those that were forbidden before that are gone all the same: nothing is asked for ever.
        """
        change = (
            "UPDATE urls SET state = 'waiting', next_try = ? WHERE source = ? AND state = 'gone'"
            " AND status = 403 AND tried_at >= ? AND strikes = 1"
        )
        before = self.db.total_changes
        self._file.execute_all([(change, [(next_try, source, since)])])
        return self.db.total_changes - before

    def ended_otherwise(self, url_md5: bytes, run_id: str) -> None:
        """What had failed in this run was then not asked for again: it is no failure of it."""
        change = "UPDATE urls SET run_id = '' WHERE url_md5 = ? AND run_id = ?"
        self._file.execute_all([(change, [(url_md5, run_id)])])

    def failures(self, run_id: str) -> dict[str, int]:
        """URLs that a run could not get, by what their last answer was."""
        query = (
            "SELECT kind, count(*) FROM urls WHERE run_id = ?"
            " AND kind NOT IN ('had', 'throttled') GROUP BY kind"
        )
        with self.translated():
            return dict(self.db.execute(query, (run_id,)).fetchall())

    def failed_urls(self, run_id: str, limit: int) -> Iterator[tuple[str, str, str]]:
        """`(url, kind, reason)` of the first of them."""
        query = (
            "SELECT url, kind, reason FROM urls WHERE run_id = ?"
            " AND kind NOT IN ('had', 'throttled') ORDER BY kind, tried_at LIMIT ?"
        )
        with self.translated():
            yield from self.db.execute(query, (run_id, limit)).fetchall()

    def mean_size(self) -> float | None:
        """Bytes of the images that were had, on average; None where there are none."""
        with self.translated():
            found = self.db.execute("SELECT avg(size) FROM urls WHERE state = 'had'").fetchone()
        return None if found[0] is None else float(found[0])

    # --- contents ---

    def urls_with(self, content_hash: bytes) -> list[str]:
        """URLs whose answer was this content, and names of the cache's files that hold it."""
        had = "SELECT url FROM urls WHERE content_hash = ?"
        others = (
            "SELECT hex(url_md5) FROM verdicts WHERE cache = ? AND content_hash = ?"
            " AND NOT EXISTS (SELECT 1 FROM urls WHERE urls.url_md5 = verdicts.url_md5)"
        )
        with self.translated():
            urls = self.db.execute(had, (content_hash,)).fetchall()
            names = self.db.execute(others, (self.cache, content_hash)).fetchall()
        return [found[0] for found in (*urls, *names)]

    def written_with(self, content_hash: bytes) -> list[RecordedVerdict]:
        """Files of this cache that a backfill wrote and that hold this content."""
        query = (
            "SELECT signature, url_md5, content_hash, verdict, path FROM verdicts"
            " WHERE cache = ? AND content_hash = ? AND path IS NOT NULL"
        )
        with self.translated():
            found = self.db.execute(query, (self.cache, content_hash)).fetchall()
        return [RecordedVerdict._make(row) for row in found]

    def disown(self, content_hash: bytes, url_md5: bytes) -> None:
        """No file of this URL with this content is ours: another stands in its place."""
        change = "DELETE FROM verdicts WHERE cache = ? AND content_hash = ? AND url_md5 = ?"
        self._file.execute_all([(change, [(self.cache, content_hash, url_md5)])])

    def take_back(self, files: Sequence[RecordedVerdict], reason: str, run_id: str) -> int:
        """Files that were written and taken out of the cache again: their URLs are no images.

        Those that an earlier run had are no failures of this one: it has not asked for them.

        Returns:
            How many of them this run had counted among the had.
        """
        query = "SELECT count(*) FROM urls WHERE url_md5 = ? AND run_id = ? AND state = 'had'"
        expose = (
            "UPDATE urls SET state = 'gone', kind = 'placeholder', reason = ? WHERE url_md5 = ?"
        )
        # One URL may have had several files, one after the other.
        urls = {file.url_md5 for file in files}
        with self.translated():
            mine = sum(int(self.db.execute(query, (url, run_id)).fetchone()[0]) for url in urls)
        self._file.execute_all(
            [
                (
                    "DELETE FROM verdicts WHERE cache = ? AND signature = ?",
                    [(self.cache, file.signature) for file in files],
                ),
                (expose, [(reason, url) for url in urls]),
            ]
        )
        return mine

    def placeholders(self) -> set[bytes]:
        """Contents that came in place of images."""
        query = (
            "SELECT DISTINCT content_hash FROM urls"
            " WHERE kind = 'placeholder' AND content_hash IS NOT NULL"
        )
        with self.translated():
            return {found[0] for found in self.db.execute(query).fetchall()}

    def judge(self, files: Iterable[RecordedVerdict]) -> None:
        """Remember verdicts on files of this cache."""
        self._file.execute_all([(_JUDGE, ((self.cache, *file) for file in files))])

    def known_files(self) -> int:
        """How many files of this cache have a verdict."""
        query = "SELECT count(*) FROM verdicts WHERE cache = ?"
        with self.translated():
            return int(self.db.execute(query, (self.cache,)).fetchone()[0])

    def doubt_verdicts_of_another(self, known_bad: str) -> None:
        """Verdicts that were given with another list of known bad contents are to be given anew.

        The rows stay: they say which files are ours.

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
        """Make the queue from a query that gives its columns, the first to be asked first."""
        with self.translated():
            self.db.executescript(_QUEUE)
            self.db.execute("BEGIN")
            self.db.execute(
                f"INSERT INTO temp.queue (url_md5, url, source, next_try, path) {select}", values
            )
            self.db.execute("COMMIT")
            self.db.executescript(_QUEUE_INDICES)

    def queued(self) -> dict[str, int]:
        """How many URLs wait for each source."""
        query = "SELECT source, count(*) FROM temp.queue GROUP BY source"
        with self.translated():
            return dict(self.db.execute(query).fetchall())

    def take(self, now: float, sources: Iterable[str]) -> QueueItem | None:
        """The next URL to be asked of one of these sources, out of the queue; None where none is.

        One whose pause is over goes first, then those that were never asked for, by their rank.
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
        """When the first URL of a source may be asked: 0 for at once, None where there is none."""
        fresh = "SELECT 1 FROM temp.queue WHERE source = ? AND next_try = 0 LIMIT 1"
        later = "SELECT min(next_try) FROM temp.queue WHERE source = ? AND next_try > 0"
        with self.translated():
            if self.db.execute(fresh, (source,)).fetchone():
                return 0.0
            found = self.db.execute(later, (source,)).fetchone()[0]
        return None if found is None else float(found)

    def close(self) -> None:
        self._file.close()


# A file that was ours stays ours, whoever looks at it again.
_JUDGE: Final = (
    "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (cache, signature) DO UPDATE"
    " SET content_hash = excluded.content_hash, verdict = excluded.verdict,"
    " path = coalesce(excluded.path, path)"
)


def _pace(source: str, value: Mapping[str, Any]) -> tuple[str, list[Any]]:
    body = msgspec.json.encode(value)
    return "INSERT OR REPLACE INTO paces VALUES (?, ?)", [(source, body)]


def _clock(value: Any) -> tuple[str, list[Any]]:
    text = msgspec.json.encode(value).decode()
    return "INSERT OR REPLACE INTO meta VALUES ('clock', ?)", [(text,)]
