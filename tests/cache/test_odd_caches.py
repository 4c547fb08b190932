"""Caches as people have them: odd dates, stale handles, links, other names, and new inodes."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from mirror import Mirror
from mirror.cache.scan import Entries, ScanCount, walk
from mirror.content.digest import Identity, signed_64
from mirror.errors import CacheError
from tests.support.mirror_setup import MirrorSetup, folder_setup
from tests.support.photos import fill, name_of, photo, url_of

__all__ = ["folder_setup"]

YEAR_2300 = 10_413_792_000


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    fill(folder, {url_of(n): photo(n) for n in range(3)})
    return folder


@pytest.fixture
def opened(cache: Path, tmp_path: Path, clean_environment: None) -> Mirror:
    return Mirror.open(cache=cache, bucket=f"file://{tmp_path}/mirror", state=tmp_path / "state")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps({"image_url": url_of(n)}) + "\n" for n in range(4)))
    return path


# --- dates that 64 bits of nanoseconds do not hold ---


@pytest.mark.parametrize("year", [1600, 1969, 2261, 2263, 2300, 2446])
def test_times_are_told_apart_by_64_bits(year: int) -> None:
    ns = (year - 1970) * 31_556_952 * 10**9
    wrapped = signed_64(ns)
    assert -(1 << 63) <= wrapped < 1 << 63
    assert (wrapped - ns) % (1 << 64) == 0
    assert wrapped == ns or not 1678 < year < 2262


@pytest.mark.parametrize("year", [1600, 1700, 2300])
def test_a_walk_takes_a_file_of_any_year(year: int) -> None:
    seconds = (year - 1970) * 31_556_952
    # Few file systems on disks have such years.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        fill(Path(folder), {url_of(0): photo(0)})
        os.utime(Path(folder) / name_of(url_of(0)), (seconds, seconds))
        found = Entries()
        for file in walk(os.fsencode(folder), ["jpg"], ScanCount()):
            found.append(*file)
        (entry,) = found
        assert entry.identity == Identity.of((Path(folder) / name_of(url_of(0))).stat())


VERBS: dict[str, Callable[[Mirror, Path, Path], Any]] = {
    "sync": lambda m, dataset, out: m.sync(),
    "inspect": lambda m, dataset, out: m.inspect(),
    "rebuild_state": lambda m, dataset, out: m.rebuild_state(),
    "status": lambda m, dataset, out: m.status(),
    "backfill": lambda m, dataset, out: m.backfill(dataset, contact="a@example.org", dry_run=True),
    "rewrite": lambda m, dataset, out: m.rewrite(
        dataset, out / "new.jsonl", cached_only=out / "cache"
    ),
    "quarantine": lambda m, dataset, out: m.quarantine(to=out / "aside"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_takes_a_file_of_the_future(
    opened: Mirror, cache: Path, dataset: Path, tmp_path: Path, verb: str
) -> None:
    opened.sync()
    os.utime(cache / name_of(url_of(1)), (YEAR_2300, YEAR_2300))
    assert VERBS[verb](opened, dataset, tmp_path).exit_status == 0
    if verb == "sync":
        again = opened.sync()
        assert (again.unchanged, again.changed) == (3, 0)


# --- an entry that cannot be looked at ---


class Stale:
    """A folder's entry whose kind the file system does not tell, behind a stale handle."""

    def __init__(self, entry: os.DirEntry[bytes], stale: bytes) -> None:
        self.name, self.path = entry.name, entry.path
        self._entry, self._stale = entry, entry.name == stale

    def __getattr__(self, name: str) -> Any:
        if self._stale:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return getattr(self._entry, name)


@pytest.fixture
def stale_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "ab").mkdir()
    scandir = os.scandir

    class Scan:
        def __init__(self, folder: Any) -> None:
            self._scan = scandir(folder)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *error: object) -> None:
            self._scan.close()

        def __iter__(self) -> Iterator[Any]:
            return (Stale(entry, b"ab") for entry in self._scan)

    monkeypatch.setattr(os, "scandir", Scan)


@pytest.mark.usefixtures("stale_folder")
@pytest.mark.parametrize("verb", ["sync", "inspect", "backfill", "rebuild_state"])
def test_a_stale_folder_is_one_failure_and_the_rest_is_done(
    opened: Mirror, dataset: Path, tmp_path: Path, verb: str
) -> None:
    if verb == "rebuild_state":
        opened.sync()
    report = VERBS[verb](opened, dataset, tmp_path)
    assert report.exit_status == (0 if verb == "backfill" else 3)
    if verb == "sync":
        assert (report.uploaded, report.failed) == (3, 1)
        assert report.failures == [{"path": "ab", "reason": "cannot be read: Stale file handle"}]


# --- links ---


def test_links_are_counted_and_named(opened: Mirror, cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fill(outside, {url_of(8): photo(8)})
    (cache / "ab").symlink_to(outside)
    (cache / name_of(url_of(9))).symlink_to(outside / name_of(url_of(8)))
    (cache / "latest.log").symlink_to("nowhere")  # no part of a cache
    count = ScanCount()
    assert len(list(walk(os.fsencode(cache), ["jpg"], count))) == 3
    assert (count.ignored, count.links) == (3, 2)
    report = opened.sync()
    (warning,) = report.warnings
    assert warning.startswith("Symbolic links in the cache are not followed (2, for example ")
    finding = next(one for one in opened.doctor().as_dict()["checks"] if one["name"] == "cache")
    assert "symbolic links are not followed (2, for example" in finding["what"]


# --- a folder that is no cache ---


@pytest.mark.parametrize("verb", ["sync", "dry run", "inspect", "quarantine"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_without_a_file_of_a_cache_is_refused_before_anything_is_made(
    opened: Mirror, cache: Path, dataset: Path, tmp_path: Path, verb: str, linked: bool
) -> None:
    real = tmp_path / "real"
    cache.rename(real)
    cache.mkdir()
    if linked:
        (cache / "images").symlink_to(real)
    else:
        (cache / "IMG_001.jpg").write_bytes(photo(1))
    said = (
        "Symbolic links in the cache are not followed" if linked else "for example IMG_001.jpg is"
    )
    verbs = VERBS | {"dry run": lambda m, dataset, out: m.sync(dry_run=True)}
    with pytest.raises(CacheError, match=said):
        verbs[verb](opened, dataset, tmp_path)
    assert not (tmp_path / "mirror" / "format.json").exists()


# --- inodes that change at each mount ---


def with_new_inodes(folder: Path) -> None:
    """Copy every file over itself, with its date, as a new mount of a network disk looks."""
    for path in list(folder.iterdir()):
        status, body = path.stat(), path.read_bytes()
        path.rename(path.with_suffix(".old"))  # keeps the old inode taken
        path.write_bytes(body)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for path in list(folder.glob("*.old")):
        path.unlink()


@pytest.mark.parametrize("trust", [True, False])
def test_inodes_of_a_network_disk_need_not_be_trusted(
    folder_setup: MirrorSetup, trust: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRROR_CACHE__TRUST_INODE", str(trust).lower())
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(10)})
    mirrored = Mirror.open(
        cache=folder_setup.cache, bucket=folder_setup.place.layer["url"], state=folder_setup.state
    )
    assert mirrored.sync().uploaded == 10
    with_new_inodes(folder_setup.cache)
    report = mirrored.sync()
    assert (report.changed, report.unchanged) == ((10, 0) if trust else (0, 10))
    assert (report.uploaded, report.exit_status) == (0, 0)
    assert [w for w in report.warnings if "cache.trust_inode = false" in w] == report.warnings
    assert len(report.warnings) == trust
    assert mirrored.sync().unchanged == 10


def test_files_that_differ_are_no_sign_of_new_inodes(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(10)})
    folder_setup.sync()
    fill(folder_setup.cache, {url_of(n): photo(n + (n == 3) * 50) for n in range(10)})
    for path in folder_setup.cache.iterdir():
        os.utime(path, (1, 1))
    report = folder_setup.sync()
    assert (report.changed, report.uploaded, report.warnings) == (10, 1, [])
