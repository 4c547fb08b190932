"""Decode an image's bytes. The gate, training, thumbnails and your own loaders all use this file.

The first bytes decide the format, and only the decoder of that format sees the file: libjpeg-turbo
(simplejpeg) for JPEG, one plugin of Pillow for every other. No other program runs. `Image.open` would
offer a stranger's bytes to every plugin, and one of them runs Ghostscript. It also goes by a limit of
pixels for the whole process, and warns.

The header gives the size, and `excess` refuses it before a decoder allocates memory. The gate uses the
same steps, so an image with the verdict `ok` decodes.

Pixels are returned as they are stored. An EXIF orientation is not applied.
"""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Final

from mirror.content import image_formats, jpeg

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# The largest photographs of telephones have 200 million pixels. The gate decodes a JPEG at an eighth
# of its size. Pillow takes up to ten bytes a pixel in every thread; `image_formats.weight` has the
# formats that take more.
MAX_PIXELS: Final = 200_000_000
MAX_PIXELS_IN_FULL: Final = 120_000_000
# A file of 40 bytes can name any size. Beyond the free pixels each byte allows some more: four times as
# many as the flattest JPEG has.
FREE_PIXELS: Final = 10_000_000
PIXELS_A_BYTE: Final = 1000


def rgb(data: bytes) -> Image:
    """Decode an image's bytes to a PIL image in RGB.

    The whole image is decoded, so that a damaged file is an error. Of 16-bit greys the upper 8 bits
    are kept. Transparency is dropped. The pixels stay as they are stored: an EXIF orientation is not
    applied.

    Args:
        data: the bytes of an image file.

    Returns:
        A `PIL.Image.Image` of mode RGB.

    Raises:
        ValueError: the bytes are no image, or a damaged one; the image has too many pixels; or it has
            greys without a known range (PIL mode `I` or `F`).
    """
    return converted(decode(data), "RGB")


def converted(image: Image, mode: str) -> Image:
    """Convert a decoded image to mode `RGB` or `L`, as `rgb` documents. Raises: ValueError."""
    if image.mode.startswith("I;16"):
        import numpy as np
        from PIL import Image

        # Pillow's own conversion clips values above 255, which leaves a white image.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(mode)
    if image.mode in ("I", "F"):
        raise ValueError(
            f"the image (mode {image.mode}) does not say which greys are black and white; "
            "pass a decode= function that knows"
        )
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # Pillow warns of transparent palettes otherwise
    return image if image.format is None and image.mode == mode else image.convert(mode)


def decode(data: bytes, *, at_least: int = 0, partly: bool = False) -> Image:
    """Decode an image's bytes to a PIL image: a JPEG in RGB, others in the mode of the file.

    Args:
        data: the bytes of an image file.
        at_least: rows that are enough: a JPEG may be decoded at a fraction of its size. 0: all rows.
        partly: decode a damaged JPEG as far as possible.

    Raises:
        ValueError: the bytes are no image, or a damaged one, or have too many pixels.
    """
    try:
        return _decode(data, at_least, partly)
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # hostile bytes may raise anything
        raise ValueError(f"{type(error).__name__} {error}") from error


def _decode(data: bytes, at_least: int, partly: bool) -> Image:
    kind = image_formats.sniff(data[:1024])
    if plugin_of(kind) is None:
        raise ValueError(f"no decoder for {kind} here")
    width, height = size_of(data, kind)
    if reason := excess(data, kind, width, height):
        raise ValueError(reason)
    if kind != "jpeg":
        return loaded(data, kind, width * height)
    from PIL import Image

    jpeg.check_scans(data, whole=not partly)
    rows = min(height, at_least)
    if partly:
        return Image.fromarray(jpeg.decode(data, "RGB", rows, strict=False))
    return Image.fromarray(jpeg.sound(data, "RGB", rows)[1])


def size_of(data: bytes, kind: str) -> tuple[int, int]:
    """Return `(width, height)` in pixels, as the header says. Hostile bytes may raise anything."""
    return jpeg.dimensions(data) if kind == "jpeg" else image_formats.dimensions(data, kind)


def excess(data: bytes, kind: str, width: int, height: int) -> str:
    """Return the reason why a picture has too many pixels to be decoded; empty if it has not."""
    across, down, most = width, height, MAX_PIXELS
    if kind != "jpeg":
        across, down = image_formats.allocated(data, kind, width, height)
        most = MAX_PIXELS_IN_FULL // image_formats.weight(data, kind)
    if across * down > min(most, FREE_PIXELS + PIXELS_A_BYTE * len(data)):
        return f"too many pixels: {across} x {down}"
    return ""


@cache
def plugin_of(kind: str) -> type[ImageFile] | None:
    """Return Pillow's plugin for a format, or None if it or its decoder is missing."""
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


def loaded(data: bytes, kind: str, pixels: int) -> Image:
    """Decode with the plugin of a format. Hostile bytes may raise anything.

    Args:
        data: the file, of at most `excess` pixels.
        kind: its format, not `jpeg`.
        pixels: the pixels that its header names. The plugin may not find more.
    """
    plugin = plugin_of(kind)
    assert plugin is not None
    with plugin(io.BytesIO(image_formats.picture(data, kind))) as image:
        if image.width * image.height > max(pixels, 1):
            raise ValueError("larger than its header says")
        if image.mode == "LAB":
            raise ValueError("colours in LAB, which Pillow does not convert")
        image.load()
        return image
