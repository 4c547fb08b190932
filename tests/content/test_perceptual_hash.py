"""The perceptual hash: its definition, its golden bits, and what a copy may change."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mirror.content.image import inspect
from mirror.content.perceptual_hash import (
    LEAST_CONTRAST,
    STORED_BYTES,
    VERSION,
    jpeg_step,
    perceptual_hash,
)
from tests.labelled.photographs import encoded, fitted

GOLDEN = "01009101ad6c52177a502177e4e7060d31c26bdf44201615f6d79156846541db3dc644"
PHOTOGRAPHS = ("coffee.png", "chelsea.png", "astronaut.png")


def near(body: bytes) -> bytes:
    found = inspect(body)
    assert found.verdict == "ok"
    assert found.near is not None
    assert len(found.near) == STORED_BYTES
    assert found.near[0] == VERSION
    return found.near


def contrast(stored: bytes) -> int:
    return int.from_bytes(stored[1:3])


def distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one[3:]) ^ int.from_bytes(other[3:])).bit_count()


def by_the_definition(frame: NDArray[np.uint8], width: int, height: int, step: float) -> bytes:
    """The hash as docs/format.md defines it, in plain Python and slowly."""

    def cosines(count: int, full: int) -> list[list[int]]:
        edges = [min(i * step / full, 1.0) for i in range(count + 1)]

        def integral(k: int, x: float) -> float:
            return math.sin(math.pi * k * x) / (math.pi * k) if k else x

        return [
            [round((integral(k, b) - integral(k, a)) * 2**19) for a, b in pairwise(edges)]
            for k in range(20)
        ]

    down, across = cosines(frame.shape[0], height), cosines(frame.shape[1], width)
    levels = frame.tolist()
    order = sorted((u * u + v * v, u, v) for u in range(20) for v in range(20))[1:257]
    sums = {
        u: [
            sum(down[u][y] * levels[y][x] for y in range(len(levels)))
            for x in range(len(levels[0]))
        ]
        for u in range(20)
    }
    found = [sum(a * b for a, b in zip(sums[u], across[v], strict=True)) for _, u, v in order]
    sizes = sorted(abs(value) for value in found)
    median = (sizes[127] + sizes[128]) / 2
    bits = "".join("1" if value > 0 else "0" for value in found)
    hundredths = min(round(median * 2 / 2**38 * 100), 65535)
    stored: bytes = bytes([1]) + hundredths.to_bytes(2, "big") + int(bits, 2).to_bytes(32, "big")
    return stored


def waves(rows: int, columns: int) -> NDArray[np.uint8]:
    """A frame that every implementation can make: integers only."""
    y, x = np.mgrid[:rows, :columns]
    frame: NDArray[np.uint8] = ((x * x + 3 * y * y + x * y) // 7 % 251).astype(np.uint8)
    return frame


@pytest.mark.parametrize(
    ("rows", "columns", "width", "height", "step"),
    [
        (32, 48, 48, 32, 1.0),
        (33, 45, 358, 263, 8.0),
        (47, 41, 325, 376, 8.0),
        (20, 90, 90, 20, 1.0),
    ],
)
def test_a_second_implementation_finds_the_same_bytes(
    rows: int, columns: int, width: int, height: int, step: float
) -> None:
    frame = waves(rows, columns)
    assert perceptual_hash(frame, width, height, step) == by_the_definition(
        frame, width, height, step
    )


def test_the_bits_of_version_1_never_change() -> None:
    assert perceptual_hash(waves(33, 45), 358, 263, 8.0).hex() == GOLDEN


def sixteen_bits(image: Image.Image) -> bytes:
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


VARIANTS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG at quality 30": lambda image: encoded(image, "JPEG", quality=30),
    "progressive": lambda image: encoded(image, "JPEG", progressive=True),
    "grey": lambda image: encoded(image.convert("L"), "JPEG"),
    "CMYK": lambda image: encoded(image.convert("CMYK"), "JPEG"),
    "PNG": lambda image: encoded(image, "PNG"),
    "PNG with an alpha channel": lambda image: encoded(image.convert("RGBA"), "PNG"),
    "PNG of 16 bits": sixteen_bits,
    "GIF": lambda image: encoded(image, "GIF"),
    "WebP": lambda image: encoded(image, "WEBP", quality=80),
    "AVIF": lambda image: encoded(image, "AVIF"),
    "TIFF": lambda image: encoded(image, "TIFF"),
    "half": lambda image: encoded(image.resize((image.width // 2, image.height // 2)), "JPEG"),
    "75 pixels": lambda image: encoded(
        image.resize((75, 75 * image.height // image.width)), "JPEG"
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_copy_differs_in_few_bits(name: str, variant: str) -> None:
    picture = fitted(name, 300)
    assert distance(near(encoded(picture, "JPEG")), near(VARIANTS[variant](picture))) <= 12


def test_distinct_photographs_differ_in_many_bits() -> None:
    hashes = [near(encoded(fitted(name, 300), "JPEG")) for name in PHOTOGRAPHS]
    assert all(distance(one, other) > 60 for at, one in enumerate(hashes) for other in hashes[:at])


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 19), (19, 19)])
def test_a_frame_of_too_few_pixels_has_no_contrast(form: str, size: tuple[int, int]) -> None:
    picture = fitted("coffee.png", 300).resize(size)
    found = inspect(encoded(picture, form)).near
    assert found is not None
    assert contrast(found) == 0


def test_a_flat_frame_is_below_the_least_contrast() -> None:
    for level in (0, 128, 255):
        found = inspect(encoded(Image.new("RGB", (300, 200), (level,) * 3), "JPEG"))
        assert found.verdict == "blank"
        assert found.near is not None
        assert contrast(found.near) < LEAST_CONTRAST


def test_greys_without_a_known_range_have_no_hash() -> None:
    grey = fitted("coffee.png", 300).convert("L").convert("F")
    body = io.BytesIO()
    grey.save(body, "TIFF")
    found = inspect(body.getvalue())
    assert (found.verdict, found.near) == ("ok", None)


def test_the_frames_of_an_animation_beyond_the_first_do_not_count() -> None:
    first, other = (fitted(name, 200).resize((200, 150)) for name in PHOTOGRAPHS[:2])
    moving = io.BytesIO()
    first.save(moving, "GIF", save_all=True, append_images=[other, other])
    assert distance(near(moving.getvalue()), near(encoded(first, "GIF"))) <= 4


@given(full=st.tuples(st.integers(8, 5000), st.integers(8, 5000)), eighths=st.integers(1, 8))
@settings(max_examples=200)
def test_the_step_of_a_scaled_decode_is_found(full: tuple[int, int], eighths: int) -> None:
    frame = tuple(-(-side * eighths // 8) for side in full)
    assert jpeg_step(full, (frame[0], frame[1])) == 8 / eighths


def test_a_frame_that_is_no_scaled_decode_is_refused() -> None:
    with pytest.raises(ValueError, match="no scaled decode"):
        jpeg_step((500, 400), (499, 400))
