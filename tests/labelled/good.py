"""Kinds of good files with unusual pictures and encodings."""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw

from tests.labelled.photographs import (
    PHOTOGRAPHS,
    QUALITIES,
    Made,
    encoded,
    fitted,
    jpeg,
    levels,
    photograph,
    png_chunk,
)

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
        # A thumbnail in APP1, with its own markers.
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
        # A skyline of hills, and one of a slightly tilted plain. Everything below is black.
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
        # Chunks that break readers and are not part of the picture: long text, broken animation.
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
