"""Bytes → verdict and reason. A pure function; nothing here opens a file or remembers anything.

The cascade, cheapest test first; the first row that applies decides:

    | test                                       | verdict     | reason                         |
    |--------------------------------------------|-------------|--------------------------------|
    | level `off` stops here                     | ok          | not inspected                  |
    | no bytes                                   | not_image   | empty                          |
    | magic bytes of HTML, JSON, XML             | not_image   | html · json · xml              |
    | no known image magic                       | not_image   | unknown magic                  |
    | a format that no library here decodes      | corrupt     | no decoder for F here          |
    | header does not parse                      | corrupt     | header: …                      |
    | more pixels than the limit                 | corrupt     | too many pixels: W x H         |
    | level `header` stops here                  | ok          | header only                    |
    | chunks, blocks, strips, scans do not reach | corrupt     | structure: …                   |
    |   the end, or a PNG's checksum is wrong    |             |                                |
    | the stream does not decode to its end      | corrupt     | decode: …                      |
    | the last row is not flat                   | ok          |                                |
    | the frame is flat, in colour and in full   | blank       | flat frame, level N            |
    | a painted band at the bottom               | corrupt     | bottom N rows filled with C    |
    | otherwise                                  | ok          |                                |

JPEG is decoded by libjpeg-turbo (simplejpeg), scaled, strict: its warnings are errors, so a file
that was cut short and closed with an end marker is refused, which Pillow passes (it fills the rest
with grey). The whole entropy-coded stream is read at every scale. Other formats go to Pillow's
plugins, which are called directly: `Image.open` would judge sizes by a process-wide switch, and
warn. Sizes are read before either library allocates anything.

The last row is what nearly every photograph is let through by: one row's minimum and maximum. Only
what is flat there is looked at again, in colour and larger, so stars in a black sky, a letterbox, a
caption and a dark ground are told from a blank frame and from what a lenient decoder painted.
"""

from __future__ import annotations

import io
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from mirror.content import image_formats, jpeg
from mirror.content.image_formats import sniff

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = [
    "VERDICTS",
    "Inspection",
    "Level",
    "Verdict",
    "inspect",
    "judged_by_magic",
    "plugin_of",
    "sniff",
]

Verdict = Literal["ok", "blank", "corrupt", "not_image", "placeholder"]
Level = Literal["decode", "header", "off"]

VERDICTS: Final[tuple[Verdict, ...]] = ("ok", "blank", "corrupt", "not_image", "placeholder")

# JPEG is decoded at an eighth of its size; what Pillow decodes takes up to ten bytes a pixel, in
# every thread, and where its library takes more, `formats.weight` says how much. The largest
# photographs that telephones take have 200 million.
MAX_PIXELS: Final = 200_000_000
MAX_PIXELS_IN_FULL: Final = 120_000_000
# Levels that a scaled frame of one colour may differ by: JPEG rounds each block's mean.
FLAT_SPREAD: Final = 3
# The same at full size, where the noise of dithering survives, in luma and in any one band: lossy
# formats keep colours worse. The dimmest star is brighter.
FLAT_SPREAD_IN_FULL: Final = 8
FLAT_SPREAD_OF_BAND: Final = 16
# Rows that are enough to see where a band begins.
_BAND_HEIGHT: Final = 240


class Inspection(NamedTuple):
    """`width` and `height` in pixels, 0 where no header was read."""

    verdict: Verdict
    reason: str
    format: str
    width: int
    height: int


def inspect(data: bytes, level: Level = "decode") -> Inspection:
    """The verdict on a file's bytes.

    Args:
        data: the whole file.
        level: how far to look; see the table above.
    """
    found = judged_by_magic(data, level)
    if found.reason:
        return found
    kind = found.format
    # What the step at hand is called, if it fails: libraries raise anything on hostile bytes.
    step, width, height = "header", 0, 0
    try:
        width, height = _jpeg_size(data) if kind == "jpeg" else image_formats.dimensions(data, kind)
        across, down, most = width, height, MAX_PIXELS
        if kind != "jpeg":
            across, down = image_formats.allocated(data, kind, width, height)
            most = MAX_PIXELS_IN_FULL // image_formats.weight(data, kind)
        if across * down > most:
            reason = f"too many pixels: {across} x {down}"
            return Inspection("corrupt", reason, kind, width, height)
        if level == "header":
            return Inspection("ok", "header only", kind, width, height)
        step = "structure"
        if kind == "jpeg":
            with suppress(IndexError):
                jpeg.check_scans(data)
            step = "decode"
            verdict, reason = _judge_jpeg(data, height)
        else:
            pixels = image_formats.whole(data, kind)
            step = "decode"
            verdict, reason = _judge_other(pixels, kind, width * height)
    except Exception as error:  # noqa: BLE001 - see above
        return Inspection("corrupt", f"{step}: {_first_line(error)}", kind, width, height)
    return Inspection(verdict, reason, kind, width, height)


def judged_by_magic(head: bytes, level: Level) -> Inspection:
    """The verdict as far as a file's first bytes decide it; `ok` without a reason if they do not."""
    kind = sniff(head[:1024])
    if level == "off":
        return Inspection("ok", "not inspected", kind, 0, 0)
    if not head:
        return Inspection("not_image", "empty", kind, 0, 0)
    if kind in ("html", "json", "xml"):
        return Inspection("not_image", kind, kind, 0, 0)
    if kind == "unknown":
        return Inspection("not_image", "unknown magic", kind, 0, 0)
    if kind != "jpeg" and plugin_of(kind) is None:
        return Inspection("corrupt", f"no decoder for {kind} here", kind, 0, 0)
    return Inspection("ok", "", kind, 0, 0)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    import simplejpeg

    height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    return width, height


def _judge_jpeg(data: bytes, height: int) -> tuple[Verdict, str]:
    import simplejpeg

    from mirror.content import frame

    data, grey = jpeg.sound(data)
    row = grey[-1]
    if frame.spread(row) > FLAT_SPREAD:
        return "ok", ""
    # Rare from here on: what costs may cost.
    colours = "CMYK" if simplejpeg.decode_jpeg_header(data)[2] == "CMYK" else "RGB"
    if frame.spread(grey) <= FLAT_SPREAD:
        if (
            max(frame.spread(band) for band in _bands(jpeg.decode(data, colours)))
            <= FLAT_SPREAD_OF_BAND
            and frame.spread(full := jpeg.decode(data, "GRAY", height)) <= FLAT_SPREAD_IN_FULL
        ):
            return "blank", f"flat frame, level {round(float(full.mean()))}"
    elif colours == "RGB" and frame.could_be_fill(row):
        larger = jpeg.decode(data, colours, _rows_of_band(height))
        return _filled_or_ok(larger, height)
    return "ok", ""


def _rows_of_band(height: int) -> int:
    """Halved as often as leaves enough: libjpeg-turbo scales by other fractions at twice the cost."""
    rows = height
    while rows >= 2 * _BAND_HEIGHT:
        rows = -(-rows // 2)
    return rows


def _bands(frame: Any) -> list[Any]:
    return [frame[:, :, band] for band in range(frame.shape[2])]


@cache
def plugin_of(kind: str) -> type[ImageFile] | None:
    """Pillow's class for a format, if it is there and has its decoder.

    Not left to `Image.open`, which offers strangers' bytes to every plugin: one runs Ghostscript.
    """
    from importlib import import_module

    from PIL import features

    library = {"webp": "webp", "avif": "avif", "jp2": "jpg_2000"}.get(kind)
    module = {
        "jpeg": "Jpeg", "png": "Png", "gif": "Gif", "webp": "WebP", "avif": "Avif", "bmp": "Bmp",
        "tiff": "Tiff", "jp2": "Jpeg2K",
    }.get(kind)  # fmt: skip
    if module is None or (library and not features.check(library)):
        return None
    found = import_module(f"PIL.{module}ImagePlugin")
    plugin: type[ImageFile] = getattr(found, f"{module}ImageFile")
    return plugin


def _judge_other(data: bytes, kind: str, pixels: int) -> tuple[Verdict, str]:
    from PIL import Image

    from mirror.content import frame

    plugin = plugin_of(kind)
    assert plugin is not None
    with plugin(io.BytesIO(data)) as opened:
        if opened.width * opened.height > max(pixels, 1):
            raise ValueError("larger than its header says")
        opened.load()
        # A palette's numbers are not levels, and Pillow measures no big-endian ones.
        plain = {"P": "RGBA", "PA": "RGBA", "I;16B": "I"}.get(opened.mode)
        image: Image.Image = opened.convert(plain) if plain else opened
        width, height = image.size
        if _spread(image.crop((0, height - 1, width, height))) > FLAT_SPREAD_OF_BAND:
            return "ok", ""
        if image.mode not in ("1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"):
            # Sixteen bits and more: levels are finer than noise is, and a band stays unseen.
            if _spread(image) <= (0 if image.mode == "F" else FLAT_SPREAD):
                return "blank", "flat frame"
            return "ok", ""
        if _spread(image) <= FLAT_SPREAD_OF_BAND:
            luma = image.convert("L")
            scale = max(1, min(8, width // 16, height // 16))
            if _spread(luma) <= FLAT_SPREAD_IN_FULL and _spread(luma.reduce(scale)) <= FLAT_SPREAD:
                return "blank", f"flat frame, level {round(sum(_ends(luma)) / 2)}"
            return "ok", ""
        if image.mode not in ("L", "RGB", "RGBA"):
            return "ok", ""
        if image.mode == "RGBA" and _spread(image.getchannel("A")):
            return "ok", ""  # what is transparent may well be black
        import numpy as np

        smaller = image.convert("RGB").reduce(max(1, height // _BAND_HEIGHT))
        if frame.could_be_fill(np.asarray(smaller.convert("L"))[-1]):
            return _filled_or_ok(np.asarray(smaller), height)
    return "ok", ""


def _ends(image: Any) -> tuple[float, float]:
    low, high = image.getextrema()
    return float(low), float(high)


def _spread(image: Any) -> float:
    """The widest range of any band; of one that is not a number, none at all counts as flat."""
    ends = image.getextrema()
    bands = ends if isinstance(ends[0], tuple) else (ends,)
    return max(float(high) - float(low) for low, high in bands)


def _filled_or_ok(array: Any, height: int) -> tuple[Verdict, str]:
    from mirror.content import frame

    scale = height / array.shape[0]
    if found := frame.trailing_fill(array, scale):
        colour, rows = found
        return "corrupt", f"bottom {round(rows * scale)} rows filled with {colour}"
    return "ok", ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    words = lines[0] if lines else ""
    return (
        words if isinstance(error, ValueError) and words else f"{type(error).__name__} {words}"
    )[:120]
