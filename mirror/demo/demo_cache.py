"""A small cache as a training run leaves it: photographs under MD5 names, and bad files.

The photographs are crops of those that scikit-image ships, in the sizes that iNaturalist serves.
"""

from __future__ import annotations

import importlib.util
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from PIL import Image, ImageDraw

from mirror.content.decode import rgb
from mirror.errors import UsageError
from mirror.layout import url_md5
from mirror.system.extras import missing

_PHOTOGRAPHS: Final = (
    "astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png",
    "rocket.jpg",
)  # fmt: skip
# The sizes of iNaturalist, as the longer side in pixels, with their weights in a training set.
_SIZES: Final = {"medium": (500, 12), "small": (240, 4), "thumb": (100, 1), "square": (75, 1)}
_SPECIES: Final = ("Urtica dioica", "Bellis perennis", "Trifolium repens", "Plantago major")
_LICENSES: Final = ("CC-BY-NC", "CC-BY", "CC0", None)
_HOST: Final = "https://inaturalist-open-data.s3.amazonaws.com"
_OLD_HOST: Final = "https://static.inaturalist.org"


@dataclass
class DemoCache:
    """The files that were made, counted by kind. `dataset` is the JSONL that refers to them."""

    folder: Path
    dataset: Path
    photographs: int = 0
    duplicates: int = 0
    copies: int = 0
    blanks: int = 0
    broken: int = 0
    not_images: int = 0
    replaced: int = 0
    ignored: int = 0

    @property
    def files(self) -> int:
        return (
            self.photographs
            + self.duplicates
            + self.copies
            + self.blanks
            + self.broken
            + self.not_images
            + self.replaced
        )


def make_cache(folder: Path, photographs: int = 300, seed: int = 1) -> DemoCache:
    """Fill `folder/cache` and write `folder/dataset_raw.jsonl`. The same seed gives the same bytes.

    Args:
        folder: where both are made.
        photographs: how many photographs the cache gets, besides copies and bad files.
        seed: chooses crops, sizes and damage.

    Raises:
        UsageError: scikit-image, which ships the photographs, is not installed.
    """
    made = DemoCache(folder / "cache", folder / "dataset_raw.jsonl")
    made.folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    originals = _load_photographs()
    records: list[dict[str, object]] = []

    def keep(url: str, body: bytes, scene: str | None = None) -> None:
        (made.folder / f"{url_md5(url).hex()}.jpg").write_bytes(body)
        number = len(records)
        records.append(
            {
                "id": 1000 + number,
                "observation_id": 500 + number // 2,
                "species": chance.choice(_SPECIES),
                "scene": scene,
                "image_url": url,
                "license": chance.choice(_LICENSES),
                "attribution": f"© observer {number % 37}",
            }
        )

    kept: list[tuple[int, str, bytes, str]] = []
    for number in range(photographs):
        size = chance.choices(list(_SIZES), [weight for _, weight in _SIZES.values()])[0]
        scene, original = chance.choice(originals)
        body = _crop(chance, original, _SIZES[size][0])
        photo = 10_000_000 + number
        keep(f"{_HOST}/photos/{photo}/{size}.jpg", body, scene)
        kept.append((photo, size, body, scene))
        made.photographs += 1
    for photo, size, body, scene in chance.sample(kept, photographs // 4):
        # A cache gets its duplicates from other spellings of a photo's URL.
        other = chance.choice(
            (
                f"{_HOST}/photos/{photo}/{size}.jpeg",
                f"{_OLD_HOST}/photos/{photo}/{size}.jpg?1545{photo % 1000:03d}",
            )
        )
        keep(other, body, scene)
        made.duplicates += 1
    for number, (photo, _, body, scene) in enumerate(chance.sample(kept, photographs // 8)):
        # The same photograph at another size, or uploaded a second time.
        again = photo if number % 2 else 60_000_000 + number
        keep(f"{_HOST}/photos/{again}/large.jpg", _resized(body, chance.uniform(0.5, 0.9)), scene)
        made.copies += 1
    for number in range(photographs // 15):
        # The old loader stored this frame when a server refused an image with 429.
        frame = _jpeg(Image.new("RGB", (224, 224)), chance.randint(60, 95))
        keep(f"{_HOST}/photos/{20_000_000 + number}/medium.jpg", frame)
        made.blanks += 1
    for number, damage in enumerate(_DAMAGES):
        keep(f"{_HOST}/photos/{30_000_000 + number}/medium.jpg", damage(kept[number][2]))
        made.broken += 1
    for number, body in enumerate(_NOT_IMAGES):
        keep(f"{_HOST}/photos/{40_000_000 + number}/medium.jpg", body)
        made.not_images += 1
    for number in range(6):
        # Six photos that a server has hidden: it answers with one placeholder for all.
        keep(f"{_HOST}/photos/{50_000_000 + number}/medium.jpg", _replacement())
        made.replaced += 1
    (made.folder / "ab12.jpg.part").write_bytes(kept[0][2][:5000])
    (made.folder / "README.txt").write_text("not an image, and not under an MD5 name\n")
    made.ignored = 2
    made.dataset.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    return made


_DAMAGES: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda body: body[: len(body) // 2],
    lambda body: body[: len(body) // 2] + b"\xff\xd9",
    lambda body: body[: len(body) * 2 // 3] + bytes(len(body) // 3),
    lambda body: body[:400],
)

_NOT_IMAGES: Final = (
    b"",
    b"<!DOCTYPE html><html><head><title>429 Too Many Requests</title></head></html>",
    b'{"error": "rate limited", "status": 429}',
)


def _load_photographs() -> list[tuple[str, Image.Image]]:
    """The photographs with the names of their subjects, so that a model can learn from them."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise UsageError(missing("skimage", "The demo"))
    data = Path(found.submodule_search_locations[0]) / "data"
    return [(name.partition(".")[0], rgb((data / name).read_bytes())) for name in _PHOTOGRAPHS]


def _crop(chance: random.Random, photograph: Image.Image, box: int) -> bytes:
    """A random part of a photograph as JPEG, at most `box` pixels wide and high, never enlarged."""
    side = chance.uniform(0.5, 0.95)
    width, height = (round(length * side) for length in photograph.size)
    left = chance.randrange(photograph.width - width)
    top = chance.randrange(photograph.height - height)
    part = photograph.crop((left, top, left + width, top + height))
    part.thumbnail((box, box))
    if chance.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _jpeg(part, chance.randint(80, 92))


def _resized(body: bytes, scale: float) -> bytes:
    image = rgb(body)
    return _jpeg(image.resize([round(side * scale) for side in image.size]), 85)


def _replacement() -> bytes:
    picture = Image.new("RGB", (500, 375), (236, 236, 232))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((90, 90, 410, 285), outline=(150, 150, 146), width=4)
    draw.line((90, 285, 410, 90), fill=(150, 150, 146), width=4)
    draw.text((176, 310), "photo not available", fill=(110, 110, 106))
    return _jpeg(picture, 85)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
