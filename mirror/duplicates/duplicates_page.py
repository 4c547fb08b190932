"""The page that shows groups of copies side by side, the largest groups first."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final, Literal, NamedTuple, TextIO

from mirror.duplicates.photo_groups import Copy, PhotoGroup
from mirror.inspection.html_page import escaped, image_tag, neutral_tile, page_head, thumbnail
from mirror.system.display_text import format_size, plural

Place = Literal["cache", "mirror"]

# Limits that keep the page quick to open. The page counts what they leave out.
GROUPS: Final = 200
COPIES_A_GROUP: Final = 12
_NAMES_A_COPY: Final = 50


class PageHeading(NamedTuple):
    """Facts for the top of the page.

    Attributes:
        place: what was searched.
        where: its folder or its URL.
        checked: images that were looked at.
        without_phash: different contents that no hash could join with others.
        made_at: when.
    """

    place: Place
    where: str
    checked: int
    without_phash: int
    made_at: datetime


def write_page(
    out: TextIO,
    groups: Sequence[PhotoGroup],
    heading: PageHeading,
    bodies: Callable[[Iterable[Copy]], Iterator[bytes | None]],
) -> None:
    """Write the page.

    Args:
        out: receives the page piece by piece.
        groups: all groups, the largest first.
        heading: facts for the top of the page.
        bodies: gives the bytes of copies, in order; None where they cannot be read.
    """
    out.write(page_head(f"Copies in {heading.where}"))
    out.write(_summary(groups, heading))
    # Pillow warns of odd metadata.
    with warnings.catch_warnings(), ThreadPoolExecutor(thread_name_prefix="thumbnail") as pool:
        warnings.simplefilter("ignore")
        for number, group in enumerate(groups[:GROUPS], 1):
            copies = group.copies[:COPIES_A_GROUP]
            pictures = pool.map(_thumbnail_of, bodies(copies))
            out.write(_group(number, group, list(zip(copies, pictures, strict=True))))
    if not groups:
        out.write(
            '<section class="none"><h2>No copies were found</h2>'
            f"<p>All {heading.checked:,} images show different photographs.</p></section>"
        )
    if len(groups) > GROUPS:
        out.write(
            f'<p class="more">and {len(groups) - GROUPS:,} smaller groups; '
            "<code>mirror duplicates --csv</code> lists them all</p>"
        )
    out.write(_FOOT)


_FOOT: Final = (
    "</main><footer><p><code>mirror rewrite --split</code> keeps the images of a group in one split, "
    "and <code>--near-duplicates drop</code> writes only the largest. Crops, captions and watermarks "
    "are not found. Nothing is deleted.</p></footer></body></html>\n"
)


def _summary(groups: Sequence[PhotoGroup], heading: PageHeading) -> str:
    redundant = sum(group.images - 1 for group in groups)
    near = sum(len(group.copies) > 1 for group in groups)
    cards = "".join(
        f'<li class="{hue}"><span class="card"><b>{number:,}</b><span>{words}</span></span></li>'
        for hue, number, words in (
            ("ok", len(groups), "groups of copies"),
            ("blank", near, "with different files"),
            ("placeholder", redundant, "images beyond the first"),
            ("not_image", heading.without_phash, "contents without a hash"),
        )
    )
    what = "files" if heading.place == "cache" else "URLs"
    made = heading.made_at
    return (
        '<header class="top"><p class="kicker">mirror duplicates</p>'
        f"<h1>{plural(len(groups), 'photograph', 'have')} copies</h1>"
        f'<p class="where"><bdi>{escaped(heading.where)}</bdi></p>'
        f'<p class="facts">{heading.checked:,} {what} checked · '
        f'<time datetime="{made.isoformat(timespec="seconds")}">{made:%d %B %Y, %H:%M %Z}</time></p>'
        f'<ul class="cards">{cards}</ul></header><main>'
    )


def _thumbnail_of(body: bytes | None) -> bytes | None:
    return None if body is None else thumbnail(body)


def _group(number: int, group: PhotoGroup, shown: Sequence[tuple[Copy, bytes | None]]) -> str:
    facts = [plural(group.images, "image"), f"{len(group.copies):,} different"]
    if group.farthest:
        facts.append(f"up to {plural(group.farthest, 'bit')} of 256 apart")
    wide = ""
    if group.is_wide:
        wide = '<p class="reason corrupt">May hold more than one photograph.</p>'
    tiles = "".join(_tile(copy, data) for copy, data in shown)
    rest = len(group.copies) - len(shown)
    more = f'<p class="more">and {rest:,} more different files</p>' if rest else ""
    return (
        f'<section class="group placeholder"><h3>Group {number:,}</h3>'
        f'<p class="facts">{" · ".join(facts)}</p>{wide}<ul class="grid">{tiles}</ul>{more}</section>'
    )


def _tile(copy: Copy, data: bytes | None) -> str:
    name = copy.names[0]
    picture = neutral_tile(name, "no picture") if data is None else image_tag(data, name)
    facts = [f"{copy.width:,} × {copy.height:,}"] if copy.width and copy.height else []
    facts += [copy.format, format_size(copy.size)]
    apart = (
        ""
        if not copy.distance
        else f'<span class="reason">{plural(copy.distance, "bit")} apart</span>'
    )
    badge, names = "", ""
    if len(copy.names) > 1:
        badge = f'<span class="badge">× {len(copy.names):,}</span>'
        items = "".join(f"<li>{escaped(one)}</li>" for one in copy.names[:_NAMES_A_COPY])
        if len(copy.names) > _NAMES_A_COPY:
            items += f"<li>and {len(copy.names) - _NAMES_A_COPY:,} more</li>"
        names = f"<details><summary>{len(copy.names):,} equal</summary><ul>{items}</ul></details>"
    return (
        f'<li class="tile"><div class="frame">{picture}{badge}</div>'
        f'<p class="name" title="{escaped(name)}">{escaped(name)}</p>'
        f'<p class="facts">{" · ".join(facts)}</p>{apart}{names}</li>'
    )
