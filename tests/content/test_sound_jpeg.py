"""JPEGs with complete pixels, although libjpeg warns of their headers or of stray bytes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from mirror.content.image import inspect
from mirror.content.jpeg import decode, sound
from tests.labelled.photographs import PHOTOGRAPHS, encoded, fitted, jpeg

BODY = jpeg("coffee.png", 160)
EOI = b"\xff\xd9"


def sos_parameters(body: bytes, parameters: bytes) -> bytes:
    at = body.index(b"\xff\xda") + 5 + 2 * body[body.index(b"\xff\xda") + 4]
    return body[:at] + parameters + body[at + 3 :]


def before(body: bytes, marker: bytes, stray: bytes) -> bytes:
    at = body.index(marker)
    return body[:at] + stray + body[at:]


def newer_jfif(body: bytes) -> bytes:
    return re.sub(rb"JFIF\0..", b"JFIF\0\2\1", body, count=1)


def padded(body: bytes) -> bytes:
    return body[:-2] + bytes(9) + body[-2:]


def padded_mpo() -> bytes:
    pair = [fitted("coffee.png", 100)]
    body = encoded(fitted("coffee.png", 160), "MPO", save_all=True, append_images=pair, quality=85)
    return before(body, EOI + b"\xff\xd8", bytes(6))


SOUND = {
    "padded": padded(BODY),
    "padded, a preview behind": padded(BODY) + jpeg("coffee.png", 60),
    "padded, a trailer with an end marker": padded(BODY) + b"SEFT\xff\xd9xx",
    "padded, in a pair": padded_mpo(),
    "a scan of no coefficients": sos_parameters(BODY, b"\0\0\0"),
    "a scan of other coefficients": sos_parameters(BODY, b"\1\x3f\1"),
    "JFIF 2.01": newer_jfif(BODY),
    "progressive, JFIF 2.01": newer_jfif(jpeg("coffee.png", 160, progressive=True)),
    "a byte before the tables": before(BODY, b"\xff\xdb", b"\0"),
    "a byte before the codes": before(BODY, b"\xff\xc4", b"x"),
    "bytes before the scan": before(BODY, b"\xff\xda", b"\0\0"),
    "all of it": padded(newer_jfif(sos_parameters(before(BODY, b"\xff\xdb", b"\0"), b"\0\0\0"))),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_jpeg_is_ok_whatever_its_header_is_like(name: str) -> None:
    assert inspect(SOUND[name])[:3] == ("ok", "", "jpeg")
    assert np.array_equal(sound(SOUND[name])[1], decode(BODY, "GRAY"))


def test_a_padded_stream_may_end_in_a_byte_of_ones() -> None:
    chance = np.random.default_rng(1)
    noise = (Image.fromarray(chance.integers(0, 256, (8, 8), np.uint8)) for _ in range(5000))
    body = next(body for image in noise if (body := encoded(image))[-4:] == b"\xff\0" + EOI)
    assert inspect(padded(body)).verdict == "ok"


CUT: dict[str, Callable[[bytes], bytes]] = {
    "to a half": lambda body: body[: len(body) // 2],
    "to a half, and closed": lambda body: body[: len(body) // 2] + EOI,
    "with zeros for its end": lambda body: body[: len(body) // 2] + bytes(len(body) // 2) + EOI,
    "with zeros for its end, and another": lambda body: (
        body[: len(body) // 2] + bytes(len(body) // 2) + EOI + BODY
    ),
}


@pytest.mark.parametrize("how", CUT)
@pytest.mark.parametrize("name", SOUND)
def test_a_truncated_jpeg_is_corrupt_whatever_its_header_is_like(name: str, how: str) -> None:
    body = SOUND[name]
    first = body[: body.index(EOI, body.index(b"\xff\xda"))]
    assert inspect(CUT[how](first)).verdict == "corrupt"


def test_a_jpeg_without_one_of_its_tables_is_corrupt() -> None:
    # The marker is gone, but the bytes of the table are too many to be stray.
    for marker in (b"\xff\xdb", b"\xff\xc4"):
        assert inspect(BODY.replace(marker, b"\0\0", 1)).verdict == "corrupt"


def test_damage_that_is_warned_of_is_caught_behind_a_header_that_is_warned_of() -> None:
    chance = random.Random(5)
    for name in PHOTOGRAPHS[:8]:
        body = jpeg(name, 160)
        for _ in range(20):
            flipped = bytearray(body)
            flipped[chance.randrange(body.index(b"\xff\xda") + 14, len(body) - 2)] ^= 4
            try:
                simplejpeg.decode_jpeg(bytes(flipped), strict=True)
            except ValueError:
                for change in (newer_jfif, lambda data: sos_parameters(data, b"\0\0\0")):
                    assert inspect(change(bytes(flipped))).verdict == "corrupt"


def test_a_sequential_jpeg_of_several_scans_has_one_of_each_component() -> None:
    body = encoded(fitted("coffee.png", 64), quality=85, keep_rgb=True, subsampling=0)
    assert inspect(body).verdict == "ok"
    grey = encoded(fitted("coffee.png", 64).convert("L"))
    # The header declares two more components, which no scan has.
    at = grey.index(b"\xff\xc0")
    more = grey[:at] + b"\xff\xc0\0\x11" + grey[at + 4 : at + 9] + b"\3\1\x11\0\2\x11\0\3\x11\0"
    assert "ends between two scans" in inspect(more + grey[at + 13 :]).reason
