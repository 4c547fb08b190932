"""Small real images that tests generate. Each seed gives a distinct image, equal on every run."""

from __future__ import annotations

import hashlib
import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image


@cache
def photo(seed: int, side: int = 48) -> bytes:
    """A JPEG that is not flat, and differs for every seed."""
    chance = np.random.default_rng(seed)
    coarse = chance.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return encoded(image)


def blank(side: int = 224, quality: int = 80) -> bytes:
    """A black frame, which some loaders store for a refused download."""
    return encoded(Image.new("RGB", (side, side)), quality)


def flipped(body: bytes) -> bytes:
    """The same bytes with one bit flipped."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def encoded(image: Image.Image, quality: int = 88) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def url_of(number: int) -> str:
    return f"https://inaturalist-open-data.s3.amazonaws.com/photos/{number}/medium.jpg"


def name_of(url: str, extension: str = "jpg") -> str:
    return f"{hashlib.md5(url.encode()).hexdigest()}.{extension}"


def fill(folder: Path, bodies: dict[str, bytes]) -> None:
    """Write bodies into a cache under the names of their URLs."""
    folder.mkdir(parents=True, exist_ok=True)
    for url, body in bodies.items():
        (folder / name_of(url)).write_bytes(body)
