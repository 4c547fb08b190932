"""Commands that only read a mirror know its catalog, and change nothing in it."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from mirror.catalog.index import Index
from mirror.catalog.open_mirror import read_index
from mirror.catalog.root import Root, open_root
from mirror.config.settings import Settings, StateSettings
from mirror.errors import (
    BucketMissing,
    ConfigError,
    FormatError,
    MirrorError,
    NotFound,
    Unreachable,
)
from mirror.layout import FORMAT_KEY, BucketUrl, url_md5
from mirror.store.base import Create, Headers, Store
from mirror.store.retry import RetryPolicy
from mirror.sync.run_sync import sync
from tests.conftest import MakePlace, Place
from tests.servers import READER
from tests.support.fault_proxy import Answer, FaultProxy
from tests.support.photos import fill, photo, url_of

T = TypeVar("T")

ONCE = RetryPolicy(attempts=1, base=0.0)
SOON = RetryPolicy(base=0.001, cap=0.001)
EVERYWHERE = ["file", "moto-obstore", "seaweedfs-aioboto3", "miniflare-obstore"]


@dataclass(frozen=True)
class Machine:
    """A state folder, and caches that are synced with it."""

    place: Place
    folder: Path

    def settings(self, state: str = "state", endpoint: str | None = None) -> Settings:
        bucket = {"bucket": {"endpoint": endpoint}} if endpoint else {}
        return self.place.settings(state={"dir": str(self.folder / state)}, **bucket)

    def read(self, state: str = "state") -> Index:
        return read_index(self.settings(state))[1]

    def sync(self, *numbers: int, cache: str = "cache", endpoint: str | None = None) -> None:
        fill(self.folder / cache, {url_of(number): photo(number) for number in numbers})
        settings = self.settings(endpoint=endpoint)
        section = msgspec.structs.replace(settings.cache, dir=str(self.folder / cache))
        assert sync(msgspec.structs.replace(settings, cache=section)).exit_status == 0

    def snapshots(self) -> list[Path]:
        return sorted((self.folder / "state" / "index").glob("*/*/v*"))


def at(place: Place, story: Callable[[Store], Awaitable[T]]) -> T:
    """Run a story with the store at a place; returns its result."""

    async def tell() -> T:
        store = place.open()
        try:
            return await story(store)
        finally:
            await store.aclose()

    return asyncio.run(tell())


def made(store: Store) -> Awaitable[Root]:
    """Create a mirror's root and nothing else."""
    return open_root(store, proven=True)


@pytest.fixture
def machine(tmp_path: Path, make_place: MakePlace) -> Machine:
    return Machine(make_place("file"), tmp_path)


def numbers(index: Index) -> set[int]:
    """The numbers below 100 of the photos that an index knows."""
    found = index.find(b"".join(url_md5(url_of(number)) for number in range(100)))
    return {number for number, at in enumerate(found) if at >= 0}


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", EVERYWHERE)
def test_synced_urls_are_known(name: str, make_place: MakePlace, tmp_path: Path) -> None:
    machine = Machine(make_place(name), tmp_path)
    machine.sync(1, 2, 3)
    root, index = read_index(machine.settings())
    assert numbers(index) == {1, 2, 3}
    machine.sync(4, cache="another")
    again, index = read_index(machine.settings())
    assert numbers(index) == {1, 2, 3, 4}
    assert again == root


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_missing_mirror_is_an_error_and_is_not_created(
    name: str, make_place: MakePlace, tmp_path: Path
) -> None:
    place = make_place(name)
    with pytest.raises(NotFound, match=f"no mirror at {place.url}; run mirror sync") as caught:
        read_index(place.settings(state={"dir": str(tmp_path / "state")}))
    assert caught.value.exit_status == 1
    with pytest.raises(NotFound):
        at(place, lambda store: store.get(FORMAT_KEY))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_mirror_without_a_catalog_knows_nothing(
    name: str, make_place: MakePlace, tmp_path: Path
) -> None:
    machine = Machine(make_place(name), tmp_path)
    root = at(machine.place, made)
    assert read_index(machine.settings())[0] == root
    assert len(machine.read()) == 0
    listed = at(machine.place, lambda store: store.list_page("", ""))
    assert [info.key for info in listed] == [FORMAT_KEY]
    machine.sync(1)
    assert numbers(machine.read()) == {1}


def test_reading_leaves_a_mirror_in_a_folder_unchanged(machine: Machine) -> None:
    machine.sync(1, 2)
    folder = Path(machine.place.url.path)
    before = contents(folder)
    assert numbers(machine.read("elsewhere")) == {1, 2}
    assert contents(folder) == before


@dataclass(frozen=True)
class Watched:
    machine: Machine
    proxy: FaultProxy

    def read(self) -> Index:
        """The photos known to a reader that shares no state with the syncs."""
        self.proxy.forget()
        return read_index(self.machine.settings("reader", self.proxy.endpoint), retry=SOON)[1]


@pytest.fixture
def watched(
    request: pytest.FixtureRequest, make_place: MakePlace, tmp_path: Path
) -> Iterator[Watched]:
    place = make_place(getattr(request, "param", "seaweedfs-obstore"))
    assert place.server is not None
    with FaultProxy(place.server.endpoint) as proxy:
        yield Watched(Machine(place, tmp_path), proxy)


@pytest.mark.parametrize("watched", ["seaweedfs-obstore", "seaweedfs-aioboto3"], indirect=True)
def test_a_key_that_may_only_read_is_enough(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = watched.machine
    machine.sync(1)
    machine.sync(1, 2)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER.secret_key)
    assert numbers(watched.read()) == {1, 2}
    assert {method for method, _ in watched.proxy.requests} == {"GET"}


def test_nothing_is_written_where_there_is_no_catalog_yet(watched: Watched) -> None:
    at(watched.machine.place, made)
    assert numbers(watched.read()) == set()
    assert {method for method, _ in watched.proxy.requests} <= {"GET", "HEAD"}


def test_known_data_files_are_not_read_again(watched: Watched) -> None:
    def data_files() -> int:
        return sum(path.endswith(".parquet") for _, path in watched.proxy.requests)

    watched.machine.sync(1)
    watched.machine.sync(1, 2)
    assert (numbers(watched.read()), data_files()) == ({1, 2}, 2)
    assert (numbers(watched.read()), data_files()) == ({1, 2}, 0)
    watched.machine.sync(1, 2, 3)
    assert (numbers(watched.read()), data_files()) == ({1, 2, 3}, 1)


def test_a_sync_of_another_cache_uses_the_same_index(watched: Watched) -> None:
    machine, proxy = watched.machine, watched.proxy
    machine.sync(1, 2, endpoint=proxy.endpoint)
    assert len(machine.snapshots()) == 1
    before = {path for _, path in proxy.requests if path.endswith(".parquet")}
    proxy.forget()
    machine.sync(2, 3, cache="another", endpoint=proxy.endpoint)
    read = {path for method, path in proxy.requests if method == "GET"}
    assert before
    assert not read & before
    assert len(machine.snapshots()) == 1


def test_a_copy_of_a_mirror_is_not_taken_for_it(machine: Machine) -> None:
    machine.sync(1)
    url = BucketUrl.parse(f"file://{machine.folder}/copy")
    shutil.copytree(machine.place.url.path, url.path)
    copy = dataclasses.replace(
        machine, place=dataclasses.replace(machine.place, layer={"url": str(url)})
    )
    machine.sync(1, 2)
    copy.sync(3, 4, 5, cache="another")
    machine.sync(1, 2, 6)
    assert numbers(copy.read()) == {1, 3, 4, 5}
    assert numbers(machine.read()) == {1, 2, 6}
    assert read_index(copy.settings())[0] == read_index(machine.settings())[0]


def test_a_mirror_that_was_replaced_is_not_taken_for_the_old_one(machine: Machine) -> None:
    machine.sync(1, 2)
    shutil.rmtree(machine.place.url.path)
    machine.sync(3)
    assert 3 in numbers(machine.read())
    assert numbers(machine.read()) == numbers(machine.read("new"))


def test_a_read_only_state_folder_is_not_needed(machine: Machine) -> None:
    machine.sync(1, 2)
    (machine.folder / "file").write_text("a file is in the way")
    for folder in ("file", "file/below"):
        index = machine.read(folder)
        assert numbers(index) == {1, 2}
        assert index.path is None


@pytest.mark.usefixtures("clean_environment")
def test_snapshots_are_in_the_state_folder_for_any_bucket_and_cache(tmp_path: Path) -> None:
    assert Settings().index_dir == tmp_path / "state-home" / "mirror" / "index"
    assert Settings(state=StateSettings(dir="/s")).index_dir == Path("/s/index")


def test_it_reads_on_a_thread_beside_an_event_loop(machine: Machine) -> None:
    machine.sync(1)

    async def beside() -> Index:
        return (await asyncio.to_thread(read_index, machine.settings()))[1]

    assert numbers(asyncio.run(beside())) == {1}


def test_transient_errors_are_retried(watched: Watched) -> None:
    watched.machine.sync(1)
    refused: set[str] = set()

    def once(request: object) -> Answer | None:
        target = str(getattr(request, "target", ""))
        if target in refused:
            return None
        refused.add(target)
        return Answer(503)

    watched.proxy.rule = once
    assert numbers(watched.read()) == {1}
    assert refused


def test_an_unknown_format_is_refused(machine: Machine) -> None:
    body = b'{"format": 99, "id": "x"}'
    at(machine.place, lambda store: store.put(FORMAT_KEY, body, Create(), Headers()))
    with pytest.raises(FormatError, match=r"format 99\b.*upgrade"):
        read_index(machine.settings())


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        ({"url": "s3://no-such-bucket/inat"}, BucketMissing, "no-such-bucket does not exist"),
        ({"endpoint": "http://127.0.0.1:9"}, Unreachable, "cannot be reached"),
        ({"url": "http://x"}, ConfigError, "bucket.url"),
        ({"url": None}, ConfigError, "No bucket is configured"),
    ],
)
def test_errors_are_clear(
    layer: dict[str, str], error: type[MirrorError], words: str, make_place: MakePlace
) -> None:
    there = make_place("seaweedfs-obstore")
    place = dataclasses.replace(there, layer={**there.layer, **layer})
    with pytest.raises(error, match=words):
        read_index(place.settings(), retry=ONCE)


@pytest.mark.parametrize("name", ["a b", "ü", "100%", "a#b?c", "%"])
def test_a_mirrors_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    url = str(BucketUrl("file", "", f"{tmp_path}/{name}"))
    machine = Machine(Place("file", {"url": url}), tmp_path)
    machine.sync(1)
    assert machine.read().sighting(url_md5(url_of(1))) is not None
    assert (tmp_path / name / "catalog").is_dir()


def test_a_folder_name_that_the_catalog_would_decode_is_refused(tmp_path: Path) -> None:
    url = str(BucketUrl("file", "", f"{tmp_path}/a%20b"))
    machine = Machine(Place("file", {"url": url}), tmp_path)
    with pytest.raises(ConfigError, match=r"a%20b has an escape .* choose another folder"):
        machine.sync(1)
    assert not (tmp_path / "a b").exists()
