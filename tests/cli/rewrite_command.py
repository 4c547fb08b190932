"""Calls `mirror rewrite` in this process, in the working folder of a user."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mirror.cli.main import run
from mirror.content.digest import digest_of
from mirror.layout import object_key
from tests.support.mirrored_dataset import (
    ABSENT,
    BLANK,
    CORRUPT,
    GOOD,
    MANY,
    NOT_IMAGE,
    PLACEHOLDER,
    Mirror,
    got,
    put,
)
from tests.support.photos import photo, url_of

THREE = "--split=train=0.8,val=0.1,test=0.1"


# The records of `work` that are dropped, by reason.
DROPPED = {"blank": 3, "corrupt": 2, "not_image": 4, "placeholder": 6, "not_mirrored": 5,
           "too_small": 0, "license": 0, "invalid": 1, "label_conflict": 0,
           "near_duplicate": 0, "sample": 0}  # fmt: skip


class Said(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        report = json.loads(self.out)
        assert isinstance(report, dict)
        return report


Rewrite = Callable[..., Said]


@pytest.fixture
def work(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a dataset of every kind of record."""
    folder = tmp_path / "work"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    numbers = (*GOOD, *MANY, *BLANK, *CORRUPT, *NOT_IMAGE, *PLACEHOLDER, *ABSENT[:5])
    records = [
        {"image_url": url_of(n), "id": n, "kind": ("oak", "ash")[n % 3 == 0]} for n in numbers
    ]
    put(folder / "raw.jsonl", [*records, "?"])
    put(folder / "good.jsonl", [{"image_url": url_of(n), "id": n} for n in GOOD])
    return folder


@pytest.fixture
def call(work: Path, capfd: pytest.CaptureFixture[str]) -> Rewrite:
    """Run `mirror rewrite` in this process."""

    def rewrite(*arguments: str, first: tuple[str, ...] = ()) -> Said:
        capfd.readouterr()
        status = run([*first, "rewrite", *arguments])
        return Said(status, *capfd.readouterr())

    return rewrite


@pytest.fixture
def rewrite(plants: Mirror, call: Rewrite) -> Rewrite:
    """Run `mirror rewrite` on the mirror `plants`."""
    where = [f"--bucket={plants.settings.bucket.url}", f"--state={plants.settings.state.dir}"]
    return lambda *arguments, first=(): call(*where, *arguments, first=first)


def key_of(seed: int) -> str:
    return object_key(digest_of(photo(seed)).content_hash, "jpeg")


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return bytes(answer.read())


def ids(path: Path) -> list[int]:
    return [record["id"] for record in got(path)]
