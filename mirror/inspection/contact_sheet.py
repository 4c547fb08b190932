"""Write the contact sheet: one self-contained HTML page with everything flagged.

It has no scripts and loads nothing: its Content-Security-Policy forbids both. Names, reasons and
bytes come from strangers, so the page escapes all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final, NamedTuple, TextIO

from mirror.content import digest
from mirror.content.digest import WHOLE_UP_TO
from mirror.content.image import VERDICTS, Verdict
from mirror.inspection.html_page import (
    escaped,
    file_count,
    first_bytes,
    image_tag,
    neutral_tile,
    page_head,
    thumbnail,
)
from mirror.inspection.inspect_cache import (
    Findings,
    FlaggedGroup,
    GroupContent,
    JudgedFile,
    shown,
)
from mirror.system.display_text import format_size, printable

# Limits that keep the page quick to open. The page counts what they leave out.
TILES_A_GROUP: Final = 300
TILES: Final = 2000
GROUPS: Final = 100
NAMES_A_TILE: Final = 50

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
    out.write(page_head(f"Inspection of {shown(heading.cache)}"))
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
            f'<p class="more">{file_count(files)} with {len(rest):,} other reasons are not shown.</p>'
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
            f'<div class="group"><h3>{escaped(group.reason)}</h3>'
            f'<p class="facts">{_facts(group)}</p><ul class="grid">'
        )
        pictures = pool.map(lambda content: _picture(root, content.example), shown_contents)
        for content, picture in zip(shown_contents, pictures, strict=True):
            yield _tile(findings, group, content, picture)
        yield "</ul>"
        if group.contents > max_tiles:
            rest = group.files - sum(content.files for content in shown_contents)
            yield (
                f'<p class="more">and {group.contents - max_tiles:,} more, in {file_count(rest)}; '
                "<code>mirror inspect --csv</code> lists them all</p>"
            )
        yield "</div>"
    yield "</section>"


def _facts(group: FlaggedGroup) -> str:
    facts = [file_count(group.files), format_size(group.size)]
    if group.contents < group.files:
        facts.insert(1, f"{group.contents:,} different")
    return " · ".join(facts)


def _tile(findings: Findings, group: FlaggedGroup, content: GroupContent, picture: str) -> str:
    file = content.example
    name = shown(file.path)
    facts = [f"{file.width:,} × {file.height:,}"] if file.width and file.height else []
    facts.append(format_size(file.size))
    if file.reason != group.reason:
        reason = f'<span class="reason">{escaped(file.reason)}</span>'
    else:
        reason = ""
    copies = ""
    if content.files > 1:
        names = findings.paths(group, file.sha256, NAMES_A_TILE)
        items = "".join(f"<li>{escaped(shown(path))}</li>" for path in names)
        if content.files > len(names):
            items += f"<li>and {content.files - len(names):,} more</li>"
        copies = f"<details><summary>{content.files:,} files</summary><ul>{items}</ul></details>"
    badge = f'<span class="badge">× {content.files:,}</span>' if content.files > 1 else ""
    return (
        f'<li class="tile"><div class="frame">{picture}{badge}</div>'
        f'<p class="name" title="{escaped(name)}">{escaped(name)}</p>'
        f'<p class="facts">{" · ".join(facts)}</p>{reason}{copies}</li>'
    )


def _picture(root: bytes, judged: JudgedFile) -> str:
    """A thumbnail, or a neutral tile with the first bytes. Runs in a thread."""
    alt = f"{shown(judged.path)}: {judged.verdict}, {printable(judged.reason)}"
    try:
        read = digest.read(root + b"/" + judged.path, keep_up_to=WHOLE_UP_TO)
    except (OSError, digest.FileChanged):
        return neutral_tile(alt, "gone since")
    if read.digest.sha256 != judged.sha256:
        return neutral_tile(alt, "changed since")
    data = None if read.body is None else thumbnail(read.body)
    if data is not None:
        return image_tag(data, alt)
    if not judged.size:
        return neutral_tile(alt, "0 bytes")
    return neutral_tile(alt, "begins with", first_bytes(read.head))


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
        f"{file_count(findings.checked)} judged, {format_size(findings.bytes)}",
        f"{findings.ignored:,} other ignored",
    ]
    if findings.failed:
        notes.append(f"<strong>{findings.failed:,} could not be read</strong>")
    how = "decoded to their end" if heading.level == "decode" else "judged by their headers alone"
    return (
        '<header class="top"><p class="kicker">mirror inspect</p>'
        f"<h1>{findings.flagged:,} of {file_count(findings.checked)} flagged"
        f' <span class="share">{_percent(share)}</span></h1>'
        f'<p class="where"><bdi>{escaped(shown(heading.cache))}</bdi></p>'
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
            f"<li>{escaped(path)}: {escaped(reason)}</li>"
            for path, reason in findings.failures[:100]
        )
        if findings.failed > 100:
            items += f"<li>and {findings.failed - 100:,} more</li>"
        failures = f'<section class="failures"><h2>Could not be read</h2><ul>{items}</ul></section>'
    return (
        f"{failures}</main><footer><p><code>mirror quarantine --to DIR</code> moves what is flagged "
        "out of the cache, and <code>--restore</code> brings it back. Nothing is deleted.</p>"
        "</footer></body></html>\n"
    )
