"""Verdicts on labelled files, and on arbitrary bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from mirror.content import decode, image
from mirror.content import jpeg as jpeg_decoder
from mirror.content.image import VERDICTS, Level, Verdict, inspect
from mirror.content.image_formats import sniff
from mirror.content.jpeg import check_scans
from mirror.layout import FORMATS
from tests.labelled import BAD, GOOD, Kind, Sample, bad, good, samples_of
from tests.labelled.impossible import IMPOSSIBLE
from tests.labelled.photographs import encoded, fitted, jpeg
from tests.support.chaos_tally import TIMES, count


def misjudged(samples: list[Sample]) -> list[tuple[str, str, str]]:
    found = [(sample, inspect(sample.data)) for sample in samples]
    return [
        (sample.name, got.verdict, got.reason)
        for sample, got in found
        if got.verdict != sample.verdict or sample.reason not in got.reason
    ]


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.__name__)
def test_a_good_photograph_is_ok_in_every_look_and_format(kind: Kind) -> None:
    assert misjudged(samples_of(kind)) == []
    assert undecodable(samples_of(kind)) == []


def undecodable(samples: list[Sample]) -> list[tuple[str, str]]:
    """The images that training cannot decode, apart from greys without a range."""
    found = []
    for sample in samples:
        try:
            decode.rgb(sample.data)
        except ValueError as error:
            if "which greys are black and white" not in str(error):
                found.append((sample.name, str(error)))
    return found


@pytest.mark.parametrize(
    ("kind", "verdict", "reason"), BAD, ids=lambda case: getattr(case, "__name__", "")
)
def test_a_bad_file_is_caught_and_the_reason_says_why(
    kind: Kind, verdict: Verdict, reason: str
) -> None:
    assert misjudged(samples_of(kind, verdict, reason)) == []


def test_the_format_and_the_size_are_what_the_bytes_say() -> None:
    picture = fitted("coffee.png", 90)
    for form, kind in (
        ("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif"), ("AVIF", "avif"),
        ("BMP", "bmp"), ("TIFF", "tiff"), ("JPEG2000", "jp2"),
    ):  # fmt: skip
        body = encoded(picture, form)
        assert inspect(body)[:5] == ("ok", "", kind, *picture.size)
        assert inspect(body, "header") == ("ok", "header only", kind, *picture.size, None)


def test_at_level_off_only_the_magic_bytes_are_read() -> None:
    for data, kind in ((jpeg("coffee.png")[:20], "jpeg"), (b"", "unknown"), (b"<html>", "html")):
        assert inspect(data, "off") == ("ok", "not inspected", kind, 0, 0, None)


def test_at_level_header_no_pixel_is_decoded() -> None:
    body = jpeg("coffee.png", 320)
    assert inspect(body[: len(body) // 2], "header").verdict == "ok"
    assert inspect(body[:300], "header").reason.startswith("header: ")


def test_the_first_bytes_give_the_verdict_that_the_last_bytes_cannot_change() -> None:
    for data, kind in (
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "avif"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", "heic"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "unknown"),
        (b"MM\0+\0\x08\0\0", "tiff"),
        (b"GIF88a", "unknown"),
        (b"RIFF\0\0\0\0WAVE", "unknown"),
        (b" \n\t<!DOCTYPE HTML>", "html"),
        (b"<rss>", "xml"),
        (b"  [1]", "json"),
    ):
        assert sniff(data) == kind
        assert sniff(data + bytes(5000)) == kind


def test_bombs_are_refused_before_a_decoder_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr(image, "loaded", never)
    monkeypatch.setattr(jpeg_decoder, "decode", never)
    for sample in samples_of(bad.bombs, "corrupt", "too many pixels"):
        got = inspect(sample.data)
        assert (got.verdict, got.reason) == (
            "corrupt",
            f"too many pixels: {got.width} x {got.height}",
        )
        assert got.width * got.height > decode.MAX_PIXELS_IN_FULL


def test_the_largest_frames_allowed_are_not_called_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 90 * 60)
    monkeypatch.setattr(decode, "MAX_PIXELS_IN_FULL", 90 * 60)
    for form in ("JPEG", "PNG"):
        assert inspect(encoded(fitted("coffee.png", 90), form)).verdict == "ok"
        assert inspect(encoded(fitted("coffee.png", 92), form)).reason == "too many pixels: 92 x 61"


def test_a_format_without_a_decoder_has_its_own_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "plugin_of", lambda kind: None)
    body = encoded(fitted("coffee.png", 90), "AVIF")
    assert inspect(body) == ("corrupt", "no decoder for avif here", "avif", 0, 0, None)
    assert inspect(jpeg("coffee.png")).verdict == "ok"


def test_pillows_switches_stay_as_they_are() -> None:
    switches = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    for sample in samples_of(bad.cut_others) + samples_of(bad.bombs):
        inspect(sample.data)
    assert switches == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_many_threads_reach_the_same_verdicts_as_one() -> None:
    bodies = [sample.data for sample in samples_of(good.other_formats)[:40]]
    bodies += [sample.data for sample in samples_of(bad.resaved_otherwise)[:20]]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(inspect, bodies)) == [inspect(body) for body in bodies]


def test_every_row_of_the_cascade_in_the_documents_is_reached() -> None:
    text = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text(encoding="utf-8")
    table = text.partition("\n| test | verdict | reason |\n")[2].partition("\n\n")[0]
    reasons = {line.split("|")[3].strip() for line in table.splitlines()[1:]} - {""}
    assert len(reasons) == 12
    met = [
        inspect(sample.data).reason
        for kind, verdict, reason in BAD
        for sample in samples_of(kind, verdict, reason)[:60]
    ]
    met += [inspect(b"\xff\xd8\xff", level).reason for level in ("off", "header")]
    met.append(inspect(jpeg("coffee.png"), "header").reason)
    for row in reasons:
        for choice in row.replace("grey · black", "C").split(" · "):
            start = choice.replace(" N", "  ").replace(" F", "  ").split("  ")[0].rstrip("…")
            start = start.replace(" W x H", "")
            assert any(reason.startswith(start) for reason in met), choice


def test_there_are_as_many_samples_as_the_documents_say() -> None:
    good = sum(len(samples_of(kind)) for kind in GOOD)
    bad = sum(len(samples_of(kind)) for kind, _, _ in BAD)
    assert good >= 500
    assert bad >= 300
    assert len(BAD) >= 12


@cache
def seeds_of_mutation() -> tuple[bytes, ...]:
    picture = fitted("chelsea.png", 64)
    forms = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000")
    bodies = [encoded(picture, form) for form in forms]
    bodies.append(encoded(picture, progressive=True))
    bodies.append(encoded(picture, "WEBP", lossless=True))
    bodies.append(encoded(picture.quantize(16), "PNG", transparency=b"\0\1"))
    bodies.append(encoded(Image.new("RGB", (40, 30))))
    return tuple(bodies)


def judged(data: bytes, level: Level = "decode") -> None:
    got = inspect(data, level)
    assert got.verdict in VERDICTS
    assert got.format in FORMATS
    assert all(type(side) is int and 0 <= side < 2**31 for side in (got.width, got.height))
    assert len(got.reason) < 200


MAGICS = (
    b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"II*\0", b"MM\0*",
    b"II+\0", b"BM", b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x1cftypavif", b"\xff\x0a", b"<", b"{",
    b"RIFF\0\0\0\0WEBPVP8X", b"RIFF\0\0\0\0WEBPVP8L",
)  # fmt: skip


@pytest.mark.chaos("hostile input")
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(MAGICS), st.binary(max_size=300), st.sampled_from(("decode", "header", "off"))
)
def test_any_bytes_have_a_verdict(magic: bytes, rest: bytes, level: Level) -> None:
    count("inputs heads of image files with other bytes behind")
    judged(magic + rest, level)


@pytest.mark.chaos("hostile input")
@settings(max_examples=600 * TIMES, deadline=None)
@given(st.integers(0, 11), st.integers(0, 2**32), st.integers(1, 12))
@example(0, 0, 1)
def test_a_good_file_with_anything_changed_has_a_verdict(which: int, seed: int, edits: int) -> None:
    count("inputs image files with bytes changed")
    chance = random.Random(seed)
    body = bytearray(seeds_of_mutation()[which])
    for _ in range(edits):
        # Most errors of parsers are in headers.
        reach = chance.choice((64, 300, len(body)))
        at = chance.randrange(min(reach, len(body)))
        match chance.randrange(4):
            case 0:
                body[at] ^= 1 << chance.randrange(8)
            case 1:
                body[at : at + 4] = struct.pack(
                    ">I", chance.choice((0, 1, 255, 65_535, 2**31, 2**32 - 1))
                )
            case 2:
                del body[at : at + chance.randint(1, 40)]
            case 3:
                body[at:at] = chance.randbytes(chance.randint(1, 40))
        if not body:
            break
    judged(bytes(body))


@given(st.binary(max_size=200))
def test_the_walk_over_scans_ends_on_any_bytes(rest: bytes) -> None:
    try:
        check_scans(b"\xff\xd8" + rest)
    except (ValueError, IndexError):
        return


@pytest.mark.parametrize("body", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("level", ["decode", "header"])
def test_an_impossible_size_is_corrupt(body: bytes, level: Level) -> None:
    got = inspect(body, level)
    assert (got.verdict, got.width, got.height) == ("corrupt", 0, 0)
    assert got.reason == "header: no size that an image can have"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tags", [[273] * 1000, range(1000, 2000)], ids=["one tag", "many tags"])
def test_a_tiff_whose_tags_all_name_the_same_bytes_costs_no_more_than_another(
    order: str, tags: Sequence[int]
) -> None:
    values = bytes(4000)
    entries = [(256, 4, 1, 64), (257, 4, 1, 64), *((tag, 4, 1000, 8) for tag in tags)]
    magic = b"II*\0" if order == "<" else b"MM\0*"
    body = magic + struct.pack(f"{order}I", 8 + len(values)) + values
    body += struct.pack(f"{order}H", len(entries))
    body += b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries) + bytes(4)
    got = inspect(body, "header")
    assert (got.verdict, got.reason) == ("corrupt", "header: tags are larger than the file")
