"""Restoring the cache: every image is whole and right, and no file of the user is overwritten."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from mirror.cache.safe_folder import PartFile
from mirror.catalog.row import UNKNOWN_SOURCE, Row
from mirror.dataset.inputs import Input
from mirror.errors import Busy, CacheError
from mirror.upkeep.pull import PullOptions, PullReport, pull
from tests.conftest import MakePlace
from tests.support.chaos_tally import SEED, kills
from tests.support.fault_proxy import Fault, FaultProxy, Request, Reset
from tests.support.killing import Killing
from tests.support.mirror_setup import SOON, MirrorSetup, key_of
from tests.support.photos import blank, fill, flipped, name_of, photo, url_of
from tests.support.progress_hooks import Advances


def stocked(mirror_setup: MirrorSetup, count: int = 12) -> dict[str, bytes]:
    """Fill a mirror; returns its cache by name. Two contents have two names each, a blank has none."""
    bodies = {url_of(n): photo(n) for n in range(count)}
    bodies |= {url_of(1000 + n): photo(n) for n in range(2)}
    fill(mirror_setup.cache, {**bodies, url_of(2000): blank()})
    assert mirror_setup.sync().exit_status == 0
    mirror_setup.cache.rename(mirror_setup.cache.with_name("lost"))
    return {name_of(url): body for url, body in bodies.items()}


def there(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def counts(report: PullReport) -> tuple[int, int, int, int]:
    return report.checked, report.already, report.pulled, report.kept


def test_a_lost_cache_is_restored_and_a_second_pull_reads_nothing(
    mirror_setup: MirrorSetup,
) -> None:
    bodies = stocked(mirror_setup)
    report = pull(mirror_setup.settings())
    assert (counts(report), report.flagged, report.exit_status) == ((14, 0, 14, 0), 1, 0)
    assert there(mirror_setup.cache) == bodies
    assert report.bytes == sum(map(len, bodies.values()))
    again = pull(mirror_setup.settings())
    assert counts(again) == (14, 14, 0, 0)
    assert again.requests["get"] == 1  # format.json


def test_restored_files_are_known_to_a_sync(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    pull(folder_setup.settings())
    report = folder_setup.sync()
    assert (report.scanned, report.uploaded, report.deduplicated) == (14, 0, 14)


def test_a_large_image_is_pulled_in_parts(
    mirror_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = photo(1) + os.urandom(9 << 20)
    fill(mirror_setup.cache, {url_of(1): body, url_of(2): body})
    mirror_setup.sync()
    shutil.rmtree(mirror_setup.cache)
    for module in ("mirror.store.read_back", "mirror.upkeep.pull"):
        monkeypatch.setattr(f"{module}.WHOLE_UP_TO", 1 << 20)
    monkeypatch.setattr("mirror.store.read_back.PART_BYTES", 4 << 20)
    assert counts(pull(mirror_setup.settings())) == (2, 0, 2, 0)
    assert there(mirror_setup.cache) == {name_of(url_of(n)): body for n in (1, 2)}
    shutil.rmtree(mirror_setup.cache)
    mirror_setup.put({key_of(body): flipped(body)})
    report = pull(mirror_setup.settings())
    assert (report.mismatched, report.pulled, report.exit_status) == (1, 0, 3)
    assert there(mirror_setup.cache) == {}


def test_a_prefix_selects_files(folder_setup: MirrorSetup) -> None:
    bodies = stocked(folder_setup)
    for prefix in ("0", "3f", name_of(url_of(3))[:20].upper(), name_of(url_of(3))[:32]):
        shutil.rmtree(folder_setup.cache, ignore_errors=True)
        pull(folder_setup.settings(), PullOptions(prefix=prefix))
        wanted = {n: b for n, b in bodies.items() if n.startswith(prefix.lower())}
        assert there(folder_setup.cache) == wanted


def test_a_dataset_selects_files(folder_setup: MirrorSetup, tmp_path: Path) -> None:
    bodies = stocked(folder_setup)
    first, second = tmp_path / "a.jsonl", tmp_path / "b.csv"
    digits = key_of(photo(7))
    records = [
        {"image_url": url_of(3)},
        {
            "image_url": f"file://{folder_setup.place.url.path}/{digits}"
        },  # as a rewritten dataset has it
        {"image_url": url_of(2000)},
        {"image_url": "https://example.org/never-seen.jpg"},
        {"other": 1},
    ]
    first.write_text("".join(json.dumps(record) + "\n" for record in records))
    second.write_text(f"image_url\n{url_of(5)}\n")
    options = PullOptions(datasets=(Input(str(first)), Input(str(second))))
    report = pull(folder_setup.settings(), options)
    names = [name_of(url_of(n)) for n in (3, 5, 7)]
    assert there(folder_setup.cache) == {name: bodies[name] for name in names}
    assert (report.flagged, report.not_mirrored, len(report.warnings)) == (1, 1, 1)


def test_another_file_under_the_name_of_an_image_stays_unless_forced(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    bodies = stocked(folder_setup)
    pull(folder_setup.settings())
    shorter, rotten, link, folder = (folder_setup.cache / name_of(url_of(n)) for n in range(4))
    shorter.write_bytes(b"mine")
    rotten.write_bytes(flipped(rotten.read_bytes()))
    link.unlink()
    (tmp_path / "elsewhere").write_bytes(photo(2))
    link.symlink_to(tmp_path / "elsewhere")
    folder.unlink()
    folder.mkdir()

    report = pull(folder_setup.settings())
    assert (report.kept, report.pulled, report.exit_status) == (3, 0, 3)
    report = pull(folder_setup.settings(), PullOptions(verify=True))
    assert (report.kept, report.pulled, report.exit_status) == (4, 0, 3)
    assert shorter.read_bytes() == b"mine"

    report = pull(folder_setup.settings(), PullOptions(verify=True, force=True))
    assert (report.replaced, report.failed, report.exit_status) == (3, 1, 3)
    assert folder.is_dir()
    folder.rmdir()
    pull(folder_setup.settings())
    assert not link.is_symlink()
    assert there(folder_setup.cache) == bodies
    assert (tmp_path / "elsewhere").read_bytes() == photo(2)


def test_damage_in_the_mirror_does_not_reach_the_cache(mirror_setup: MirrorSetup) -> None:
    bodies = stocked(mirror_setup)
    mirror_setup.remove(key_of(photo(0)))
    mirror_setup.put({key_of(photo(3)): flipped(photo(3)), key_of(photo(4)): photo(4)[:-7]})
    report = pull(mirror_setup.settings())
    assert (report.missing, report.mismatched, report.exit_status) == (1, 2, 3)
    lost = {name_of(url_of(n)) for n in (0, 1000, 3, 4)}
    assert there(mirror_setup.cache) == {n: b for n, b in bodies.items() if n not in lost}


def test_names_of_one_content_can_be_links_to_one_file(folder_setup: MirrorSetup) -> None:
    bodies = stocked(folder_setup)
    pull(folder_setup.settings(), PullOptions(hardlink=True))
    assert there(folder_setup.cache) == bodies
    files = [os.stat(folder_setup.cache / name_of(url_of(n))) for n in (0, 1000)]
    assert files[0].st_ino == files[1].st_ino
    shutil.rmtree(folder_setup.cache)
    pull(folder_setup.settings())
    files = [os.stat(folder_setup.cache / name_of(url_of(n))) for n in (0, 1000)]
    assert files[0].st_ino != files[1].st_ino


def test_a_dry_run_on_a_new_machine_makes_neither_cache_nor_lock(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    stocked(folder_setup)
    settings = folder_setup.settings()
    new = structs.replace(
        settings, state=structs.replace(settings.state, dir=str(tmp_path / "new"))
    )
    report = pull(new, PullOptions(dry_run=True))
    assert (counts(report), report.exit_status) == ((14, 0, 14, 0), 0)
    assert not folder_setup.cache.exists()
    assert not list((tmp_path / "new").rglob("pull-*"))


def test_a_dry_run_writes_nothing(folder_setup: MirrorSetup) -> None:
    bodies = stocked(folder_setup)
    folder_setup.cache.mkdir()
    report = pull(folder_setup.settings(), PullOptions(dry_run=True))
    assert (report.pulled, report.bytes) == (14, sum(map(len, bodies.values())))
    assert there(folder_setup.cache) == {}


@pytest.mark.parametrize("digest", [b"../../../../../../etc/x", b"", b"0" * 15, b"/" * 17])
def test_rows_with_unsafe_names_are_ignored(folder_setup: MirrorSetup, digest: bytes) -> None:
    bodies = stocked(folder_setup)
    body = photo(50)
    row = Row(digest, bytes(16), bytes(32), len(body), "jpeg", 48, 48, "ok", "", UNKNOWN_SOURCE, 1)
    from mirror.catalog.open_mirror import Location
    from mirror.store.retry import RetryPolicy

    location = Location(folder_setup.settings())
    location.catalog(location.store(), RetryPolicy()).append([row])
    report = pull(folder_setup.settings())
    assert (report.error, report.exit_status) == (None, 0)
    assert there(folder_setup.cache) == bodies


def test_a_read_only_folder_is_an_error(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    folder_setup.cache.write_text("a file")
    with pytest.raises(CacheError, match="cannot be used"):
        pull(folder_setup.settings())


def test_a_second_pull_into_the_folder_is_refused_as_busy(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    told: list[BaseException] = []

    def second() -> None:
        try:
            pull(folder_setup.settings())
        except Busy as error:
            told.append(error)

    def meanwhile(_files: int, _bytes: int) -> None:
        if not told:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    assert pull(folder_setup.settings(), progress=Advances(meanwhile)).exit_status == 0
    assert told


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_a_second_pull_from_another_mirror_that_is_killed_half_way_spoils_no_file(
    folder_setup: MirrorSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """It has another state, so only the cache itself tells each run of the other."""
    bodies = stocked(folder_setup)
    settings = folder_setup.settings()
    other = folder_setup.place.settings(
        cache={"dir": str(folder_setup.cache)}, state={"dir": str(tmp_path / "other")}
    )
    publish, write = PartFile.publish, PartFile.write
    ends: list[BaseException] = []

    class Killed(BaseException):
        pass

    def half(part: PartFile, data: bytes) -> None:
        write(part, data[: len(data) // 2])
        raise Killed

    def second() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(PartFile, "write", half)
            patch.setattr(PartFile, "close", lambda _: None)  # a killed process tidies nothing
            try:
                pull(other)
            except (Busy, Killed) as error:
                ends.append(error)

    def meanwhile(part: PartFile, *, replace: bool) -> None:
        if not ends:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
        publish(part, replace=replace)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "publish", meanwhile)
        if not locks:
            patch.setattr("mirror.cache.cache_lock.flock", refuse)
        report = pull(folder_setup.settings(concurrency=1))
    assert [type(end) for end in ends] == [Busy if locks else Killed]
    assert (counts(report), report.exit_status) == ((14, 0, 14, 0), 0)
    pull(settings)
    assert there(folder_setup.cache) == bodies


def test_a_full_disk_ends_the_pull_and_leaves_no_partial_image(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes beyond this many bytes fail as on a full disk."""
    bodies = stocked(folder_setup, 30)
    real = os.write
    written = 0

    def write(file: int, data: bytes) -> int:
        nonlocal written
        if written + len(data) > 12_000:
            room = 12_000 - written
            if room <= 0:
                raise OSError(28, "No space left on device")
            data = data[:room]
        done = real(file, data)
        written += done
        return done

    with monkeypatch.context() as patch:
        patch.setattr("mirror.cache.safe_folder.os.write", write)
        report = pull(folder_setup.settings(concurrency=4))
    assert isinstance(report.error, CacheError)
    assert "full" in str(report.error)
    assert report.exit_status == 1
    left = there(folder_setup.cache)
    assert 0 < len(left) < 32
    assert left.items() <= bodies.items()
    assert pull(folder_setup.settings()).exit_status == 0
    assert there(folder_setup.cache) == bodies


def test_a_store_that_stops_answering_ends_the_pull(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("moto-obstore")
    assert place.server is not None
    mirror_setup = MirrorSetup(place, tmp_path)
    stocked(mirror_setup, 60)

    def rule(request: Request) -> Fault | None:
        return Reset() if "/objects/" in request.path else None

    with FaultProxy(place.server.endpoint, rule) as proxy:
        settings = place.settings(
            bucket={"endpoint": proxy.endpoint},
            cache={"dir": str(mirror_setup.cache)},
            state={"dir": str(tmp_path / "state")},
            sync={"concurrency": 4},
        )
        report = pull(settings, PullOptions(retry=replace(SOON, attempts=2)))
    assert report.error is not None
    assert report.exit_status == 1
    assert there(mirror_setup.cache) == {}


@pytest.mark.chaos("pull")
@pytest.mark.parametrize("linked", [False, True], ids=["copies", "hardlinks"])
def test_a_pull_killed_anywhere_leaves_no_partial_image_and_resumes(
    folder_setup: MirrorSetup, linked: bool
) -> None:
    bodies = stocked(folder_setup, 8)
    chance = random.Random(f"{SEED} {linked}")
    modules = "mirror.cache.cache_writer,mirror.cache.safe_folder"
    words = ["--json", "pull", f"--cache={folder_setup.cache}", f"--state={folder_setup.state}"]
    words += [f"--bucket={folder_setup.place.url}", "--concurrency=4", *(["--hardlink"] * linked)]

    killing = Killing(modules, words)
    for story in killing.rounds(kills(4, tests=2), chance):
        shutil.rmtree(folder_setup.cache)
        killing.run()
        if folder_setup.cache.exists():
            images = {name: b for name, b in there(folder_setup.cache).items() if name[0] != "."}
            assert images.items() <= bodies.items(), story
        assert pull(folder_setup.settings()).exit_status == 0, story
        assert there(folder_setup.cache) == bodies, story
