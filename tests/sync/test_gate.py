"""The gate, end to end: what got into the bucket, read back and decoded to its end."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import simplejpeg
from PIL import Image

from mirror.demo.cache import make_cache
from tests.conftest import MakePlace
from tests.photos import blank, fill, photo, url_of
from tests.workshop import Workshop


@pytest.fixture(params=["file", "seaweedfs-obstore"])
def shop(request: pytest.FixtureRequest, make_place: MakePlace, tmp_path: Path) -> Workshop:
    return Workshop(make_place(request.param), tmp_path)


def test_a_black_frame_of_forty_sizes_and_qualities_has_no_object(shop: Workshop) -> None:
    frames = [
        blank(side, quality) for side in range(32, 512, 60) for quality in (30, 50, 75, 85, 95)
    ]
    assert len(set(frames)) == len(frames) == 40
    fill(shop.cache, {url_of(n): frame for n, frame in enumerate(frames)})
    fill(shop.cache, {url_of(100 + n): photo(n) for n in range(3)})
    report = shop.sync()
    assert (report.flagged["blank"], report.uploaded) == (40, 3)
    assert set(shop.objects().values()) == {photo(n) for n in range(3)}


def test_everything_in_the_bucket_decodes_to_its_end(shop: Workshop, tmp_path: Path) -> None:
    made = make_cache(tmp_path, 60)
    assert shop.cache == made.folder
    report = shop.sync()
    bad = made.blanks + made.broken + made.not_images
    assert report.flagged_total == bad + made.replaced
    objects = shop.objects()
    assert len(objects) == made.photographs + 1  # and the replacement, found out afterwards
    for body in objects.values():
        simplejpeg.decode_jpeg(body, strict=True)
        Image.open(io.BytesIO(body)).load()
