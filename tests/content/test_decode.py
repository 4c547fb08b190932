"""What the gate passes, training decodes: by the format alone, under one limit, without a warning."""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from mirror.content import decode, jpeg
from mirror.content.decode import rgb
from mirror.content.image import inspect
from mirror.inspection.html_page import thumbnail
from tests.content.test_image import seeds_of_mutation
from tests.labelled.photographs import encoded, fitted, png_chunk
from tests.labelled.photographs import jpeg as jpeg_of

PICTURE = fitted("coffee.png", 60)
PNG = encoded(PICTURE, "PNG")
JPEG = encoded(PICTURE)


def pixels(data: bytes) -> Any:
    return np.asarray(rgb(data))


def in_png(*chunks: bytes) -> bytes:
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def in_jpeg(marker: int, body: bytes) -> bytes:
    return JPEG[:2] + struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body + JPEG[2:]


MEGABYTE = zlib.compress(bytes(1_000_000))
LONG = zlib.compress(bytes(2_000_000))
ITXT = b"k\0\1\0\0\0"
WRONG_SUM = png_chunk(b"tEXt", b"k\0v")[:-4] + b"\0\0\0\0"
# Pictures that are whole. `Image.open`, or the first use of its image, fails on each.
ODD_METADATA = {
    "PNG, iCCP above the limit": in_png(png_chunk(b"iCCP", b"k\0\0" + LONG)),
    "PNG, zTXt above the limit": in_png(png_chunk(b"zTXt", b"k\0\0" + LONG)),
    "PNG, iTXt above the limit": in_png(png_chunk(b"iTXt", ITXT + LONG)),
    "PNG, texts above the limit together": in_png(*[png_chunk(b"zTXt", b"k\0\0" + MEGABYTE)] * 68),
    "PNG, tEXt with a wrong checksum": in_png(WRONG_SUM),
    "PNG, an empty iCCP": in_png(png_chunk(b"iCCP", b"")),
    "PNG, a short gAMA": in_png(png_chunk(b"gAMA", b"\0")),
    "PNG, a short cHRM": in_png(png_chunk(b"cHRM", bytes(8))),
    "PNG, a short pHYs": in_png(png_chunk(b"pHYs", bytes(3))),
    "PNG, a short sRGB": in_png(png_chunk(b"sRGB", b"")),
    "PNG, zTXt of an unknown compression": in_png(png_chunk(b"zTXt", b"k\0\7x")),
    "PNG, a broken animation": in_png(png_chunk(b"acTL", b"\0"), png_chunk(b"fcTL", b"\0")),
    "JPEG, a short JFIF": in_jpeg(0xE0, b"JFIF\0"),
    "JPEG, a short Adobe": in_jpeg(0xEE, b"Adobe"),
    "JPEG, a short profile": in_jpeg(0xE2, b"ICC_PROFILE\0"),
    "JPEG, a marker without a length": JPEG[:2] + b"\xff\x01" + JPEG[2:],
}


@pytest.mark.parametrize("name", ODD_METADATA)
def test_a_whole_picture_decodes_whatever_its_metadata_is_like(name: str) -> None:
    body = ODD_METADATA[name]
    assert inspect(body)[:2] == ("ok", "")
    assert np.array_equal(pixels(body), pixels(PNG if name.startswith("PNG") else JPEG))
    assert thumbnail(body) is not None


KINDS_OF_CHUNK = (b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"eXIf",
                  b"acTL", b"fcTL", b"fdAT", b"bKGD", b"sBIT", b"abCd")  # fmt: skip
BEGINNINGS = (b"", b"JFIF\0", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"ICC_PROFILE\0", b"MPF\0",
              b"Adobe", b"Photoshop 3.0\x008BIM", b"http://ns.adobe.com/xap/1.0/\0", b"k\0\0")  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS_OF_CHUNK),
    st.sampled_from((*range(0xE0, 0xF0), 0xFE)),
    st.sampled_from(BEGINNINGS),
    st.binary(max_size=60),
    st.booleans(),
)
def test_any_metadata_leaves_a_picture_decodable(
    name: bytes, marker: int, beginning: bytes, rest: bytes, right: bool
) -> None:
    chunk = png_chunk(name, beginning + rest)
    for body in (
        in_png(chunk if right else chunk[:-1] + bytes((chunk[-1] ^ 1,))),
        in_jpeg(marker, beginning + rest),
    ):
        if inspect(body).verdict == "ok":
            assert rgb(body).size == PICTURE.size


SEEDS = (
    *seeds_of_mutation(),
    encoded(PICTURE.convert("CMYK")),
    encoded(PICTURE, keep_rgb=True),
    encoded(PICTURE.quantize(16), "GIF", transparency=2),
    *(encoded(PICTURE.convert(mode), "TIFF") for mode in ("1", "L", "P", "CMYK", "YCbCr", "LAB")),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(SEEDS) - 1), st.integers(0, 2**32), st.integers(1, 3))
def test_what_the_gate_passes_training_decodes(which: int, seed: int, edits: int) -> None:
    chance = random.Random(seed)
    body = bytearray(SEEDS[which])
    for _ in range(edits):
        at = chance.randrange(min(chance.choice((64, 700, len(body))), len(body)))
        body[at] = chance.choice((body[at] ^ 1 << chance.randrange(8), 0, 1, 8, 0x21, 255))
    if inspect(bytes(body)).verdict == "ok":
        try:
            assert rgb(bytes(body)).mode == "RGB"
        except ValueError as error:
            assert "which greys are black and white" in str(error)  # noqa: PT017


def test_colours_that_training_could_not_convert_are_corrupt() -> None:
    assert "LAB" in inspect(SEEDS[-1]).reason
    with pytest.raises(ValueError, match="LAB"):
        rgb(SEEDS[-1])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000"])
def test_gate_and_training_share_one_limit_of_pixels(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = encoded(PICTURE, form)
    # Pillow's own limit, for the whole process, is far below this library's limit for JPEG.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60 * 40)
    assert (inspect(body).verdict, rgb(body).size) == ("ok", (60, 40))
    weight = {"WEBP": 2, "JPEG2000": 3}.get(form, 1)
    for least, verdict in ((60 * 40, "ok"), (60 * 40 - 1, "corrupt")):
        monkeypatch.setattr(decode, "MAX_PIXELS", least)
        monkeypatch.setattr(decode, "MAX_PIXELS_IN_FULL", least * weight)
        assert inspect(body).verdict == verdict
    with pytest.raises(ValueError, match="^too many pixels: 60 x 40$"):
        rgb(body)


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def wide(body: bytes, width: int, height: int) -> bytes:
    """A JPEG that names another size than it has."""
    at = re.search(rb"\xff[\xc0\xc2]\0.\x08", body, re.DOTALL)
    assert at is not None
    return body[: at.end()] + struct.pack(">HH", height, width) + body[at.end() + 4 :]


LOSSLESS = encoded(Image.new("RGB", (8, 8)), "WEBP", lossless=True)
ANIMATED = bytes(6) + b"\7\0\0\7\0\0" + bytes(4) + LOSSLESS[12:]
CANVAS = b"\2\0\0\0" + (7699).to_bytes(3, "little") * 2
HUGE_FOR_THEIR_BYTES = {
    "WebP": LOSSLESS[:21]
    + struct.pack("<I", struct.unpack_from("<I", LOSSLESS, 21)[0] & ~0xFFFFFFF | 7699 << 14 | 7699)
    + LOSSLESS[25:],
    "WebP, animated": _riff((b"VP8X", CANVAS), (b"ANIM", bytes(6)), (b"ANMF", ANIMATED)),
    "JPEG": wide(JPEG, 7700, 7700),
    "progressive JPEG": wide(encoded(PICTURE, progressive=True), 7700, 7700),
}


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr(decode, "loaded", never)
    monkeypatch.setattr("mirror.content.image.loaded", never)
    monkeypatch.setattr(jpeg, "decode", never)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("name", HUGE_FOR_THEIR_BYTES)
def test_a_few_bytes_may_not_name_a_huge_picture(name: str) -> None:
    body = HUGE_FOR_THEIR_BYTES[name]
    got = inspect(body)
    assert (got.verdict, got.reason) == ("corrupt", "too many pixels: 7700 x 7700")
    with pytest.raises(ValueError, match="too many pixels"):
        rgb(body)
    assert thumbnail(body) is None


def test_flat_pictures_of_common_sizes_are_still_judged() -> None:
    assert not decode.excess(bytes(38), "webp", 3648, 2736)
    assert not decode.excess(bytes(50_000), "webp", 7700, 7700)
    assert not decode.excess(bytes(600_000), "jpeg", 16_320, 12_240)
    frame = Image.new("RGB", (2048, 1536))
    for form in ("PNG", "WEBP"):
        assert inspect(encoded(frame, form)).verdict == "blank"


PROGRESSIVE = jpeg_of("coins.png", 60, progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
MANY_SCANS = PROGRESSIVE[:-2] + LAST_SCAN * 140 + b"\xff\xd9"
# To a decoder the marker TEM has no length; the two bytes behind it are not one.
HIDDEN_SCANS = PROGRESSIVE[:-2] + b"\xff\x01" + LAST_SCAN * 300 + b"\xff\xd9"


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    "body", [wide(MANY_SCANS, 3000, 3000), HIDDEN_SCANS], ids=["over many pixels", "hidden"]
)
def test_scans_that_would_cost_seconds_are_refused_before_a_decoder_sees_them(body: bytes) -> None:
    got = inspect(body)
    assert (got.verdict, got.reason) == ("corrupt", "structure: too many scans")
    with pytest.raises(ValueError, match="too many scans"):
        rgb(body)
    assert thumbnail(body) is None


def test_scans_times_pixels_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = PROGRESSIVE.count(b"\xff\xda")
    width, height = rgb(PROGRESSIVE).size
    monkeypatch.setattr(jpeg, "MAX_SCANNED_PIXELS", scans * width * height)
    assert inspect(PROGRESSIVE).verdict == "ok"
    monkeypatch.setattr(jpeg, "MAX_SCANNED_PIXELS", scans * width * height - 1)
    assert inspect(PROGRESSIVE).reason == "structure: too many scans"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_an_exif_orientation_turns_nothing(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = encoded(PICTURE, form, exif=exif)
    assert inspect(body)[3:5] == rgb(body).size == (60, 40)
    assert np.array_equal(pixels(body), pixels(encoded(PICTURE, form)))


def test_the_orientation_of_a_tiff_belongs_to_its_picture() -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        body = encoded(PICTURE, "TIFF", exif=exif)
        assert inspect(body)[3:5] == rgb(body).size == ((60, 40) if orientation < 5 else (40, 60))


def test_a_damaged_jpeg_is_an_error_and_never_half_an_image() -> None:
    for body in (JPEG[:900], JPEG[:900] + b"\xff\xd9"):
        assert inspect(body).verdict == "corrupt"
        with pytest.raises(ValueError, match="."):
            rgb(body)


@pytest.mark.parametrize("decoded", [rgb, thumbnail], ids=["training", "contact sheet"])
def test_only_the_formats_that_are_judged_are_decoded_and_no_other_program_runs(
    decoded: Callable[[bytes], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    # Pillow remembers whether it found Ghostscript.
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    for body in (page, *(encoded(PICTURE, form) for form in ("PPM", "TGA", "PCX", "SGI"))):
        if decoded is rgb:
            with pytest.raises(ValueError, match="no decoder for unknown here"):
                decoded(body)
        else:
            assert decoded(body) is None
    assert not ran.exists()


ROOT = Path(__file__).parents[2]
ANOTHER_DECODER = re.compile(
    r"Image\.(?:open|init|preinit)\b|simplejpeg\.decode|decode_image\(|read_image\(|imread\("
)


def test_code_and_documents_decode_in_one_place() -> None:
    files = [*ROOT.glob("mirror/**/*.py"), *ROOT.glob("examples/**/*.py"), *ROOT.glob("docs/*.md")]
    found = {
        str(path.relative_to(ROOT))
        for path in (*files, ROOT / "README.md")
        for line in path.read_text(encoding="utf-8").splitlines()
        if ANOTHER_DECODER.search(line) and "`Image.open`" not in line
    }
    assert found == {"mirror/content/jpeg.py", "mirror/content/image.py"}
