"""The quality gate, end to end: objects in the bucket are read back and fully decoded."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import simplejpeg
from PIL import Image

from mirror.content.digest import digest_of
from mirror.content.image import Level
from mirror.demo.demo_cache import make_cache
from mirror.layout import url_md5
from mirror.sync.rebuild import rebuild_state
from mirror.sync.run_sync import sync
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.repair import RepairOptions, repair
from tests.conftest import MakePlace
from tests.support.mirror_setup import MirrorSetup, key_of
from tests.support.photos import blank, fill, name_of, photo, url_of


@pytest.fixture(params=["file", "seaweedfs-obstore"])
def mirror_setup(
    request: pytest.FixtureRequest, make_place: MakePlace, tmp_path: Path
) -> MirrorSetup:
    return MirrorSetup(make_place(request.param), tmp_path)


def test_a_black_frame_of_forty_sizes_and_qualities_has_no_object(
    mirror_setup: MirrorSetup,
) -> None:
    frames = [
        blank(side, quality) for side in range(32, 512, 60) for quality in (30, 50, 75, 85, 95)
    ]
    assert len(set(frames)) == len(frames) == 40
    fill(mirror_setup.cache, {url_of(n): frame for n, frame in enumerate(frames)})
    fill(mirror_setup.cache, {url_of(100 + n): photo(n) for n in range(3)})
    report = mirror_setup.sync()
    assert (report.flagged["blank"], report.uploaded) == (40, 3)
    assert set(mirror_setup.objects().values()) == {photo(n) for n in range(3)}


def test_everything_in_the_bucket_decodes_to_its_end(
    mirror_setup: MirrorSetup, tmp_path: Path
) -> None:
    made = make_cache(tmp_path, 60)
    assert mirror_setup.cache == made.folder
    report = mirror_setup.sync()
    bad = made.blanks + made.broken + made.not_images
    assert report.flagged_total == bad + made.replaced
    objects = mirror_setup.objects()
    assert (
        len(objects) == made.photographs + made.copies + 1
    )  # and the replacement, found out afterwards
    for body in objects.values():
        simplejpeg.decode_jpeg(body, strict=True)
        Image.open(io.BytesIO(body)).load()


LESS = pytest.mark.parametrize("level", ["off", "header"])


def verdicts(mirror_setup: MirrorSetup) -> dict[bytes, tuple[str, str]]:
    return {url: (row["verdict"], row["reason"]) for url, row in mirror_setup.rows().items()}


@LESS
def test_a_lower_level_never_overrides_an_earlier_verdict(
    folder_setup: MirrorSetup, level: Level
) -> None:
    flagged = {url_of(1): blank(), url_of(2): photo(2)[:600], url_of(3): b"<html>429</html>"}
    fill(folder_setup.cache, flagged | {url_of(n): photo(999) for n in range(10, 16)})
    fill(folder_setup.cache, {url_of(4): photo(4)})
    folder_setup.sync()
    before, objects = verdicts(folder_setup), folder_setup.objects()
    assert sorted(verdict for verdict, _ in before.values()) == [
        "blank", "corrupt", "not_image", "ok", *["placeholder"] * 6,
    ]  # fmt: skip
    shutil.rmtree(folder_setup.state)
    # Also the same bytes under URLs that have no verdict yet.
    fill(folder_setup.cache, {url_of(5): blank(), url_of(6): photo(999)})

    report = folder_setup.sync(inspect=level)

    assert (report.uploaded, report.deduplicated, report.failed) == (0, 1, 0)
    assert report.flagged == {"blank": 2, "corrupt": 1, "not_image": 1, "placeholder": 7}
    assert folder_setup.objects() == objects
    after = verdicts(folder_setup)
    assert {url: after[url] for url in before} == before
    assert after[url_md5(url_of(5))] == before[url_md5(url_of(1))]
    assert after[url_md5(url_of(6))] == ("placeholder", "known placeholder")


@LESS
def test_a_state_rebuilt_without_inspection_knows_the_flagged_files(
    folder_setup: MirrorSetup, level: Level
) -> None:
    fill(folder_setup.cache, {url_of(1): blank(), url_of(2): photo(2)})
    fill(folder_setup.cache, {url_of(n): photo(999) for n in range(10, 16)})
    folder_setup.sync()
    shutil.rmtree(folder_setup.state)
    report = rebuild_state(folder_setup.settings(inspect=level))
    assert (report.read, report.known, report.unknown) == (8, 8, 0)


@LESS
def test_rows_of_lost_objects_become_good_again_without_inspection(
    folder_setup: MirrorSetup, level: Level, tmp_path: Path
) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)})
    folder_setup.sync()
    folder_setup.remove(key_of(photo(1)))
    file = folder_setup.cache / name_of(url_of(1))
    file.rename(tmp_path / file.name)
    assert (
        repair(folder_setup.settings(), RepairOptions(limit=ChangeLimit(share=1.0))).flagged_rows
        == 1
    )
    assert verdicts(folder_setup)[url_md5(url_of(1))] == ("corrupt", "missing from the mirror")
    (tmp_path / file.name).rename(file)

    report = folder_setup.sync(inspect=level)

    assert report.uploaded == 1
    assert verdicts(folder_setup)[url_md5(url_of(1))][0] == "ok"


def test_a_known_placeholder_is_kept_out_without_inspection(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    (tmp_path / "bad.txt").write_text(digest_of(photo(1)).sha256.hex())
    fill(folder_setup.cache, {url_of(1): photo(1)})
    settings = folder_setup.place.settings(
        cache={"dir": str(folder_setup.cache)},
        state={"dir": str(folder_setup.state)},
        sync={"inspect": "off"},
        inspect={"known_bad": str(tmp_path / "bad.txt")},
    )
    report = sync(settings)
    assert (report.uploaded, report.flagged["placeholder"]) == (0, 1)
    assert folder_setup.objects() == {}
