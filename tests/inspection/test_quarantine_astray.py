"""Folders, links and manifests that could lead a quarantine out of its two folders."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.cache import safe_folder
from mirror.errors import UsageError
from mirror.inspection import quarantine_manifest
from mirror.inspection.quarantine import QuarantineReport
from mirror.inspection.quarantine_manifest import ManifestLine
from tests.inspection.quarantine_setup import FLAGGED, NAME, back, cache, lines_of, out, to
from tests.support.damaged_caches import files_of, judged, put
from tests.support.photos import blank

__all__ = ["cache", "to"]


@pytest.mark.parametrize(
    "name", ["", "inside", "inside/deep", "../{cache}", "..", "../{cache}/inside"]
)
def test_a_folder_within_the_cache_is_refused(cache: Path, name: str) -> None:
    to = cache / name.format(cache=cache.name)
    before = files_of(cache)
    for call in (out, back):
        with pytest.raises(UsageError, match="cache"):
            call(cache, to)
    assert files_of(cache) == before


def test_a_link_into_the_cache_is_refused(cache: Path, tmp_path: Path) -> None:
    (cache / "inside").mkdir()
    (tmp_path / "link").symlink_to(cache / "inside")
    with pytest.raises(UsageError, match="in the cache"):
        out(cache, tmp_path / "link")


@pytest.mark.parametrize("name", [".flagged", ".flagged/today", "a/.b"])
def test_a_dot_folder_within_the_cache_is_allowed(cache: Path, name: str) -> None:
    assert out(cache, cache / name).moved == FLAGGED
    assert out(cache, cache / name).checked == 10
    assert back(cache, cache / name).restored == FLAGGED


def test_a_folder_whose_name_begins_like_the_caches_is_allowed(cache: Path) -> None:
    assert out(cache, cache.with_name(f"{cache.name}-flagged")).moved == FLAGGED


@pytest.mark.parametrize("devices", ["one device", "another device"])
def test_a_file_stays_if_both_folders_are_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch, devices: str
) -> None:
    """As with a folder that is mounted twice: by a bind mount, or from the same server."""
    path = put(cache, 700, blank(77), "some")
    number = itertools.count()
    real = os.fstat

    def fstat(file: int) -> os.stat_result:
        status = real(file)
        if devices == "one device" or not stat.S_ISDIR(status.st_mode):
            return status
        return os.stat_result([*status[:2], next(number), *status[3:]])

    before = files_of(cache)
    with (
        safe_folder.SafeFolder(os.fsencode(cache)) as source,
        safe_folder.SafeFolder(os.fsencode(cache)) as target,
    ):
        seen = source.read(path)
        assert seen is not None
        monkeypatch.setattr(os, "fstat", fstat)
        with pytest.raises(OSError, match="one folder"):
            safe_folder.move(source, target, path, seen)
    assert files_of(cache) == before


ASTRAY = [
    f"../{NAME}", f"a/../../{NAME}", f"/tmp/{NAME}", f"./{NAME}", f"a//{NAME}", f".git/{NAME}",
    "a/.hidden/" + NAME, "..", "", ".", "plain.txt", f"{NAME}/", f"{NAME}\0", "a\0b/" + NAME,
    ".bashrc", "conftest.py", NAME.removesuffix(".jpg"), "x" + NAME, f"{NAME}\n",
]  # fmt: skip


@pytest.mark.parametrize("path", ASTRAY)
def test_paths_of_a_manifest_cannot_leave_the_cache(cache: Path, to: Path, path: str) -> None:
    out(cache, to)
    line = lines_of(to)[0]
    body = (to / line["path"]).read_bytes()
    with (to / quarantine_manifest.NAME).open("a") as file:
        file.write(json.dumps(line | {"path": path}) + "\n")
    for name in (path, os.path.normpath(path or "x")):
        if "\0" not in name and not os.path.isabs(name) and not (to / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(body)
    before = {
        path for path in files_of(cache.parent) if not path.startswith(("cache/", "flagged/"))
    }
    report = back(cache, to)
    assert (report.restored, report.failed, report.exit_status) == (FLAGGED, 1, 3)
    assert "line 16" in report.failures[0][0]
    after = {path for path in files_of(cache.parent) if not path.startswith(("cache/", "flagged/"))}
    assert after == before


@pytest.mark.parametrize("side", ["cache", "to"])
@pytest.mark.parametrize("call", [out, back])
def test_no_symbolic_link_on_the_way_is_followed(
    cache: Path, to: Path, tmp_path: Path, side: str, call: Callable[..., QuarantineReport]
) -> None:
    path = put(cache, 700, blank(77), "some")
    outside = tmp_path / "outside"
    outside.mkdir()
    if call is back:
        out(cache, to)
    folder = (cache if side == "cache" else to) / "some"
    if call is out and side == "cache":
        # The scan skips links, but one may appear before the move.
        real = judged(cache)
        assert os.fsdecode(path) in real
        line = ManifestLine("quarantine", path, "blank", "", 0, bytes(16), bytes(32), "")
        folder.rename(outside / "some")
        folder.symlink_to(outside / "some")
        with safe_folder.SafeFolder(os.fsencode(cache)) as source, pytest.raises(OSError) as caught:
            source.read(line.path)
        assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
        return
    if folder.exists():
        shutil.copytree(folder, outside, dirs_exist_ok=True)
        shutil.rmtree(folder)
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(outside)
    before = files_of(outside)
    report = call(cache, to)
    assert report.failed == 1
    assert "symbolic link" in report.failures[0][1]
    assert files_of(outside) == before
    assert report.moved + report.restored == FLAGGED


def test_a_link_in_place_of_a_file_is_not_followed(cache: Path, to: Path, tmp_path: Path) -> None:
    out(cache, to)
    path = lines_of(to)[0]["path"]
    secret = tmp_path / "secret"
    secret.write_bytes((to / path).read_bytes())
    (to / path).unlink()
    (to / path).symlink_to(secret)
    report = back(cache, to)
    assert (report.restored, report.failed) == (FLAGGED - 1, 1)
    assert secret.exists()
