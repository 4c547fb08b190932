"""The photographs that scikit-image ships, and ways to encode them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import skimage
from PIL import Image

Made = Iterator[tuple[str, bytes]]

PHOTOGRAPHS = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg",
    "motorcycle_left.png", "motorcycle_right.png", "camera.png", "coins.png", "brick.png",
    "grass.png", "gravel.png", "ihc.png", "retina.jpg", "moon.png", "clock_motion.png",
)  # fmt: skip
# Photographs whose lower rows are neither black nor one grey, so that a cut is visible.
BRIGHT = (
    "astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png",
    "camera.png", "brick.png", "grass.png", "gravel.png", "ihc.png",
)  # fmt: skip
QUALITIES = (30, 40, 50, 60, 70, 80, 90, 95)
FORTY_SIZES = (
    *((48 + 24 * step, 40 + (step * 53) % 471) for step in range(39)),
    (224, 224),
)


@cache
def photograph(name: str) -> Image.Image:
    image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
    image.info.clear()
    return image


def fitted(name: str, box: int) -> Image.Image:
    """Scale a photograph to the largest size that fits a square of `box`."""
    image = photograph(name)
    scale = box / max(image.size)
    return image.resize([max(1, round(length * scale)) for length in image.size])


def encoded(image: Image.Image, to: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, to, **options)
    return out.getvalue()


def jpeg(name: str, box: int = 320, quality: int = 85, **options: Any) -> bytes:
    return encoded(fitted(name, box), quality=quality, **options)


def levels(image: Image.Image, gain: float, offset: float = 0) -> Image.Image:
    return image.point(lambda level: round(level * gain + offset))


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
