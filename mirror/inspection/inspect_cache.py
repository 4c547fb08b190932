"""Judge every file of a cache; no bucket is needed.

    walk ──► chunks in the order of inodes ──► read, hash, judge (threads) ──► findings (SQLite)

A temporary database holds the findings, so memory does not grow with the cache. A verdict may change
at the end: only after the last file is it known how many URLs share a content.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from mirror.cache.prepare import Prepared, prepare, read_batches
from mirror.cache.scan import Entries, Entry, ScanCount, display, misnamed, walk
from mirror.config.settings import Settings
from mirror.content.image import VERDICTS, Level, Verdict
from mirror.content.placeholder import load_known_bad, shared_reason
from mirror.run.failures import Failures
from mirror.run.progress import Progress, Stage
from mirror.system.database import ScratchDatabase
from mirror.system.display_text import printable

# Files that are sorted by inode together: roughly their order on a spinning disk.
_CHUNK_FILES = 50_000


class JudgedFile(NamedTuple):
    """A file with its verdict. `path` is relative to the cache; width and height are 0 if unknown.

    `near` is the stored perceptual hash, or None.
    """

    path: bytes
    size: int
    verdict: Verdict
    reason: str
    format: str
    width: int
    height: int
    content_hash: bytes
    sha256: bytes
    near: bytes | None = None

    @property
    def url_md5(self) -> bytes:
        return bytes.fromhex(os.path.basename(self.path)[:32].decode())


class FlaggedGroup(NamedTuple):
    """Flagged files with the same verdict and the same kind of reason.

    Attributes:
        kind: the reason without its numbers.
        reason: the reason if all files have the same one, otherwise the kind.
        files: number of files.
        contents: number of distinct contents.
        size: bytes of all files.
    """

    verdict: Verdict
    kind: str
    reason: str
    files: int
    contents: int
    size: int


class GroupContent(NamedTuple):
    """One content of a group. `example`: its first file by path; `files`: number of files."""

    example: JudgedFile
    files: int


_COLUMNS = "path, size, verdict, reason, format, width, height, content_hash, sha256, near"
_SCHEMA = """
    CREATE TABLE files (path BLOB, size INTEGER, verdict TEXT, reason TEXT, format TEXT,
        width INTEGER, height INTEGER, content_hash BLOB, sha256 BLOB, near BLOB, url_md5 BLOB, kind TEXT);
"""
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


def _kind(reason: str) -> str:
    return _NUMBER.sub("N", reason)


class Findings:
    """Everything that an inspection found. `inspect_cache` creates it; use it in one thread.

    Attributes:
        checked: number of judged files.
        counts: judged files by verdict.
        bytes: size of all judged files.
        ignored: number of files that the walk skipped.
        failed: number of files and folders that could not be read.
        failures: `(path, reason)` of the first of those.
    """

    def __init__(self, db: ScratchDatabase) -> None:
        self._db = db
        self.checked = 0
        self.bytes = 0
        self.counts: Counter[Verdict] = Counter(dict.fromkeys(VERDICTS, 0))
        self.ignored = 0
        self.failed = 0
        self.failures = Failures()

    @property
    def flagged(self) -> int:
        return self.checked - self.counts["ok"]

    def files(self) -> Iterator[JudgedFile]:
        """Yield every file, ordered by path."""
        return self._judged("ORDER BY path")

    def flagged_files(self, limit: int = -1) -> Iterator[JudgedFile]:
        """Yield files that are not `ok`, ordered by path."""
        return self._judged("WHERE verdict <> 'ok' ORDER BY path LIMIT ?", limit)

    def groups(self) -> list[FlaggedGroup]:
        """Group files that are not `ok`: in the order of `VERDICTS`, then the largest groups first."""
        rows = self._db.rows(
            "SELECT verdict, kind, CASE WHEN min(reason) = max(reason) THEN min(reason) ELSE kind END,"
            " count(*), count(DISTINCT sha256), sum(size)"
            " FROM files WHERE verdict <> 'ok' GROUP BY verdict, kind"
        )
        groups = [FlaggedGroup._make(row) for row in rows]
        return sorted(groups, key=lambda g: (VERDICTS.index(g.verdict), -g.files, g.kind))

    def contents(self, group: FlaggedGroup, limit: int = -1) -> Iterator[GroupContent]:
        """Yield the contents of a group, those with the most files first."""
        # In SQLite, bare columns beside min() come from the row that has the minimum.
        rows = self._db.rows(
            f"SELECT min(path), {_COLUMNS.removeprefix('path, ')}, count(*) AS number"  # noqa: S608
            " FROM files WHERE verdict <> 'ok' AND verdict = ? AND kind = ?"
            " GROUP BY sha256 ORDER BY number DESC, reason, min(path) LIMIT ?",
            (group.verdict, group.kind, limit),
        )
        return (GroupContent(JudgedFile._make(row[:-1]), row[-1]) for row in rows)

    def paths(
        self, group: FlaggedGroup, sha256: bytes | None = None, limit: int = -1
    ) -> list[bytes]:
        """Return the sorted paths of a group's files, or only of those with one content."""
        condition, values = ("", ()) if sha256 is None else (" AND sha256 = ?", (sha256,))
        rows = self._db.rows(
            "SELECT path FROM files WHERE verdict <> 'ok' AND verdict = ? AND kind = ?"  # noqa: S608
            f"{condition} ORDER BY path LIMIT ?",
            (group.verdict, group.kind, *values, limit),
        )
        return [row[0] for row in rows]

    def _judged(self, clause: str, *values: int) -> Iterator[JudgedFile]:
        rows = self._db.rows(f"SELECT {_COLUMNS} FROM files {clause}", values)  # noqa: S608
        return (JudgedFile._make(row) for row in rows)

    def add(self, judged: Sequence[JudgedFile]) -> None:
        """Add judged files."""
        marks = ",".join("?" * 12)
        self._db.execute_many(
            f"INSERT INTO files VALUES ({marks})",  # noqa: S608
            [
                (*file, file.url_md5, "" if file.verdict == "ok" else _kind(file.reason))
                for file in judged
            ],
        )

    def fail(self, path: str, reason: str) -> None:
        """Note a file or folder that could not be read."""
        self.failed += 1
        self.failures.note(path, reason)

    def settle(self, placeholder_photos: int) -> None:
        """Finish: call contents that too many URLs share placeholders, and count by verdict.

        Only `ok` files change: `blank` says more about a file than "shared by many".
        """
        self._db.execute(
            "CREATE TABLE crowds AS SELECT sha256, count(DISTINCT url_md5) AS urls FROM files"
            " WHERE verdict = 'ok' GROUP BY sha256 HAVING urls >= ?",
            (placeholder_photos,),
        )
        self._db.execute("CREATE UNIQUE INDEX crowd ON crowds (sha256)")
        numbers = self._db.rows("SELECT DISTINCT urls FROM crowds")
        reasons = [
            (n, shared_reason(n, "URLs"), _kind(shared_reason(n, "URLs"))) for (n,) in numbers
        ]
        self._db.execute("CREATE TABLE reasons (urls INTEGER PRIMARY KEY, reason TEXT, kind TEXT)")
        self._db.execute_many("INSERT INTO reasons VALUES (?, ?, ?)", reasons)
        self._db.execute(
            "UPDATE files SET verdict = 'placeholder', (reason, kind) ="
            " (SELECT reason, kind FROM crowds JOIN reasons USING (urls)"
            "  WHERE crowds.sha256 = files.sha256)"
            " WHERE verdict = 'ok' AND sha256 IN (SELECT sha256 FROM crowds)"
        )
        self._db.execute(
            "CREATE INDEX flagged ON files (verdict, kind, sha256, path) WHERE verdict <> 'ok'"
        )
        for verdict, number, size in self._db.rows(
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
    """Judge every file of a cache. The findings exist as long as the block.

    Args:
        root: the cache's folder.
        extensions: extensions of image files.
        level: level of inspection.
        placeholder_photos: a content that this many URLs share is a placeholder. A cache alone does
            not know which URLs show the same photo, so it counts file names.
        known_bad: hashes of contents that are known placeholders.
        readers: number of threads; by the number of processors if None.
        progress: receives the progress of the run.

    Raises:
        CacheError: the cache's folder cannot be read, or has files, but none of a cache.
        StateError: there is no room for the temporary database.
    """
    count = ScanCount()
    need = "about 240 bytes a file of the cache"
    with ScratchDatabase(_SCHEMA, cache_kib=16384, need=need) as db:
        findings = Findings(db)
        entries = _entries(walk(root, extensions, count))
        decodes = level == "decode"
        files, nbytes = _totals(walk(root, extensions, ScanCount()))
        progress.begin(Stage("files judged", files, nbytes if decodes else None))
        for judged, failures in judge_all(root, entries, level, known_bad, readers):
            findings.add(judged)
            for path, reason in failures:
                findings.fail(path, reason)
            # At other levels the size of a file says nothing about the bytes that were read.
            size = sum(file.size for file in judged) if decodes else 0
            progress.advance(len(judged) + len(failures), size)
        findings.ignored = count.ignored
        if count.links:
            progress.say(count.links_warning, "warning")
        for path, reason in count.failures():
            findings.fail(path, reason)
        findings.settle(placeholder_photos)
        if count.ignored and not findings.checked and not findings.failed:
            raise misnamed(root, count)
        yield findings


def _totals(files: Iterable[tuple[bytes, int, int, int]]) -> tuple[int, int]:
    """The number and the bytes of files. A walk takes far less time than judging them."""
    count = total = 0
    for _, size, _, _ in files:
        count += 1
        total += size
    return count, total


_Batch = tuple[list[JudgedFile], list[tuple[str, str]]]


def judge_all(
    root: bytes,
    entries: Iterator[Entry],
    level: Level,
    known_bad: frozenset[bytes],
    readers: int | None,
) -> Iterator[_Batch]:
    """Yield verdicts and failures batch by batch, from `readers` threads.

    The arguments are those of `inspect_cache`. Each batch is `(judged, [(path, reason), …])`.
    """
    return read_batches(partial(_judge, root, level, known_bad), entries, readers=readers)


def _judge(root: bytes, level: Level, known_bad: frozenset[bytes], entries: list[Entry]) -> _Batch:
    """Runs in a thread. The bytes of each file are freed before the next is read."""
    judged: list[JudgedFile] = []
    failures: list[tuple[str, str]] = []
    for entry in entries:
        prepared = prepare(root, entry, level, known_bad=known_bad)
        if not isinstance(prepared, Prepared):
            failures.append((display(entry.path), prepared.reason))
            continue
        digest, found = prepared.digest, prepared.inspection
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
                found.near,
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


def shown(path: bytes) -> str:
    """Return a path as text that is safe to show to a person."""
    return printable(display(path))
