"""A file → all that is to be known about it: read once, hashed, judged. Runs in threads."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from mirror.cache.scan import Entry
from mirror.content import digest
from mirror.content.digest import WHOLE_UP_TO, Digest, FileChanged
from mirror.content.image import Inspection, Level, inspect, judged_by_magic
from mirror.content.placeholder import with_known_bad

# Files that go to a thread together: one hop costs as much as reading several small files.
BATCH_FILES = 64
BATCH_BYTES = 4 << 20
# Pixels of files that large are not decoded: no photograph of a dataset is, and memory is shared.
_TOO_LARGE = "not inspected: too large"


class Prepared(NamedTuple):
    """A file that was read. `entry` is as it was when read, which may be later than the scan.

    `body` is None for a file above `WHOLE_UP_TO`.
    """

    entry: Entry
    digest: Digest
    inspection: Inspection
    body: bytes | None

    def judged_again(self, known_bad: frozenset[bytes]) -> Prepared:
        """This, with the verdict that a list of known placeholders gives it."""
        found = with_known_bad(self.inspection, self.digest, known_bad)
        return self if found is self.inspection else self._replace(inspection=found)


class Unprepared(NamedTuple):
    """A file that could not be read as it stood. `reason` is for the report."""

    entry: Entry
    reason: str


def prepare(
    root: bytes, entry: Entry, level: Level, flagged: Container[bytes] = ()
) -> Prepared | Unprepared:
    """Read and judge one file.

    Args:
        root: the cache's folder.
        entry: the file as the scan saw it.
        level: how far to inspect it,
        flagged: but in full if it has one of these contents, by content hash: somebody found them
            bad, which a shorter look cannot refute.
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
    except Exception as error:  # noqa: BLE001 - one file that confuses us must not end the run
        return Unprepared(entry, f"could not be judged: {error!r}")
    return Prepared(Entry(entry.path, read.identity), read.digest, inspection, read.body)


def prepare_all(
    root: bytes, entries: Sequence[Entry], level: Level, flagged: Container[bytes] = ()
) -> list[Prepared | Unprepared]:
    """`prepare` for several files at once: one hop to a thread costs as much as a small file."""
    return [prepare(root, entry, level, flagged) for entry in entries]


def batches(entries: Iterable[Entry], most: int = BATCH_FILES) -> Iterator[list[Entry]]:
    """Entries in groups for `prepare_all`: at most so many at a time, and fewer where they are large."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.identity.size
        if len(batch) >= most or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
