"""Write the contact sheet: one self-contained HTML page with everything flagged.

It has no scripts and loads nothing: its Content-Security-Policy forbids both. Names, reasons and
bytes come from strangers, so the page escapes all of them.
"""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

from mirror.content import digest
from mirror.content.decode import decode
from mirror.content.digest import WHOLE_UP_TO
from mirror.content.image import VERDICTS, Verdict, inspect
from mirror.inspection.inspect_cache import (
    Findings,
    FlaggedGroup,
    GroupContent,
    JudgedFile,
    shown,
)
from mirror.system.display_text import format_size, printable

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL: Final = 160
# Limits that keep the page quick to open. The page counts what they leave out.
TILES_A_GROUP: Final = 300
TILES: Final = 2000
GROUPS: Final = 100
NAMES_A_TILE: Final = 50
# Decoding more pixels for a thumbnail is not worth the memory.
_MAX_PIXELS: Final = 50_000_000
_FIRST_BYTES: Final = 96

_MEANING: Final[dict[Verdict, tuple[str, str]]] = {
    "ok": ("Fine", "An image that decodes to its end."),
    "blank": ("Blank", "One flat colour in place of a photo."),
    "corrupt": ("Corrupt", "Begins as an image, but does not decode to its end."),
    "not_image": ("Not an image", "Empty, or something else under an image's name."),
    "placeholder": ("Placeholder", "One picture in place of many photos, or a known bad picture."),
}


class Heading(NamedTuple):
    """Facts for the top of the page. `cache`: its folder; `level`: level of the inspection."""

    cache: bytes
    level: str
    made_at: datetime


def write_sheet(
    out: TextIO,
    findings: Findings,
    heading: Heading,
    *,
    tiles_a_group: int = TILES_A_GROUP,
    tiles: int = TILES,
) -> None:
    """Write the page. Files are read again for their thumbnails.

    Args:
        out: receives the page piece by piece.
        findings: of a finished inspection, still open.
        heading: facts for the top of the page.
        tiles_a_group: maximum of thumbnails for one reason.
        tiles: maximum of thumbnails on the page.
    """
    all_groups = findings.groups()
    groups = all_groups[:GROUPS]
    max_tiles = _fair_share([group.contents for group in groups], tiles, tiles_a_group)
    out.write(_head(heading))
    out.write(_summary(findings, heading))
    # Pillow warns of odd metadata, and flagged files have much of it.
    with warnings.catch_warnings(), ThreadPoolExecutor(thread_name_prefix="thumbnail") as pool:
        warnings.simplefilter("ignore")
        for verdict in VERDICTS:
            of_verdict = [group for group in groups if group.verdict == verdict]
            if of_verdict:
                out.writelines(
                    _section(
                        findings, heading.cache, verdict, of_verdict, max_tiles=max_tiles, pool=pool
                    )
                )
    if not all_groups:
        out.write(
            '<section class="none"><h2>Nothing is flagged</h2>'
            f"<p>All {findings.checked:,} files are good images.</p></section>"
            if findings.checked
            else '<section class="none"><h2>No image was found</h2>'
            "<p>A file of the cache is named by the MD5 of its URL.</p></section>"
        )
    if rest := all_groups[GROUPS:]:
        files = sum(group.files for group in rest)
        out.write(
            f'<p class="more">{_files(files)} with {len(rest):,} other reasons are not shown.</p>'
        )
    out.write(_foot(findings))


def _fair_share(contents: Sequence[int], total: int, limit: int) -> int:
    """The largest number of tiles, up to `limit`, that each group may have within `total`."""
    while limit > 1 and sum(min(limit, number) for number in contents) > total:
        limit -= 1
    return limit


def _section(
    findings: Findings,
    root: bytes,
    verdict: Verdict,
    groups: list[FlaggedGroup],
    *,
    max_tiles: int,
    pool: ThreadPoolExecutor,
) -> Iterator[str]:
    title, meaning = _MEANING[verdict]
    yield (
        f'<section id="{verdict}" class="{verdict}" aria-labelledby="{verdict}-title">'
        f'<header class="verdict"><h2 id="{verdict}-title">{title} '
        f'<span class="count">{findings.counts[verdict]:,}</span></h2><p>{meaning}</p></header>'
    )
    for group in groups:
        shown_contents = list(findings.contents(group, max_tiles))
        yield (
            f'<div class="group"><h3>{_text(group.reason)}</h3>'
            f'<p class="facts">{_facts(group)}</p><ul class="grid">'
        )
        pictures = pool.map(lambda content: _picture(root, content.example), shown_contents)
        for content, picture in zip(shown_contents, pictures, strict=True):
            yield _tile(findings, group, content, picture)
        yield "</ul>"
        if group.contents > max_tiles:
            rest = group.files - sum(content.files for content in shown_contents)
            yield (
                f'<p class="more">and {group.contents - max_tiles:,} more, in {_files(rest)}; '
                "<code>mirror inspect --csv</code> lists them all</p>"
            )
        yield "</div>"
    yield "</section>"


def _facts(group: FlaggedGroup) -> str:
    facts = [_files(group.files), format_size(group.size)]
    if group.contents < group.files:
        facts.insert(1, f"{group.contents:,} different")
    return " · ".join(facts)


def _tile(findings: Findings, group: FlaggedGroup, content: GroupContent, picture: str) -> str:
    file = content.example
    name = shown(file.path)
    facts = [f"{file.width:,} × {file.height:,}"] if file.width and file.height else []
    facts.append(format_size(file.size))
    if file.reason != group.reason:
        reason = f'<span class="reason">{_text(file.reason)}</span>'
    else:
        reason = ""
    copies = ""
    if content.files > 1:
        names = findings.paths(group, file.sha256, NAMES_A_TILE)
        items = "".join(f"<li>{_text(shown(path))}</li>" for path in names)
        if content.files > len(names):
            items += f"<li>and {content.files - len(names):,} more</li>"
        copies = f"<details><summary>{content.files:,} files</summary><ul>{items}</ul></details>"
    badge = f'<span class="badge">× {content.files:,}</span>' if content.files > 1 else ""
    return (
        f'<li class="tile"><div class="frame">{picture}{badge}</div>'
        f'<p class="name" title="{_text(name)}">{_text(name)}</p>'
        f'<p class="facts">{" · ".join(facts)}</p>{reason}{copies}</li>'
    )


def _picture(root: bytes, judged: JudgedFile) -> str:
    """A thumbnail, or a neutral tile with the first bytes. Runs in a thread."""
    alt = f"{shown(judged.path)}: {judged.verdict}, {printable(judged.reason)}"
    try:
        read = digest.read(root + b"/" + judged.path, keep_up_to=WHOLE_UP_TO)
    except (OSError, digest.FileChanged):
        return _neutral(alt, "gone since", "")
    if read.digest.sha256 != judged.sha256:
        return _neutral(alt, "changed since", "")
    data = None if read.body is None else thumbnail(read.body)
    if data is not None:
        encoded = base64.b64encode(data).decode()
        return f'<img src="data:image/webp;base64,{encoded}" alt="{_text(alt)}" decoding="async">'
    if not judged.size:
        return _neutral(alt, "0 bytes", "")
    return _neutral(alt, "begins with", _first_bytes(read.head))


def _neutral(alt: str, what: str, content: str) -> str:
    text = f"<pre>{_text(content)}</pre>" if content else ""
    return (
        f'<div class="neutral" role="img" aria-label="{_text(alt)}"><span>{what}</span>{text}</div>'
    )


def _first_bytes(head: bytes) -> str:
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


def _text(text: str) -> str:
    return html.escape(printable(text), quote=True)


def _files(number: int) -> str:
    return f"{number:,} file" if number == 1 else f"{number:,} files"


def _head(heading: Heading) -> str:
    style = resources.files("mirror.inspection").joinpath("contact_sheet.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>Inspection of {_text(shown(heading.cache))}</title><style>{style}</style></head><body>"
    )


def _summary(findings: Findings, heading: Heading) -> str:
    total = findings.checked or 1
    share = findings.flagged / total
    says = ", ".join(f"{findings.counts[v]:,} {_MEANING[v][0].lower()}" for v in VERDICTS)
    bar = "".join(
        f'<span class="{v}" style="flex-grow:{findings.counts[v] / total:.6f}"></span>'
        for v in VERDICTS
        if findings.counts[v]
    )
    cards = "".join(_card(v, findings.counts[v]) for v in VERDICTS)
    made = heading.made_at
    notes = [
        f"{_files(findings.checked)} judged, {format_size(findings.bytes)}",
        f"{findings.ignored:,} other ignored",
    ]
    if findings.failed:
        notes.append(f"<strong>{findings.failed:,} could not be read</strong>")
    how = "decoded to their end" if heading.level == "decode" else "judged by their headers alone"
    return (
        '<header class="top"><p class="kicker">mirror inspect</p>'
        f"<h1>{findings.flagged:,} of {_files(findings.checked)} flagged"
        f' <span class="share">{_percent(share)}</span></h1>'
        f'<p class="where"><bdi>{_text(shown(heading.cache))}</bdi></p>'
        f'<p class="facts">{" · ".join(notes)} · {how} · '
        f'<time datetime="{made.isoformat(timespec="seconds")}">{made:%d %B %Y, %H:%M %Z}</time></p>'
        f'<div class="bar" role="img" aria-label="{says}">{bar}</div>'
        f'<nav aria-label="Verdicts"><ul class="cards">{cards}</ul></nav></header><main>'
    )


def _percent(share: float) -> str:
    if share and share < 0.0001:
        return "less than 0.01 %"
    return f"{share * 100:.2f} %" if share < 0.01 else f"{share * 100:.1f} %"


def _card(verdict: Verdict, number: int) -> str:
    inner = f"<b>{number:,}</b><span>{_MEANING[verdict][0]}</span>"
    if verdict == "ok" or not number:
        return f'<li class="{verdict}"><span class="card">{inner}</span></li>'
    return f'<li class="{verdict}"><a class="card" href="#{verdict}">{inner}</a></li>'


def _foot(findings: Findings) -> str:
    failures = ""
    if findings.failures:
        items = "".join(
            f"<li>{_text(path)}: {_text(reason)}</li>" for path, reason in findings.failures[:100]
        )
        if findings.failed > 100:
            items += f"<li>and {findings.failed - 100:,} more</li>"
        failures = f'<section class="failures"><h2>Could not be read</h2><ul>{items}</ul></section>'
    return (
        f"{failures}</main><footer><p><code>mirror quarantine --to DIR</code> moves what is flagged "
        "out of the cache, and <code>--restore</code> brings it back. Nothing is deleted.</p>"
        "</footer></body></html>\n"
    )
