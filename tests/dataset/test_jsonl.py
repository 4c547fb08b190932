"""JSON lines: what is read of them, and that nothing of them changes but their URLs."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mirror.dataset import jsonl, splicing
from mirror.dataset.compression import Stream, zstd
from mirror.dataset.fields import MISSING, BadRecord, parse_path, replace_urls, sites_of
from mirror.dataset.jsonl import MAX_LINE, read_jsonl
from mirror.dataset.records import Reading
from mirror.errors import UsageError
from tests.chaos.tally import count
from tests.dataset.reading import New, Result, renamed, result_of, stream

READING = Reading()
U = renamed(b"u")
V = renamed(b"v")


def read(
    data: bytes,
    reading: Reading = READING,
    new: New = renamed,
    size: int = 1 << 30,
    error: Exception | None = None,
) -> Result:
    return result_of(read_jsonl(stream(data, size, error), reading), new)


def rewritten(line: bytes, reading: Reading = READING, new: New = renamed) -> bytes:
    result = read(line + b"\n", reading, new)
    assert result.rejected == []
    (found,) = result.lines
    return found


# --- one table of lines, however they come ---

# A line, and what it becomes.
GOOD: list[tuple[bytes, bytes]] = [
    (b'{"image_url": "u"}', b'{"image_url": "%b", "source_url": "u"}' % U),
    (b'{"image_url":"u"}', b'{"image_url":"%b","source_url":"u"}' % U),
    (b'{"image_url":\t"u"}', b'{"image_url":\t"%b", "source_url":\t"u"}' % U),
    (b'{"image_url" :"u"}', b'{"image_url" :"%b","source_url" :"u"}' % U),
    (b' { "a":1 , "image_url" : "u" , "b":2 } ',
     b' { "a":1 , "image_url" : "%b", "source_url" : "u" , "b":2 } ' % U),
    (b'{"a": 1E400, "b": -0.0, "c": 1.50, "d": 123456789012345678901234567890, "image_url": "u"}',
     b'{"a": 1E400, "b": -0.0, "c": 1.50, "d": 123456789012345678901234567890,'
     b' "image_url": "%b", "source_url": "u"}' % U),
    # The same name twice elsewhere, and in another object, is nobody's business.
    (b'{"a": 1, "a": 2, "image_url": "u", "n": {"image_url": "x", "image_url": "y"}}',
     b'{"a": 1, "a": 2, "image_url": "%b", "source_url": "u",'
     b' "n": {"image_url": "x", "image_url": "y"}}' % U),
    (b'{"n": {"image_url": "x"}, "image_url": "u"}',
     b'{"n": {"image_url": "x"}, "image_url": "%b", "source_url": "u"}' % U),
    (b'{"n": [{"image_url": "x"}], "image_url": "u"}',
     b'{"n": [{"image_url": "x"}], "image_url": "%b", "source_url": "u"}' % U),
    # The key's text as a value, and inside of one.
    (b'{"a": "image_url", "image_url": "u"}',
     b'{"a": "image_url", "image_url": "%b", "source_url": "u"}' % U),
    (b'{"a": "\\"image_url\\": \\"x\\"", "image_url": "u"}',
     b'{"a": "\\"image_url\\": \\"x\\"", "image_url": "%b", "source_url": "u"}' % U),
    (b'{"x\\"image_url": "x", "image_url": "u"}',
     b'{"x\\"image_url": "x", "image_url": "%b", "source_url": "u"}' % U),
    (b'{"a": "source_url", "image_url": "u"}',
     b'{"a": "source_url", "image_url": "%b", "source_url": "u"}' % U),
    (b'{"a": "}{][,:\\\\", "image_url": "u"}',
     b'{"a": "}{][,:\\\\", "image_url": "%b", "source_url": "u"}' % U),
    # Escaped keys and values.
    (b'{"image\\u005furl": "u"}', b'{"image\\u005furl": "%b", "source_url": "u"}' % U),
    (b'{"\\u0069mage_url":"u","a":"image_url"}',
     b'{"\\u0069mage_url":"%b","source_url":"u","a":"image_url"}' % U),
    (b'{"image_url": "\\u0075"}', b'{"image_url": "%b", "source_url": "\\u0075"}' % U),
    (b'{"image_url": "http:\\/\\/x\\/\\u00f1"}',
     b'{"image_url": "%b", "source_url": "http:\\/\\/x\\/\\u00f1"}'
     % renamed("http://x/ñ".encode())),
    ('{"image_url": "ñ🌿"}'.encode(),
     b'{"image_url": "%b", "source_url": "%b"}' % (renamed("ñ🌿".encode()), "ñ🌿".encode())),
    (b'{"image_url": "\\ud83c\\udf3f"}',
     b'{"image_url": "%b", "source_url": "\\ud83c\\udf3f"}' % renamed("🌿".encode())),
    # A field for the original that is there already.
    (b'{"source_url": null, "image_url": "u"}', b'{"source_url": "u", "image_url": "%b"}' % U),
    (b'{"image_url": "\\u0075", "a": 1, "source_url" : "" }',
     b'{"image_url": "%b", "a": 1, "source_url" : "\\u0075" }' % U),
    (b'{"image_url": "u", "source_url": "\\u0066irst", "n": {"source_url": 1}}',
     b'{"image_url": "%b", "source_url": "\\u0066irst", "n": {"source_url": 1}}' % U),
    (b'{"image_url": "u", "source\\u005furl": [ ]}',
     b'{"image_url": "%b", "source\\u005furl": "u"}' % U),
    # Lists.
    (b'{"image_url": [ "u" ,"v"], "a": 1}',
     b'{"image_url": [ "%b" ,"%b"], "source_url": [ "u" ,"v"], "a": 1}' % (U, V)),
    (b'{"image_url":["u"]}', b'{"image_url":["%b"],"source_url":["u"]}' % U),
]  # fmt: skip

# A line that is no record, and why.
BAD: list[tuple[bytes, str]] = [
    (b"", "empty line"),
    (b" \t ", "empty line"),
    (b"null", "not an object"),
    (b'"image_url"', "not an object"),
    (b"[]", "not an object"),
    (b'[{"image_url": "u"}]', "not an object"),
    (b"1E400", "not an object"),
    (b"nonsense", "not JSON: "),
    (b"{", "not JSON: "),
    (b'{"image_url": "u"', "not JSON: "),
    (b'{"image_url": "u"}}', "not JSON: "),
    (b'{"image_url": "u"}{"image_url": "u"}', "not JSON: "),
    (b'{"image_url": "u",}', "not JSON: "),
    (b"{'image_url': 'u'}", "not JSON: "),
    (b'{"image_url": "u", "a": NaN}', "not JSON: "),
    (b'{"image_url": "u", "a": [Infinity]}', "not JSON: "),
    (b'{"image_url": "u", "a": -Infinity}', "not JSON: "),
    (b'{"image_url": "u", "a": 01}', "not JSON: "),
    (b'{"image_url": "u", "a": "\t"}', "not JSON: "),
    (b'{"image_url": "u", "a": "\\q"}', "not JSON: "),
    (b'{"image_url": "u", "a": "\\ud800"}', "not JSON: half a surrogate pair"),
    (b'{"image_url": "u", "a": "\\udf3f\\ud83c"}', "not JSON: half a surrogate pair"),
    (b'\x00{"image_url": "u"}', "not JSON: "),
    (b'{"image_url": "\xff"}', "not UTF-8"),
    (b'{"image_url": "u", "a": "\xe9"}', "not UTF-8"),
    (b'{"image_url": "u", "\xc3": 1}', "not UTF-8"),
    (b'{"image_url": "u", "a": "\xed\xa0\x80"}', "not UTF-8"),
    (b'{"image_url": "u", "a": "\xc0\xaf"}', "not UTF-8"),
    (b"\xff\xfe{\x00", "not UTF-8"),
    (b"{}", "no field 'image_url'"),
    (b'{"a": {"image_url": "u"}}', "no field 'image_url'"),
    (b'{"a": "image_url"}', "no field 'image_url'"),
    (b'{"IMAGE_URL": "u"}', "no field 'image_url'"),
    (b'{"image_url": null}', "'image_url' is null, not text"),
    (b'{"image_url": 5}', "'image_url' is a number, not text"),
    (b'{"image_url": -1E400}', "'image_url' is a number, not text"),
    (b'{"image_url": true}', "'image_url' is a boolean, not text"),
    (b'{"image_url": {"a": "u"}}', "'image_url' is an object, not text"),
    (b'{"image_url": ["u", ["v"]]}', "'image_url' is a list, not text"),
    (b'{"image_url": ["u", null]}', "'image_url' is null, not text"),
    (b'{"image_url": ["u", {}]}', "'image_url' is an object, not text"),
    (b'{"image_url": ""}', "'image_url' is empty"),
    (b'{"image_url":""}', "'image_url' is empty"),
    (b'{"image_url": []}', "'image_url' is an empty list"),
    (b'{"image_url": ["u", ""]}', "'image_url' is empty"),
    (b'{"image_url": "u", "image_url": "v"}', "the key 'image_url' stands twice"),
    (b'{"image_url": "u", "image\\u005furl": "u"}', "the key 'image_url' stands twice"),
    (b'{"image_url": "u", "source_url": 1, "source_url": 2}', "the key 'source_url' stands twice"),
]  # fmt: skip

# How much comes at a time, and how much is asked for.
WAYS = {"whole": (1 << 30, 1 << 20), "byte by byte": (1, 1), "in blocks": (5, 7)}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    size, block = WAYS[request.param]
    monkeypatch.setattr(jsonl, "_BLOCK", block)
    return size


@pytest.mark.parametrize(("line", "expected"), GOOD, ids=[repr(case[0])[1:] for case in GOOD])
def test_a_record(line: bytes, expected: bytes, way: int) -> None:
    result = read(line + b"\n" + line, size=way)
    assert result.rejected == []
    assert result.numbers == [1, 2]
    assert result.kept == [line, line]
    assert result.lines == [expected, expected]
    json.loads(expected)


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[repr(case[0])[1:] for case in BAD])
def test_no_record(line: bytes, reason: str, way: int) -> None:
    result = read(GOOD[0][0] + b"\n" + line + b"\n" + GOOD[0][0], size=way)
    (rejected,) = result.rejected
    assert (rejected.number, rejected.raw) == (2, line)
    assert rejected.reason.startswith(reason)
    assert rejected.reason != "not JSON: "
    assert result.numbers == [1, 3]


def test_all_in_one_file(way: int) -> None:
    lines: list[tuple[bytes, bytes | str]] = [*GOOD, *BAD]
    mixed = lines[::3] + lines[1::3] + lines[2::3]
    result = read(b"".join(line + b"\n" for line, _ in mixed), size=way)
    expected = {n: found for n, (_, found) in enumerate(mixed, 1) if isinstance(found, bytes)}
    assert dict(zip(result.numbers, result.lines, strict=True)) == expected
    reasons = {n: found for n, (_, found) in enumerate(mixed, 1) if isinstance(found, str)}
    assert {n: reason[: len(reasons[n])] for n, reason in result.reasons} == reasons


@pytest.mark.parametrize(
    "garbage", [b"x", b"{", b"}", b",", b"\x00", b"\xff", b'{"image_url":"u"}']
)
def test_trailing_garbage(garbage: bytes, way: int) -> None:
    for line, _ in GOOD:
        on_it = read(line + garbage + b"\n" + line, size=way)
        assert [one.number for one in on_it.rejected] == [1]
        assert on_it.rejected[0].raw == line + garbage
        after_it = read(line + b"\n" + garbage, size=way)
        assert after_it.numbers[0] == 1
        assert len(after_it.numbers) + len(after_it.rejected) == 2


@pytest.mark.parametrize(("line", "expected"), GOOD[:6])
def test_carriage_returns_stay(line: bytes, expected: bytes, way: int) -> None:
    result = read(line + b"\r\n" + line + b"\r\n", size=way)
    assert result.lines == [expected + b"\r", expected + b"\r"]
    assert read(b"\r\n", size=way).reasons == [(1, "empty line")]


def test_a_byte_order_mark_is_no_part_of_the_first_line(way: int) -> None:
    bom = b"\xef\xbb\xbf"
    line, expected = GOOD[0]
    assert read(bom + line + b"\n", size=way).lines == [expected]
    assert read(bom + line, size=way).kept == [line]
    assert read(bom, size=way) == Result()
    assert read(bom + b"x\n", size=way).rejected[0].raw == b"x"
    twice = read(line + b"\n" + bom + line, size=way)
    assert [one.number for one in twice.rejected] == [2]
    assert [one.number for one in read(bom + bom + line, size=way).rejected] == [1]


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_nothing_is_no_record(data: bytes, way: int) -> None:
    assert read(data, size=way) == Result()


# --- every byte but the URL's ---

blanks = st.sampled_from([b"", b"", b"", b" ", b"  ", b"\t", b"\r"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
awkward = st.sampled_from([
    b"1E400", b"-0.0", b"0", b"1e-7", b"0.10", b"123456789012345678901234567890", b"true", b"null",
    b'"image_url"', b'"source_url"', b'"\\"url\\": \\"x\\""', b'"\\\\"', b'"a\\/b\\u00F1"', b'"}{][,:"',
    b"{}", b"[ ]", b'{"url": "deep" , "image_url":"deep","image_url" : [ "deep" ]}', b"[[{}], [1,2 ,3]]",
])  # fmt: skip


@st.composite
def spelled(draw: st.DrawFn, text: str) -> bytes:
    """A text as some writer of JSON would have it."""
    raw = json.dumps(text, ensure_ascii=draw(st.booleans())).encode()
    if draw(st.booleans()):
        return raw
    at = draw(st.integers(0, max(0, len(text) - 1)))
    if not text[at : at + 1].isascii() or not text[at : at + 1].isalnum():
        return raw.replace(b"/", b"\\/")
    inner = json.dumps(text[:at])[:-1] + f"\\u{ord(text[at]):04X}" + json.dumps(text[at + 1 :])[1:]
    return inner.encode()


class Maker:
    """Writes a record and what shall become of it side by side.

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
        """A URL, and the new one, or None if it is taken out."""
        url = self.draw(texts.filter(bool))
        raw = self.draw(spelled(url))
        change = self.draw(st.sampled_from(["same", "new", "new", "none"]))
        new = {"same": url.encode(), "new": renamed(url.encode()), "none": None}[change]
        self.urls.append(new)
        return raw, {"same": raw, "new": b'"%b"' % (new or b""), "none": None}[change]

    def listed(self, pairs: list[tuple[bytes, bytes | None]]) -> tuple[bytes, bytes]:
        """Items, some of them taken out: white space goes with the comma before it."""
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
        """An object with URLs; None if none of them is left."""
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
        """The list of originals that are kept, cut out as `listed` does it."""
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
    record: tuple[bytes, bytes | None, list[bytes | None]], reading: Reading
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
    check_exactness(record, Reading.of("photos.url"))


@given(flat_records())
def test_the_order_and_spelling_of_all_that_a_record_holds(
    record: tuple[bytes, bytes | None, list[bytes | None]],
) -> None:
    """The same by Python's reader: pairs, so that fields may stand twice; numbers as they are."""
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
    """Against what `fields` says of the record as a dict."""
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
    result = read(line, Reading(path))
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


# --- keys ---


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a/b", b'{"x": {"a/b": "v"}, "a\\/b": "u"}'),
        ("a/b", b'{"a\\/b": "u", "x": [{"a/b": "v"}]}'),
        ("ñ", '{"x": {"ñ": "v"}, "\\u00f1": "u"}'.encode()),
        ("\x7f", b'{"x": {"\x7f": "v"}, "\\u007f": "u"}'),
        ("🌿", '{"x": {"🌿": "v"}, "\\ud83c\\udf3f": "u"}'.encode()),
    ],
)
def test_a_key_is_known_in_any_spelling(name: str, line: bytes) -> None:
    result = read(line, Reading((name,)))
    assert result.urls == [[b"u"]]
    assert json.loads(result.lines[0])[name] == U.decode()
    assert json.loads(result.lines[0])["source_url"] == "u"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\x00"])
def test_a_key_that_is_always_escaped_is_refused(name: str) -> None:
    readings = [Reading((name,)), Reading(("a", name)), Reading(source=name)]
    for reading in [*readings, Reading(others=(("a", name),))]:
        with pytest.raises(UsageError, match="cannot be looked for in JSON; rename it"):
            read(b'{"image_url": "u"}', reading)


@pytest.mark.parametrize("source", ["a/b", "ñ", "image", "url", "image_url2", " "])
def test_a_source_field_of_any_name(source: str) -> None:
    for line, _ in GOOD[:6]:
        after = json.loads(rewritten(line, Reading(source=source)))
        assert (after["image_url"], after[source]) == (U.decode(), "u")
    spelled = json.dumps(source).encode()
    held = read(b'{"image_url": "u", %b: "first"}' % spelled, Reading(source=source))
    assert held.sourced == [1]
    assert json.loads(held.lines[0])[source] == "first"


@pytest.mark.parametrize("source", ["image_url", "\udcff"])
def test_a_source_field_that_cannot_be(source: str) -> None:
    with pytest.raises(UsageError):
        Reading(source=source)


def test_without_a_source_field_nothing_is_rewritten() -> None:
    reading = Reading(("source_url",), source="")
    result = read(b'{"image_url": "v", "source_url": "u", "": 1, "": 2}', reading, lambda _: None)
    assert result.urls == [[b"u"]]
    assert result.sourced == []
    with pytest.raises(UsageError, match="--source-field"):
        read(b'{"image_url": "u"}', Reading(source=""))


@pytest.mark.parametrize(
    ("line", "sourced"),
    [
        (b'{"image_url": "u", "source_url": "u"}', False),
        (b'{"image_url": "u", "source_url": "\\u0075"}', False),
        (b'{"image_url": ["u"], "source_url": ["u"]}', False),
        (b'{"image_url": "u", "source_url": {}}', False),
        (b'{"image_url": "u", "source_url": { } }', False),
        (b'{"image_url": "u", "source_url": "v"}', True),
        (b'{"image_url": "u", "source_url": 0}', True),
        (b'{"image_url": "u", "source_url": 1E400}', True),
        (b'{"image_url": "u", "source_url": false}', True),
        (b'{"image_url": "u", "source_url": {"a": 1}}', True),
        (b'{"image_url": "u", "source_url": [1]}', True),
        (b'{"image_url": "u", "source_url": [["u"]]}', True),
        (b'{"image_url": "u", "n": {"source_url": "v"}}', False),
    ],
)
def test_a_source_field_that_holds_something_else_is_told(line: bytes, sourced: bool) -> None:
    assert bool(read(line).sourced) is sourced


# --- lists, and records of several URLs ---


@pytest.mark.parametrize(
    ("line", "gone", "expected"),
    [
        (b'{"image_url": ["u", "v", "w"]}', "u", b'{"image_url": ["v", "w"]}'),
        (b'{"image_url": ["u", "v", "w"]}', "v", b'{"image_url": ["u", "w"]}'),
        (b'{"image_url": ["u", "v", "w"]}', "w", b'{"image_url": ["u", "v"]}'),
        (b'{"image_url": [ "u" , "v" , "w" ]}', "uv", b'{"image_url": [ "w" ]}'),
        (b'{"image_url": [ "u" , "v" , "w" ]}', "vw", b'{"image_url": [ "u" ]}'),
        (b'{"image_url": [ "u" , "v" , "w" ]}', "uw", b'{"image_url": [ "v" ]}'),
        (b'{"image_url": ["u","v"], "source_url": [ "1", "2" ]}', "u",
         b'{"image_url": ["v"], "source_url": [ "2" ]}'),
        (b'{"image_url": ["u","v"], "source_url": ["1"]}', "u",
         b'{"image_url": ["v"], "source_url": ["1"]}'),
        (b'{"image_url": "u"}', "", b'{"image_url": "u"}'),
    ],
)  # fmt: skip
def test_urls_are_taken_out_of_their_list(line: bytes, gone: str, expected: bytes) -> None:
    kept = rewritten(line, new=lambda url: None if url.decode() in gone else url)
    assert kept == expected


@pytest.mark.parametrize(
    ("line", "gone", "expected"),
    [
        (b'{"photos": [{"url": "u"}, {"url": "v"}]}', "u", b'{"photos": [{"url": "v"}]}'),
        (b'{"photos": [{"url": "u"}, {"x": 1}, {"url": "v"}]}', "v",
         b'{"photos": [{"url": "u"}, {"x": 1}]}'),
        (b'{"photos": [[{"url": "u"}], [{"url": "v"}]]}', "u", b'{"photos": [[{"url": "v"}]]}'),
        (b'{"photos": [{"url": ["u", "v"]}, {"url": []}]}', "v",
         b'{"photos": [{"url": ["u"]}, {"url": []}]}'),
    ],
)  # fmt: skip
def test_objects_leave_their_list_with_their_urls(line: bytes, gone: str, expected: bytes) -> None:
    kept = rewritten(
        line, Reading.of("photos.url"), lambda url: None if url.decode() in gone else url
    )
    assert kept == expected


def test_records_of_one_url_and_of_many_in_one_file(way: int) -> None:
    data = (
        b'{"photos": {"url": "a"}}\n{"photos": []}\n{"photos": [{"url": ["b", "c"]}, {"url": "d"}]}\n'
        b'{"photos": [{"url": []}, {"url": "e"}]}\n{"photos": {"url": ["f"]}}\n'
    )
    result = read(data, Reading.of("photos.url"), size=way)
    assert result.numbers == [1, 3, 4, 5]
    assert result.urls == [[b"a"], [b"b", b"c", b"d"], [b"e"], [b"f"]]
    assert result.reasons == [(2, "no field 'photos.url'")]
    assert [re.findall(rb"[0-9a-f]{32}", line) for line in result.lines] == [
        [re.findall(rb"[0-9a-f]{32}", renamed(url))[0] for url in urls] for urls in result.urls
    ]


def test_some_records_of_a_batch() -> None:
    lines = [b'{"image_url": "%d"}' % n for n in range(9)]
    lines[4] = b'{"image_url": ["4", "44"]}'
    (batch,) = read_jsonl(stream(b"\n".join(lines) + b"\n"), READING)
    urls = [renamed(url) if url not in (b"1", b"44") else None for url in batch.urls]
    kept = batch.rewritten([0, 4, 8], urls).lines()
    assert [json.loads(line)["source_url"] for line in kept] == ["0", ["4"], "8"]
    assert batch.raw(3) == lines[3]
    assert batch.unchanged([2, 3]).lines() == lines[2:4]


# --- other fields ---


def others(line: bytes, *paths: str, url: str = "image_url") -> list[Any]:
    result = read(line, Reading.of(url, "source_url", *paths))
    assert result.rejected == []
    return [result.others[parse_path(path)][0] for path in paths]


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        (b'{"image_url": "u", "a": "x"}', "a", "x"),
        (b'{"image_url": "u", "a": null}', "a", None),
        (b'{"image_url": "u"}', "a", MISSING),
        (b'{"image_url": "u", "a": {"b": [1]}}', "a.b", [1]),
        (b'{"image_url": "u", "a": [{"c": 1}, {"b": 2}]}', "a.b", 2),
        (b'{"image_url": "u", "a": 5}', "a.b", MISSING),
        (b'{"image_url": "u", "a": 1E400}', "a", float("inf")),
        (b'{"image_url": "u", "a": 2, "b": 1E400}', "a", 2),
        (b'{"image_url": "u", "a": 123456789012345678901234567890}', "a", 123456789012345678901234567890),
        (b'{"image_url": "u", "a": 1, "a": 2}', "a", 2),
        (b'{"image_url": "u", "\\u0061": "\\u00f1"}', "a", "ñ"),
        (b'{"image_url": "u"}', "image_url", "u"),
        (b'{"image_url": ["u", "v"]}', "image_url", ["u", "v"]),
        (b'{"image_url": "u", "source_url": "v"}', "source_url", "v"),
    ],
)  # fmt: skip
def test_other_fields(line: bytes, path: str, value: Any) -> None:
    assert others(line, path) == [value]


def test_fields_beside_a_nested_url() -> None:
    line = b'{"photo": {"url": "u", "license": "cc-by", "size": 1E400}, "a": 1}'
    found = others(line, "photo.license", "a", "photo.size", "photo.none", url="photo.url")
    assert found == ["cc-by", 1, float("inf"), MISSING]


# --- out of all proportion ---


def test_a_line_of_ten_megabytes() -> None:
    text = b"ab\\n\xc3\xb1" * 1_700_000
    line = b'{"a": "%b", "image_url": "u", "b": [%b1]}' % (text, b"1," * 500_000)
    result = read(b'{"image_url": "v"}\n' + line + b'\n{"image_url": "v"}\n')
    assert len(line) > 10 << 20
    assert result.numbers == [1, 2, 3]
    assert result.lines[1] == line.replace(b'"u"', b'"%b", "source_url": "u"' % U)


def test_a_line_that_is_too_long(way: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE", 64)
    monkeypatch.setattr(jsonl, "_BLOCK", min(jsonl._BLOCK, 16))
    monkeypatch.setattr(jsonl, "_SHOWN", 20)
    fits = b'{"image_url": "u"}'.ljust(64)
    # What is kept of these could be taken for records.
    for long in (fits + b" ", fits + b"x", fits + b" " * 500 + b"\xff", b"x" * 1000):
        result = read(b"\n".join([fits, long, fits, long, long]), size=way)
        assert result.kept == [fits, fits]
        assert result.numbers == [1, 3]
        assert [one.number for one in result.rejected] == [2, 4, 5]
        assert {one.reason for one in result.rejected} == {"longer than 0 MiB"}
        assert {one.raw for one in result.rejected} == {long[:20]}


def test_longer_than_any_record() -> None:
    class Long:
        left = MAX_LINE + 1

        def read1(self, size: int = -1, /) -> bytes:
            part = b" " * min(size, self.left)
            self.left -= len(part)
            return part

    (batch,) = read_jsonl(Stream(Long()), READING)
    assert [(one.number, one.reason) for one in batch.rejected] == [
        (1, f"longer than {MAX_LINE >> 20} MiB")
    ]
    assert len(batch.rejected[0].raw) <= 1 << 16


@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}"), (b'{"image_url":', b"}")])
def test_deep_nesting(brackets: tuple[bytes, bytes]) -> None:
    begin, end = brackets
    deep = b'{"image_url": "u", "deep": %b}' % (begin * 300 + b"1" + end * 300)
    assert rewritten(deep) == deep.replace(b'"u"', b'"%b", "source_url": "u"' % U)
    for depth in (10_000, 1_000_000):
        line = b'{"image_url": "u", "deep": %b}' % (begin * depth + b"1" + end * depth)
        assert read(line).reasons == [(1, "nested too deeply")]
    unclosed = b'{"image_url": "u", "deep": ' + begin * 1_000_000
    assert read(unclosed).reasons == [(1, "nested too deeply")]


def test_deep_nesting_on_the_way_to_urls() -> None:
    def line(depth: int) -> bytes:
        return b'{"photos": %b{"url": "u"}%b}' % (b"[" * depth, b"]" * depth)

    reading = Reading.of("photos.url", "source_url", "photos.license")
    assert read(line(50), reading).urls == [[b"u"]]
    for depth in (100, 300):
        assert read(line(depth), reading).reasons == [(1, "nested too deeply")]
    deep_leaf = b'{"image_url": %b"u"%b}' % (b"[" * 500, b"]" * 500)
    assert read(deep_leaf).reasons == [(1, "'image_url' is a list, not text")]


def test_a_list_of_more_urls_than_any_record_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splicing, "MAX_ITEMS", 5)
    assert len(read(b'{"image_url": ["u","v","u","v","u"]}').urls[0]) == 5
    many = b'{"image_url": ["u","v","u","v","u","v"]}'
    assert read(many).reasons == [(1, "more than 5 items in its lists")]
    nested = b'{"photos": [[], [], [], [{"url": "u"}]]}'
    assert read(nested, Reading.of("photos.url")).urls == [[b"u"]]
    nested = b'{"photos": [[], [], [], [], [{"url": "u"}]]}'
    assert read(nested, Reading.of("photos.url")).rejected


# --- files that break off, and compressed ones ---


def a_line(n: int) -> bytes:
    return b'{"image_url": "https://x.example/%d.jpg", "n": "%b"}' % (n, renamed(b"%d" % n))


LINES = list(map(a_line, range(300)))
DATA = b"\n".join(LINES) + b"\n"
FEW = b"\n".join(LINES[:30]) + b"\n"
# More than one block of either format.
MANY_LINES = list(map(a_line, range(6000)))
MANY = b"\n".join(MANY_LINES) + b"\n"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
TOO_EARLY = "the compressed file ends too early"


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_compressed_file(kind: str, way: int) -> None:
    packed = COMPRESS[kind](FEW)
    assert read(packed, size=way).kept == LINES[:30]
    # One after the other is one file, for both.
    assert read(packed + packed, size=way).kept == LINES[:30] * 2
    assert read(COMPRESS[kind](b"") + packed, size=way).kept == LINES[:30]
    assert read(COMPRESS[kind](b""), size=way) == Result()


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_compressed_file_that_is_cut_short(kind: str) -> None:
    packed = COMPRESS[kind](DATA)
    for cut in [*range(4, 40), *range(40, len(packed), 61), len(packed) - 8, len(packed) - 1]:
        result = read(packed[:cut])
        count = len(result.kept)
        assert result.kept == LINES[:count]
        assert result.reasons == [(count + 1, TOO_EARLY)], cut
        assert [*LINES, b""][count].startswith(result.rejected[0].raw)
    for cut in range(1, 4):
        assert [one.number for one in read(packed[:cut]).rejected] == [1]


@pytest.mark.parametrize("kind", COMPRESS)
def test_all_that_came_before_the_cut_is_read(kind: str) -> None:
    packed = COMPRESS[kind](MANY)
    result = read(packed[: len(packed) * 9 // 10])
    assert 3000 < len(result.kept) < 6000
    assert result.kept == MANY_LINES[: len(result.kept)]
    # Even if the line at the cut could be taken for a whole one.
    (whole,) = read(COMPRESS["gzip"](LINES[0])[:-4]).rejected
    assert whole == (1, TOO_EARLY, LINES[0])


def test_damage_in_a_compressed_file_is_noticed() -> None:
    packed = gzip.compress(DATA)
    for at in range(10, len(packed), 97):
        spoilt = packed[:at] + bytes([packed[at] ^ 0x10]) + packed[at + 1 :]
        result = read(spoilt)
        assert result.rejected, at
        reasons = {
            one.reason for one in result.rejected if one.number == result.rejected[-1].number
        }
        assert any("the file cannot be read further" in r or r == TOO_EARLY for r in reasons), at


def test_damage_in_a_zstd_file_is_noticed() -> None:
    packed = zstd.compress(DATA, options={zstd.CompressionParameter.checksum_flag: 1})
    for at in range(4, len(packed), 31):
        spoilt = packed[:at] + bytes([packed[at] ^ 0x10]) + packed[at + 1 :]
        result = read(spoilt)
        assert result.rejected or result.kept == LINES, at


@pytest.mark.parametrize("garbage", [b"garbage", b"\x1f\x8bgarbage", b"\x1f"])
def test_garbage_after_a_compressed_file(garbage: bytes, way: int) -> None:
    result = read(gzip.compress(FEW) + garbage, size=way)
    assert result.kept == LINES[:30]
    assert [one.number for one in result.rejected] == [31]
    # Some tools fill up with zeros.
    assert read(gzip.compress(FEW) + b"\x00" * 100, size=way).rejected == []


@pytest.mark.parametrize("kind", ["plain", *COMPRESS])
def test_a_disk_that_gives_up(kind: str) -> None:
    data = COMPRESS.get(kind, bytes)(MANY)
    result = read(data[: len(data) * 3 // 4], error=OSError(5, "Input/output error"))
    count = len(result.kept)
    assert 1000 < count < 6000
    assert result.kept == MANY_LINES[:count]
    assert result.reasons == [
        (count + 1, "the file cannot be read further ([Errno 5] Input/output error)")
    ]


def test_the_last_line_needs_no_end(way: int) -> None:
    assert read(b"\n".join(LINES[:3]), size=way).kept == LINES[:3]
    assert read(b"\n".join(LINES[:3]) + b"\n\n", size=way).reasons == [(4, "empty line")]


def test_lines_are_numbered_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [b"", b"x", b"\xff", b"{}", b"null"]
    lines = [line for n in range(12) for line in (LINES[n], bad[n % 5])]
    data = b"\xef\xbb\xbf" + b"\r\n".join(lines)
    for block in range(1, 70):
        monkeypatch.setattr(jsonl, "_BLOCK", block)
        result = read(data)
        assert result.numbers == list(range(1, 25, 2)), block
        assert [one.number for one in result.rejected] == list(range(2, 25, 2)), block


def test_what_is_read_does_not_depend_on_how_it_comes() -> None:
    whole = [len(batch) for batch in read_jsonl(stream(DATA * 40), READING)]
    for size in (1000, 8192):
        again = [len(batch) for batch in read_jsonl(stream(DATA * 40, size), READING)]
        assert again == whole  # so are the row groups of a Parquet file that is written


def test_msgspec_is_as_strict_as_json() -> None:
    """What the reader relies on: fields that nobody asked for are validated all the same."""
    decode = msgspec.json.Decoder(msgspec.defstruct("R", [("a", int, 0)])).decode
    for value in (
        b"01",
        b"1.",
        b"+1",
        b".5",
        b"tru",
        b"'x'",
        b'"\x01"',
        b'"\\x"',
        b"[1,]",
        b"{1:2}",
    ):
        with pytest.raises(msgspec.DecodeError):
            decode(b'{"x": %b}' % value)
