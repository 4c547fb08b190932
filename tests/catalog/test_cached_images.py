"""A cache in place of a mirror: verdicts, file URLs, and the choice between two files of one URL."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from mirror.catalog.index.cached_images import CachedImages
from mirror.catalog.lookup import OUTCOMES, UrlLookup, digests_of
from mirror.dataset.inputs import Input
from mirror.dataset.rewrite.rewrite_dataset import rewrite_dataset
from mirror.dataset.rewrite.rewrite_options import RewriteOptions
from mirror.dataset.rewrite.rewrite_report import RewriteReport
from mirror.errors import DatasetError
from tests.support import damaged_caches
from tests.support.damaged_caches import HTML, inspected
from tests.support.mirrored_dataset import got, put, work
from tests.support.photos import blank, fill, name_of, photo, url_of

__all__ = ["work"]


def images_in(folder: Path) -> CachedImages:
    with inspected(folder) as findings:
        return CachedImages(folder, findings)


def outcomes(images: CachedImages, *numbers: int, **options: int) -> list[str]:
    lookup = UrlLookup(images.index, "url", of_mirror=False, **options)
    urls = [url_of(number).encode() for number in numbers]
    at = lookup.find(urls, digests_of(urls)).positions
    return [OUTCOMES[code] for code in lookup.outcomes(at)]


def urls_of_files(images: CachedImages, *numbers: int) -> list[str]:
    urls = [url_of(number).encode() for number in numbers]
    at = images.index.find(digests_of(urls))
    assert (at >= 0).all()
    return [url.decode() for url in images.file_urls(at)]


def opened(url: str) -> bytes:
    # Not by urlopen: it would take a name's bytes for UTF-8.
    return Path(os.fsdecode(unquote_to_bytes(url.removeprefix("file://")))).read_bytes()


def test_every_file_is_known_with_its_verdict(tmp_path: Path) -> None:
    verdicts = damaged_caches.make(tmp_path)
    images = images_in(tmp_path)
    assert len(images.index) == len(verdicts)
    for number in (*range(10), *range(100, 115)):
        assert outcomes(images, number) == [verdicts[name_of(url_of(number))]]
    assert outcomes(images, 999) == ["not_mirrored"]


def test_an_empty_cache_knows_nothing(tmp_path: Path) -> None:
    images = images_in(tmp_path)
    assert outcomes(images, 1, 2) == ["not_mirrored", "not_mirrored"]
    assert images.file_urls(np.array([], np.intp)) == []


FOLDERS = ["", "ab", "a/b/c", "with space", "100%", "a#b?c", "é", b"\xff\xfe", "a\nb", "~", "a'\"b"]


@pytest.mark.parametrize("below", FOLDERS, ids=repr)
def test_a_files_url_opens_it_wherever_it_is(tmp_path: Path, below: str | bytes) -> None:
    folder = tmp_path / "cache of été"
    damaged_caches.put(folder, 1, photo(1), below)
    damaged_caches.put(folder, 2, photo(2))
    images = images_in(folder)
    one, two = urls_of_files(images, 1, 2)
    assert (opened(one), opened(two)) == (photo(1), photo(2))
    assert one.isascii()
    assert one.startswith("file:///")
    assert '"' not in one
    assert "\\" not in one


def test_a_files_url_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged_caches.put(tmp_path / "cache", 1, photo(1))
    monkeypatch.chdir(tmp_path)
    (url,) = urls_of_files(images_in(Path("cache")), 1)
    assert url == f"file://{tmp_path}/cache/{name_of(url_of(1))}"


@pytest.mark.parametrize("names", ["jpg jpeg", "jpeg jpg", "jpg JPG", "png jpg"])
@pytest.mark.parametrize("bad", [blank(), HTML, photo(9)[:-200]], ids=["blank", "HTML", "cut"])
def test_a_good_file_wins_over_a_flagged_one_of_the_same_url(
    tmp_path: Path, names: str, bad: bytes
) -> None:
    first, second = names.split()
    (tmp_path / name_of(url_of(1), first)).write_bytes(bad)
    (tmp_path / name_of(url_of(1), second)).write_bytes(photo(1))
    images = images_in(tmp_path)
    assert len(images.index) == 1
    assert outcomes(images, 1) == ["ok"]
    assert [opened(url) for url in urls_of_files(images, 1)] == [photo(1)]


def test_the_twin_may_be_in_another_folder(tmp_path: Path) -> None:
    for number, (flagged, good) in enumerate([("a", "z"), ("z", "a"), ("", "a"), ("a", "")]):
        damaged_caches.put(tmp_path, number, HTML, flagged)
        damaged_caches.put(tmp_path, number, photo(number), good)
    images = images_in(tmp_path)
    assert outcomes(images, *range(4)) == ["ok"] * 4
    bodies = [opened(url) for url in urls_of_files(images, *range(4))]
    assert bodies == [photo(number) for number in range(4)]


def test_of_two_good_files_the_url_and_what_is_known_are_of_one(tmp_path: Path) -> None:
    for below, side in (("a", 48), ("b", 96), ("c", 24)):
        damaged_caches.put(tmp_path, 1, photo(1, side), below)
    images = images_in(tmp_path)
    (url,) = urls_of_files(images, 1)
    index = images.index.sightings
    assert len(opened(url)) == index["size"][0]
    assert opened(url) == photo(1, int(index["width"][0]))


def test_of_flagged_files_only_one_is_known_too(tmp_path: Path) -> None:
    damaged_caches.put(tmp_path, 1, HTML, "a")
    damaged_caches.put(tmp_path, 1, blank(), "b")
    images = images_in(tmp_path)
    (outcome,) = outcomes(images, 1)
    (url,) = urls_of_files(images, 1)
    assert opened(url) == {"not_image": HTML, "blank": blank()}[outcome]


def test_sizes_are_known(tmp_path: Path) -> None:
    damaged_caches.put(tmp_path, 1, photo(1, 40))
    damaged_caches.put(tmp_path, 2, photo(2, 41))
    assert outcomes(images_in(tmp_path), 1, 2, min_side=41) == ["too_small", "ok"]


def test_a_photo_is_found_under_another_spelling(tmp_path: Path) -> None:
    damaged_caches.put(tmp_path, 1, photo(1))
    lookup = UrlLookup(images_in(tmp_path).index, "photo", of_mirror=False)
    urls = [b"https://static.inaturalist.org/photos/1/medium.jpeg?7"]
    at, by_photo = lookup.find(urls, digests_of(urls))
    assert (at.tolist(), by_photo.tolist()) == ([0], [True])


def of_cache(folder: Path, path: Path, *, files: bool, **options: object) -> RewriteReport:
    images = images_in(folder)
    return rewrite_dataset(
        [Input(str(path))],
        path.with_name("out.jsonl"),
        RewriteOptions(**options),  # type: ignore[arg-type]
        UrlLookup(images.index, of_mirror=False),
        new_urls=images.file_urls if files else None,
    )


def test_records_are_kept_as_they_are_or_point_at_the_files(work: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    damaged_caches.make(cache)
    damaged_caches.put(cache, 20, photo(20), "sub folder")
    lines = [f'{{"image_url":"{url_of(n)}", "n":{n}}}' for n in (1, 20, 100, 999, 2)]
    path = put(work / "raw.jsonl", lines)
    report = of_cache(cache, path, files=False)
    assert (work / "out.jsonl").read_text() == f"{lines[0]}\n{lines[1]}\n{lines[4]}\n"
    assert (report.written, report.dropped["blank"], report.dropped["not_mirrored"]) == (3, 1, 1)

    of_cache(cache, path, files=True)
    records = got(work / "out.jsonl")
    assert [opened(record["image_url"]) for record in records] == [photo(1), photo(20), photo(2)]
    assert [record["source_url"] for record in records] == [url_of(1), url_of(20), url_of(2)]


def test_a_list_keeps_what_is_cached(work: Path, tmp_path: Path) -> None:
    fill(tmp_path / "cache", {url_of(n): photo(n) for n in (1, 2)})
    urls = [url_of(n) for n in (1, 999, 2)]
    path = put(work / "raw.jsonl", [{"image_url": urls}])
    report = of_cache(tmp_path / "cache", path, files=False)
    assert got(work / "out.jsonl") == [{"image_url": [urls[0], urls[2]]}]
    assert report.urls_dropped == 1


def test_what_is_missing_in_a_cache_is_said_of_the_cache(work: Path, tmp_path: Path) -> None:
    fill(tmp_path / "cache", {url_of(1): photo(1)})
    path = put(work / "raw.jsonl", [{"image_url": url_of(2)}])
    with pytest.raises(DatasetError, match="not in the cache.*download them first"):
        of_cache(tmp_path / "cache", path, files=False, missing="fail")
    assert "in the cache" in str(of_cache(tmp_path / "cache", path, files=False).error)
