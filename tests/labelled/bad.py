"""Kinds of bad files: not an image, damaged, saved again after a cut, flat."""

from __future__ import annotations

import io
import random
import struct
import threading
import zlib
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from tests.labelled.photographs import (
    BRIGHT,
    FORTY_SIZES,
    PHOTOGRAPHS,
    QUALITIES,
    Made,
    encoded,
    fitted,
    jpeg,
    png_chunk,
)

# --- bad ------------------------------------------------------------------------------------------


def not_images(chance: random.Random) -> Made:
    yield "json list", b'[{"error": 429}]'
    for number in range(5):
        yield f"text {number}", (b"Too Many Requests", b"rate limited\n", b"\0" * 400, b"PK\3\4" * 50,
                                 chance.randbytes(3000))[number]  # fmt: skip
    yield "mp4", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + chance.randbytes(2000)
    yield "gzip", zlib.compress(jpeg("coins.png"), wbits=31)
    yield "gzip html", zlib.compress(b"<html></html>" * 40, wbits=31)


def empty(chance: random.Random) -> Made:
    yield "empty", b""


def html(chance: random.Random) -> Made:
    for number, text in enumerate((
        b"<!DOCTYPE html><html><head><title>429 Too Many Requests</title></head></html>",
        b"\n\n  <HTML><body>no</body></HTML>", b"\xef\xbb\xbf<!doctype html>",
        b"<!-- a proxy's --><html><h1>no</h1></html>", b"<head><title>502</title></head>",
        b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0"><html></html>',
    )):  # fmt: skip
        yield f"html {number}", text


def json(chance: random.Random) -> Made:
    for number, text in enumerate((b'{"error": "rate limited"}', b'\n [{"a": 1}]', b"{}")):
        yield f"json {number}", text


def xml(chance: random.Random) -> Made:
    yield "s3", b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'


FRACTIONS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)


def cut(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:8]:
        for fraction in FRACTIONS:
            body = jpeg(name, 320, chance.choice(QUALITIES), progressive=fraction in (0.4, 0.8))
            yield f"{name} {fraction}", body[: int(len(body) * fraction)]
    yield "last byte", jpeg("coffee.png")[:-1]
    yield "last two", jpeg("coffee.png")[:-2]


def cut_and_closed(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:8]:
        for fraction in FRACTIONS:
            body = jpeg(name, 320, chance.choice(QUALITIES), progressive=fraction in (0.2, 0.6))
            yield f"{name} {fraction}", body[: int(len(body) * fraction)] + b"\xff\xd9"


def cut_between_scans(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:4]:
        body = jpeg(name, progressive=True)
        starts = [at for at in range(len(body)) if body[at : at + 2] == b"\xff\xda"]
        for number in range(1, len(starts)):
            # The tables before a scan are part of it.
            tables = body.rfind(b"\xff\xc4", starts[number - 1], starts[number])
            yield f"{name} {number}", body[: tables if tables > 0 else starts[number]] + b"\xff\xd9"


def tail_zeroed(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:8]:
        for fraction in (0.1, 0.4, 0.7, 0.9):
            body = jpeg(name, 320, chance.choice(QUALITIES), progressive=fraction == 0.4)
            kept = int(len(body) * fraction)
            yield f"{name} {fraction}", body[:kept] + bytes(len(body) - kept)


def scan_start(body: bytes | bytearray) -> int:
    return body.index(b"\xff\xda") + 14


def holes(chance: random.Random) -> Made:
    """A disk block of zeros or noise, at least 4096 bytes, at a random place within the scan."""
    for number in range(40):
        body = bytearray(jpeg(PHOTOGRAPHS[number % 16], 640, 85, progressive=number % 5 == 0))
        size = min(chance.choice((4096, 8192)), (len(body) - scan_start(body)) // 2)
        at = chance.randrange(scan_start(body), len(body) - size - 2)
        body[at : at + size] = chance.randbytes(size) if number % 2 else bytes(size)
        yield f"hole {number}", bytes(body)


def warned_flips(chance: random.Random) -> Made:
    """One flipped bit that causes a warning of libjpeg. Most single flips only tint a block."""
    for name in PHOTOGRAPHS[:8]:
        body = jpeg(name, 160)
        found = 0
        while found < 4:
            flipped = bytearray(body)
            flipped[chance.randrange(scan_start(body), len(body) - 2)] ^= 1 << chance.randrange(8)
            try:
                simplejpeg.decode_jpeg(bytes(flipped), strict=True)
            except ValueError:
                found += 1
                yield f"{name} {found}", bytes(flipped)


def header_only(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:5]:
        body = jpeg(name)
        yield f"{name} to the scan", body[: scan_start(body)]
        yield f"{name} closed", body[: scan_start(body)] + b"\xff\xd9"
        yield f"{name} half of it", body[: scan_start(body) // 2]
        yield f"{name} magic", body[:4]
    yield "png", encoded(fitted("coins.png", 100), "PNG")[:33]
    yield "webp", encoded(fitted("coins.png", 100), "WEBP")[:30]
    yield "gif", encoded(fitted("coins.png", 100), "GIF")[:13]


def glued(chance: random.Random) -> Made:
    for number in range(16):
        one = jpeg(PHOTOGRAPHS[number], 320, 85)
        other = jpeg(PHOTOGRAPHS[(number + 5) % 16], 300, 75)
        at = len(one) * chance.randint(2, 8) // 10
        yield f"a whole one {number}", one[:at] + other
        yield f"its second half {number}", one[:at] + other[len(other) // 2 :]


def cut_others(chance: random.Random) -> Made:
    for name in ("coffee.png", "chelsea.png"):
        image = fitted(name, 160)
        forms: list[tuple[str, dict[str, Any]]] = [
            ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("GIF", {}),
            ("AVIF", {"speed": 10}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "jpeg"}),
            ("TIFF", {"compression": "tiff_lzw"}), ("JPEG2000", {}),
        ]  # fmt: skip
        for form, options in forms:
            body = encoded(image, form, **options)
            for fraction in (0.3, 0.6, 0.9, 0.97):
                yield f"{name} {form} {options} {fraction}", body[: int(len(body) * fraction)]
        animated = encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)])
        yield f"{name} gif, second frame", animated[:-300]


def damaged_png(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:8]:
        body = bytearray(encoded(fitted(name, 160), "PNG"))
        at = chance.randrange(100, len(body) - 600)
        flipped = bytearray(body)
        flipped[at] ^= 4
        yield f"{name} flipped", bytes(flipped)
        body[at : at + 512] = bytes(512)
        yield f"{name} hole", bytes(body)


_SWITCH = threading.Lock()


def leniently(data: bytes) -> Image.Image:
    """Decode a file like a program with Pillow's LOAD_TRUNCATED_IMAGES."""
    with _SWITCH:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            with Image.open(io.BytesIO(data)) as image:
                return image.convert("RGB")
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def resaved(chance: random.Random, close: bytes, form: str = "JPEG") -> Made:
    for name in BRIGHT:
        for fraction in (0.15, 0.35, 0.55, 0.75, 0.9):
            box = chance.choice((100, 240, 500))
            options = {"quality": 85} if form == "JPEG" else {}
            body = encoded(fitted(name, box), form, **options)
            kept = max(700, int(len(body) * fraction))
            image = leniently(body[:kept] + close)
            if len(np.unique(np.asarray(image)[-8:])) > 1:
                continue  # less than a row of blocks is lost, so there is no band
            quality = chance.choice(QUALITIES)
            yield f"{name} {box} {fraction} q{quality}", encoded(image, quality=quality)


def resaved_open(chance: random.Random) -> Made:
    yield from resaved(chance, b"")


def resaved_closed(chance: random.Random) -> Made:
    yield from resaved(chance, b"\xff\xd9")


def resaved_from_png(chance: random.Random) -> Made:
    yield from resaved(chance, b"", "PNG")


def resaved_otherwise(chance: random.Random) -> Made:
    for name in BRIGHT:
        body = jpeg(name, 500)
        for close in (b"", b"\xff\xd9"):
            image = leniently(body[: int(len(body) * chance.uniform(0.2, 0.8))] + close)
            yield f"{name} png {close!r}", encoded(image, "PNG")
            yield f"{name} webp {close!r}", encoded(image, "WEBP", quality=chance.choice(QUALITIES))
            small = image.resize((224, 224))
            yield f"{name} 224 {close!r}", encoded(small, quality=chance.choice(QUALITIES))
            yield f"{name} progressive {close!r}", encoded(image, progressive=True)
            large = image.resize((1600, 1200))
            yield f"{name} 1600 {close!r}", encoded(large, quality=chance.choice(QUALITIES))


def flat(chance: random.Random) -> Made:
    colours = ((0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 30, 60), (20, 90, 40), (3, 3, 9))
    for number, size in enumerate(FORTY_SIZES):
        frame = Image.new("RGB", size)
        yield f"black {size}", encoded(frame, quality=30 + number * 65 // 39)
        coloured = Image.new("RGB", size, colours[number % 6])
        yield f"{colours[number % 6]} {size}", encoded(coloured, quality=chance.choice(QUALITIES))
    for number, colour in enumerate(colours):
        frame = Image.new("RGB", FORTY_SIZES[number * 5], colour)
        yield f"{colour} grey", encoded(frame.convert("L"))
        yield f"{colour} cmyk", encoded(frame.convert("CMYK"))
        yield f"{colour} progressive", encoded(frame, progressive=True)
    yield "one pixel", encoded(Image.new("RGB", (1, 1)))
    yield "2048", encoded(Image.new("RGB", (2048, 1536)))


def flat_others(chance: random.Random) -> Made:
    for number, size in enumerate(FORTY_SIZES[::4]):
        colour = ((0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 30, 60))[number % 4]
        frame = Image.new("RGB", size, colour)
        yield f"png {size}", encoded(frame, "PNG")
        yield f"webp {size}", encoded(frame, "WEBP", quality=chance.choice(QUALITIES))
        yield f"gif {size}", encoded(frame, "GIF")
        yield f"avif {size}", encoded(frame, "AVIF", speed=10)
        yield f"palette {size}", encoded(frame.quantize(4), "PNG")
        yield f"transparent {size}", encoded(Image.new("RGBA", size), "PNG")
        deep = np.full(size, 4000, np.uint16)
        yield f"16 bits {size}", encoded(Image.fromarray(deep), "PNG")
        yield f"bilevel {size}", encoded(Image.new("1", size, number % 2), "PNG")
        yield f"tiff {size}", encoded(frame, "TIFF")


def dithered(chance: random.Random) -> Made:
    noise = np.random.default_rng(chance.randrange(1000))
    for number, (width, height) in enumerate(FORTY_SIZES):
        level = (1, 128, 254, 60)[number % 4]
        if number % 2:
            pixels = level + noise.integers(-1, 2, (height, width, 3))
        else:
            pixels = level + noise.integers(0, 2, (height, width, 1)) + np.zeros(3, int)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        yield f"jpeg {width} {level}", encoded(image, quality=30 + number * 65 // 39)
        if number % 4 == 0:
            yield f"png {width} {level}", encoded(image, "PNG")
            yield f"webp {width} {level}", encoded(image, "WEBP", quality=QUALITIES[number % 8])


def bombs(chance: random.Random) -> Made:
    for width, height in ((50_000, 50_000), (2**31 - 1, 2**31 - 1), (65_535, 40_000)):
        ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        packed = zlib.compress(bytes(1_000_000))
        yield f"png {width}", (
            b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", ihdr) + png_chunk(b"IDAT", packed)
            + png_chunk(b"IEND", b"")
        )  # fmt: skip
    small = Image.new("RGB", (8, 8), "red")
    gif = bytearray(encoded(small, "GIF"))
    screen = bytes(gif)
    gif[6:10] = struct.pack("<HH", 65_000, 65_000)
    yield "gif screen", bytes(gif)
    at = screen.index(b"\x2c", 13 + (3 << (screen[10] & 7) + 1))
    yield "gif frame", screen[: at + 5] + struct.pack("<HH", 65_000, 65_000) + screen[at + 9 :]
    bmp = encoded(small, "BMP")
    yield "bmp", bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:]
    yield "bmp upside down", bmp[:18] + struct.pack("<ii", 60_000, -60_000) + bmp[26:]
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\0" + b"\xff\xff\0"
    body = b"WEBP" + vp8x + encoded(small, "WEBP")[12:]
    yield "webp canvas", b"RIFF" + struct.pack("<I", len(body)) + body
    webp = bytearray(encoded(small, "WEBP", lossless=True))
    webp[21:25] = struct.pack("<I", struct.unpack_from("<I", webp, 21)[0] | 0x0FFFFFFF)
    yield "webp lossless", bytes(webp)
    tiff = encoded(small, "TIFF")
    wide = struct.pack("<HHI", 256, 4, 1), struct.pack("<HHI", 257, 4, 1)
    for tag, new in zip((256, 257), wide, strict=True):
        old = tiff.index(struct.pack("<HH", tag, tiff[tiff.index(struct.pack("<H", tag)) + 2]))
        tiff = tiff[:old] + new + struct.pack("<I", 70_000) + tiff[old + 12 :]
    yield "tiff", tiff
    avif = encoded(small, "AVIF", speed=10)
    at = avif.index(b"ispe") + 8
    yield "avif", avif[:at] + struct.pack(">II", 60_000, 60_000) + avif[at + 8 :]
    jp2 = encoded(small, "JPEG2000")
    at = jp2.index(b"ihdr") + 4
    yield "jp2", jp2[:at] + struct.pack(">II", 60_000, 60_000) + jp2[at + 8 :]
    for progressive in (False, True):
        body = encoded(small, progressive=progressive)
        at = body.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
        huge = struct.pack(">HH", 65_500, 65_500)
        yield f"jpeg progressive={progressive}", body[:at] + huge + body[at + 4 :]


def too_many_scans(chance: random.Random) -> Made:
    body = jpeg("coins.png", progressive=True)
    starts = [at for at in range(len(body)) if body[at : at + 2] == b"\xff\xda"]
    again = body[starts[-1] : -2]
    yield "scans", body[:-2] + again * 500 + b"\xff\xd9"


def no_decoder(chance: random.Random) -> Made:
    yield "heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + chance.randbytes(3000)
    yield "jxl", b"\xff\x0a" + chance.randbytes(3000)
    yield "jxl box", b"\0\0\0\x0cJXL \r\n\x87\n" + chance.randbytes(3000)
