"""The verdict on an image's bytes, and its reason. Pure: nothing here opens a file or keeps state.

The tests run from the cheapest to the most expensive, and the first one that applies decides. In
order: magic bytes, header, number of pixels, structure, strict decode, flat frame, painted band. The
page docs/verdicts.md has the whole table, the thresholds and their figures.

libjpeg-turbo (simplejpeg) decodes JPEG, scaled and strict: its warnings are errors. So it refuses a
file that was cut short and closed with an end marker; Pillow accepts it and fills the rest with
grey. At every scale it reads the whole entropy-coded stream. Pillow's plugins decode the other
formats. `mirror.content.decode` has the decoders and the limits of size, for the gate and for training.

The last row lets nearly every photograph pass: the test is one row's minimum and maximum. Only an
image with a flat last row is decoded again, larger and in colour. That tells stars in a black sky,
a letterbox, a caption or a dark ground from a blank frame and from a painted band.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from mirror.content import image_formats, jpeg, perceptual_hash
from mirror.content.decode import converted, excess, loaded, plugin_of, size_of
from mirror.content.image_formats import sniff

Verdict = Literal["ok", "blank", "corrupt", "not_image", "placeholder"]
Level = Literal["decode", "header", "off"]

VERDICTS: Final[tuple[Verdict, ...]] = ("ok", "blank", "corrupt", "not_image", "placeholder")

# Levels between which a scaled frame counts as flat: JPEG rounds the mean of each block.
FLAT_SPREAD: Final = 3
# The same at full size, where dithering noise survives: in luma, and in any single band, because
# lossy formats keep colours less well. The dimmest star is above both.
FLAT_SPREAD_IN_FULL: Final = 8
FLAT_SPREAD_OF_BAND: Final = 16
# Rows of a decoded frame that are enough to see where a painted band begins.
_BAND_HEIGHT: Final = 240


class Inspection(NamedTuple):
    """A verdict, its reason and the image's format. `width` and `height` are pixels, 0 if unknown.

    `near` is the stored form of the perceptual hash, or None: the pixels were not decoded, or they
    have no known range of greys.
    """

    verdict: Verdict
    reason: str
    format: str
    width: int
    height: int
    near: bytes | None = None


def inspect(data: bytes, level: Level = "decode") -> Inspection:
    """Judge a file's bytes; never returns `placeholder`.

    Args:
        data: the whole file.
        level: `decode` runs all tests, `header` reads the header only, `off` none.
    """
    found = judged_by_magic(data, level)
    if found.reason:
        return found
    kind = found.format
    # `step` names the current step in the reason. Libraries may raise anything on hostile bytes.
    step, width, height, near = "header", 0, 0, None
    try:
        width, height = size_of(data, kind)
        if reason := excess(data, kind, width, height):
            return Inspection("corrupt", reason, kind, width, height)
        if level == "header":
            return Inspection("ok", "header only", kind, width, height)
        step = "structure"
        if kind == "jpeg":
            jpeg.check_scans(data)
            step = "decode"
            data, grey = jpeg.sound(data)
            near = _near(grey, width, height)
            verdict, reason = _judge_jpeg(data, grey, height)
        else:
            image_formats.check_whole(data, kind)
            step = "decode"
            image = loaded(data, kind, width * height)
            near = _near_in_full(image)
            verdict, reason = _judge_other(image)
    except Exception as error:  # noqa: BLE001 - hostile bytes may raise anything
        return Inspection("corrupt", f"{step}: {_first_line(error)}", kind, width, height)
    return Inspection(verdict, reason, kind, width, height, near)


def _near(grey: Any, width: int, height: int) -> bytes:
    """Return the perceptual hash of a JPEG from its decoded frame."""
    rows, columns = grey.shape[:2]
    step = perceptual_hash.jpeg_step((width, height), (columns, rows))
    return perceptual_hash.perceptual_hash(grey.reshape(rows, columns), width, height, step)


def _near_in_full(image: Any) -> bytes | None:
    """Return the perceptual hash of an image that Pillow decoded; None without a range of greys."""
    if image.mode in ("I", "F"):
        return None
    grey, step = perceptual_hash.reduced(converted(image, "L"))
    return perceptual_hash.perceptual_hash(grey, image.width, image.height, step)


def judged_by_magic(head: bytes, level: Level) -> Inspection:
    """Judge a file by its first bytes; `ok` with an empty reason if they do not decide."""
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


def _judge_jpeg(data: bytes, grey: Any, height: int) -> tuple[Verdict, str]:
    import simplejpeg

    from mirror.content import frame

    row = grey[-1]
    if frame.spread(row) > FLAT_SPREAD:
        return "ok", ""
    # Few files get this far, so expensive tests are fine.
    colours = "CMYK" if simplejpeg.decode_jpeg_header(data)[2] == "CMYK" else "RGB"
    if frame.spread(grey) <= FLAT_SPREAD:
        if (
            max(frame.spread(band) for band in _bands(jpeg.decode(data, colours)))
            <= FLAT_SPREAD_OF_BAND
            and frame.spread(full := jpeg.decode(data, "GRAY", 0)) <= FLAT_SPREAD_IN_FULL
        ):
            return "blank", f"flat frame, level {round(float(full.mean()))}"
    elif colours == "RGB" and frame.could_be_fill(row):
        larger = jpeg.decode(data, colours, _rows_of_band(height))
        return _filled_or_ok(larger, height)
    return "ok", ""


def _rows_of_band(height: int) -> int:
    """Rows to decode: halved repeatedly, because other fractions cost libjpeg-turbo twice as much."""
    rows = height
    while rows >= 2 * _BAND_HEIGHT:
        rows = -(-rows // 2)
    return rows


def _bands(frame: Any) -> list[Any]:
    return [frame[:, :, band] for band in range(frame.shape[2])]


def _judge_other(image: Any) -> tuple[Verdict, str]:
    from mirror.content import frame

    # Palette indices are not levels, and Pillow cannot measure big-endian numbers.
    if plain := {"P": "RGBA", "PA": "RGBA", "I;16B": "I"}.get(image.mode):
        image = image.convert(plain)
    width, height = image.size
    if _spread(image.crop((0, height - 1, width, height))) > FLAT_SPREAD_OF_BAND:
        return "ok", ""
    if image.mode not in ("1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"):
        # Sixteen bits and more: levels are finer than noise. Painted bands are not detected.
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
        return "ok", ""  # transparent pixels may well be black
    import numpy as np

    smaller = image.convert("RGB").reduce(max(1, height // _BAND_HEIGHT))
    if frame.could_be_fill(np.asarray(smaller.convert("L"))[-1]):
        return _filled_or_ok(np.asarray(smaller), height)
    return "ok", ""


def _ends(image: Any) -> tuple[float, float]:
    low, high = image.getextrema()
    return float(low), float(high)


def _spread(image: Any) -> float:
    """The widest range of levels of any band. A band with NaN is never flat."""
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
