"""Verdicts over a cache, without a bucket.

    walk ──► chunks in the order of inodes ──► read, hash, judge (threads) ──► findings (SQLite)

Findings stand in a temporary SQLite file that goes with the process, however it ends: memory does
not grow with the cache. They must be kept, for a verdict may change: only when all files are seen
is it known under how many URLs one content is.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from mirror.cache.prepare import Prepared, batches, prepare
from mirror.cache.scan import Entries, Entry, ScanCount, display, walk
from mirror.config.settings import Settings
from mirror.content.image import VERDICTS, Level, Verdict
from mirror.content.placeholder import load_known_bad, shared_reason, with_known_bad
from mirror.errors import StateError
from mirror.run.failures import Failures
from mirror.run.progress import Progress, Stage

# Files that are sorted by inode together: disks that turn read them in their own order.
_CHUNK_FILES = 50_000
# How many batches of files wait for each thread.
_BATCHES_A_READER = 4


class JudgedFile(NamedTuple):
    """A file and what was found. `path` is relative to the cache; pixels are 0 where unknown."""

    path: bytes
    size: int
    verdict: Verdict
    reason: str
    format: str
    width: int
    height: int
    content_hash: bytes
    sha256: bytes

    @property
    def url_md5(self) -> bytes:
        return bytes.fromhex(os.path.basename(self.path)[:32].decode())


class FlaggedGroup(NamedTuple):
    """Flagged files with one verdict and one kind of reason.

    Attributes:
        kind: the reasons with their numbers taken out.
        reason: the reason itself where all of the group have the same, else its kind.
        files: how many.
        contents: how many distinct ones.
        size: bytes of all of them.
    """

    verdict: Verdict
    kind: str
    reason: str
    files: int
    contents: int
    size: int


class GroupContent(NamedTuple):
    """One content of a group. `example`: the first of its files; `files`: how many there are."""

    example: JudgedFile
    files: int


_COLUMNS = "path, size, verdict, reason, format, width, height, content_hash, sha256"
_SCHEMA = """
    CREATE TABLE files (path BLOB, size INTEGER, verdict TEXT, reason TEXT, format TEXT,
        width INTEGER, height INTEGER, content_hash BLOB, sha256 BLOB, url_md5 BLOB, kind TEXT)
"""
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


def _kind(reason: str) -> str:
    return _NUMBER.sub("N", reason)


class Findings:
    """All that an inspection found. Made and filled by `inspect_cache`; used by one thread.

    Attributes:
        checked: files that were judged.
        counts: of them, by verdict.
        bytes: of all of them.
        ignored: what the walk passed over.
        failed: files and folders that could not be read.
        failures: `(path, reason)` of the first of them.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.checked = 0
        self.bytes = 0
        self.counts: Counter[Verdict] = Counter(dict.fromkeys(VERDICTS, 0))
        self.ignored = 0
        self.failed = 0
        self.failures = Failures()
        db.execute(_SCHEMA)

    @property
    def flagged(self) -> int:
        return self.checked - self.counts["ok"]

    def files(self) -> Iterator[JudgedFile]:
        """Every file, in the order of paths."""
        return self._judged("ORDER BY path")

    def flagged_files(self, limit: int = -1) -> Iterator[JudgedFile]:
        """What is not `ok`, in the order of paths."""
        return self._judged("WHERE verdict <> 'ok' ORDER BY path LIMIT ?", limit)

    def groups(self) -> list[FlaggedGroup]:
        """What is not `ok`, by verdict in their usual order, then by number."""
        rows = self._db.execute(
            "SELECT verdict, kind, CASE WHEN min(reason) = max(reason) THEN min(reason) ELSE kind END,"
            " count(*), count(DISTINCT sha256), sum(size)"
            " FROM files WHERE verdict <> 'ok' GROUP BY verdict, kind"
        )
        groups = [FlaggedGroup._make(row) for row in rows]
        return sorted(groups, key=lambda g: (VERDICTS.index(g.verdict), -g.files, g.kind))

    def contents(self, group: FlaggedGroup, limit: int = -1) -> Iterator[GroupContent]:
        """The contents of a group, those with the most files first."""
        # SQLite gives bare columns beside min() the values of the row where the minimum is.
        rows = self._db.execute(
            f"SELECT min(path), {_COLUMNS.removeprefix('path, ')}, count(*) AS number"  # noqa: S608
            " FROM files WHERE verdict <> 'ok' AND verdict = ? AND kind = ?"
            " GROUP BY sha256 ORDER BY number DESC, reason, min(path) LIMIT ?",
            (group.verdict, group.kind, limit),
        )
        return (GroupContent(JudgedFile._make(row[:-1]), row[-1]) for row in rows)

    def paths(
        self, group: FlaggedGroup, sha256: bytes | None = None, limit: int = -1
    ) -> list[bytes]:
        """Paths of a group's files, or of one content among them, in their order."""
        only, values = ("", ()) if sha256 is None else (" AND sha256 = ?", (sha256,))
        rows = self._db.execute(
            "SELECT path FROM files WHERE verdict <> 'ok' AND verdict = ? AND kind = ?"  # noqa: S608
            f"{only} ORDER BY path LIMIT ?",
            (group.verdict, group.kind, *values, limit),
        )
        return [row[0] for row in rows]

    def _judged(self, clause: str, *values: int) -> Iterator[JudgedFile]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM files {clause}", values)  # noqa: S608
        return (JudgedFile._make(row) for row in rows)

    def add(self, judged: Sequence[JudgedFile]) -> None:
        marks = ",".join("?" * 11)
        self._db.executemany(
            f"INSERT INTO files VALUES ({marks})",  # noqa: S608
            [
                (*one, one.url_md5, "" if one.verdict == "ok" else _kind(one.reason))
                for one in judged
            ],
        )

    def fail(self, path: str, reason: str) -> None:
        self.failed += 1
        self.failures.note(path, reason)

    def settle(self, placeholder_photos: int) -> None:
        """Judge again, now that every file is seen: what is under too many URLs is a placeholder.

        Only what was `ok` so far: that a frame is blank says more than that there are many.
        """
        self._db.execute(
            "CREATE TABLE crowds AS SELECT sha256, count(DISTINCT url_md5) AS urls FROM files"
            " WHERE verdict = 'ok' GROUP BY sha256 HAVING urls >= ?",
            (placeholder_photos,),
        )
        self._db.execute("CREATE UNIQUE INDEX crowd ON crowds (sha256)")
        numbers = self._db.execute("SELECT DISTINCT urls FROM crowds").fetchall()
        reasons = [
            (n, shared_reason(n, "URLs"), _kind(shared_reason(n, "URLs"))) for (n,) in numbers
        ]
        self._db.execute("CREATE TABLE reasons (urls INTEGER PRIMARY KEY, reason TEXT, kind TEXT)")
        self._db.executemany("INSERT INTO reasons VALUES (?, ?, ?)", reasons)
        self._db.execute(
            "UPDATE files SET verdict = 'placeholder', (reason, kind) ="
            " (SELECT reason, kind FROM crowds JOIN reasons USING (urls)"
            "  WHERE crowds.sha256 = files.sha256)"
            " WHERE verdict = 'ok' AND sha256 IN (SELECT sha256 FROM crowds)"
        )
        self._db.execute(
            "CREATE INDEX flagged ON files (verdict, kind, sha256, path) WHERE verdict <> 'ok'"
        )
        for verdict, number, size in self._db.execute(
            "SELECT verdict, count(*), sum(size) FROM files GROUP BY verdict"
        ):
            self.counts[verdict] = number
            self.bytes += size
        self.checked = self.counts.total()


def inspection_arguments(settings: Settings, level: Level) -> dict[str, Any]:
    """Return the arguments of `inspect_cache` that settings have.

    Raises:
        ConfigError: no cache is configured, or the file of known bad contents cannot be read.
    """
    return {
        "root": os.fsencode(settings.cache_dir),
        "extensions": settings.cache.extensions,
        "level": level,
        "placeholder_photos": settings.inspect.placeholder_photos,
        "known_bad": load_known_bad(settings.inspect.known_bad),
    }


@contextmanager
def inspect_cache(
    root: bytes,
    extensions: Sequence[str],
    *,
    level: Level = "decode",
    placeholder_photos: int = 5,
    known_bad: frozenset[bytes] = frozenset(),
    readers: int | None = None,
    progress: Progress = Progress(),
) -> Iterator[Findings]:
    """Judge every file of a cache; the findings last as long as the block.

    Args:
        root: the cache's folder.
        extensions: what an image's name may end with.
        level: how far to look at each file.
        placeholder_photos: one content under so many URLs is a placeholder. A cache alone does not
            know which URLs mean one photo, so it counts the names that its files have.
        known_bad: hashes of contents that are placeholders wherever they are met.
        readers: threads; as many as there are processors when None.
        progress: receives the progress of the run.

    Raises:
        CacheError: the cache's folder cannot be read.
        StateError: there is no room for the temporary file.
    """
    count = ScanCount()
    # "" names a temporary database that is unlinked as soon as it is open.
    db = sqlite3.connect("", isolation_level=None)
    try:
        with _translated():
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16384"):
                db.execute(f"PRAGMA {pragma}")
            findings = Findings(db)
            entries = _entries(walk(root, extensions, count))
            progress.begin(Stage("files judged"))
            for judged, failures in judge_all(
                root, entries, level, known_bad, readers or max(2, os.cpu_count() or 2)
            ):
                findings.add(judged)
                for path, reason in failures:
                    findings.fail(path, reason)
                # At level "header" a file's size says nothing of what was read of it.
                size = sum(one.size for one in judged) if level == "decode" else 0
                progress.advance(len(judged) + len(failures), size)
            findings.ignored = count.ignored
            for path, reason in count.failures():
                findings.fail(path, reason)
            findings.settle(placeholder_photos)
            yield findings
    finally:
        db.close()


_Batch = tuple[list[JudgedFile], list[tuple[str, str]]]


def judge_all(
    root: bytes,
    entries: Iterator[Entry],
    level: Level,
    known_bad: frozenset[bytes],
    readers: int,
) -> Iterator[_Batch]:
    """Verdicts in batches, as many under way as keep the readers busy and no more."""
    pool = ThreadPoolExecutor(readers, "inspect")
    under_way: deque[Future[_Batch]] = deque()
    try:
        for batch in batches(entries):
            under_way.append(pool.submit(_judge, root, batch, level, known_bad))
            if len(under_way) >= readers * _BATCHES_A_READER:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _judge(root: bytes, entries: list[Entry], level: Level, known_bad: frozenset[bytes]) -> _Batch:
    """Runs in a thread. Bytes are let go file by file: only verdicts leave."""
    judged: list[JudgedFile] = []
    failures: list[tuple[str, str]] = []
    for entry in entries:
        prepared = prepare(root, entry, level)
        if not isinstance(prepared, Prepared):
            failures.append((display(entry.path), prepared.reason))
            continue
        digest = prepared.digest
        found = with_known_bad(prepared.inspection, digest, known_bad)
        judged.append(
            JudgedFile(
                entry.path,
                digest.size,
                found.verdict,
                found.reason,
                found.format,
                found.width,
                found.height,
                digest.content_hash,
                digest.sha256,
            )
        )
    return judged, failures


def _entries(files: Iterator[tuple[bytes, int, int, int]]) -> Iterator[Entry]:
    while chunk := _chunk(files):
        for at in chunk.by_inode():
            yield chunk[at]


def _chunk(files: Iterable[tuple[bytes, int, int, int]]) -> Entries:
    chunk = Entries()
    for file in islice(files, _CHUNK_FILES):
        chunk.append(*file)
    return chunk


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StateError(
            f"The findings have no room in the folder for temporary files ({error}); make room "
            "there (about 200 bytes a file of the cache), or set SQLITE_TMPDIR to another folder."
        ) from None


def printable(text: str) -> str:
    """Text that cannot move a cursor or turn a line around: what does not print is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(path: bytes) -> str:
    """A path as it may be shown to a person."""
    return printable(display(path))
