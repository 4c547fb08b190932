"""Copies of one photograph in a rewrite: real photographs at two sizes, in a mirror and in a cache."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mirror.dataset.rewrite.image_source import open_image_source
from mirror.dataset.rewrite.rewrite_options import ImageOptions, parse_options
from mirror.run.progress import Progress
from mirror.sync.run_sync import SyncOptions, sync
from tests.conftest import Place
from tests.labelled.photographs import BRIGHT, encoded, photograph
from tests.support.mirrored_dataset import Mirror, got, put, work
from tests.support.photos import fill

__all__ = ["work"]

SPLIT = "train=0.5,val=0.25,test=0.25"
SIZES = {"large": 480, "small": 240}


def crops() -> list[Image.Image]:
    """Distinct parts of photographs, each 260 pixels wide."""
    found = []
    for name in BRIGHT:
        image = photograph(name)
        lefts = range(0, min(image.width - 259, 521), 260)
        found += [image.crop((left, 0, left + 260, 260)) for left in lefts]
    return found


def url(number: int, size: str) -> str:
    return f"https://img.example.org/{number}/{size}.jpg"


def bodies(numbers: Sequence[int], size: str) -> dict[str, bytes]:
    side = SIZES[size]
    return {
        url(number, size): encoded(crops()[number].resize((side, side)), quality=88)
        for number in numbers
    }


ALL = range(len(crops()))


def record(number: int, size: str, **fields: Any) -> dict[str, Any]:
    return {"id": number, "image_url": url(number, size), "size": size, **fields}


BOTH = [record(number, size) for size in SIZES for number in ALL]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """A mirror of every crop at two sizes: the large ones came first. Do not change it."""
    folder = tmp_path_factory.mktemp("copies")
    fill(folder / "cache", bodies(ALL, "large"))
    place = Place("file", {"url": f"file://{folder}/mirror"})
    Mirror.of(place, folder)
    fill(folder / "cache", bodies(ALL, "small"))
    return Mirror.of(place, folder)


def splits_of(folder: Path, name: str = "out") -> dict[int, set[str]]:
    """The splits that each crop is in."""
    found: dict[int, set[str]] = defaultdict(set)
    for split in ("train", "val", "test"):
        for one in got(folder / f"{name}_{split}.jsonl"):
            found[one["id"]].add(split)
    return found


def options(**texts: Any) -> dict[str, Any]:
    """The fields of the options that these texts of the command line give."""
    made = parse_options(**texts)
    return {name: getattr(made, name) for name in made.__dataclass_fields__}


def test_no_copy_crosses_a_split_by_default(copies: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", BOTH)
    report = copies.rewrite(path, work / "out.jsonl", **options(split=SPLIT))
    assert all(len(splits) == 1 for splits in splits_of(work).values())
    assert report.near_duplicate_groups == len(ALL)
    assert report.groups_crossing > len(ALL) // 4
    assert report.without_phash == 0


def test_kept_apart_they_fall_as_their_contents_say(copies: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", BOTH)
    grouped = copies.rewrite(path, work / "out.jsonl", **options(split=SPLIT))
    report = copies.rewrite(
        path, work / "apart.jsonl", **options(split=SPLIT, near_duplicates="keep")
    )
    torn = sum(len(splits) > 1 for splits in splits_of(work, "apart").values())
    assert torn == grouped.groups_crossing
    assert report.near_duplicate_groups is None


def test_copies_that_come_later_move_no_record(copies: Mirror, work: Path) -> None:
    """The large images were seen first, so they stand where they stand without the small ones."""
    alone = put(work / "alone.jsonl", [record(number, "large") for number in ALL])
    keep = options(split=SPLIT, near_duplicates="keep")
    copies.rewrite(alone, work / "before.jsonl", **keep)
    copies.rewrite(put(work / "raw.jsonl", BOTH), work / "out.jsonl", **options(split=SPLIT))
    assert splits_of(work) == splits_of(work, "before")


def test_of_copies_the_largest_is_written(copies: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", [*reversed(BOTH), record(0, "large", again=True)])
    report = copies.rewrite(path, work / "out.jsonl", **options(near_duplicates="drop"))
    written = got(work / "out.jsonl")
    assert {one["size"] for one in written} == {"large"}
    assert sorted(one["id"] for one in written) == list(ALL)
    assert report.dropped["near_duplicate"] == len(ALL) + 1
    assert report.written == len(ALL)


def test_a_sample_is_drawn_from_what_is_left(copies: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", BOTH)
    report = copies.rewrite(path, work / "out.jsonl", **options(near_duplicates="drop", sample="7"))
    assert (report.written, report.dropped["near_duplicate"]) == (7, len(ALL))
    assert report.dropped["sample"] == len(ALL) - 7
    assert {one["size"] for one in got(work / "out.jsonl")} == {"large"}


def test_groups_and_copies_join(copies: Mirror, work: Path) -> None:
    """Two crops are of one plant; their copies follow them."""
    plants = [
        record(n, size, plant=n // 2) for size in SIZES for n in ALL if size == "large" or n % 2
    ]
    path = put(work / "raw.jsonl", plants)
    copies.rewrite(path, work / "out.jsonl", **options(split=SPLIT, group_by="plant"))
    where = splits_of(work)
    assert all(len(splits) == 1 for splits in where.values())
    assert all(where[number] == where[number - 1] for number in ALL if number % 2)


def test_strata_keep_copies_together(copies: Mirror, work: Path) -> None:
    plants = [record(n, size, kind=f"k{n % 3}") for size in SIZES for n in ALL]
    path = put(work / "raw.jsonl", plants)
    report = copies.rewrite(path, work / "out.jsonl", **options(split=SPLIT, stratify_by="kind"))
    assert all(len(splits) == 1 for splits in splits_of(work).values())
    assert report.label_conflicts == 0


def test_a_pin_holds_for_all_copies(copies: Mirror, work: Path) -> None:
    pinned = [record(number, "small") for number in ALL]
    earlier = put(work / "earlier.jsonl", pinned)
    path = put(work / "raw.jsonl", [record(number, "large") for number in ALL])
    report = copies.rewrite(
        path, work / "out.jsonl", **options(split=SPLIT, pin=[f"test={earlier}"])
    )
    assert report.splits == {"train": 0, "val": 0, "test": len(ALL)}
    assert report.pinned == len(ALL)
    # The URLs of the mirror in an earlier output mean the same images.
    copies.rewrite(earlier, work / "mirrored.jsonl", **options())
    report = copies.rewrite(
        path, work / "out.jsonl", **options(split=SPLIT, pin=[f"val={work}/mirrored.jsonl"])
    )
    assert report.splits["val"] == len(ALL)


def test_a_cache_keeps_copies_together_too(copies: Mirror, work: Path) -> None:
    images = ImageOptions(cached_only=True)
    source = open_image_source(copies.settings, images, None, Progress())
    path = put(work / "raw.jsonl", BOTH)
    report = copies.rewrite(
        path, work / "out.jsonl", source.lookup, base=None, **options(split=SPLIT)
    )
    assert all(len(splits) == 1 for splits in splits_of(work).values())
    assert report.near_duplicate_groups == len(ALL)


def test_a_photograph_under_two_classes_is_counted_and_listed(copies: Mirror, work: Path) -> None:
    plants = [
        record(n, size, kind="oak" if size == "large" or n else "ash")
        for size in SIZES
        for n in ALL
    ]
    path = put(work / "raw.jsonl", plants)
    report = copies.rewrite(path, work / "out.jsonl", **options(label_field="kind"))
    assert (report.label_conflicts, report.written) == (1, len(plants))
    (conflict,) = report.conflicts
    assert sorted(conflict.classes) == ["ash", "oak"]
    assert conflict.records == [f"{path}:1", f"{path}:{len(ALL) + 1}"]
    (warning,) = report.warnings
    assert "1 photograph is in records with different values of 'kind'" in warning
    report = copies.rewrite(
        path, work / "dropped.jsonl", **options(label_field="kind", label_conflicts="drop")
    )
    assert (report.written, report.dropped["label_conflict"]) == (len(plants) - 2, 2)
    assert 0 not in {one["id"] for one in got(work / "dropped.jsonl")}


def test_leaks_that_are_allowed_need_no_copies(copies: Mirror, work: Path) -> None:
    path = put(work / "raw.jsonl", BOTH)
    report = copies.rewrite(path, work / "out.jsonl", **options(split=SPLIT, allow_leaks=True))
    assert report.near_duplicate_groups is None
    assert any(len(splits) > 1 for splits in splits_of(work).values())


def test_sizes_of_one_photo_stay_together_without_a_hash(tmp_path: Path, work: Path) -> None:
    """A mirror that was filled without looking at pixels, and that knows no source of its URLs."""
    sizes = {"large": 300, "square": 75}
    urls = {
        (number, size): f"https://static.inaturalist.org/photos/{number}/{size}.jpg"
        for number in range(1, 9)
        for size in sizes
    }
    images = {
        urls[number, size]: encoded(crops()[number].resize((side, side)))
        for number in range(1, 9)
        for size, side in sizes.items()
    }
    fill(tmp_path / "cache", images)
    place = Place("file", {"url": f"file://{tmp_path}/mirror"})
    settings = place.settings(
        cache={"dir": str(tmp_path / "cache")},
        state={"dir": str(tmp_path / "state")},
        sync={"inspect": "off"},
    )
    assert sync(settings, SyncOptions()).exit_status == 0
    mirror = Mirror(settings, tmp_path / "cache")
    path = put(work / "raw.jsonl", [{"id": n, "image_url": urls[n, s]} for n, s in urls])
    report = mirror.rewrite(path, work / "out.jsonl", **options(split=SPLIT))
    assert all(len(splits) == 1 for splits in splits_of(work).values())
    assert report.without_phash == len(urls)
    assert report.near_duplicate_groups == 8
