"""Move flagged files from the cache to a folder, or back. Nothing is deleted or overwritten.

    inspect (or read the manifest) ──► plan a batch ──► manifest, flushed ──► move ──► …

A dry run stops after the plan. The next run completes one that was killed: it removes the old name
of a file that has both names. From the manifest it knows placeholders whose other copies were
already moved.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mirror.cache.cache_writer import CacheWriter
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
from mirror.system.database import ScratchDatabase

_BATCH = 64
# Names of moved files that a report shows.
_EXAMPLES = 20


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class QuarantineReport:
    """The result of `quarantine` or `restore`. A dry run counts the files that it would move.

    Attributes:
        checked: files of the cache that were judged; for `restore`, files in the manifest.
        skipped: files that stay, because they changed or the other place has another file.
        failures: `(path, reason)` of the first skipped and failed files.
        bytes: size of the files that were moved or restored.
        verdicts: number of those files by verdict.
        examples: paths of the first of those files.
        absent: files in the manifest that are no longer in the quarantine.
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
        """Count a file that stays where it is."""
        self.skipped += 1
        self.failures.note(path, reason)

    def fail(self, path: str, reason: str) -> None:
        """Count a file that could not be read or moved."""
        self.failed += 1
        self.failures.note(path, reason)

    def done(self, line: ManifestLine) -> None:
        """Count a file that was moved or restored."""
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
    """Move the files that an inspection flags out of the cache.

    Args:
        root: the cache's folder.
        folder: receives the files, under their paths in the cache.
        dry_run: change nothing; report what would be moved.
        known_bad: as in `inspect_cache`; placeholders already in quarantine are added.
        now: the time for the manifest.
        progress: as in `inspect_cache`.
        inspection: the other arguments of `inspect_cache`.

    Raises:
        UsageError: one of the folders is inside the other.
        CacheError: the cache cannot be read.
        MirrorError: the folder cannot be used.
        Busy: another run uses the folder.
    """
    _require_apart(root, folder)
    report = QuarantineReport(str(folder / quarantine_manifest.NAME), dry_run)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(locked(folder, "quarantine", ".lock", _unusable))
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
                "quarantine", file.path, file.verdict, file.reason, file.size,
                file.content_hash, file.sha256, at,
            )
            for file in findings.flagged_files()
        )  # fmt: skip
        source = stack.enter_context(_cache(root))
        target = stack.enter_context(SafeFolder(os.fsencode(folder))) if folder.is_dir() else None
        _carry_out(report, lines, source, target, folder)
    return report


def restore(
    root: bytes, folder: Path, *, dry_run: bool, now: Callable[[], datetime] = _now
) -> QuarantineReport:
    """Move quarantined files back to the cache, as the manifest of the folder lists them.

    Args:
        root: the cache's folder.
        folder: the quarantine.
        dry_run: change nothing; report what would be restored.
        now: the time for the manifest.

    Raises:
        UsageError: the folder has no manifest, or one of the folders is inside the other.
        CacheError: the cache cannot be opened.
        MirrorError: the folder cannot be used.
        Busy: another run uses the folder, or is writing to the cache.
    """
    _require_apart(root, folder)
    if not (folder / quarantine_manifest.NAME).is_file():
        raise UsageError(
            f"{folder} has no {quarantine_manifest.NAME}, so nothing was quarantined there; "
            "name the folder that you gave with --to."
        )
    report = QuarantineReport(str(folder / quarantine_manifest.NAME), dry_run)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(locked(folder, "quarantine", ".lock", _unusable))
        latest = stack.enter_context(_latest_lines(folder, report))
        target = stack.enter_context(_cache(root))
        if not dry_run:
            stack.enter_context(CacheWriter(target, root).alone("quarantine"))
        source = stack.enter_context(SafeFolder(os.fsencode(folder)))
        at = now().isoformat(timespec="seconds")
        lines = (line._replace(action="restore", time=at) for line in latest)
        _carry_out(report, lines, source, target, folder)
    return report


class _Planned(NamedTuple):
    """The plan for one file. `found` identifies a file that will be moved."""

    line: ManifestLine
    found: ReadIdentity | None
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
            _append(folder, [plan.line for plan in planned if plan.outcome == "move"])
        for plan in planned:
            if plan.outcome == "move" and not report.dry_run:
                assert target is not None
                plan = _move(plan, source, target)  # noqa: PLW2901
            _note(report, plan)


def _plan(line: ManifestLine, source: SafeFolder, target: SafeFolder | None) -> _Planned:
    """Plan one file. Its content now decides, not its content when it was judged.

    | in the source         | in the target   | plan                                            |
    |-----------------------|-----------------|-------------------------------------------------|
    | nothing               |                 | absent                                          |
    | another content       |                 | skip: changed                                   |
    | the content           | nothing         | move                                            |
    | the content           | the same        | move: a killed run left both, or both are links |
    | the content           | another         | skip: never overwritten                         |
    """
    expected = Digest(line.content_hash, line.sha256, line.size)
    try:
        found = source.read(line.path)
        if found is None:
            return _Planned(line, None, "absent")
        if found.digest != expected:
            return _Planned(line, None, "skip", "is no longer the file that was judged")
        other = None if target is None else target.read(line.path)
    except OSError as error:
        return _Planned(line, None, "fail", _sentence(error))
    if other is not None and other.digest != expected:
        return _Planned(line, None, "skip", "another file is in its place already")
    return _Planned(line, found, "move")


def _move(planned: _Planned, source: SafeFolder, target: SafeFolder) -> _Planned:
    assert planned.found is not None
    try:
        if move(source, target, planned.line.path, planned.found):
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
        return "its path has a symbolic link or a file in place of a folder; it is left alone"
    return f"cannot be moved: {error.strerror or error}"


def _require_apart(root: bytes, folder: Path) -> None:
    """Raise UsageError if a scan of the cache would find the quarantine, or the other way round."""
    cache, to = os.path.realpath(os.fsdecode(root)), os.path.realpath(folder)
    if _below(cache, to) is not None:
        raise UsageError(
            f"{folder} is the cache or contains it; name a folder beside the cache with --to."
        )
    names = _below(to, cache)
    if names is not None and not any(name.startswith(".") for name in names):
        raise UsageError(
            f"{folder} is in the cache, where its files would be judged and synced again; "
            "name a folder elsewhere, or one whose name begins with a dot."
        )


def _below(path: str, folder: str) -> list[str] | None:
    """Return the names from `folder` down to `path`, last one first; None if it is not below.

    It compares the folders themselves, because one folder may have several paths: by a bind mount,
    or on a disk that treats `Cache` and `cache` alike.
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
    with suppress(OSError):  # the quarantine may not exist yet
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
        "for this user, or name another folder with --to. No further file was moved."
    )


def _placeholders_of(folder: Path) -> frozenset[bytes]:
    """SHA-256 of contents that were quarantined as placeholders and not restored since."""
    found: dict[bytes, Action] = {
        line.sha256: line.action
        for line in _read(folder)
        if isinstance(line, ManifestLine) and line.verdict == "placeholder"
    }
    return frozenset(content for content, action in found.items() if action == "quarantine")


@contextmanager
def _latest_lines(folder: Path, report: QuarantineReport) -> Iterator[Iterable[ManifestLine]]:
    """The last line of each path, ordered by path. On disk, because there may be a million."""
    columns = ", ".join(f'"{name}"' for name in ManifestLine._fields)
    marks = ",".join("?" * len(ManifestLine._fields))
    schema = f"CREATE TABLE lines ({columns}, PRIMARY KEY (path)) WITHOUT ROWID"
    with ScratchDatabase(schema) as db:
        for line in _read(folder):
            if isinstance(line, ManifestLine):
                db.execute(f"INSERT OR REPLACE INTO lines VALUES ({marks})", line)  # noqa: S608
            else:
                report.fail(f"{quarantine_manifest.NAME}, line {line.number}", line.reason)
        (report.checked,) = db.row("SELECT count(*) FROM lines")
        rows = db.rows(f"SELECT {columns} FROM lines ORDER BY path")  # noqa: S608
        yield (ManifestLine._make(row) for row in rows)
