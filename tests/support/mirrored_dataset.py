"""A small real mirror in a folder, and datasets with URLs that it has or lacks.

Tests import the fixtures that they use: `plants`, the mirror, and `work`, an empty folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from mirror.catalog.index import Index
from mirror.catalog.lookup import Positions, UrlLookup
from mirror.catalog.open_mirror import read_index
from mirror.catalog.row import RowSource
from mirror.config.settings import Settings
from mirror.content.digest import digest_of
from mirror.dataset.inputs import Input
from mirror.dataset.rewrite.rewrite_dataset import rewrite_dataset
from mirror.dataset.rewrite.rewrite_options import RewriteOptions
from mirror.dataset.rewrite.rewrite_report import RewriteReport
from mirror.layout import object_key, url_md5
from mirror.run.progress import Progress
from mirror.sync.run_sync import SyncOptions, sync
from tests.conftest import Place
from tests.support import damaged_caches
from tests.support.photos import fill, photo, url_of

# Numbers of URLs (`url_of`). Those below 200 belong to `damaged_caches.make`.
GOOD = range(10)
BLANK, CORRUPT, NOT_IMAGE, PLACEHOLDER = (
    range(100, 103),
    (103, 104),
    range(105, 109),
    range(109, 115),
)
ABSENT = range(500, 600)
SMALL = 30  # 24 pixels wide; the others have 48
TWINS = range(40, 50)  # with contents of GOOD
MANY = range(1000, 1060)  # 40 contents, twenty of them with two URLs


def content_of(number: int) -> int:
    """A number that is equal for URLs with equal images."""
    if number in TWINS:
        return number - TWINS[0]
    return MANY[0] + number % 40 if number in MANY else number


@dataclass(frozen=True)
class Mirror:
    """A synced mirror that no test changes. `settings` has its place."""

    settings: Settings
    cache: Path

    @classmethod
    def of(
        cls, place: Place, folder: Path, sources: Mapping[str, RowSource] | None = None
    ) -> Mirror:
        """Mirror the cache in `folder`. `sources` has a dataset's facts about some of its URLs."""
        cache = folder / "cache"
        settings = place.settings(cache={"dir": str(cache)}, state={"dir": str(folder / "state")})
        assert sync(settings, SyncOptions()).exit_status == 0
        if sources:
            by_md5: Any = {url_md5(url): source for url, source in sources.items()}
            assert sync(settings, SyncOptions(), sources=by_md5).exit_status == 0
        return cls(settings, cache)

    @cached_property
    def index(self) -> Index:
        return read_index(self.settings)[1]

    @property
    def base(self) -> str:
        """The beginning of the mirror's URLs."""
        return f"{self.settings.bucket_url}/"

    def url(self, number: int) -> str:
        """The mirror's URL for a good image."""
        body = photo(30, 24) if number == SMALL else photo(content_of(number))
        return self.base + object_key(digest_of(body).content_hash, "jpeg")

    def lookup(self, **options: Any) -> UrlLookup:
        return UrlLookup(self.index, **options)

    def rewrite(
        self,
        inputs: Path | Iterable[Path],
        output: Path,
        lookup: UrlLookup | None = None,
        *,
        base: str | None = "",
        progress: Progress = Progress(),
        **options: Any,
    ) -> RewriteReport:
        """Rewrite files to this mirror's URLs.

        Args:
            inputs: the datasets.
            output: the file to write.
            lookup: finds images; this mirror's if None.
            base: what new URLs begin with, this mirror's if empty; None leaves URLs unchanged.
            progress: as for `rewrite_dataset`.
            options: fields of `RewriteOptions`.
        """
        paths = [inputs] if isinstance(inputs, Path) else list(inputs)
        lookup = lookup or self.lookup()

        def new_urls(at: Positions) -> list[bytes]:
            return lookup.object_keys(at, (base or self.base).encode())

        return rewrite_dataset(
            [Input(str(path)) for path in paths],
            output,
            RewriteOptions(**options),
            lookup,
            new_urls=None if base is None else new_urls,
            progress=progress,
        )


def make(folder: Path) -> Mirror:
    """Make a mirror with every verdict, with duplicates, and with enough images to split."""
    cache = folder / "cache"
    damaged_caches.make(cache)
    fill(cache, {url_of(n): photo(content_of(n)) for n in (*TWINS, *MANY)})
    fill(cache, {url_of(SMALL): photo(30, 24)})
    return Mirror.of(Place("file", {"url": f"file://{folder}/mirror"}), folder)


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """The mirror of `make`. Do not change it."""
    return make(tmp_path_factory.mktemp("plants"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty folder for a test's files."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def command_line(plants: Mirror, *arguments: str) -> list[str]:
    """The arguments of `mirror rewrite` for that mirror."""
    state = plants.settings.state.dir
    return ["rewrite", f"--bucket={plants.settings.bucket.url}", f"--state={state}", *arguments]


def record(number: int, **fields: Any) -> dict[str, Any]:
    """A record with the photo of this number."""
    return {"id": number, "image_url": url_of(number), **fields}


def put(path: Path, records: Iterable[Any]) -> Path:
    """Write a dataset of JSON lines. Text is written unchanged."""
    lines = (item if isinstance(item, str) else json.dumps(item) for item in records)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def got(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def names(folder: Path) -> set[str]:
    """The names of all files in a folder, hidden ones included."""
    return {path.name for path in folder.iterdir()}
