"""Files with fewer pixels than their headers say, in formats whose decoders do not notice."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from mirror.content.image import inspect
from tests.labelled.photographs import encoded, fitted, png_chunk

PICTURE = fitted("coffee.png", 160)


def png(image: Image.Image, raw: bytes, *, kind: int, bits: int = 8, interlaced: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", *image.size, bits, kind, 0, 0, interlaced)
    packed = zlib.compress(raw)
    # Encoders may divide the stream anywhere.
    parts = [packed[at : at + 1000] for at in range(0, len(packed), 1000)]
    chunks = [(b"IHDR", head), *((b"IDAT", part) for part in parts), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def rows_of(pixels: Any, number: int) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels[:number])


PIXELS = {
    "rgb": (np.asarray(PICTURE), 2, 8),
    "rgba": (np.asarray(PICTURE.convert("RGBA")), 6, 8),
    "grey": (np.asarray(PICTURE.convert("L")), 0, 8),
    "grey and alpha": (np.asarray(PICTURE.convert("LA")), 4, 8),
    "sixteen bits": (np.asarray(PICTURE.convert("L")).astype(">u2") * 257, 0, 16),
    "four bits": (np.asarray(PICTURE.convert("L"))[:, :80], 0, 4),
    "one bit": (np.packbits(np.asarray(PICTURE.convert("1")), axis=1), 0, 1),
}


@pytest.mark.parametrize("name", PIXELS)
def test_a_png_has_all_the_rows_that_its_header_says(name: str) -> None:
    pixels, kind, bits = PIXELS[name]
    height = pixels.shape[0]
    whole = png(PICTURE, rows_of(pixels, height), kind=kind, bits=bits)
    assert inspect(whole).verdict == "ok"
    for rows in (1, height // 2, height - 1):
        short = png(PICTURE, rows_of(pixels, rows), kind=kind, bits=bits)
        assert inspect(short)[:2] == ("corrupt", "structure: fewer rows than its header says")


PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


@pytest.mark.parametrize("size", [(160, 107), (5, 3), (1, 1)])
def test_an_interlaced_png_has_all_its_passes(size: tuple[int, int]) -> None:
    image = PICTURE.resize(size)
    pixels = np.asarray(image)
    passes = [
        rows_of(part, len(part)) for x, y, dx, dy in PASSES if (part := pixels[y::dy, x::dx]).size
    ]
    whole = png(image, b"".join(passes), kind=2, interlaced=1)
    assert not inspect(whole).reason.startswith("structure")
    short = png(image, b"".join(passes[:-1]), kind=2, interlaced=1)
    assert inspect(short)[:2] == ("corrupt", "structure: fewer rows than its header says")


def test_a_png_is_unpacked_no_further_than_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = []

    class Counting:
        def __init__(self) -> None:
            self.stream = decompressobj()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

        def decompress(self, *arguments: Any) -> bytes:
            unpacked.append(self.stream.decompress(*arguments))
            return unpacked[-1]

    decompressobj = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    raw = rows_of(np.asarray(PICTURE), PICTURE.height) + bytes(100_000_000)
    inspect(png(PICTURE, raw, kind=2))
    assert sum(map(len, unpacked)) <= 2 << 20
    assert max(map(len, unpacked)) <= 1 << 20


def test_pngs_of_every_kind_are_complete() -> None:
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"):
        assert inspect(encoded(PICTURE.convert(mode), "PNG")).verdict == "ok"


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's switch, as a training process may set it for all its threads."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


BMPS = [encoded(PICTURE.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")]
UPSIDE_DOWN = BMPS[3][:22] + struct.pack("<i", -PICTURE.height) + BMPS[3][26:]
OF_OS2 = (
    b"BM" + struct.pack("<IHHI", 0, 0, 0, 26) + struct.pack("<IHHHH", 12, *PICTURE.size, 1, 24)
    + BMPS[3][54:]
)  # fmt: skip
JP2S = [
    encoded(PICTURE.convert(mode), "JPEG2000", **options)
    for mode in ("L", "RGB", "RGBA")
    for options in ({}, {"tile_size": (64, 64)}, {"irreversible": True})
]
CUT_SILENTLY = [*BMPS, UPSIDE_DOWN, OF_OS2, *JP2S]


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("body", CUT_SILENTLY, ids=lambda body: f"{body[:2]!r} {len(body)}")
def test_truncated_files_are_corrupt_in_a_process_that_decodes_leniently(body: bytes) -> None:
    assert inspect(body).verdict == "ok"
    assert inspect(body + b"\0\0behind it").verdict == "ok"
    for cut in (body[: len(body) // 3], body[: len(body) * 9 // 10], body[:-4]):
        assert inspect(cut).verdict == "corrupt"


def test_a_jpeg_2000_may_leave_the_length_of_its_last_tile_to_its_end() -> None:
    body = bytearray(JP2S[1])
    at = body.rindex(b"\xff\x90\0\x0a")
    body[at + 6 : at + 10] = bytes(4)
    assert inspect(bytes(body)).verdict == "ok"
    assert inspect(bytes(body[:-2])).verdict == "corrupt"


def test_a_jpeg_2000s_boxes_may_be_long() -> None:
    at = JP2S[1].index(b"jp2c") - 4
    stream = JP2S[1][at + 8 :]
    body = JP2S[1][:at] + struct.pack(">I4sQ", 1, b"jp2c", 16 + len(stream)) + stream
    assert inspect(body).verdict == "ok"
    assert inspect(body[:-3]).verdict == "corrupt"
    for length in (1, 2**64 - 1):
        body = JP2S[1][:at] + struct.pack(">I4sQ", 1, b"free", length) + stream
        assert inspect(body).verdict == "corrupt"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("level", [None, 4000])
def test_sixteen_grey_bits_are_judged_in_either_byte_order(order: str, level: int | None) -> None:
    grey = np.asarray(PICTURE.convert("L")).astype(f"{order}u2") * 16
    if level is not None:
        grey[:] = level
    raw = grey.astype(f"{order}u2").tobytes()
    image = Image.frombytes("I;16" if order == "<" else "I;16B", PICTURE.size, raw)
    body = encoded(image, "TIFF")
    assert body.startswith(b"II" if order == "<" else b"MM")
    assert inspect(body).verdict == ("ok" if level is None else "blank")
