"""JSON lines that are long, deeply nested, compressed, damaged or truncated."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import msgspec
import pytest

from mirror.dataset.compression import TolerantStream, zstd
from mirror.dataset.formats import jsonl, splicing
from mirror.dataset.formats.jsonl import MAX_LINE, read_jsonl
from mirror.dataset.records import ReadOptions
from mirror.system.display_text import format_size
from tests.dataset.formats.jsonl_lines import U, read, rewritten, way
from tests.dataset.formats.read_all_ways import READING, Result, renamed, stream

__all__ = ["way"]


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
        assert {one.reason for one in result.rejected} == {"longer than 64 B"}
        assert {one.raw for one in result.rejected} == {long[:20]}


def test_longer_than_any_record() -> None:
    class Long:
        left = MAX_LINE + 1

        def read1(self, size: int = -1, /) -> bytes:
            part = b" " * min(size, self.left)
            self.left -= len(part)
            return part

    (batch,) = read_jsonl(TolerantStream(Long()), READING)
    assert [(one.number, one.reason) for one in batch.rejected] == [
        (1, f"longer than {format_size(MAX_LINE)}")
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

    reading = ReadOptions.of("photos.url", "source_url", "photos.license")
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
    assert read(nested, ReadOptions.of("photos.url")).urls == [[b"u"]]
    nested = b'{"photos": [[], [], [], [], [{"url": "u"}]]}'
    assert read(nested, ReadOptions.of("photos.url")).rejected


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
    """The reader relies on this: fields that are not requested are validated as well."""
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
