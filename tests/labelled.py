"""Files whose verdict is known, made from real photographs: what verdicts are measured on.

The photographs are those that scikit-image ships. The same seed gives the same pixels; the bytes
are the encoder's. Kinds are functions that yield `(data, name)`; `GOOD` and `BAD` list them.
"""

from __future__ import annotations

import io
import random
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import skimage
from PIL import Image, ImageDraw, ImageFile

from mirror.content.image import Verdict


class Sample(NamedTuple):
    """`reason` is what the verdict's reason must hold."""

    kind: str
    name: str
    data: bytes
    verdict: Verdict
    reason: str


Made = Iterator[tuple[str, bytes]]

PHOTOGRAPHS = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg",
    "motorcycle_left.png", "motorcycle_right.png", "camera.png", "coins.png", "brick.png",
    "grass.png", "gravel.png", "ihc.png", "retina.jpg", "moon.png", "clock_motion.png",
)  # fmt: skip
# Photographs whose lower rows are neither black nor one grey: what a cut takes away is seen.
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
    """As large as a square of `box` holds; enlarged where it must be."""
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


# --- good -----------------------------------------------------------------------------------------


def sizes(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS:
        for box in (75, 100, 240, 500, 1024):
            yield f"{name} {box}", jpeg(name, box, chance.randint(80, 92))
    for name in PHOTOGRAPHS[:6]:
        yield f"{name} 2048", jpeg(name, 2048, 88)
    for side in (1, 2, 7, 8, 9, 15, 17):
        part = (
            photograph("coffee.png")
            .crop((200, 100, 200 + side * 20, 150))
            .resize((side * 20, side))
        )
        yield f"strip {part.size}", encoded(part, quality=90)


def crops(chance: random.Random) -> Made:
    for number in range(120):
        name = chance.choice(PHOTOGRAPHS)
        image = photograph(name)
        width, height = (round(length * chance.uniform(0.2, 0.7)) for length in image.size)
        left, top = chance.randrange(image.width - width), chance.randrange(image.height - height)
        part = image.crop((left, top, left + width, top + height))
        part.thumbnail((240, 240))
        yield f"{name} crop {number}", encoded(part, quality=chance.choice(QUALITIES))


def qualities(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:6]:
        for quality in QUALITIES:
            yield f"{name} q{quality}", jpeg(name, 300, quality)


def jpeg_flavours(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:7]:
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            yield f"{name} {subsampling}", jpeg(name, subsampling=subsampling)
        yield f"{name} progressive", jpeg(name, progressive=True)
        yield f"{name} progressive 500", jpeg(name, 500, 60, progressive=True)
        yield f"{name} optimised", jpeg(name, optimize=True)
        yield f"{name} restart rows", jpeg(name, restart_marker_rows=1)
        yield f"{name} restart blocks", jpeg(name, restart_marker_blocks=3)
        yield f"{name} restart progressive", jpeg(name, progressive=True, restart_marker_rows=2)
        image = fitted(name, 320)
        yield f"{name} grey", encoded(image.convert("L"), quality=85)
        yield f"{name} grey progressive", encoded(image.convert("L"), progressive=True)
        yield f"{name} cmyk", encoded(image.convert("CMYK"), quality=85)
        yield f"{name} cmyk progressive", encoded(image.convert("CMYK"), progressive=True)
        yield f"{name} rgb", encoded(image, keep_rgb=True)


def metadata(chance: random.Random) -> Made:
    for number, name in enumerate(PHOTOGRAPHS[:8]):
        exif = Image.Exif()
        exif[0x0112] = number + 1
        yield f"{name} turned {number + 1}", jpeg(name, exif=exif)
        yield f"{name} comment", jpeg(name, comment=b"\xff\xda\xff\xd9 a comment" * 50)
        yield f"{name} profile", jpeg(name, icc_profile=chance.randbytes(150_000))
        # A thumbnail in APP1, with markers of its own.
        thumbnail = jpeg(name, 80, progressive=True)
        app1 = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Exif\0\0" + thumbnail
        body = jpeg(name, progressive=bool(number % 2))
        yield f"{name} thumbnail", body[:2] + app1 + body[2:]


def after_the_end(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:6]:
        body = jpeg(name)
        yield f"{name} zeros", body + bytes(5000)
        yield f"{name} noise", body + chance.randbytes(5000)
        yield f"{name} another", body + jpeg("coins.png", 100)
        yield f"{name} progressive", jpeg(name, progressive=True) + chance.randbytes(999)
        yield f"{name} padded", body[:-2] + bytes(9) + body[-2:]
        yield f"{name} filled", body[:-2] + b"\xff" * 9 + body[-2:]
        image = fitted(name, 320)
        pair = [fitted(name, 160)]
        yield f"{name} mpo", encoded(image, "MPO", save_all=True, append_images=pair)
        for other in ("PNG", "WEBP", "GIF", "TIFF", "BMP"):
            yield f"{name} {other}", encoded(image, other) + chance.randbytes(500)


def night(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS:
        for gain in (0.08, 0.12, 0.2, 0.35):
            yield f"{name} x{gain}", encoded(levels(fitted(name, 320), gain), quality=85)


def few_lights(chance: random.Random) -> Made:
    for number in range(24):
        size = (chance.choice((75, 240, 500)), chance.choice((75, 180, 375)))
        image = Image.new("RGB", size)
        draw = ImageDraw.Draw(image)
        for _ in range(chance.randint(2, 6)):
            x, y, r = chance.randrange(size[0]), chance.randrange(size[1]), chance.randint(1, 4)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 230, chance.randint(90, 200)))
        yield f"lights {number}", encoded(image, quality=chance.choice(QUALITIES))


def stars(chance: random.Random) -> Made:
    for number in range(30):
        side = chance.choice((75, 240, 500, 1024))
        sky = np.zeros((side * 3 // 4, side), np.uint8)
        for _ in range(chance.randint(6, 40)):
            y, x = chance.randrange(2, sky.shape[0] - 2), chance.randrange(2, side - 2)
            sky[y, x] = chance.randint(90, 255)
            sky[y, x + 1] = sky[y + 1, x] = sky[y, x] // 2
        image = Image.fromarray(sky)
        form = ("JPEG", "JPEG", "PNG")[number % 3]
        options = {"quality": chance.choice((60, 75, 85, 95))} if form == "JPEG" else {}
        yield f"stars {number} {form}", encoded(image, form, **options)


def fog(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS:
        for gain, offset in ((0.06, 120), (0.1, 100), (0.1, 220), (0.2, 190)):
            image = levels(fitted(name, 320), gain, offset)
            yield f"{name} x{gain}+{offset}", encoded(image, quality=chance.choice((75, 85, 92)))


def white_on_white(chance: random.Random) -> Made:
    for number in range(30):
        box = chance.choice((75, 240, 500))
        subject = levels(fitted(PHOTOGRAPHS[number % 16], box // 3), 0.15, 212)
        image = Image.new("RGB", (box, box * 3 // 4), (250, 250, 250))
        mask = Image.new("L", subject.size)
        ImageDraw.Draw(mask).ellipse((0, 0, *subject.size), fill=255)
        image.paste(subject, (box // 3, box // 4), mask)
        yield f"white {number}", encoded(image, quality=chance.choice((60, 75, 85, 95)))


def letterboxed(chance: random.Random) -> Made:
    for number, name in enumerate(PHOTOGRAPHS):
        image = fitted(name, 400)
        for colour in ("black", "white", "#808080"):
            top, bottom = chance.randint(6, 60), chance.randint(6, 60)
            framed = Image.new("RGB", (image.width, image.height + top + bottom), colour)
            framed.paste(image, (0, top))
            yield f"{name} both {colour}", encoded(framed, quality=QUALITIES[number % 8])
        for where in ("top", "bottom"):
            framed = Image.new("RGB", (image.width, image.height + 40), "white")
            framed.paste(image, (0, 40 if where == "top" else 0))
            yield f"{name} {where} white", encoded(framed, quality=85)
        framed = Image.new("RGB", (image.width, image.height + 40))
        framed.paste(image, (0, 40))
        yield f"{name} top black", encoded(framed, quality=85)


def captioned(chance: random.Random) -> Made:
    for number, name in enumerate(PHOTOGRAPHS):
        image = fitted(name, chance.choice((240, 500)))
        for paper, ink in (("white", "black"), ("black", "white"), ("#808080", "white")):
            framed = Image.new("RGB", (image.width, image.height + 40), paper)
            framed.paste(image, (0, 0))
            text = "Urtica dioica, the common nettle; photograph by an observer"
            ImageDraw.Draw(framed).text((8, image.height + 12), text, fill=ink)
            yield f"{name} {paper}", encoded(framed, quality=QUALITIES[number % 8])


def framed(chance: random.Random) -> Made:
    for number, name in enumerate(PHOTOGRAPHS):
        image = fitted(name, 300)
        colour = ("black", "#808080", "white")[number % 3]
        around = Image.new("RGB", (image.width + 40, image.height + 40), colour)
        around.paste(image, (20, 20))
        yield f"{name} around {colour}", encoded(around, quality=80)
        beside = Image.new("RGB", (image.width + 80, image.height), colour)
        beside.paste(image, (40, 0))
        yield f"{name} beside {colour}", encoded(beside, quality=80)


def dark_ground(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS:
        box = chance.choice((75, 240, 500))
        pixels = np.asarray(fitted(name, box)).astype(float)
        height, width = pixels.shape[:2]
        rows = np.arange(height)[:, None]
        # A skyline of hills, and one of a plain that is a little tilted; all below is black.
        hills = height * (0.7 + 0.08 * np.sin(np.arange(width) / width * 7 + chance.random()))
        tilted = height * (0.72 + 0.1 * np.arange(width) / width)
        for line, skyline in (("hills", hills), ("tilted", tilted)):
            image = np.where((rows < skyline[None, :])[:, :, None], pixels, 0).astype(np.uint8)
            yield f"{name} {line} {box}", encoded(Image.fromarray(image), quality=80)
        fading = np.clip(1.15 - rows / height * 1.3, 0, 1)[:, :, None] * pixels
        image = fading.astype(np.uint8)
        yield f"{name} fading {box}", encoded(Image.fromarray(image), quality=80)


def on_black(chance: random.Random) -> Made:
    for number, name in enumerate(PHOTOGRAPHS):
        subject = fitted(name, 260)
        image = Image.new("RGB", (400, 360), "#808080" if number % 4 == 3 else "black")
        mask = Image.new("L", subject.size)
        ImageDraw.Draw(mask).ellipse((0, 0, *subject.size), fill=255)
        image.paste(subject, (70, 60), mask if number % 2 else None)
        yield f"{name} object", encoded(image, quality=QUALITIES[number % 8])


def png(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:8]:
        image = fitted(name, 240)
        yield f"{name} rgb", encoded(image, "PNG")
        yield f"{name} grey", encoded(image.convert("L"), "PNG")
        yield f"{name} palette", encoded(image.quantize(64), "PNG")
        yield f"{name} palette transparent", encoded(image.quantize(32), "PNG", transparency=3)
        yield (
            f"{name} palette alpha",
            encoded(image.quantize(32), "PNG", transparency=b"\0\x80\xff"),
        )
        yield f"{name} bilevel", encoded(image.convert("1"), "PNG")
        alpha = image.convert("L")
        cutout = Image.new("RGBA", image.size)
        cutout.putalpha(alpha)
        yield f"{name} content in alpha", encoded(cutout, "PNG")
        yield f"{name} grey and alpha", encoded(cutout.convert("LA"), "PNG")
        deep = np.asarray(alpha).astype(np.uint16)
        for bits in (8, 10, 12, 16):
            yield f"{name} {bits} of 16 bits", encoded(Image.fromarray(deep << (bits - 8)), "PNG")
        body = encoded(image, "PNG")
        # What readers choke on and is no part of the picture: long text, animation gone wrong.
        text = zlib.compress(bytes(80_000_000), 9) if name == "coffee.png" else b"broken"
        extra = png_chunk(b"zTXt", b"k\0\0" + text) + png_chunk(b"acTL", b"\0" * 8)
        yield f"{name} odd chunks", body[:33] + extra + body[33:]


def other_formats(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:8]:
        image = fitted(name, 240)
        second = fitted("coins.png", 240).resize(image.size)
        rgba = image.convert("RGBA")
        rgba.putalpha(image.convert("L"))
        yield f"{name} webp", encoded(image, "WEBP", quality=chance.choice(QUALITIES))
        yield f"{name} webp lossless", encoded(image, "WEBP", lossless=True)
        yield f"{name} webp alpha", encoded(rgba, "WEBP")
        yield f"{name} webp animated", encoded(image, "WEBP", save_all=True, append_images=[second])
        yield f"{name} avif", encoded(image, "AVIF", quality=70, speed=10)
        yield f"{name} gif", encoded(image, "GIF")
        yield f"{name} gif animated", encoded(image, "GIF", save_all=True, append_images=[second])
        yield f"{name} bmp", encoded(image, "BMP")
        yield f"{name} bmp palette", encoded(image.quantize(200), "BMP")
        for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"):
            yield f"{name} tiff {packing}", encoded(image, "TIFF", compression=packing)
        yield f"{name} tiff cmyk", encoded(image.convert("CMYK"), "TIFF")
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 16
        yield f"{name} tiff 16", encoded(Image.fromarray(deep), "TIFF")
        unit = np.asarray(image.convert("L")).astype(np.float32) / 255
        yield f"{name} tiff float", encoded(Image.fromarray(unit), "TIFF")
        yield f"{name} jp2", encoded(image, "JPEG2000")


def dark_other_formats(chance: random.Random) -> Made:
    for name in PHOTOGRAPHS[:8]:
        for form in ("PNG", "WEBP", "AVIF"):
            options = {"speed": 10} if form == "AVIF" else {}
            dark, pale = levels(fitted(name, 240), 0.12), levels(fitted(name, 240), 0.1, 225)
            yield f"{name} {form} dark", encoded(dark, form, **options)
            yield f"{name} {form} pale", encoded(pale, form, **options)


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
            # The tables before a scan belong to it.
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
    """A disk's block of zeros or noise, 4096 bytes at least, at any place within the scan."""
    for number in range(40):
        body = bytearray(jpeg(PHOTOGRAPHS[number % 16], 640, 85, progressive=number % 5 == 0))
        size = min(chance.choice((4096, 8192)), (len(body) - scan_start(body)) // 2)
        at = chance.randrange(scan_start(body), len(body) - size - 2)
        body[at : at + size] = chance.randbytes(size) if number % 2 else bytes(size)
        yield f"hole {number}", bytes(body)


def warned_flips(chance: random.Random) -> Made:
    """One bit flipped, where libjpeg has a warning for it: most single flips only tint a block."""
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
    """What a program with Pillow's LOAD_TRUNCATED_IMAGES makes of a file."""
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
                continue  # less than a whole row of blocks is lost: no band
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


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


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


Kind = Callable[[random.Random], Made]
GOOD: tuple[Kind, ...] = (
    sizes, crops, qualities, jpeg_flavours, metadata, after_the_end, night, few_lights, stars, fog,
    white_on_white, letterboxed, captioned, framed, dark_ground, on_black, png, other_formats,
    dark_other_formats,
)  # fmt: skip
BAD: tuple[tuple[Kind, Verdict, str], ...] = (
    (empty, "not_image", "empty"),
    (html, "not_image", "html"),
    (json, "not_image", "json"),
    (xml, "not_image", "xml"),
    (not_images, "not_image", ""),
    (cut, "corrupt", ""),
    (cut_and_closed, "corrupt", ""),
    (cut_between_scans, "corrupt", "ends between two scans"),
    (tail_zeroed, "corrupt", ""),
    (holes, "corrupt", ""),
    (warned_flips, "corrupt", "decode"),
    (header_only, "corrupt", ""),
    (glued, "corrupt", ""),
    (cut_others, "corrupt", ""),
    (damaged_png, "corrupt", "checksum"),
    (resaved_open, "corrupt", "filled with grey"),
    (resaved_closed, "corrupt", "filled with grey"),
    (resaved_from_png, "corrupt", "filled with black"),
    (resaved_otherwise, "corrupt", "filled with"),
    (bombs, "corrupt", "too many pixels"),
    (too_many_scans, "corrupt", "too many scans"),
    (no_decoder, "corrupt", "no decoder for"),
    (flat, "blank", "flat frame"),
    (flat_others, "blank", "flat frame"),
    (dithered, "blank", "flat frame"),
)


@lru_cache(len(GOOD) + len(BAD))
def bodies_of(kind: Kind, seed: int = 1) -> tuple[tuple[str, bytes], ...]:
    """What a kind makes, kept: several tests ask for the same."""
    return tuple(kind(random.Random(f"{kind.__name__} {seed}")))


def samples_of(
    kind: Kind, verdict: Verdict = "ok", reason: str = "", seed: int = 1
) -> list[Sample]:
    return [
        Sample(kind.__name__, name, data, verdict, reason) for name, data in bodies_of(kind, seed)
    ]
