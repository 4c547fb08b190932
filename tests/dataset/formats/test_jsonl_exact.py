"""Only the URLs change, whatever the JSON lines contain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mirror.dataset.fields import BadRecord, parse_path, replace_urls, sites_of
from mirror.dataset.formats.jsonl import read_jsonl
from mirror.dataset.records import ReadOptions
from tests.dataset.formats.jsonl_lines import read
from tests.dataset.formats.read_all_ways import READING, renamed, stream
from tests.support.chaos_tally import count

blanks = st.sampled_from([b"", b"", b"", b" ", b"  ", b"\t", b"\r"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
awkward = st.sampled_from([
    b"1E400", b"-0.0", b"0", b"1e-7", b"0.10", b"123456789012345678901234567890", b"true", b"null",
    b'"image_url"', b'"source_url"', b'"\\"url\\": \\"x\\""', b'"\\\\"', b'"a\\/b\\u00F1"', b'"}{][,:"',
    b"{}", b"[ ]", b'{"url": "deep" , "image_url":"deep","image_url" : [ "deep" ]}', b"[[{}], [1,2 ,3]]",
])  # fmt: skip


@st.composite
def spelled(draw: st.DrawFn, text: str) -> bytes:
    """A text as some JSON writer may spell it."""
    raw = json.dumps(text, ensure_ascii=draw(st.booleans())).encode()
    if draw(st.booleans()):
        return raw
    at = draw(st.integers(0, max(0, len(text) - 1)))
    if not text[at : at + 1].isascii() or not text[at : at + 1].isalnum():
        return raw.replace(b"/", b"\\/")
    inner = json.dumps(text[:at])[:-1] + f"\\u{ord(text[at]):04X}" + json.dumps(text[at + 1 :])[1:]
    return inner.encode()


class Maker:
    """Writes a record and its expected result side by side.

    Attributes:
        urls: the new URL of each, in order.
    """

    def __init__(self, draw: st.DrawFn, source: str) -> None:
        self.draw = draw
        self.source = source
        self.urls: list[bytes | None] = []

    def blank(self) -> bytes:
        return self.draw(blanks)

    def text(self) -> tuple[bytes, bytes | None]:
        """A URL and its new URL, or None if it is removed."""
        url = self.draw(texts.filter(bool))
        raw = self.draw(spelled(url))
        change = self.draw(st.sampled_from(["same", "new", "new", "none"]))
        new = {"same": url.encode(), "new": renamed(url.encode()), "none": None}[change]
        self.urls.append(new)
        return raw, {"same": raw, "new": b'"%b"' % (new or b""), "none": None}[change]

    def listed(self, pairs: list[tuple[bytes, bytes | None]]) -> tuple[bytes, bytes]:
        """Items, some of them removed. White space goes with the comma before it."""
        gaps = [(self.blank(), self.blank()) for _ in pairs]
        old = b",".join(b + raw + a for (b, a), (raw, _) in zip(gaps, pairs, strict=True))
        kept = [at for at, (_, item) in enumerate(pairs) if item is not None]
        out = gaps[0][0] if pairs else b""
        for n, at in enumerate(kept):
            out += b"," + gaps[at][0] if n else b""
            out += pairs[at][1] or b""
            # What stood behind the last but one of those taken out is cut away with it.
            last = at + 1
            while last < len(pairs) and pairs[last][1] is None:
                last += 1
            out += gaps[last - 1][1]
        end = self.blank() if not pairs else b""
        return b"[" + old + end + b"]", b"[" + out + end + b"]"

    def member(self, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        """`(all but the value, the colon)`."""
        colon = self.blank() + b":" + self.blank()
        return self.blank() + key + colon + value + self.blank(), colon

    def others(self) -> list[bytes]:
        names = st.sampled_from(["id", "Image_url", "url ", 'x"url', "ñ", "", "photo"]) | texts
        free = names.filter(lambda name: name not in {"image_url", "url", "photos", "source_url"})
        values = awkward | texts.flatmap(spelled)
        count = self.draw(st.integers(0, 3))
        return [
            self.member(self.draw(spelled(self.draw(free))), self.draw(values))[0]
            for _ in range(count)
        ]

    def site(self, key: str) -> tuple[bytes, bytes | None]:
        """An object with URLs; None if it loses all of them."""
        before, after = self.others(), self.others()
        held = self.draw(st.sampled_from([None, None, b"null", b'""', b"[ ]", b'"first"']))
        if self.draw(st.booleans()):
            pairs = [self.text() for _ in range(self.draw(st.integers(1, 4)))]
            old, out = self.listed(pairs)
            kept = [(raw, None if new is None else raw) for raw, new in pairs]
            left = any(new for _, new in pairs)
            changed = any(new not in (None, raw) for raw, new in pairs)
            original = self._same_gaps(old, kept)
        else:
            old, new = self.text()
            out, left, changed, original = new or b"", new is not None, new != old, old
        raw_key = self.draw(spelled(key))
        blank, colon = self.blank(), self.blank() + b":" + self.blank()
        end = self.blank()
        text = blank + raw_key + colon
        comma = b", " if colon[-1:].isspace() else b","
        name = json.dumps(self.source).encode()
        inserted = comma + name + colon + original if changed and held is None else b""
        ins = [*before, text + old + end, *after]
        outs = [*before, text + out + inserted + end, *after]
        if held is not None:
            template, _ = self.member(name, b"@@@")
            filled = original if changed and held != b'"first"' else held
            at = self.draw(st.integers(0, len(ins)))
            ins.insert(at, template.replace(b"@@@", held))
            outs.insert(at, template.replace(b"@@@", filled))
        return b"{" + b",".join(ins) + b"}", b"{" + b",".join(outs) + b"}" if left else None

    @staticmethod
    def _same_gaps(old: bytes, kept: list[tuple[bytes, bytes | None]]) -> bytes:
        """The list of the original URLs that are kept, cut like `listed` does."""
        found = []
        at = 1
        for raw, _ in kept:
            begin = old.index(raw, at)
            found.append((begin, begin + len(raw)))
            at = begin + len(raw)
        places = [n for n, (_, new) in enumerate(kept) if new is not None]
        if not places:
            return b""
        out = old[: found[0][0]]
        for nth, n in enumerate(places):
            if nth:
                out += old[found[n - 1][1] : found[n][0]]
            out += old[found[n][0] : found[n][1]]
        return out + old[found[-1][1] :]


@st.composite
def flat_records(draw: st.DrawFn) -> tuple[bytes, bytes | None, list[bytes | None]]:
    maker = Maker(draw, "source_url")
    old, new = maker.site("image_url")
    return old, new, maker.urls


@st.composite
def nested_records(draw: st.DrawFn) -> tuple[bytes, bytes | None, list[bytes | None]]:
    maker = Maker(draw, "source_url")
    items: list[tuple[bytes, bytes | None]] = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 3)):
            items.append(maker.site("url"))
        else:
            free = draw(st.sampled_from([b"null", b"5", b'"url"', b'{"x": 1}', b"[ ]"]))
            items.append((free, free))
    old, new = maker.listed(items)
    before, after = maker.others(), maker.others()
    member, _ = maker.member(draw(spelled("photos")), b"@@@")

    def whole(value: bytes) -> bytes:
        return b"{" + b",".join([*before, member.replace(b"@@@", value), *after]) + b"}"

    return whole(old), whole(new), maker.urls


def check_exactness(
    record: tuple[bytes, bytes | None, list[bytes | None]], reading: ReadOptions
) -> None:
    line, expected, urls = record
    assume(any(urls) and expected is not None)
    lines = read_jsonl(stream(line + b"\n"), reading)
    (batch,) = lines
    assert batch.rejected == [], line
    assert batch.unchanged([0]).lines() == [line]
    assert batch.rewritten([0], urls).lines() == [expected]
    # The same as is done to a dict, for what a dict can hold.
    found = json.loads(line)
    replace_urls(found, reading.url, reading.source, iter(urls))
    assert json.loads(expected or b"") == found


@given(flat_records())
def test_nothing_but_the_url_changes(
    record: tuple[bytes, bytes | None, list[bytes | None]],
) -> None:
    check_exactness(record, READING)


@given(nested_records())
def test_nothing_but_nested_urls_changes(
    record: tuple[bytes, bytes | None, list[bytes | None]],
) -> None:
    check_exactness(record, ReadOptions.of("photos.url"))


@given(flat_records())
def test_the_order_and_spelling_of_all_that_a_record_holds(
    record: tuple[bytes, bytes | None, list[bytes | None]],
) -> None:
    """The same by Python's reader, as pairs because fields may occur twice, with unparsed numbers."""
    line, _, urls = record
    assume(all(urls))
    (batch,) = read_jsonl(stream(line), READING)

    def pairs(raw: bytes) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = json.loads(
            raw, object_pairs_hook=list, parse_float=lambda n: n, parse_int=lambda n: n
        )
        return found

    before, after = pairs(line), pairs(batch.rewritten([0], urls).lines()[0])
    kept = [pair for pair in before if pair[0] not in ("image_url", "source_url")]
    assert [pair for pair in after if pair[0] not in ("image_url", "source_url")] == kept
    old, new = dict(before)["image_url"], dict(after)["image_url"]
    assert [(new if isinstance(new, list) else [new])] == [[(url or b"").decode() for url in urls]]
    if new != old and not dict(before).get("source_url"):
        assert dict(after)["source_url"] == old


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)  # fmt: skip
paths = st.sampled_from(["a", "a.b", "a.b.c", "image_url", "photos.url", "ñ", "a/b", "\x7f"])


@given(
    st.dictionaries(texts | st.sampled_from("abñ"), documents, max_size=4),
    paths,
    st.data(),
)
def test_any_path_of_any_record(record: dict[str, Any], dotted: str, data: st.DataObject) -> None:
    """Compared with `fields` on the record as a dict."""
    path = parse_path(dotted)
    if data.draw(st.booleans()):
        inner: Any = data.draw(texts | st.lists(texts, max_size=3))
        for name in reversed(path):
            inner = {name: inner}
            inner = [inner] if data.draw(st.booleans()) and name != path[0] else inner
        record |= inner
    separators = data.draw(st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")]))
    ascii_only = data.draw(st.booleans())
    line = json.dumps(record, ensure_ascii=ascii_only, separators=separators).encode()
    result = read(line, ReadOptions(path))
    reason = None
    try:
        sites = sites_of(record, path)
    except BadRecord as bad:
        reason = str(bad)
    if reason is not None:
        assert result.rejected == [(1, reason, line)]
        return
    assert result.urls == [[url.encode() for site in sites for url in site.urls]]
    replace_urls(record, path, "source_url", map(renamed, result.urls[0]))
    assert json.loads(result.lines[0]) == record


@pytest.mark.chaos("hostile input")
@given(st.binary(max_size=40) | st.from_regex(rb'\{("image_url"|[{}\[\],:"]|u|\\|\s|1)*\}'))
def test_any_bytes_at_all(data: bytes) -> None:
    count("inputs lines of JSON, read alone")
    result = read(data)
    assert len(result.numbers) + len(result.rejected) == len(
        data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    ) - (data.removeprefix(b"\xef\xbb\xbf") == b"")
    for line in result.lines:
        json.loads(line)
