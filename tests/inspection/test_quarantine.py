"""Quarantine and restore: no file is lost or overwritten."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.cache import safe_folder
from mirror.errors import Busy, CacheError, MirrorError, UsageError
from mirror.inspection import quarantine_manifest
from mirror.inspection.quarantine_manifest import BadManifestLine, ManifestLine
from tests.cli.test_bad_input import OBEYING
from tests.inspection.quarantine_setup import (
    FLAGGED,
    NAME,
    back,
    cache,
    elsewhere,
    lines_of,
    out,
    to,
)
from tests.support.damaged_caches import files_of, judged, put
from tests.support.photos import blank, name_of, photo, url_of

__all__ = ["cache", "elsewhere", "to"]


def test_flagged_files_go_and_good_ones_stay(cache: Path, to: Path) -> None:
    below = put(cache, 700, blank(77), "some/folder")
    before = files_of(cache)
    verdicts = {path: one.verdict for path, one in judged(cache).items()}
    report = out(cache, to)
    flagged = {path for path, verdict in verdicts.items() if verdict != "ok"}
    assert os.fsdecode(below) in flagged
    assert files_of(to) == {path: before[path] for path in flagged}
    assert files_of(cache) == {path: before[path] for path in before.keys() - flagged}
    assert (report.checked, report.moved, report.exit_status) == (26, FLAGGED + 1, 0)
    assert report.bytes == sum(len(before[path]) for path in flagged)


def test_the_manifest_says_what_moved_and_why(cache: Path, to: Path) -> None:
    facts = judged(cache)
    out(cache, to)
    lines = {line["path"]: line for line in lines_of(to)}
    assert lines.keys() == {path for path, one in facts.items() if one.verdict != "ok"}
    for path, line in lines.items():
        one = facts[path]
        assert line["action"] == "quarantine"
        assert (line["verdict"], line["reason"], line["size"]) == (
            one.verdict,
            one.reason,
            one.size,
        )
        assert line["content_hash"] == one.content_hash.hex()
        assert line["sha256"] == one.sha256.hex()
        assert line["time"].endswith("+00:00")


def test_quarantine_and_restore_change_nothing(cache: Path, to: Path) -> None:
    def everything(folder: Path) -> dict[str, tuple[bytes, int, int]]:
        return {
            path: (body, (folder / path).stat().st_mtime_ns, (folder / path).stat().st_mode)
            for path, body in files_of(folder).items()
        }

    before = everything(cache)
    out(cache, to)
    report = back(cache, to)
    assert (report.restored, report.checked, report.exit_status) == (FLAGGED, FLAGGED, 0)
    assert everything(cache) == before
    assert files_of(to) == {}
    again = back(cache, to)
    assert (again.restored, again.absent, again.exit_status) == (0, FLAGGED, 0)
    assert out(cache, to).moved == FLAGGED, "and once more"


def test_a_dry_run_touches_nothing(cache: Path, to: Path) -> None:
    before = files_of(cache)
    report = out(cache, to, dry_run=True)
    assert (report.moved, report.dry_run) == (FLAGGED, True)
    assert not to.exists()
    assert files_of(cache) == before
    out(cache, to)
    text = (to / quarantine_manifest.NAME).read_bytes()
    report = back(cache, to, dry_run=True)
    assert (report.restored, len(files_of(to))) == (FLAGGED, FLAGGED)
    assert (to / quarantine_manifest.NAME).read_bytes() == text


def test_other_file_systems_get_a_copy_that_was_verified(cache: Path, elsewhere: Path) -> None:
    assert elsewhere.parent.stat().st_dev != cache.stat().st_dev
    before = files_of(cache)
    stamps = {path: (cache / path).stat().st_mtime_ns for path in before}
    report = out(cache, elsewhere)
    assert report.moved == len(files_of(elsewhere)) == FLAGGED
    for path, body in files_of(elsewhere).items():
        assert body == before[path]
        assert (elsewhere / path).stat().st_mtime_ns == stamps[path]
    assert back(cache, elsewhere).restored == FLAGGED
    assert files_of(cache) == before


def test_a_damaged_copy_loses_nothing(
    cache: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(cache)
    monkeypatch.setattr(
        safe_folder, "_write_all", lambda file, data: os.write(file, data[:-1] + b"?")
    )
    report = out(cache, elsewhere)
    empty = 1  # an empty file has no bytes to write, so its copy is right
    assert (report.moved, report.skipped) == (empty, FLAGGED - empty)
    assert files_of(cache) | files_of(elsewhere) == before
    assert not list(elsewhere.rglob("*.mirror-part"))


def test_a_full_disk_loses_nothing(
    cache: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = files_of(cache)
    monkeypatch.setattr(safe_folder, "_write_all", full)
    report = out(cache, elsewhere)
    assert (report.moved, report.failed, report.exit_status) == (1, FLAGGED - 1, 3)
    assert all("No space left" in reason for _, reason in report.failures)
    assert files_of(cache) | files_of(elsewhere) == before


def test_file_systems_without_hard_links(
    cache: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    before = files_of(cache)
    taken = next(path for path, one in judged(cache).items() if one.verdict == "blank")
    to.mkdir()
    (to / taken).write_bytes(b"mine")
    monkeypatch.setattr(os, "link", refuse)
    assert (out(cache, to).moved, (to / taken).read_bytes()) == (FLAGGED - 1, b"mine")
    (to / taken).unlink()
    assert back(cache, to).restored == FLAGGED - 1
    assert files_of(cache) == before


def test_an_existing_file_is_never_overwritten(cache: Path, to: Path) -> None:
    taken = next(path for path, one in judged(cache).items() if one.verdict == "blank")
    to.mkdir()
    (to / taken).write_bytes(b"mine")
    for dry_run in (True, False):
        report = out(cache, to, dry_run=dry_run)
        assert (report.moved, report.skipped, report.exit_status) == (FLAGGED - 1, 1, 3)
        assert report.failures == [(taken, "another file is in its place already")]
    assert (to / taken).read_bytes() == b"mine"
    assert (cache / taken).exists()


def test_a_restore_overwrites_nothing_either(cache: Path, to: Path) -> None:
    out(cache, to)
    taken = lines_of(to)[3]["path"]
    (cache / taken).write_bytes(photo(1000))
    report = back(cache, to)
    assert (report.restored, report.skipped, report.exit_status) == (FLAGGED - 1, 1, 3)
    assert (cache / taken).read_bytes() == photo(1000)
    assert (to / taken).exists()


def test_a_file_that_changed_in_the_quarantine_stays_there(cache: Path, to: Path) -> None:
    out(cache, to)
    path = lines_of(to)[0]["path"]
    (to / path).write_bytes(b"changed")
    report = back(cache, to)
    assert (report.restored, report.skipped) == (FLAGGED - 1, 1)
    assert files_of(to) == {path: b"changed"}


def test_a_bad_file_that_came_back_is_moved_again(cache: Path, to: Path) -> None:
    path = name_of(url_of(100))
    body = (cache / path).read_bytes()
    out(cache, to)
    (cache / path).write_bytes(body)
    report = out(cache, to)
    assert (report.moved, report.skipped) == (1, 0)
    assert not (cache / path).exists()
    assert (to / path).read_bytes() == body


def test_a_placeholder_is_recognised_after_its_copies_were_moved(cache: Path, to: Path) -> None:
    out(cache, to)
    late = os.fsdecode(put(cache, 900, photo(99)))
    assert judged(cache)[late].verdict == "ok"
    assert out(cache, to).moved == 1
    assert lines_of(to)[-1]["reason"] == "known placeholder"
    back(cache, to)
    for path in list(files_of(cache)):
        if (
            path != late
            and judged(cache).get(path)
            and judged(cache)[path].verdict == "placeholder"
        ):
            (cache / path).unlink()
    assert late not in {line["path"] for line in lines_of(to)[-1:] if line["action"] != "restore"}
    assert judged(cache)[late].verdict == "ok"
    assert out(cache, to, dry_run=True).verdicts["placeholder"] == 0, "brought back means good"


def replaced(path: Path, body: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(body)
    other.replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "replaced": lambda path: replaced(path, photo(800)),
    "written to": lambda path: path.write_bytes(photo(800)),
}


@pytest.mark.parametrize("when", ["_is_still", "link", "fsync"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_replaced_by_a_good_one_meanwhile_stays(
    cache: Path, to: Path, change: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downloader replaces the bad file by a good photo while it is moved."""
    for path in list(files_of(cache)):
        (cache / path).unlink()
    file = cache / os.fsdecode(put(cache, 1, blank()))
    where: Any = safe_folder if when == "_is_still" else os
    real = getattr(where, when)
    waiting = [True]

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        before_fsync = when == "fsync" and not (to / file.name).exists()
        if waiting and not before_fsync:
            waiting.clear()
            CHANGES[change](file)
        return real(*arguments, **options)

    monkeypatch.setattr(where, when, meanwhile)
    report = out(cache, to)
    assert (report.moved, report.skipped) == (0, 1)
    assert file.read_bytes() == photo(800)
    left = files_of(to)
    # The quarantine may have the file under its name too, but never a file that is neither.
    assert left in ({}, {file.name: blank()}, {file.name: photo(800)})
    assert (left == {}) or when == "fsync"


def test_an_incomplete_last_line_is_removed(cache: Path, to: Path) -> None:
    out(cache, to)
    with (to / quarantine_manifest.NAME).open("ab") as file:
        file.write(b'{"action": "quarantine", "pa')
    assert back(cache, to).failures == []
    put(cache, 901, blank(33))
    out(cache, to)
    assert all(isinstance(line, ManifestLine) for line in quarantine_manifest.read(to))


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "{", "\xff", '{"path": 3}', "[" * 100_000, '"x"']
)
def test_an_invalid_line_is_reported_and_the_others_are_used(
    cache: Path, to: Path, text: str
) -> None:
    out(cache, to)
    with (to / quarantine_manifest.NAME).open("ab") as file:
        file.write(text.encode("latin-1") + b"\n")
    report = back(cache, to)
    assert (report.restored, report.failed, report.exit_status) == (FLAGGED, 1, 3)


LINE = st.builds(
    ManifestLine,
    st.sampled_from(["quarantine", "restore"]),
    st.binary(max_size=20).map(
        lambda b: b"x" + b.replace(b"/", b"").replace(b"\0", b"") + b"/" + NAME.encode()
    ),
    st.sampled_from(["blank", "corrupt", "not_image", "placeholder"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.integers(0, 2**62),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=32, max_size=32),
    st.just("2026-01-01T00:00:00+00:00"),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(LINE, max_size=3), max_size=4), st.binary(max_size=30))
def test_lines_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[ManifestLine]], torn: bytes
) -> None:
    folder = tmp_path_factory.mktemp("q")
    for batch in batches:
        with (folder / quarantine_manifest.NAME).open("ab") as file:
            file.write(torn.replace(b"\n", b""))
        quarantine_manifest.append(folder, batch)
    assert (list(quarantine_manifest.read(folder)) if batches else []) == [
        x for batch in batches for x in batch
    ]


def test_a_bad_line_has_its_number(to: Path) -> None:
    to.mkdir()
    (to / quarantine_manifest.NAME).write_bytes(b"\n{}\n")
    assert [
        line.number for line in quarantine_manifest.read(to) if isinstance(line, BadManifestLine)
    ] == [1, 2]


def test_two_runs_do_not_share_a_quarantine(cache: Path, to: Path) -> None:
    out(cache, to)
    with FileLock(to / ".lock"):
        for call in (out, back):
            with pytest.raises(Busy, match="Another run"):
                call(cache, to)
            assert call(cache, to, dry_run=True).dry_run, "looking is allowed"


def test_nothing_to_restore(cache: Path, to: Path) -> None:
    for make_it in (False, True):
        if make_it:
            to.mkdir()
        with pytest.raises(UsageError, match="nothing was quarantined"):
            back(cache, to)


def test_a_cache_or_a_folder_that_cannot_be_used(cache: Path, to: Path, tmp_path: Path) -> None:
    out(cache, to)
    for call in (out, back):
        with pytest.raises(CacheError, match="mounted"):
            call(tmp_path / "nowhere", to)
    (tmp_path / "file").touch()
    with pytest.raises(MirrorError, match="cannot be used"):
        out(cache, tmp_path / "file")


def test_files_that_cannot_be_moved_are_listed(cache: Path, to: Path) -> None:
    put(cache, 700, blank(77), "closed")
    (cache / "closed").chmod(0o500)
    done = subprocess.run(
        [*OBEYING, sys.executable, "-m", "mirror", "--json", "quarantine", "--yes",
         f"--cache={cache}", f"--to={to}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert (done.returncode, report["moved"], report["failed"]) == (3, FLAGGED, 1)
    assert "Permission denied" in report["failures"][0]["reason"]
    (path,) = (cache / "closed").iterdir()
    assert path.read_bytes() == blank(77)
