"""Files with known verdicts, made from real photographs, to measure the verdicts.

The same seed gives the same pixels, but the bytes depend on the encoder. Kinds are functions that yield
`(data, name)`; `GOOD` and `BAD` list them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from mirror.content.image import Verdict
from tests.labelled import bad, good
from tests.labelled.photographs import Made


class Sample(NamedTuple):
    """A labelled file. `reason` must be a part of the verdict's reason."""

    kind: str
    name: str
    data: bytes
    verdict: Verdict
    reason: str


Kind = Callable[[random.Random], Made]
GOOD: tuple[Kind, ...] = (
    good.sizes,
    good.crops,
    good.qualities,
    good.jpeg_flavours,
    good.metadata,
    good.after_the_end,
    good.night,
    good.few_lights,
    good.stars,
    good.fog,
    good.white_on_white,
    good.letterboxed,
    good.captioned,
    good.framed,
    good.dark_ground,
    good.on_black,
    good.png,
    good.other_formats,
    good.dark_other_formats,
)
BAD: tuple[tuple[Kind, Verdict, str], ...] = (
    (bad.empty, "not_image", "empty"),
    (bad.html, "not_image", "html"),
    (bad.json, "not_image", "json"),
    (bad.xml, "not_image", "xml"),
    (bad.not_images, "not_image", ""),
    (bad.cut, "corrupt", ""),
    (bad.cut_and_closed, "corrupt", ""),
    (bad.cut_between_scans, "corrupt", "ends between two scans"),
    (bad.tail_zeroed, "corrupt", ""),
    (bad.holes, "corrupt", ""),
    (bad.warned_flips, "corrupt", "decode"),
    (bad.header_only, "corrupt", ""),
    (bad.glued, "corrupt", ""),
    (bad.cut_others, "corrupt", ""),
    (bad.damaged_png, "corrupt", "checksum"),
    (bad.resaved_open, "corrupt", "filled with grey"),
    (bad.resaved_closed, "corrupt", "filled with grey"),
    (bad.resaved_from_png, "corrupt", "filled with black"),
    (bad.resaved_otherwise, "corrupt", "filled with"),
    (bad.bombs, "corrupt", "too many pixels"),
    (bad.too_many_scans, "corrupt", "too many scans"),
    (bad.no_decoder, "corrupt", "no decoder for"),
    (bad.flat, "blank", "flat frame"),
    (bad.flat_others, "blank", "flat frame"),
    (bad.dithered, "blank", "flat frame"),
)


@lru_cache(len(GOOD) + len(BAD))
def bodies_of(kind: Kind, seed: int = 1) -> tuple[tuple[str, bytes], ...]:
    """The cached files of a kind, because several tests need the same."""
    return tuple(kind(random.Random(f"{kind.__name__} {seed}")))


def samples_of(
    kind: Kind, verdict: Verdict = "ok", reason: str = "", seed: int = 1
) -> list[Sample]:
    return [
        Sample(kind.__name__, name, data, verdict, reason) for name, data in bodies_of(kind, seed)
    ]
