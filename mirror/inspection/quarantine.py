"""Flagged files out of the cache into a folder, or back. Nothing is deleted, nothing overwritten.

    inspect (or read the manifest) ──► plan a batch ──► manifest, flushed ──► move ──► …

A dry run stops after the plan. A run that is killed is completed by the next one: a file that has
both names loses the first, a placeholder is known from the manifest though its crowd has gone.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mirror.cache.safe_folder import ReadIdentity, SafeFolder, move
from mirror.cache.scan import display, unreadable
from mirror.content.digest import Digest
from mirror.errors import (
    EXIT_DONE,
    EXIT_SOME_FAILED,
    MirrorError,
    UsageError,
)
from mirror.inspection import quarantine_manifest
from mirror.inspection.inspect_cache import inspect_cache
from mirror.inspection.quarantine_manifest import Action, BadManifestLine, ManifestLine
from mirror.run.failures import Failures
from mirror.run.lock import locked
from mirror.run.progress import Progress

_BATCH = 64
# Names that a report shows of what was moved.
_EXAMPLES = 20


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class QuarantineReport:
    """Counts are files; in a dry run they are what would be done.

    Attributes:
        checked: files of the cache that were judged, or of the manifest that were looked for.
        skipped: what stays where it is, because something else is in its place or it changed.
        failures: `(path, reason)` of the first of the skipped and failed.
        bytes: of what was moved or restored.
        verdicts: of what was moved or restored.
        examples: paths of the first of them.
        absent: files of the manifest that are not in the quarantine any more.
    """

    manifest: str
    dry_run: bool
    checked: int = 0
    moved: int = 0
    restored: int = 0
    skipped: int = 0
    failed: int = 0
    failures: Failures = field(default_factory=Failures)
    bytes: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    absent: int = 0

    @property
    def exit_status(self) -> int:
        return EXIT_SOME_FAILED if self.skipped or self.failed else EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        return {
            "checked": self.checked,
            "moved": self.moved,
            "restored": self.restored,
            "skipped": self.skipped,
            "failed": self.failed,
            "failures": self.failures.as_json(),
            "bytes": self.bytes,
            "dry_run": self.dry_run,
            "manifest": self.manifest,
        }

    def skip(self, path: str, reason: str) -> None:
        self.skipped += 1
        self.failures.note(path, reason)

    def fail(self, path: str, reason: str) -> None:
        self.failed += 1
        self.failures.note(path, reason)

    def done(self, line: ManifestLine) -> None:
        if line.action == "quarantine":
            self.moved += 1
        else:
            self.restored += 1
        self.bytes += line.size
        self.verdicts[line.verdict] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(display(line.path))


def quarantine(
    root: bytes,
    folder: Path,
    *,
    dry_run: bool,
    known_bad: frozenset[bytes] = frozenset(),
    now: Callable[[], datetime] = _now,
    progress: Progress = Progress(),
    **inspection: Any,
) -> QuarantineReport:
    """Move what an inspection flags out of the cache.

    Args:
        root: the cache's folder.
        folder: gets the files under the paths that they have in the cache.
        dry_run: only say what would be done.
        known_bad: as `inspect_cache` has it; placeholders that are quarantined belong to it.
        now: for the manifest.
        progress: as `inspect_cache` has it.
        inspection: the other arguments of `inspect_cache`.

    Raises:
        UsageError: the folder is in the cache, or the cache in it.
        CacheError: the cache cannot be read.
        MirrorError: the folder cannot be used.
        Busy: another run is at work on the folder.
    """
    _require_apart(root, folder)
    report = QuarantineReport(str(folder / quarantine_manifest.NAME), dry_run)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(locked(folder, ".lock", _unusable))
        known_bad |= _placeholders_of(folder)
        findings = stack.enter_context(
            inspect_cache(root, **inspection, known_bad=known_bad, progress=progress)
        )
        report.checked = findings.checked
        for path, reason in findings.failures:
            report.fail(path, reason)
        report.failed = findings.failed
        at = now().isoformat(timespec="seconds")
        lines = (
            ManifestLine(
                "quarantine", one.path, one.verdict, one.reason, one.size,
                one.content_hash, one.sha256, at,
            )
            for one in findings.flagged_files()
        )  # fmt: skip
        source = stack.enter_context(_cache(root))
        target = stack.enter_context(SafeFolder(os.fsencode(folder))) if folder.is_dir() else None
        _carry_out(report, lines, source, target, folder)
    return report


def restore(
    root: bytes, folder: Path, *, dry_run: bool, now: Callable[[], datetime] = _now
) -> QuarantineReport:
    """Move back into the cache what the folder's manifest says came from there.

    Args:
        root: the cache's folder.
        folder: the quarantine.
        dry_run: only say what would be done.
        now: for the manifest.

    Raises:
        UsageError: the folder has no manifest, or is in the cache, or the cache in it.
        CacheError: the cache cannot be opened.
        MirrorError: the folder cannot be used.
        Busy: another run is at work on the folder.
    """
    _require_apart(root, folder)
    if not (folder / quarantine_manifest.NAME).is_file():
        raise UsageError(
            f"{folder} has no {quarantine_manifest.NAME}, so nothing was quarantined there; "
            "name the folder that --to named."
        )
    report = QuarantineReport(str(folder / quarantine_manifest.NAME), dry_run)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(locked(folder, ".lock", _unusable))
        latest = stack.enter_context(_latest_lines(folder, report))
        target = stack.enter_context(_cache(root))
        source = stack.enter_context(SafeFolder(os.fsencode(folder)))
        at = now().isoformat(timespec="seconds")
        lines = (line._replace(action="restore", time=at) for line in latest)
        _carry_out(report, lines, source, target, folder)
    return report


class _Planned(NamedTuple):
    """What is to be done with one file: move it, or leave it and say why."""

    line: ManifestLine
    seen: ReadIdentity | None
    outcome: Literal["move", "skip", "fail", "absent"]
    reason: str = ""


def _carry_out(
    report: QuarantineReport,
    lines: Iterator[ManifestLine],
    source: SafeFolder,
    target: SafeFolder | None,
    folder: Path,
) -> None:
    while batch := list(islice(lines, _BATCH)):
        planned = [_plan(line, source, target) for line in batch]
        if not report.dry_run:
            _append(folder, [one.line for one in planned if one.outcome == "move"])
        for one in planned:
            if one.outcome == "move" and not report.dry_run:
                assert one.seen is not None
                assert target is not None
                one = _moved(one, source, target)  # noqa: PLW2901
            _note(report, one)


def _plan(line: ManifestLine, source: SafeFolder, target: SafeFolder | None) -> _Planned:
    """One file's plan. What it holds now decides, not what it held when it was judged.

    | in the source         | in the target   | plan                                       |
    |-----------------------|-----------------|--------------------------------------------|
    | nothing               |                 | absent                                     |
    | another content       |                 | skip: changed                              |
    | the content           | nothing         | move                                       |
    | the content           | the same        | move: a killed run left both, or it is one |
    | the content           | another         | skip: never overwritten                    |
    """
    expected = Digest(line.content_hash, line.sha256, line.size)
    try:
        seen = source.read(line.path)
        if seen is None:
            return _Planned(line, None, "absent")
        if seen.digest != expected:
            return _Planned(line, None, "skip", "is not the file that was judged any more")
        there = None if target is None else target.read(line.path)
    except OSError as error:
        return _Planned(line, None, "fail", _sentence(error))
    if there is not None and there.digest != expected:
        return _Planned(line, None, "skip", "another file is in its place already")
    return _Planned(line, seen, "move")


def _moved(planned: _Planned, source: SafeFolder, target: SafeFolder) -> _Planned:
    assert planned.seen is not None
    try:
        if move(source, target, planned.line.path, planned.seen):
            return planned
    except FileExistsError:
        return planned._replace(outcome="skip", reason="another file is in its place already")
    except OSError as error:
        return planned._replace(outcome="fail", reason=_sentence(error))
    return planned._replace(outcome="skip", reason="changed while it was moved")


def _note(report: QuarantineReport, planned: _Planned) -> None:
    path = display(planned.line.path)
    if planned.outcome == "move":
        report.done(planned.line)
    elif planned.outcome == "skip":
        report.skip(path, planned.reason)
    elif planned.outcome == "fail":
        report.fail(path, planned.reason)
    else:
        report.absent += 1


def _sentence(error: OSError) -> str:
    import errno

    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "a symbolic link, or no folder, is on its way; it is left alone"
    return f"cannot be moved: {error.strerror or error}"


def _require_apart(root: bytes, folder: Path) -> None:
    """The cache's scan must not meet what was moved out, nor the moves what is in the cache."""
    cache, to = os.path.realpath(os.fsdecode(root)), os.path.realpath(folder)
    if _below(cache, to) is not None:
        raise UsageError(
            f"{folder} is the cache, or holds it; name a folder beside the cache with --to."
        )
    names = _below(to, cache)
    if names is not None and not any(name.startswith(".") for name in names):
        raise UsageError(
            f"{folder} is in the cache, where its files would be judged and synced again; "
            "name one elsewhere, or one whose name begins with a dot."
        )


def _below(path: str, folder: str) -> list[str] | None:
    """Names on the way from a folder to what is in it, however both are called; None if it is not.

    A bind mount, or a disk that takes `Cache` for `cache`, gives one folder several paths.
    """
    names: list[str] = []
    while not _is_one_folder(path, folder):
        above, name = os.path.split(path)
        if above == path:
            return None
        path = above
        names.append(name)
    return names


def _is_one_folder(path: str, other: str) -> bool:
    with suppress(OSError):  # the quarantine need not be there yet
        return os.path.samefile(path, other)
    return path == other


def _cache(root: bytes) -> SafeFolder:
    try:
        return SafeFolder(root)
    except OSError as error:
        raise unreadable(root, error) from None


def _append(folder: Path, lines: list[ManifestLine]) -> None:
    if not lines:
        return
    try:
        quarantine_manifest.append(folder, lines)
    except OSError as error:
        raise _unusable(folder, error) from None


def _read(folder: Path) -> Iterator[ManifestLine | BadManifestLine]:
    try:
        yield from quarantine_manifest.read(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(folder, error) from None


def _unusable(folder: Path, error: OSError) -> MirrorError:
    return MirrorError(
        f"The quarantine {folder} cannot be used ({error.strerror}); make it readable and writable "
        "for this user, or name another folder with --to. Nothing more was moved."
    )


def _placeholders_of(folder: Path) -> frozenset[bytes]:
    """Contents that were quarantined as placeholders and not brought back since."""
    found: dict[bytes, Action] = {
        line.sha256: line.action
        for line in _read(folder)
        if isinstance(line, ManifestLine) and line.verdict == "placeholder"
    }
    return frozenset(content for content, action in found.items() if action == "quarantine")


@contextmanager
def _latest_lines(folder: Path, report: QuarantineReport) -> Iterator[Iterable[ManifestLine]]:
    """The last line of each path, in the order of paths; on disk, for there may be a million."""
    db = sqlite3.connect("", isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = OFF")
        columns = ", ".join(f'"{name}"' for name in ManifestLine._fields)
        db.execute(f"CREATE TABLE lines ({columns}, PRIMARY KEY (path)) WITHOUT ROWID")
        marks = ",".join("?" * len(ManifestLine._fields))
        for line in _read(folder):
            if isinstance(line, ManifestLine):
                db.execute(f"INSERT OR REPLACE INTO lines VALUES ({marks})", line)  # noqa: S608
            else:
                report.fail(f"{quarantine_manifest.NAME}, line {line.number}", line.reason)
        report.checked = db.execute("SELECT count(*) FROM lines").fetchone()[0]
        rows = db.execute(f"SELECT {columns} FROM lines ORDER BY path")  # noqa: S608
        yield (ManifestLine._make(row) for row in rows)
    finally:
        with suppress(sqlite3.Error):
            db.close()
