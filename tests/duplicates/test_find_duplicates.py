"""`mirror duplicates`: over a cache and over a mirror, as a report, a CSV, a page and a command."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from mirror.cli.main import run
from mirror.config.settings import Settings
from mirror.duplicates.duplicates_page import GROUPS
from mirror.duplicates.find_duplicates import DuplicatesReport, find_duplicates
from mirror.duplicates.photo_groups import Copy, PhotoGroup
from mirror.errors import CacheError, UsageError
from tests.labelled.photographs import encoded, fitted, jpeg
from tests.support.mirror_setup import MirrorSetup
from tests.support.photos import blank, fill, name_of, url_of

SMALL, LARGE = "chelsea.png", "coffee.png"


def filled(setup: MirrorSetup) -> Settings:
    """Five files: a photograph at two sizes and as a PNG, another one twice, and a blank."""
    picture = fitted(LARGE, 300)
    fill(
        setup.cache,
        {
            url_of(1): encoded(picture, "JPEG", quality=90),
            url_of(2): encoded(picture.resize((150, 100)), "JPEG"),
            url_of(3): encoded(picture, "PNG"),
            url_of(4): jpeg(SMALL),
            url_of(5): jpeg(SMALL),
            url_of(6): jpeg("brick.png"),
            url_of(7): blank(),
        },
    )
    return setup.settings()


def shape(report: DuplicatesReport) -> list[tuple[int, int]]:
    """Images and contents of each group."""
    return [(group.images, len(group.copies)) for group in report.groups]


def test_a_cache_has_groups_of_near_and_of_equal_copies(folder_setup: MirrorSetup) -> None:
    report = find_duplicates(filled(folder_setup))
    assert shape(report) == [(3, 3), (2, 1)]
    assert (report.checked, report.counts["ok"], report.counts["blank"]) == (7, 6, 1)
    assert (report.contents, report.near_groups, report.redundant) == (5, 1, 3)
    assert (report.without_phash, report.exit_status) == (0, 0)
    names = {name for copy in report.groups[0].copies for name in copy.names}
    assert names == {name_of(url_of(number)) for number in (1, 2, 3)}
    assert {copy.format for copy in report.groups[0].copies} == {"jpeg", "png"}
    assert report.groups[0].farthest <= 15


def test_a_mirror_has_the_same_groups(mirror_setup: MirrorSetup) -> None:
    settings = filled(mirror_setup)
    assert mirror_setup.sync().exit_status == 0
    report = find_duplicates(settings, mirror=True)
    assert shape(report) == [(3, 3), (2, 1)]
    assert (report.place, report.checked, report.counts["blank"]) == ("mirror", 7, 1)
    (twice,) = report.groups[1].copies
    assert sorted(twice.names) == sorted(name_of(url_of(n)).split(".")[0] for n in (4, 5))


def test_the_csv_lists_every_image(folder_setup: MirrorSetup, tmp_path: Path) -> None:
    find_duplicates(filled(folder_setup), csv_path=tmp_path / "copies.csv")
    with (tmp_path / "copies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == ["1", "1", "1", "2", "2"]
    assert {row["image"] for row in rows[3:]} == {name_of(url_of(4)), name_of(url_of(5))}
    assert rows[3]["content_hash"] == rows[4]["content_hash"]
    assert (rows[0]["distance"], rows[3]["distance"]) == ("0", "0")


@pytest.mark.parametrize("mirror", [False, True])
def test_the_page_shows_the_copies(folder_setup: MirrorSetup, tmp_path: Path, mirror: bool) -> None:
    settings = filled(folder_setup)
    folder_setup.sync()
    find_duplicates(settings, mirror=mirror, page_path=tmp_path / "copies.html")
    page = (tmp_path / "copies.html").read_text()
    assert "2 photographs have copies" in page
    assert page.count("data:image/webp;base64,") == 4
    assert "× 2</span>" in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=[\"']?(?!data:)http", page)


def test_a_page_of_many_groups_is_bounded(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from mirror.duplicates.duplicates_page import PageHeading, write_page

    copies = [Copy(0, ["<b>"], bytes(16), 9, 4, 4, "jpeg", 30 * n) for n in range(20)]
    groups = [PhotoGroup(copies)] * (GROUPS + 5)
    with (tmp_path / "page.html").open("w") as out:
        heading = PageHeading("cache", "/<i>", 9, 0, datetime.now(UTC))
        write_page(out, groups, heading, lambda some: iter([None for _ in some]))
    page = (tmp_path / "page.html").read_text()
    assert page.count("<section") == GROUPS
    assert "and 5 smaller groups" in page
    assert "and 8 more different files" in page
    assert "May hold more than one photograph" in page
    assert "<b>" not in page.replace("<b>20", "").replace("<b>205", "").replace("<b>0", "").replace(
        "<b>3,895", ""
    )
    assert "<i>" not in page


def test_a_gone_object_is_a_neutral_tile(folder_setup: MirrorSetup, tmp_path: Path) -> None:
    settings = filled(folder_setup)
    folder_setup.sync()
    folder_setup.remove(*folder_setup.objects())
    find_duplicates(settings, mirror=True, page_path=tmp_path / "copies.html")
    page = (tmp_path / "copies.html").read_text()
    assert page.count("no picture") == 4


def test_thirty_thousand_equal_placeholders_are_no_group(folder_setup: MirrorSetup) -> None:
    body = encoded(Image.effect_noise((40, 40), 60).convert("RGB"), "JPEG")
    fill(folder_setup.cache, {url_of(n): body for n in range(3000)})
    report = find_duplicates(folder_setup.settings())
    assert (report.checked, report.counts["placeholder"], report.groups) == (3000, 3000, [])


def test_nothing_to_compare(folder_setup: MirrorSetup, tmp_path: Path) -> None:
    fill(folder_setup.cache, {url_of(1): jpeg(LARGE)})
    report = find_duplicates(folder_setup.settings(), page_path=tmp_path / "page.html")
    assert (report.checked, report.groups, report.redundant) == (1, [], 0)
    assert "No copies were found" in (tmp_path / "page.html").read_text()


def test_a_wrong_ending_is_refused_before_the_work(folder_setup: MirrorSetup) -> None:
    with pytest.raises(UsageError, match=r"ends in \.png"):
        find_duplicates(folder_setup.settings(), page_path=Path("copies.png"))
    with pytest.raises(CacheError):
        find_duplicates(folder_setup.place.settings(cache={"dir": "/nowhere/at/all"}))


def test_the_command(
    folder_setup: MirrorSetup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(folder_setup)
    page = tmp_path / "copies.html"
    assert run(["duplicates", f"--cache={folder_setup.cache}", f"--sheet={page}"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"groups\s+2  of one photograph each", said)
    assert "Group 1: 3 images, 3 different" in said
    assert f"Written: {page}" in said
    assert run(["--json", "duplicates", f"--cache={folder_setup.cache}"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["checked"], len(report["groups"])) == (7, 2)
    assert report["groups"][1]["copies"][0]["images"] == 2
