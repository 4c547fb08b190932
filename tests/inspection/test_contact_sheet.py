"""The contact sheet shows everything flagged, and hostile names and bytes do nothing."""

from __future__ import annotations

import base64
import io
import re
import struct
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mirror.inspection import contact_sheet
from mirror.inspection.contact_sheet import Heading, write_sheet
from mirror.inspection.html_page import thumbnail
from tests.support.damaged_caches import inspected, make, put
from tests.support.photos import blank, encoded, fill, name_of, photo, url_of

WHEN = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
HOSTILE = [
    b"<script>alert(1)</script>",
    b"\"onmouseover='alert(1)'",
    b"</style><img src=x onerror=alert(1)>",
    b"&lt;amp;&",
    b"javascript:alert(1)",
    b"\xff\xfe\x1b[31m",
    "a\u202egpj.\u2066exe".encode(),
    b"two\nlines",
]


class Page(HTMLParser):
    """A page as a browser parses it: its elements, and the text of each element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.stack: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.stack.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.stack.pop() == tag, "well nested"

    def handle_data(self, data) -> None:
        if self.stack:
            self.texts.setdefault(self.stack[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def classed(self, name: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.elements if name in (a.get("class") or "").split()]


def made(cache: Path, cache_name: bytes | None = None, **bounds: int) -> tuple[str, Page]:
    out = io.StringIO()
    with inspected(cache) as findings:
        root = str(cache).encode() if cache_name is None else cache_name
        write_sheet(out, findings, Heading(root, "decode", WHEN), **bounds)
    out.getvalue().encode()
    page = Page(out.getvalue())
    assert page.stack == []
    return out.getvalue(), page


ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section",
    "h1", "h2", "h3", "p", "ul", "li", "div", "span", "b", "a", "img", "pre", "code", "details",
    "summary", "time", "bdi", "strong",
}  # fmt: skip


def assert_harmless(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag in ALLOWED
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name in {
                "lang", "charset", "http-equiv", "content", "name", "id", "class", "style", "href",
                "src", "alt", "title", "role", "aria-label", "aria-labelledby", "datetime", "decoding",
            }  # fmt: skip
            if name == "href":
                assert value is not None
                assert value.startswith("#")
            if name == "src":
                assert value is not None
                assert value.startswith("data:image/webp;base64,")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_every_flagged_file_is_shown_with_its_name(cache: Path) -> None:
    verdicts = make(cache)
    text, page = made(cache)
    for path, verdict in verdicts.items():
        assert (path in text) == (verdict != "ok")
    assert [h.strip() for h in page.texts["h2"]] == [
        "Blank", "Corrupt", "Not an image", "Placeholder"
    ]  # fmt: skip
    assert "15 of 25 files flagged" in text
    assert '<time datetime="2026-03-04T05:06:00+00:00">04 March 2026, 05:06 UTC</time>' in text
    assert_harmless(page)


def test_one_content_has_one_tile_that_names_all_its_files(cache: Path) -> None:
    fill(cache, {url_of(n): photo(7) for n in range(6)})
    text, page = made(cache)
    assert len(page.classed("tile")) == 1
    assert "× 6" in text
    for n in range(6):
        assert name_of(url_of(n)) in text


def test_the_page_forbids_network_and_scripts(cache: Path) -> None:
    make(cache)
    _, page = made(cache)
    (policy,) = (m for m in page.all("meta") if m.get("http-equiv"))
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert page.all("script") == page.all("link") == []
    (style,) = page.texts["style"]
    assert not re.search(r"url\(|@import|https?:", style)
    assert "prefers-color-scheme: dark" in style


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("body", [b"", blank(), b"<!doctype html>", photo(1)[:300]], ids=len)
def test_hostile_names_are_text(cache: Path, name: bytes, body: bytes) -> None:
    # A slash in the name is a folder and another.
    put(cache, 1, body, name)
    _, page = made(cache, cache_name=str(cache).encode())
    assert_harmless(page)
    assert len(page.classed("tile")) == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_the_caches_own_name_is_text(tmp_path: Path, name: bytes) -> None:
    import os

    cache = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name.replace(b"/", b"_"))))
    put(cache, 1, b"<b>")
    with inspected(cache) as findings:
        out = io.StringIO()
        write_sheet(out, findings, Heading(os.fsencode(cache), "decode", WHEN))
    assert_harmless(Page(out.getvalue()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda text: f"<html>{text}</script>".encode()),
    )
)
def test_first_bytes_are_text_whatever_they_are(
    tmp_path_factory: pytest.TempPathFactory, body: bytes
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    put(folder, 1, body)
    text, page = made(folder)
    assert_harmless(page)
    assert len(page.classed("tile")) == 1
    assert "</script>" not in text


def test_every_picture_has_an_alternative_text(cache: Path) -> None:
    verdicts = make(cache)
    _, page = made(cache)
    pictures = page.all("img")
    assert len(pictures) + len(page.classed("neutral")) == len(page.classed("tile"))
    for picture in pictures:
        alt = picture["alt"]
        assert alt is not None
        path, _, what = alt.partition(": ")
        assert what.startswith(verdicts[path])
    for tile in page.classed("neutral"):
        assert tile["role"] == "img"
        assert tile["aria-label"]


def test_thumbnails_are_small(cache: Path) -> None:
    fill(cache, {url_of(1): photo(1, side=900)[:-400], url_of(2): blank(700), url_of(3): blank(9)})
    _, page = made(cache)
    sizes = set()
    for picture in page.all("img"):
        assert picture["src"] is not None
        data = base64.b64decode(picture["src"].partition(",")[2])
        with Image.open(io.BytesIO(data)) as image:
            sizes.add(image.size)
    assert sizes == {(160, 160), (9, 9)}


def test_a_group_is_bounded_and_says_how_many_more(cache: Path) -> None:
    fill(cache, {url_of(n): b"<html>%d" % n for n in range(20)})
    fill(cache, {url_of(100): b"", url_of(101): b""})
    text, page = made(cache, tiles_a_group=5)
    assert len(page.classed("tile")) == 6
    assert "and 15 more, in 15 files" in text


def test_the_page_is_bounded_and_small_groups_are_whole(cache: Path) -> None:
    fill(cache, {url_of(n): b"<html>%d" % n for n in range(20)})
    fill(cache, {url_of(100 + n): b'{"%d": 1}' % n for n in range(3)})
    _, page = made(cache, tiles=8)
    assert len(page.classed("tile")) == 5 + 3


def test_many_reasons_are_bounded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "GROUPS", 2)
    make(cache)
    text, page = made(cache)
    assert len(page.all("h3")) == 2
    assert "other reasons are not shown" in text


def test_many_names_of_one_content_are_bounded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_sheet, "NAMES_A_TILE", 4)
    fill(cache, {url_of(n): b"" for n in range(10)})
    assert "and 6 more" in made(cache)[0]


def test_a_page_without_flagged_files_or_without_any_file(cache: Path) -> None:
    cache.mkdir()
    assert "No image was found" in made(cache)[0]
    fill(cache, {url_of(1): photo(1)})
    text, page = made(cache)
    assert "Nothing is flagged" in text
    assert page.classed("tile") == []


def test_a_file_that_was_deleted_or_changed_has_no_thumbnail(cache: Path) -> None:
    fill(cache, {url_of(1): blank(50), url_of(2): blank(60)})
    out = io.StringIO()
    with inspected(cache) as findings:
        (cache / name_of(url_of(1))).unlink()
        (cache / name_of(url_of(2))).write_bytes(photo(2))
        write_sheet(out, findings, Heading(str(cache).encode(), "decode", WHEN))
    assert "gone since" in out.getvalue()
    assert "changed since" in out.getvalue()
    assert Page(out.getvalue()).all("img") == []


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


RGB = Image.open(io.BytesIO(photo(3, 300)))
RGB.load()
PICTURES = {
    "jpeg": photo(3, 300),
    "cut jpeg": photo(3, 300)[:3000],
    "cmyk jpeg": encoded(RGB.convert("CMYK")),
    "grey png": saved(RGB.convert("L"), "PNG"),
    "palette png": saved(RGB.convert("P"), "PNG", transparency=3),
    "clear png": saved(RGB.convert("RGBA"), "PNG"),
    "16-bit png": saved(RGB.convert("I;16"), "PNG"),
    "16-bit flat png": saved(Image.new("I;16", (300, 300)), "PNG"),
    "gif": saved(RGB.convert("P"), "GIF"),
    "webp": saved(RGB, "WEBP"),
    "bilevel tiff": saved(RGB.convert("1"), "TIFF"),
    "16-bit big-endian tiff": saved(
        Image.frombytes("I;16B", (300, 300), bytes(range(250)) * 720), "TIFF"
    ),
    "float tiff": saved(RGB.convert("F"), "TIFF"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_has_a_thumbnail(name: str) -> None:
    data = thumbnail(PICTURES[name])
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("WEBP", (160, 160))


def test_a_picture_lies_as_its_pixels_are_stored() -> None:
    """A reason such as "bottom 40 rows filled" is about the pixels as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = thumbnail(saved(RGB.resize((300, 150)), "JPEG", exif=exif))
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (160, 80)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_bomb_is_not_decoded(kind: str) -> None:
    body = bytearray(saved(Image.new("L", (64, 64)), kind))
    if kind == "PNG":
        body[16:24] = struct.pack(">II", 9000, 9000)
    else:
        at = body.index(b"\xff\xc0")
        body[at + 5 : at + 9] = struct.pack(">HH", 9000, 9000)
    assert thumbnail(bytes(body)) is None


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_no_bytes_raise(body: bytes, magic: bytes) -> None:
    thumbnail(magic + body)
