"""Bytes → verdict and reason. A pure function; nothing here opens a file or remembers anything.

The cascade, cheapest test first; the first row that applies decides:

    | test                                    | verdict     | reason                         |
    |-----------------------------------------|-------------|--------------------------------|
    | no bytes                                | not_image   | empty                          |
    | magic bytes of HTML, JSON, XML          | not_image   | html · json · xml              |
    | no known image magic                    | not_image   | unknown magic                  |
    | header does not parse                   | corrupt     | header: …                      |
    | more pixels than `MAX_PIXELS`           | corrupt     | too many pixels: W x H         |
    | level `header` stops here               | ok          | header only                    |
    | the stream does not decode to its end   | corrupt     | decode: …                      |
    | the decoded frame is one flat grey      | blank       | flat frame, level N            |
    | otherwise                               | ok          |                                |

With level `off` only the magic bytes are read, for the object's extension: everything is `ok`,
reason `not inspected`.

JPEG is decoded by libjpeg-turbo (simplejpeg), scaled, strict: its warnings are errors, so a file
that was cut short and closed with an end marker is refused, which Pillow passes (it fills the rest
with grey). The whole entropy-coded stream is read at every scale. Other formats go to Pillow.
"""

from __future__ import annotations

import io
import re
from typing import Final, Literal, NamedTuple

Verdict = Literal["ok", "blank", "corrupt", "not_image", "placeholder"]
Level = Literal["decode", "header", "off"]

VERDICTS: Final[tuple[Verdict, ...]] = ("ok", "blank", "corrupt", "not_image", "placeholder")

MAX_PIXELS: Final = 200_000_000
# Grey levels that a scaled decode of one flat colour may differ by: JPEG rounds each block's mean.
FLAT_SPREAD: Final = 3


class Inspection(NamedTuple):
    """`width` and `height` in pixels, 0 where no header was read."""

    verdict: Verdict
    reason: str
    format: str
    width: int
    height: int


_TEXT = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*(?:(<!doctype\s+html|<html|<head|<body)|([\[{])|(<))", re.IGNORECASE
)
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic"}


def sniff(head: bytes) -> str:
    """The format that the first bytes say: a name of `mirror.layout.FORMATS`."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "unknown")
    if head.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    if head.startswith(b"BM"):
        return "bmp"
    if head.startswith(b"\0\0\0\x0cjP  \r\n\x87\n"):
        return "jp2"
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "jxl"
    if text := _TEXT.match(head[:1024]):
        return "html" if text[1] else "json" if text[2] else "xml"
    return "unknown"


def inspect(data: bytes, level: Level = "decode") -> Inspection:
    """The verdict on a file's bytes.

    Args:
        data: the whole file.
        level: how far to look; see the table above.
    """
    kind = sniff(data)
    if level == "off":
        return Inspection("ok", "not inspected", kind, 0, 0)
    if not data:
        return Inspection("not_image", "empty", kind, 0, 0)
    if kind in ("html", "json", "xml"):
        return Inspection("not_image", kind, kind, 0, 0)
    if kind == "unknown":
        return Inspection("not_image", "unknown magic", kind, 0, 0)
    return _inspect_jpeg(data, level) if kind == "jpeg" else _inspect_other(data, kind, level)


def _inspect_jpeg(data: bytes, level: Level) -> Inspection:
    import simplejpeg

    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except Exception as error:  # noqa: BLE001 - a KeyError for an unknown colour space, among others
        return Inspection("corrupt", f"header: {_first_line(error)}", "jpeg", 0, 0)
    if width * height > MAX_PIXELS:
        return Inspection("corrupt", f"too many pixels: {width} x {height}", "jpeg", width, height)
    if level == "header":
        return Inspection("ok", "header only", "jpeg", width, height)
    try:
        grey = simplejpeg.decode_jpeg(
            data, colorspace="GRAY", min_height=16, min_width=16, min_factor=1, strict=True
        )
    except Exception as error:  # noqa: BLE001
        return Inspection("corrupt", f"decode: {_first_line(error)}", "jpeg", width, height)
    low, high = int(grey.min()), int(grey.max())
    return _flat_or_ok(low, high, "jpeg", width, height)


def _inspect_other(data: bytes, kind: str, level: Level) -> Inspection:
    from PIL import Image, UnidentifiedImageError

    width = height = 0
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return Inspection(
                    "corrupt", f"too many pixels: {width} x {height}", kind, width, height
                )
            if level == "header":
                return Inspection("ok", "header only", kind, width, height)
            image.load()
            low, high = image.convert("L").getextrema()
    except UnidentifiedImageError:
        return Inspection("corrupt", "header: not understood", kind, 0, 0)
    except Image.DecompressionBombError as error:
        return Inspection("corrupt", f"header: {_first_line(error)}", kind, width, height)
    except Exception as error:  # noqa: BLE001 - Pillow's plugins raise anything on hostile bytes
        return Inspection("corrupt", f"decode: {_first_line(error)}", kind, width, height)
    assert isinstance(low, (int, float))
    assert isinstance(high, (int, float))
    return _flat_or_ok(int(low), int(high), kind, width, height)


def _flat_or_ok(low: int, high: int, kind: str, width: int, height: int) -> Inspection:
    if high - low <= FLAT_SPREAD:
        return Inspection("blank", f"flat frame, level {(low + high) // 2}", kind, width, height)
    return Inspection("ok", "", kind, width, height)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    words = lines[0] if lines else ""
    return (
        words if isinstance(error, ValueError) and words else f"{type(error).__name__} {words}"
    )[:120]
