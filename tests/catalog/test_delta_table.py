"""The catalog in a folder and on a server, read by this package and by other tools."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest

from mirror.catalog import delta_table
from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import Index
from mirror.catalog.row import UNKNOWN_SOURCE, Row, RowSource
from mirror.content.image import VERDICTS
from mirror.content.photo import photo_key
from mirror.errors import CatalogError
from mirror.layout import CATALOG, FORMATS
from mirror.store.base import Create, Headers
from mirror.store.object_store_options import delta_options
from mirror.store.s3_access import S3Access
from mirror.store.throttle import Counting
from tests.conftest import MakePlace, Place

T = TypeVar("T")
EMPTY = Index.empty()


@dataclass(frozen=True)
class Table:
    """A place for a catalog, with its address and credentials."""

    place: Place
    uri: str
    options: dict[str, str]

    def with_catalog(self, story: Callable[[Catalog, Counting], Coroutine[Any, Any, T]]) -> T:
        """Run a story with a newly opened catalog, as a separate run would."""

        async def tell() -> T:
            store = Counting(self.place.open())
            try:
                return await story(Catalog(store, self.uri, lambda: self.options), store)
            finally:
                await store.aclose()

        return asyncio.run(tell())

    def append(self, *commits: list[Row]) -> list[int]:
        async def story(catalog: Catalog, store: Counting) -> list[int]:
            return [catalog.append(rows) for rows in commits]

        return self.with_catalog(story)

    def refreshed(self, index: Index) -> tuple[Index, int]:
        """The refreshed index, and how many files were read for it."""

        async def story(catalog: Catalog, store: Counting) -> tuple[Index, int]:
            return await catalog.refresh(index), store.requests["get"]

        return self.with_catalog(story)


def table_at(place: Place) -> Table:
    url = place.url
    if url.scheme == "file":
        Path(url.path, CATALOG).mkdir(parents=True)
        return Table(place, f"{url.path}/{CATALOG}", {})
    options = delta_options(S3Access(url, place.settings().bucket))
    return Table(place, f"{url}/{CATALOG}", options)


@pytest.fixture(params=["file", "moto-obstore"])
def here(request: pytest.FixtureRequest, make_place: MakePlace) -> Table:
    return table_at(make_place(request.param))


@pytest.fixture
def folder(make_place: MakePlace) -> Table:
    return table_at(make_place("file"))


def key(number: int) -> bytes:
    return hashlib.md5(b"%d" % number).digest()


def row(number: int, seen_at: int = 1, source: RowSource = UNKNOWN_SOURCE) -> Row:
    """A row with extreme values in every column, different for every number."""
    return Row(
        url_md5=key(number),
        content_hash=number.to_bytes(16, "big"),
        sha256=hashlib.sha256(b"%d" % number).digest(),
        size=2**62 + number,
        format=sorted(FORMATS)[number % len(FORMATS)],
        width=2**31 - 1 - number,
        height=number,
        verdict=VERDICTS[number % len(VERDICTS)],
        reason="" if number % 2 else f"reason {number}, “quoted” \0",
        source=source,
        seen_at=seen_at,
        near=bytes([1]) + number.to_bytes(34, "big") if number % 3 else None,
    )


SOURCES = [
    RowSource(),
    RowSource("https://example.org/ü?a=b&c", None, None),
    RowSource("https://example.org/1", "CC-BY-NC", "© Ünal, some rights reserved (CC BY-NC)"),
]
ROWS = [row(n, 1_790_000_000_123_456 + n, SOURCES[n % 3]) for n in range(20)]


def knows(index: Index, rows: list[Row]) -> None:
    assert len(index) == len({one.url_md5 for one in rows})
    for one in rows:
        found = index.sighting(one.url_md5)
        assert found is not None
        assert found.content_hash == one.content_hash
        assert (found.size, found.width, found.height) == (one.size, one.width, one.height)
        assert (found.format, found.verdict) == (one.format, one.verdict)
        assert (found.sourced, found.seen_at) == (one.source.url is not None, one.seen_at)
        expected = one.sha256 if one.verdict == "ok" else None
        assert index.object_sha256(one.content_hash) == expected


def test_rows_come_back_whole_through_the_index(here: Table) -> None:
    assert here.append(ROWS[:5], ROWS[5:]) == [1, 2]
    index, _ = here.refreshed(EMPTY)
    knows(index, ROWS)
    assert index.version == 2


def test_rows_come_back_whole_through_polars(here: Table) -> None:
    here.append(ROWS)
    frame = pl.read_delta(here.uri, storage_options=here.options).sort("seen_at")
    assert frame.columns == [
        "url_md5", "content_hash", "sha256", "size", "format", "width", "height",
        "verdict", "reason", "source_url", "license", "attribution", "seen_at", "near",
    ]  # fmt: skip
    assert frame.schema["seen_at"] == pl.Datetime("us", "UTC")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = [
        (*one[:9], *one.source, epoch + timedelta(microseconds=one.seen_at), one.near)
        for one in ROWS
    ]
    assert frame.rows() == expected


def test_a_refresh_reads_only_what_is_new(here: Table) -> None:
    here.append(*([one] for one in ROWS[:3]))
    index, read = here.refreshed(EMPTY)
    assert read == 3
    assert here.refreshed(index)[1] == 0
    here.append(ROWS[3:5])
    index, read = here.refreshed(index)
    assert read == 1
    knows(index, ROWS[:5])


def test_a_catalog_that_was_never_written_is_empty(here: Table) -> None:
    index, read = here.refreshed(EMPTY)
    assert (len(index), read) == (0, 0)
    assert here.append(ROWS) == [1]
    knows(here.refreshed(index)[0], ROWS)


def test_reading_creates_no_catalog(here: Table) -> None:
    async def story(catalog: Catalog, store: Counting) -> None:
        assert len(await catalog.refresh(EMPTY)) == 0
        assert await catalog.sources_of([key(1)]) == {}
        assert not catalog.compact()
        assert not await store.list_page(CATALOG, "")

    here.with_catalog(story)


def test_a_photo_is_known_from_any_row_that_has_its_url(here: Table) -> None:
    url = "https://static.inaturalist.org/photos/7/medium.jpg?1"
    here.append(
        [row(1, 10, RowSource(url)), row(2, 10, RowSource("https://example.org/x")), row(3)]
    )
    index, _ = here.refreshed(EMPTY)
    here.append([row(1, 20), row(2, 20), row(3, 20)])
    for known in (index, EMPTY):
        newer, _ = here.refreshed(known)
        assert newer.find_photos(np.array([photo_key(url), 0], "u8")).tolist() == [
            newer.find(key(1))[0],
            -1,
        ]
        assert np.count_nonzero(newer.sightings["photo"]) == 1


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_catalog_that_was_replaced_is_read_from_the_start(
    before: int, folder: Table, tmp_path: Path
) -> None:
    async def story(catalog: Catalog, store: Counting) -> Index:
        return await catalog.refresh(EMPTY, tmp_path / "index")

    folder.append(*([one] for one in ROWS[:before]))
    knows(folder.with_catalog(story), ROWS[:before])
    shutil.rmtree(folder.uri)
    assert len(folder.with_catalog(story)) == 0
    folder.append(ROWS[10:12])
    knows(folder.with_catalog(story), ROWS[10:12])
    knows(folder.with_catalog(story), ROWS[10:12])


def test_concurrent_writers_lose_nothing(here: Table) -> None:
    def write(writer: int) -> list[int]:
        return here.append(*([row(100 * writer + n)] for n in range(4)))

    with ThreadPoolExecutor(3) as pool:
        versions = list(pool.map(write, range(3)))
    assert all(mine == sorted(set(mine)) for mine in versions)
    index, read = here.refreshed(EMPTY)
    assert read == 12
    knows(index, [row(100 * writer + n) for writer in range(3) for n in range(4)])


def test_a_conditional_commit_follows_only_its_version(here: Table) -> None:
    async def story(catalog: Catalog, store: Counting) -> None:
        other = Catalog(store, here.uri, lambda: here.options)
        assert catalog.append_after(0, [row(1)]) == 1
        assert other.append_after(0, [row(2)]) is None  # it opens the table, and sees
        assert other.append_after(1, [row(2)]) == 2
        assert catalog.append_after(1, [row(3)]) is None  # it is told by the commit
        knows(await catalog.refresh(EMPTY), [row(1), row(2)])
        assert catalog.append_after(2, [row(3)]) == 3
        knows(await other.refresh(EMPTY), [row(1), row(2), row(3)])

    here.with_catalog(story)


def test_concurrent_creators_create_one_table(here: Table) -> None:
    # The race does not happen every time.
    for attempt in range(10 if here.place.server is None else 2):
        uri = f"{here.uri}-{attempt}"
        begin = threading.Barrier(3)

        def make(number: int, uri: str = uri, begin: threading.Barrier = begin) -> int:
            catalog = Catalog(here.place.open(), uri, lambda: here.options)
            begin.wait()
            return catalog.append([ROWS[number]])

        if here.place.server is None:
            Path(uri).mkdir()
        with ThreadPoolExecutor(3) as pool:
            versions = list(pool.map(make, range(3)))
        assert len(pl.read_delta(uri, storage_options=here.options)) == 3
        # One created it, and three appended: a second creation would appear between their versions.
        assert max(versions) == 3


def compacted(here: Table) -> bool:
    async def story(catalog: Catalog, store: Counting) -> bool:
        return catalog.compact()

    return here.with_catalog(story)


def test_a_compaction_changes_no_answer(here: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta_table, "COMPACT_AFTER", 4)
    older = ROWS[0]._replace(seen_at=5, verdict="blank", content_hash=bytes(16))
    here.append([older], [ROWS[0]], ROWS[1:4])
    before, _ = here.refreshed(EMPTY)
    assert not compacted(here)
    here.append(ROWS[4:6])
    assert compacted(here)
    here.append(ROWS[6:8])
    for known, files in ((before, 3), (EMPTY, 2)):
        index, read = here.refreshed(known)
        # What was merged, and the one after it; and the entry that shows that it is the same catalog.
        assert read == files
        knows(index, ROWS[:8])
    assert len(pl.read_delta(here.uri, storage_options=here.options)) == 9


def test_sources_are_the_latest_known_ones(here: Table) -> None:
    old, new = (
        RowSource("https://example.org/old"),
        RowSource("https://example.org/new", "CC0", "N"),
    )
    here.append(
        [row(1, 10, old), row(2, 10, old), row(3, 10)],
        [row(1, 20, new)],
        [row(1, 15, old), row(2, 30), row(4, 10, old)],
    )

    async def story(catalog: Catalog, store: Counting) -> dict[bytes, RowSource]:
        return await catalog.sources_of([key(1), key(2), key(3), key(9)])

    # A row without a source does not erase one; unknown URLs and others are absent.
    assert here.with_catalog(story) == {key(1): new, key(2): old}


def test_no_urls_have_no_sources(folder: Table) -> None:
    folder.append(ROWS)

    async def story(catalog: Catalog, store: Counting) -> dict[bytes, RowSource]:
        return await catalog.sources_of([])

    assert folder.with_catalog(story) == {}


# A URL would have to escape these; a key has them unescaped.
@pytest.mark.parametrize("piece", ["a b", "100%", "a#b", "a?b", "[ü]", "a+b"])
def test_the_catalog_is_beside_the_objects_under_any_prefix(
    piece: str, make_place: MakePlace
) -> None:
    made = make_place("moto-obstore")
    url = f"{made.url}/{quote(piece, safe='')}"
    here = table_at(Place(made.name, made.layer | {"url": url}, made.server))
    assert here.place.url.path.endswith(f"/{piece}")

    async def story(catalog: Catalog, store: Counting) -> list[str]:
        catalog.append(ROWS)
        await store.put("object", b"x", Create(), Headers())
        knows(await catalog.refresh(EMPTY), ROWS)
        return [info.key for info in await store.list_page("", "")]

    assert {name.split("/")[0] for name in here.with_catalog(story)} == {"catalog", "object"}


@pytest.mark.parametrize("action", ["append", "refresh"])
def test_an_unreachable_table_is_a_catalog_error(action: str, folder: Table) -> None:
    Path(folder.uri).rmdir()
    Path(folder.uri).write_text("a file where the table belongs")
    actions: dict[str, Callable[[], object]] = {
        "append": lambda: folder.append(ROWS),
        "refresh": lambda: folder.refreshed(EMPTY),
    }
    with pytest.raises(CatalogError, match="run again"):
        actions[action]()


def test_an_unreachable_server_is_a_catalog_error_that_says_so(
    make_place: MakePlace,
) -> None:
    made = make_place("moto-obstore")
    place = Place(made.name, made.layer | {"endpoint": "http://127.0.0.1:9"}, made.server)
    with pytest.raises(CatalogError, match=r"(?i)connect|reached|sending request"):
        table_at(place).refreshed(EMPTY)


def test_new_credentials_reopen_the_table(folder: Table) -> None:
    asked: list[dict[str, str]] = []

    def options() -> dict[str, str]:
        asked.append({"of": str(len(asked))})
        return asked[-1]

    catalog = Catalog(folder.place.open(), folder.uri, options)
    assert [catalog.append([one]) for one in ROWS[:3]] == [1, 2, 3]
    assert len(asked) == 3
