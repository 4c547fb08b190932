"""Read, hash and judge files of the cache. Runs in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Literal, NamedTuple, TypeVar

from mirror.cache.scan import Entry
from mirror.content import digest
from mirror.content.digest import WHOLE_UP_TO, Digest, FileChanged, Identity
from mirror.content.image import Inspection, Level, inspect, judged_by_magic
from mirror.content.placeholder import with_known_bad

T = TypeVar("T")

# A thread gets several files at a time: handing over one costs as much as reading several small files.
BATCH_FILES = 64
BATCH_BYTES = 4 << 20
# Reader threads of a command that does nothing else.
_READERS: Final = max(2, os.cpu_count() or 2)
# Batches that are queued for each reader.
_BATCHES_A_READER: Final = 4
# Files above `WHOLE_UP_TO` are not decoded: photographs are smaller, and the threads share memory.
_TOO_LARGE = "not inspected: too large"


class Prepared(NamedTuple):
    """A file that was read and judged.

    Attributes:
        entry: the file at the time it was read, which may be newer than the scan.
        body: all its bytes; None above `WHOLE_UP_TO`.
    """

    entry: Entry
    digest: Digest
    inspection: Inspection
    body: bytes | None


class Unprepared(NamedTuple):
    """A file that could not be read. `reason` is for the report."""

    entry: Entry
    reason: str


def prepare(
    root: bytes,
    entry: Entry,
    level: Level,
    *,
    known_bad: frozenset[bytes] = frozenset(),
    flagged: Container[bytes] = (),
) -> Prepared | Unprepared:
    """Read and judge one file.

    Args:
        root: the cache's folder.
        entry: the file as the scan saw it.
        level: how far to inspect it.
        known_bad: hashes of contents that are known placeholders.
        flagged: content hashes that the catalog flags. A file with one of them is decoded at
            every level, because a lower level cannot refute the flag.
    """
    try:
        read = digest.read(root + b"/" + entry.path, keep_up_to=WHOLE_UP_TO)
    except FileChanged:
        return Unprepared(entry, "changed while it was read; left for the next run")
    except FileNotFoundError:
        return Unprepared(entry, "vanished before it was read")
    except OSError as error:
        return Unprepared(entry, f"cannot be read: {error.strerror or error}")
    if read.digest.content_hash in flagged:
        level = "decode"
    try:
        if read.body is None:
            inspection = judged_by_magic(read.head, level)
            if inspection.verdict == "ok":
                inspection = inspection._replace(reason=_TOO_LARGE)
        else:
            inspection = inspect(read.body, level)
    except Exception as error:  # noqa: BLE001 - one unexpected file must not end the run
        return Unprepared(entry, f"could not be judged: {error!r}")
    inspection = with_known_bad(inspection, read.digest, known_bad)
    # The scan sets no inode where inodes are not to be compared.
    identity = read.identity if entry.identity.inode else read.identity._replace(inode=0)
    return Prepared(Entry(entry.path, identity), read.digest, inspection, read.body)


def prepare_all(
    root: bytes,
    entries: Sequence[Entry],
    level: Level,
    known_bad: frozenset[bytes],
    flagged: Container[bytes] = (),
) -> list[Prepared | Unprepared]:
    """`prepare` for a batch of files."""
    return [prepare(root, entry, level, known_bad=known_bad, flagged=flagged) for entry in entries]


def judge_place(
    root: bytes, path: bytes, known_bad: frozenset[bytes]
) -> Literal["empty", "good", "bad", "unreadable"]:
    """Judge what is at a path of the cache now: `unreadable` for everything that is not a file.

    Args:
        root: the cache's folder.
        path: relative to it.
        known_bad: hashes of contents that are known placeholders.
    """
    try:
        status = os.lstat(os.path.join(root, path))
    except FileNotFoundError:
        return "empty"
    except OSError:
        return "unreadable"
    prepared = prepare(root, Entry(path, Identity.of(status)), "decode", known_bad=known_bad)
    if not isinstance(prepared, Prepared):
        return "unreadable"
    return "good" if prepared.inspection.verdict == "ok" else "bad"


def batches(entries: Iterable[Entry], max_files: int = BATCH_FILES) -> Iterator[list[Entry]]:
    """Group entries for `prepare_all`: up to `max_files`, fewer if they are large."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.identity.size
        if len(batch) >= max_files or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def read_batches(
    read: Callable[[list[Entry]], T],
    entries: Iterable[Entry],
    *,
    readers: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[T]:
    """Read batches of files in a pool of threads; yields the results in order.

    At most a few batches for each thread are under way, so memory does not grow with the cache.

    Args:
        read: reads one batch, in a thread.
        entries: the files.
        readers: number of threads; by the number of processors if None.
        stopped: once true, no further batch begins; those under way are still yielded.
    """
    readers = readers or _READERS
    pool = ThreadPoolExecutor(readers, "read")
    under_way: deque[Future[T]] = deque()
    try:
        for batch in batches(entries):
            if stopped():
                break
            under_way.append(pool.submit(read, batch))
            if len(under_way) >= readers * _BATCHES_A_READER:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
