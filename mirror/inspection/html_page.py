"""Parts of the pages that show images: one self-contained HTML file each.

A page has no scripts and loads nothing: its Content-Security-Policy forbids both. Names, reasons and
bytes come from strangers, so a page escapes all of them.
"""

from __future__ import annotations

import base64
import html
import io
from importlib import resources
from typing import TYPE_CHECKING, Final

from mirror.content.decode import decode
from mirror.content.image import inspect
from mirror.system.display_text import plural, printable

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL: Final = 160
# Decoding more pixels for a thumbnail is not worth the memory.
_MAX_PIXELS: Final = 50_000_000
_FIRST_BYTES: Final = 96


def page_head(title: str) -> str:
    """Return everything up to the body of a page."""
    style = resources.files("mirror.inspection").joinpath("contact_sheet.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{escaped(title)}</title><style>{style}</style></head><body>"
    )


def escaped(text: str) -> str:
    """Return text that HTML shows as it is, in an element or an attribute."""
    return html.escape(printable(text), quote=True)


def file_count(number: int) -> str:
    """Return a number of files in words."""
    return plural(number, "file")


def image_tag(data: bytes, alt: str) -> str:
    """Return an image that is a part of the page.

    Args:
        data: a WebP, as `thumbnail` makes it.
        alt: the text in its place.
    """
    encoded = base64.b64encode(data).decode()
    return f'<img src="data:image/webp;base64,{encoded}" alt="{escaped(alt)}" decoding="async">'


def neutral_tile(alt: str, what: str, content: str = "") -> str:
    """Return a tile without an image: a word, and text below it."""
    text = f"<pre>{escaped(content)}</pre>" if content else ""
    return f'<div class="neutral" role="img" aria-label="{escaped(alt)}"><span>{what}</span>{text}</div>'


def first_bytes(head: bytes) -> str:
    """The first bytes as text if they are text, otherwise in hexadecimal, four bytes a word."""
    first = head[:_FIRST_BYTES]
    legible = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in first)
    if legible >= 0.9 * len(first):
        return "".join(chr(byte) if 32 <= byte < 127 else " " for byte in first)
    return first[:48].hex(" ", 4)


def thumbnail(body: bytes) -> bytes | None:
    """Return a WebP of at most `THUMBNAIL` pixels a side, or None if nothing can be decoded.

    A damaged JPEG is shown as far as it can be decoded. The picture lies as its pixels are stored, so
    that its bottom is the one that a reason names.
    """
    found = inspect(body, "header")
    if found.verdict != "ok" or found.width * found.height > _MAX_PIXELS:
        return None
    try:
        image = _on_paper(decode(body, at_least=2 * THUMBNAIL, partly=True))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        out = io.BytesIO()
        image.save(out, "WEBP", quality=72, method=2)
        return out.getvalue()
    except Exception:  # noqa: BLE001 - hostile bytes may raise anything: then no thumbnail
        return None


def _on_paper(image: Image) -> Image:
    """The image in RGB: deep greys over their whole range, transparent pixels on white."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        # Pillow cannot measure big-endian numbers.
        image = image.convert("I") if image.mode == "I;16B" else image
        low, high = image.getextrema()
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        scale = 255 / ((high - low) or 1)
        return image.convert("F").point(lambda v: v * scale - low * scale).convert("RGB")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
