"""Compares the cache with the local state, and plans what there is to do, as a value.

    | signature known | path known | the file is                          |
    |-----------------|------------|--------------------------------------|
    | yes, in place   |     –      | unchanged: not opened, no request    |
    | yes, vanished   |     –      | unchanged: it has come back          |
    | no              |    yes     | changed:   read, inspected, uploaded |
    | no              |    no      | new:       read, inspected, uploaded |

A file whose signature is known, which the walk did not meet and whose path did not change, has
vanished. It is counted, and nothing is deleted anywhere. If it comes back with other bytes it is new.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mirror.cache.scan import SIGNATURE_BYTES, Entries, File, ScanCount, signature
from mirror.catalog.cost import CostEstimate, sync_estimate
from mirror.config.settings import PriceSettings

_CHUNK = 1 << 14


class KnownFiles(Protocol):
    """The part of the state that planning needs."""

    def signatures(self, *, gone: bool) -> bytes: ...

    def signatures_of(self, paths: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]: ...


@dataclass(frozen=True, slots=True)
class FileSelection:
    """Which files a run covers.

    Attributes:
        prefix: only URLs whose MD5 begins with these hex digits, in lower case.
        members: only these `url_md5`, when not None.
        max_files: at most this many new or changed files.
    """

    prefix: str = ""
    members: Callable[[bytes], bool] | None = None
    max_files: int | None = None

    @property
    def everything(self) -> bool:
        """Whether it covers all files of the cache."""
        return not self.prefix and self.members is None

    def covers(self, path: bytes) -> bool:
        name = os.path.basename(path)[:32].lower()
        if self.prefix and not name.startswith(self.prefix.encode()):
            return False
        return self.members is None or self.members(bytes.fromhex(name.decode()))


@dataclass
class SyncPlan:
    """What a sync will do. Planning opens no file and sends no request.

    Attributes:
        scanned: files that the walk met and the selection covers.
        ignored: other files in the folder.
        pending: new and changed files, to be read.
        order: positions in `pending`, in the order to read them.
        vanished_signatures: known files that are no longer in the cache.
        returned_signatures: vanished files that have come back unchanged.
        emptied_of: files that the state knows, vanished ones among them, where the walk met no file.
        unreadable: `(path, reason)` of folders and files that the walk could not read.
    """

    scanned: int = 0
    ignored: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    pending: Entries = field(default_factory=Entries)
    order: Sequence[int] = ()
    vanished_signatures: list[bytes] = field(default_factory=list)
    returned_signatures: list[bytes] = field(default_factory=list)
    emptied_of: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    @property
    def vanished(self) -> int:
        return len(self.vanished_signatures)

    @property
    def pending_bytes(self) -> int:
        return sum(self.pending[at].identity.size for at in self.order)


def make_plan(
    files: Iterable[File],
    count: ScanCount,
    known: KnownFiles,
    selection: FileSelection,
) -> SyncPlan:
    """Compare a walk with the state. Holds 16 bytes a known file and about 80 a pending one.

    Args:
        files: `(path, size, mtime_ns, inode)`, from `scan.walk`, consumed once.
        count: what the walk skipped; complete once `files` is exhausted.
        known: the state.
        selection: which files the run covers.
    """
    plan = SyncPlan()
    present, gone = (_Signatures(known.signatures(gone=gone)) for gone in (False, True))
    changed_signatures: list[bytes] = []
    walked = 0
    for chunk in _chunked(files, _CHUNK):
        walked += len(chunk)
        chosen = chunk if selection.everything else [f for f in chunk if selection.covers(f[0])]
        plan.scanned += len(chosen)
        raw = b"".join(map(signature, chosen))
        joined = np.frombuffer(raw, _SIGNATURE)
        unseen = present.unmatched(joined)
        if len(gone):
            returned = np.setdiff1d(unseen, gone.unmatched(joined), assume_unique=True)
            plan.returned_signatures += [_nth(raw, int(at)) for at in returned]
            unseen = np.setdiff1d(unseen, returned, assume_unique=True)
        plan.unchanged += len(chosen) - len(unseen)
        pending = [chosen[at] for at in unseen]
        if len(present):
            changed_signatures += [s for _, s in known.signatures_of([f[0] for f in pending])]
        for file in pending:
            plan.pending.append(*file)
    plan.changed = len(changed_signatures)
    plan.new = len(plan.pending) - plan.changed
    # An unreadable folder hides its files; they have not vanished.
    if selection.everything and not count.unreadable:
        changed = set(changed_signatures)
        plan.vanished_signatures = [s for s in present.never_matched() if s not in changed]
    if not walked and not count.unreadable:
        plan.emptied_of = len(present) + len(gone)
    plan.order = plan.pending.by_inode()[: selection.max_files]
    plan.ignored, plan.unreadable = count.ignored, count.failures()
    return plan


def estimate(
    plan: SyncPlan, prices: PriceSettings, commit_rows: int, rate: float | None
) -> CostEstimate:
    """Upper bound of what executing a plan costs; the arguments are those of `sync_estimate`."""
    return sync_estimate(len(plan.order), plan.pending_bytes, prices, commit_rows, rate)


# Two integers compare and sort much faster than 16-byte strings; the order is the same.
_SIGNATURE = np.dtype([("hi", ">u8"), ("lo", ">u8")])


class _Signatures:
    """Sorted signatures, each with a mark of whether a file has matched it."""

    def __init__(self, joined: bytes) -> None:
        pairs = np.frombuffer(joined, _SIGNATURE)
        self._raw = joined
        self._hi = pairs["hi"].astype("u8")
        self._lo = pairs["lo"].astype("u8")
        self._matched = np.zeros(len(pairs), bool)

    def __len__(self) -> int:
        return len(self._hi)

    def unmatched(self, signatures: NDArray[Any]) -> NDArray[np.intp]:
        """Positions in `signatures` of those that are unknown; the known ones are marked."""
        hi, lo = signatures["hi"].astype("u8"), signatures["lo"].astype("u8")
        if not len(self):
            return np.arange(len(hi))
        at = np.minimum(np.searchsorted(self._hi, hi), len(self) - 1)
        # Where two signatures share a high half only one is found; the other's file is read again.
        same = (self._hi[at] == hi) & (self._lo[at] == lo)
        self._matched[at[same]] = True
        return np.flatnonzero(~same)

    def never_matched(self) -> Iterator[bytes]:
        for at in np.flatnonzero(~self._matched):
            yield _nth(self._raw, int(at))


def _nth(signatures: bytes, at: int) -> bytes:
    return signatures[at * SIGNATURE_BYTES : (at + 1) * SIGNATURE_BYTES]


def _chunked(files: Iterable[File], size: int) -> Iterator[list[File]]:
    iterator = iter(files)
    while chunk := list(islice(iterator, size)):
        yield chunk
