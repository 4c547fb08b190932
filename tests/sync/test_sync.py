"""A sync's effects on a mirror, in every kind of place and with every engine."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.cache.prepare import prepare_all
from mirror.catalog.row import RowSource
from mirror.content.digest import digest_of
from mirror.layout import object_key, url_md5
from mirror.run.progress import Progress
from mirror.sync.run_sync import sync
from tests.conftest import MakePlace, Place
from tests.support.mirror_setup import MirrorSetup, key_of
from tests.support.photos import blank, fill, name_of, photo, url_of


@pytest.fixture
def mirror_setup(place: Place, tmp_path: Path) -> MirrorSetup:
    return MirrorSetup(place, tmp_path)


def expected_objects(*bodies: bytes) -> dict[str, bytes]:
    return {object_key(digest_of(body).content_hash, "jpeg"): body for body in bodies}


def test_every_content_is_stored_once_under_its_hash_and_every_url_has_a_row(
    mirror_setup: MirrorSetup,
) -> None:
    bodies = {url_of(n): photo(n % 7) for n in range(20)}
    fill(mirror_setup.cache, bodies)
    report = mirror_setup.sync()
    assert (report.scanned, report.new, report.failed) == (20, 20, 0)
    assert (report.uploaded, report.deduplicated) == (7, 13)
    assert report.bytes_uploaded == sum(len(photo(n)) for n in range(7))
    assert mirror_setup.objects() == expected_objects(*(photo(n) for n in range(7)))
    rows = mirror_setup.rows()
    assert set(rows) == {url_md5(url) for url in bodies}
    for url, body in bodies.items():
        row = rows[url_md5(url)]
        digest = digest_of(body)
        assert (row["content_hash"], row["sha256"]) == (digest.content_hash, digest.sha256)
        assert (row["size"], row["format"], row["verdict"]) == (len(body), "jpeg", "ok")
        assert (row["width"], row["height"]) == (48, 48)


def test_a_run_without_changes_sends_one_request_and_opens_no_image(
    mirror_setup: MirrorSetup,
) -> None:
    fill(mirror_setup.cache, {url_of(n): photo(n) for n in range(5)})
    mirror_setup.sync()
    for file in mirror_setup.cache.iterdir():
        # Other bytes with the same name, size, mtime and inode: only opening the file would show them.
        stat = file.stat()
        file.write_bytes(bytes(stat.st_size))
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    report = mirror_setup.sync()
    assert (report.unchanged, report.new, report.changed, report.uploaded) == (5, 0, 0, 0)
    assert report.requests == {"put": 0, "get": 0, "head": 0, "list": 1, "delete": 0}
    assert report.exit_status == 0


def test_losing_the_state_uploads_nothing_again_and_adds_no_row(mirror_setup: MirrorSetup) -> None:
    fill(mirror_setup.cache, {url_of(n): photo(n % 4) for n in range(8)})
    mirror_setup.sync()
    before = mirror_setup.rows()
    shutil.rmtree(mirror_setup.state)
    report = mirror_setup.sync()
    assert (report.uploaded, report.bytes_uploaded, report.deduplicated) == (0, 0, 8)
    assert report.catalog_commits == 0
    assert mirror_setup.rows() == before


def test_an_object_without_a_row_is_compared_and_adopted(mirror_setup: MirrorSetup) -> None:
    fill(mirror_setup.cache, {url_of(1): photo(1)})
    key = object_key(digest_of(photo(1)).content_hash, "jpeg")
    mirror_setup.put({key: photo(1)})
    report = mirror_setup.sync()
    assert (report.uploaded, report.deduplicated, report.failed) == (0, 1, 0)
    assert mirror_setup.rows()[url_md5(url_of(1))]["verdict"] == "ok"


@pytest.mark.parametrize("name", ["seaweedfs-obstore", "seaweedfs-aioboto3"])
def test_among_many_files_existing_objects_are_compared_and_put_once(
    name: str, make_place: MakePlace, tmp_path: Path
) -> None:
    """Two uploads at once, in batches of ten files, which meet objects without rows."""
    bodies = {url_of(n): photo(n) for n in range(20)}
    puts: list[int] = []
    for numbers in ((), (2, 3, 4, 11, 19)):
        folder = tmp_path / f"{len(numbers)}"
        folder.mkdir()
        mirror_setup = MirrorSetup(make_place(name), folder)
        fill(mirror_setup.cache, bodies)
        mirror_setup.put({key_of(photo(n)): photo(n) for n in numbers})
        report = sync(mirror_setup.settings(concurrency=2))
        assert (report.uploaded, report.failed) == (20 - len(numbers), 0)
        assert report.deduplicated == report.requests["head"] == len(numbers)
        assert mirror_setup.objects() == expected_objects(*bodies.values())
        assert set(mirror_setup.rows()) == {url_md5(url) for url in bodies}
        puts.append(report.requests["put"])
    assert puts[0] == puts[1]


class Failing(Progress):
    """Raises at the nth file and all later ones."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        self._left -= 1
        if self._left <= 0:
            raise ZeroDivisionError(outcome)


def test_an_exception_of_the_callers_progress_ends_the_run_and_is_raised(
    folder_setup: MirrorSetup,
) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)})
    with pytest.raises(ZeroDivisionError):
        sync(folder_setup.settings(), progress=Failing(1))
    assert folder_setup.sync().failed == 0
    assert set(folder_setup.rows()) == {url_md5(url_of(n)) for n in range(3)}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("contents", [20, 1], ids=["uploads", "duplicates"])
@pytest.mark.parametrize("nth", [4, 7, 12, 17])
def test_a_run_that_breaks_off_leaves_no_feeder_waiting(
    contents: int, nth: int, folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch at a time is under way, and the others wait for it when its progress raises.

    The uploading task reports uploads, and the reading task reports duplicates.
    """
    monkeypatch.setattr("mirror.sync.transfer.BATCH_FILES", 2)
    monkeypatch.setattr("mirror.sync.transfer.WINDOW_BYTES", 1)
    fill(folder_setup.cache, {url_of(n): photo(n % contents) for n in range(20)})
    with pytest.raises(ZeroDivisionError):
        sync(folder_setup.settings(concurrency=1), progress=Failing(nth))
    assert folder_setup.sync().failed == 0
    assert set(folder_setup.rows()) == {url_md5(url_of(n)) for n in range(20)}


@pytest.mark.timeout(60)
def test_files_that_are_slow_to_read_are_read_several_at_once(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two reads wait for each other, so the run ends only if a second reader starts."""
    together, reads = threading.Barrier(2, timeout=30), itertools.count()

    def slowly(*arguments: Any) -> Any:
        if next(reads) in (90, 91):
            together.wait()
        return prepare_all(*arguments)

    monkeypatch.setattr("mirror.sync.transfer.prepare_all", slowly)
    fill(folder_setup.cache, {url_of(n): photo(0) for n in range(120)})
    report = folder_setup.sync(inspect="off")
    assert (report.uploaded, report.deduplicated, report.failed) == (1, 119, 0)


def test_an_object_whose_bytes_do_not_match_its_key_is_replaced(mirror_setup: MirrorSetup) -> None:
    fill(mirror_setup.cache, {url_of(1): photo(1)})
    mirror_setup.put({object_key(digest_of(photo(1)).content_hash, "jpeg"): photo(1)[:-20]})
    report = mirror_setup.sync()
    assert (report.uploaded, report.failed) == (1, 0)
    assert mirror_setup.objects() == expected_objects(photo(1))


def test_a_large_file_is_uploaded_in_parts_and_checked(
    mirror_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = photo(1) + os.urandom(11 << 20)
    fill(mirror_setup.cache, {url_of(1): body, url_of(2): body})
    monkeypatch.setattr("mirror.cache.prepare.WHOLE_UP_TO", 1 << 20)
    monkeypatch.setattr("mirror.catalog.upload.PART_BYTES", 5 << 20)
    report = mirror_setup.sync()
    assert (report.uploaded, report.deduplicated, report.failed) == (1, 1, 0)
    assert mirror_setup.objects() == expected_objects(body)
    shutil.rmtree(mirror_setup.state)
    assert mirror_setup.sync().uploaded == 0


def test_changed_vanished_and_returned_files_are_told_apart(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(4)})
    folder_setup.sync()
    fill(folder_setup.cache, {url_of(0): photo(100), url_of(9): photo(9)})
    gone = folder_setup.cache / name_of(url_of(1))
    gone.rename(folder_setup.cache.parent / "aside.jpg")
    report = folder_setup.sync()
    counts = (report.scanned, report.new, report.changed, report.unchanged, report.vanished)
    assert counts == (4, 1, 1, 2, 1)
    assert report.uploaded == 2
    assert set(folder_setup.objects()) == set(
        expected_objects(*(photo(n) for n in (0, 1, 2, 3, 9, 100)))
    ), "nothing is deleted from the mirror"
    (folder_setup.cache.parent / "aside.jpg").rename(gone)
    report = folder_setup.sync()
    assert (report.unchanged, report.new, report.changed, report.vanished) == (5, 0, 0, 0)
    assert (
        folder_setup.rows()[url_md5(url_of(0))]["content_hash"]
        == digest_of(photo(100)).content_hash
    )


def test_an_unmounted_cache_costs_nothing_when_it_is_back(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)})
    folder_setup.sync()
    folder_setup.cache.rename(folder_setup.cache.parent / "unmounted")
    folder_setup.cache.mkdir()
    for vanished, options in ((3, {}), (0, {}), (0, {"prefix": "00"}), (0, {"dry_run": True})):
        report = folder_setup.sync(**options)
        assert report.vanished == vanished
        (warning,) = report.warnings
        assert "3 files were there before" in warning
        assert "mounted" in warning
    assert len(folder_setup.objects()) == 3
    folder_setup.cache.rmdir()
    (folder_setup.cache.parent / "unmounted").rename(folder_setup.cache)
    report = folder_setup.sync()
    assert (report.unchanged, report.new, report.requests["put"]) == (3, 0, 0)


def test_flagged_files_are_catalogued_and_not_uploaded(folder_setup: MirrorSetup) -> None:
    bad = {
        url_of(1): (blank(), "blank"),
        url_of(2): (photo(2)[:600], "corrupt"),
        url_of(3): (b"<html>429 Too Many Requests</html>", "not_image"),
        url_of(4): (b"", "not_image"),
    }
    fill(folder_setup.cache, {url: body for url, (body, _) in bad.items()} | {url_of(5): photo(5)})
    report = folder_setup.sync()
    assert report.flagged == {"blank": 1, "corrupt": 1, "not_image": 2, "placeholder": 0}
    assert (report.uploaded, report.failed, report.exit_status) == (1, 0, 0)
    assert folder_setup.objects() == expected_objects(photo(5))
    rows = folder_setup.rows()
    for url, (_, verdict) in bad.items():
        row = rows[url_md5(url)]
        assert row["verdict"] == verdict
        assert row["reason"]


def test_a_bad_file_replaced_by_a_good_one_becomes_ok(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(1): blank()})
    folder_setup.sync()
    fill(folder_setup.cache, {url_of(1): photo(1)})
    report = folder_setup.sync()
    assert (report.changed, report.uploaded, report.flagged["blank"]) == (1, 1, 0)
    assert folder_setup.rows()[url_md5(url_of(1))]["verdict"] == "ok"


def test_a_bad_image_does_not_replace_a_good_one(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(1): photo(1)})
    folder_setup.sync()
    fill(folder_setup.cache, {url_of(1): blank()})
    report = folder_setup.sync()
    assert report.flagged["blank"] == 1
    row = folder_setup.rows()[url_md5(url_of(1))]
    assert (row["verdict"], row["content_hash"]) == ("ok", digest_of(photo(1)).content_hash)


def test_include_flagged_uploads_them_with_their_verdict(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(1): blank()})
    report = folder_setup.sync(include_flagged=True)
    assert (report.uploaded, report.flagged["blank"]) == (1, 1)
    assert folder_setup.rows()[url_md5(url_of(1))]["verdict"] == "blank"
    assert list(folder_setup.objects().values()) == [blank()]


def test_the_extension_in_the_key_comes_from_the_bytes(folder_setup: MirrorSetup) -> None:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(photo(1))).save(out, "PNG")
    fill(folder_setup.cache, {url_of(1): out.getvalue()})
    folder_setup.sync()
    (key,) = folder_setup.objects()
    assert key.endswith(".png")


def test_a_dry_run_touches_nothing(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)})
    report = folder_setup.sync(dry_run=True)
    assert report.dry_run
    assert (report.new, report.uploaded, sum(report.requests.values())) == (3, 0, 0)
    assert report.estimate is not None
    assert report.estimate.bytes == sum(len(photo(n)) for n in range(3))
    assert not folder_setup.state.exists()
    assert not Path(folder_setup.place.url.path).exists()


@pytest.mark.parametrize(
    ("options", "uploaded"),
    [({"max_files": 3}, 3), ({"prefix": name_of(url_of(0))[:2]}, 1), ({"prefix": "zz"}, 0)],
    ids=["max-files", "prefix", "prefix that is nobody's"],
)
def test_a_part_of_the_cache_can_be_selected(
    folder_setup: MirrorSetup, options: dict[str, Any], uploaded: int
) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(10)})
    report = folder_setup.sync(**options)
    assert report.uploaded == uploaded
    assert report.vanished == 0
    whole = folder_setup.sync()
    assert (whole.uploaded, whole.vanished) == (10 - uploaded, 0)


class DatasetSources:
    """A dataset's URLs, in memory."""

    def __init__(self, sources: dict[str, RowSource]) -> None:
        self._sources = {url_md5(url): source for url, source in sources.items()}

    def get(self, key: bytes) -> RowSource | None:
        return self._sources.get(key)

    def __contains__(self, key: bytes) -> bool:
        return key in self._sources

    def __len__(self) -> int:
        return len(self._sources)


def test_a_dataset_selects_files_and_gives_their_sources(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(4)})
    told = DatasetSources({url_of(1): RowSource(url_of(1), "CC-BY", "© somebody")})
    report = folder_setup.sync(told)
    assert (report.scanned, report.uploaded) == (1, 1)
    row = folder_setup.rows()[url_md5(url_of(1))]
    assert (row["source_url"], row["license"], row["attribution"]) == (
        url_of(1), "CC-BY", "© somebody",
    )  # fmt: skip


def test_sources_are_added_to_files_synced_before_without_opening_them(
    folder_setup: MirrorSetup,
) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)})
    folder_setup.sync()
    told = DatasetSources({url_of(n): RowSource(url_of(n), "CC0") for n in range(2)})
    report = folder_setup.sync(told)
    assert (report.described, report.unchanged, report.uploaded) == (2, 2, 0)
    assert folder_setup.sync(told).described == 0, "once is enough"
    licenses = {url: row["license"] for url, row in folder_setup.rows().items()}
    assert licenses == {
        url_md5(url_of(0)): "CC0", url_md5(url_of(1)): "CC0", url_md5(url_of(2)): None,
    }  # fmt: skip


def test_a_source_outlives_a_change_that_does_not_mention_it(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(1): photo(1)})
    folder_setup.sync(DatasetSources({url_of(1): RowSource(url_of(1), "CC0", "© her")}))
    fill(folder_setup.cache, {url_of(1): photo(2)})
    assert folder_setup.sync().changed == 1
    row = folder_setup.rows()[url_md5(url_of(1))]
    assert row["content_hash"] == digest_of(photo(2)).content_hash
    assert (row["source_url"], row["license"], row["attribution"]) == (url_of(1), "CC0", "© her")


def test_a_mirror_that_was_emptied_is_filled_again(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)})
    folder_setup.sync()
    shutil.rmtree(folder_setup.place.url.path)
    report = folder_setup.sync()
    assert report.uploaded == 3
    assert "another mirror" in report.warnings[0]


def test_a_second_machine_adds_only_what_the_first_did_not_have(
    make_place: MakePlace, tmp_path: Path
) -> None:
    place = make_place("file")
    machines = [
        MirrorSetup(place, tmp_path / name) for name in ("a", "b") if _folder(tmp_path / name)
    ]
    fill(machines[0].cache, {url_of(n): photo(n) for n in range(6)})
    fill(machines[1].cache, {url_of(n): photo(n) for n in range(3, 9)})
    assert machines[0].sync().uploaded == 6
    report = machines[1].sync()
    assert (report.uploaded, report.deduplicated) == (3, 3)
    assert len(machines[0].rows()) == 9


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_clock_that_was_set_back_does_not_make_an_old_row_the_latest(
    folder_setup: MirrorSetup,
) -> None:
    fill(folder_setup.cache, {url_of(1): photo(1)})
    folder_setup.sync()
    fill(folder_setup.cache, {url_of(1): photo(2)})
    sync(folder_setup.settings(), now=lambda: 1_000_000_000.0)
    assert (
        folder_setup.rows()[url_md5(url_of(1))]["content_hash"] == digest_of(photo(2)).content_hash
    )


def test_nothing_in_the_cache_is_changed(folder_setup: MirrorSetup) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)} | {url_of(9): blank()})
    (folder_setup.cache / "notes.txt").write_text("mine")
    before = {f.name: (f.read_bytes(), f.stat()) for f in _files(folder_setup.cache)}
    folder_setup.sync()
    after = {f.name: (f.read_bytes(), f.stat()) for f in _files(folder_setup.cache)}
    assert before.keys() == after.keys()
    for name, (body, stat) in before.items():
        assert after[name][0] == body
        assert after[name][1].st_mtime_ns == stat.st_mtime_ns
        assert after[name][1].st_mode == stat.st_mode


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def test_two_contents_with_one_xxh3_stay_two(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Colliding:
        @staticmethod
        def xxh3_128_digest(data: bytes) -> bytes:
            return b"\x01" * 16

    fill(folder_setup.cache, {url_of(1): photo(1)})
    with monkeypatch.context() as patch:
        patch.setattr("mirror.content.digest.xxhash", Colliding)
        folder_setup.sync()
        fill(folder_setup.cache, {url_of(2): photo(2)})
        report = folder_setup.sync()
    assert (report.collided, report.exit_status, report.uploaded) == (1, 0, 0)
    assert list(folder_setup.objects().values()) == [photo(1)]
    assert url_md5(url_of(2)) not in folder_setup.rows()
