"""A small mirror and a dataset of it, for training tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.sync.run_sync import sync
from tests.support.photos import blank, fill, photo, url_of

CLASSES = ("Bellis perennis", "Plantago major", "Urtica dioica")
SIDE = 16


class Prepared(NamedTuple):
    """A mirror that holds the photos of a dataset.

    Attributes:
        settings: of the mirror.
        dataset: JSON lines of `image_url` and `species`.
        flagged: of its records, those whose image the mirror has flagged: they come last.
    """

    settings: Settings
    dataset: Path
    flagged: int


def prepared(
    folder: Path, count: int, *, flagged: int = 0, bucket: dict[str, Any] | None = None
) -> Prepared:
    """Mirror photos 0 to count - 1, and as many black frames as `flagged` says."""
    bodies = {url_of(n): photo(n, SIDE) for n in range(count)}
    bodies |= {url_of(count + n): blank(quality=60 + n) for n in range(flagged)}
    fill(folder / "cache", bodies)
    place = {
        "bucket": bucket or {"url": f"file://{folder}/mirror"},
        "state": {"dir": str(folder / "state")},
    }
    cache = {"cache": {"dir": str(folder / "cache")}}
    assert not sync(merge([Layer("test", place | cache)])).failed
    settings = merge([Layer("test", place)])  # the training machine has no cache
    dataset = folder / "train.jsonl"
    write_dataset(dataset, list(bodies))
    return Prepared(settings, dataset, flagged)


def write_dataset(path: Path, urls: Sequence[str]) -> None:
    records = ({"image_url": url, "species": class_of(url)} for url in urls)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def number_of(url: str) -> int:
    return int(url.split("/")[-2])


def class_of(url: str) -> str:
    return CLASSES[number_of(url) % 3]


def pixels(image: Any) -> torch.Tensor:
    """A transform; a function at module level, because spawn pickles it."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def expected_pixels(number: int) -> torch.Tensor:
    from mirror.torch import rgb

    return pixels(rgb(photo(number, SIDE)))
