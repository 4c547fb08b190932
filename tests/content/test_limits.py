"""Small files that would cost a decoder much memory or time are refused before it sees them."""

from __future__ import annotations

import struct
import zlib

import pytest

from mirror.content import decode, image
from mirror.content.image import inspect
from mirror.inspection.html_page import thumbnail
from tests.labelled.photographs import encoded, fitted

PICTURE = fitted("coffee.png", 90)


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr(image, "loaded", never)


def tiled(tile: tuple[int, int], kind: int = 4, size: tuple[int, int] = (16, 16)) -> bytes:
    """A grey TIFF whose first tile holds 256 pixels."""
    pixels = zlib.compress(bytes(range(256)))
    values = [
        (256, 4, size[0]), (257, 4, size[1]), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
        (322, kind, tile[0]), (323, kind, tile[1]), (324, 4, 134), (325, 4, len(pixels)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, code, 1, value) for tag, code, value in values)
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + pixels


@pytest.mark.usefixtures("no_decoder")
def test_a_tiffs_tiles_count_as_pixels() -> None:
    got = inspect(tiled((16_384, 16_384)))
    assert got[:5] == ("corrupt", "too many pixels: 16384 x 16384", "tiff", 16, 16)
    got = inspect(tiled((16, 2**31 - 1)))
    assert got.reason == "too many pixels: 16 x 2147483647"
    got = inspect(tiled((9_000, 16), size=(9_001, 8_000)))
    assert got.reason == "too many pixels: 18000 x 8000"
    assert thumbnail(tiled((16_384, 16_384))) is None


def test_a_tiff_in_tiles_is_ok() -> None:
    assert inspect(tiled((16, 16)))[:2] == ("ok", "")
    for kind in (2, 9, 11):
        assert inspect(tiled((0, 16), kind)).verdict == "corrupt"


@pytest.mark.parametrize(("form", "times"), [("PNG", 1), ("AVIF", 1), ("WEBP", 2), ("JPEG2000", 3)])
def test_a_format_whose_decoder_takes_more_may_have_fewer_pixels(
    monkeypatch: pytest.MonkeyPatch, form: str, times: int
) -> None:
    pixels = PICTURE.width * PICTURE.height
    monkeypatch.setattr(decode, "MAX_PIXELS_IN_FULL", pixels * times)
    assert inspect(encoded(PICTURE, form)).verdict == "ok"
    monkeypatch.setattr(decode, "MAX_PIXELS_IN_FULL", pixels * times - 1)
    assert inspect(encoded(PICTURE, form)).reason == "too many pixels: 90 x 60"


def run_length_bmp(width: int, height: int, packed: bytes, compression: int = 1) -> bytes:
    bits = 8 if compression == 1 else 4
    head = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(packed), 0, 0, 256, 0
    )
    palette = b"".join(bytes((level, level, level, 0)) for level in range(256))
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + head + palette + packed


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("compression", [1, 2])
def test_a_bmp_that_is_unpacked_in_python_is_small(compression: int) -> None:
    got = inspect(run_length_bmp(8_000_000, 1, b"\1\1\0\0\0\1", compression))
    assert got.reason == "too many pixels: 8000000 x 1"


def test_a_small_bmp_in_run_lengths_is_ok() -> None:
    rows = b"".join(bytes((64, level, 64, 255 - level)) + b"\0\0" for level in range(100))
    assert inspect(run_length_bmp(128, 100, rows + b"\0\1"))[:2] == ("ok", "")
