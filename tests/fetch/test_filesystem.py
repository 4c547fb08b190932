"""`mirror://`: fsspec's own tests of reading, and programs that use fsspec."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests
from hypothesis import given
from hypothesis import strategies as st

from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.fetch.filesystem import MirrorFileSystem
from mirror.fetch.path_tree import PathTree
from mirror.sync.run_sync import SyncOptions, sync
from tests.support.photos import blank, fill, photo, url_of

ROOT = Path(__file__).parents[2]
HOST = "inaturalist-open-data.s3.amazonaws.com"


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    """Register the file system, as the entry point of an installed package does."""
    fsspec.register_implementation("mirror", MirrorFileSystem, clobber=True)


def test_the_protocol_is_an_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["fsspec.specs"]["mirror"].partition(":")
    assert getattr(import_module(module), name) is MirrorFileSystem


def settings_of(folder: Path, **sections: dict[str, Any]) -> Settings:
    place = {
        "bucket": {"url": f"file://{folder}/mirror"},
        "state": {"dir": str(folder / "state")},
    }
    return merge([Layer("test", place | sections)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of 12 photos, a flagged frame and a table, and a dataset with all of them."""
    folder = tmp_path_factory.mktemp("filesystem")
    bodies = {url_of(n): photo(n) for n in range(12)}
    bodies[f"https://static.inaturalist.org/photos/3/medium.jpg?1545{3:03}"] = photo(3)
    bodies["http://127.0.0.1/plain.jpg"] = photo(50)
    bodies["https://example.org/../../escape.jpg"] = photo(51)
    cache = {"cache": {"dir": str(folder / "cache")}}
    fill(folder / "cache", bodies | {url_of(99): blank()})
    sync(settings_of(folder, **cache))
    unjudged = {"https://example.org/table.jsonl": b'{"a": 1}\n{"a": 2}\n'}
    fill(folder / "cache", unjudged)
    sync(settings_of(folder, **cache, sync={"inspect": "off"}))
    records = [
        {"image_url": url, "species": f"class {at % 3}"}
        for at, url in enumerate([*bodies, url_of(99), url_of(5000)])
    ]
    dataset = "".join(f"{json.dumps(record)}\n" for record in records)
    (folder / "train.jsonl").write_text(dataset)
    (folder / "mirror.toml").write_text(
        f'[bucket]\nurl = "file://{folder}/mirror"\n[state]\ndir = "{folder}/state"\n'
    )
    return folder


@pytest.fixture
def options(folder: Path) -> dict[str, Any]:
    return {"config": str(folder / "mirror.toml"), "dataset": str(folder / "train.jsonl")}


@pytest.fixture
def files(options: dict[str, Any]) -> MirrorFileSystem:
    files: MirrorFileSystem = fsspec.filesystem("mirror", **options)
    return files


def content_hash(number: int) -> str:
    from mirror.content.digest import digest_of

    return digest_of(photo(number)).content_hash.hex()


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (f"{HOST}/photos/3/medium.jpg", 3),
        (f"https://{HOST}/photos/3/medium.jpg", 3),
        ("static.inaturalist.org/photos/3/medium.jpg?1545003", 3),
        ("127.0.0.1/plain.jpg", 50),
        ("http://127.0.0.1/plain.jpg", 50),
        ("HASH", 7),
        ("HASH.jpg", 7),
        ("objects/HA/HASH.jpg", 7),
        ("class 0/HASH.jpg", 7),
    ],
)
def test_an_image_has_many_paths(options: dict[str, Any], path: str, number: int) -> None:
    digits = content_hash(number)
    path = path.replace("HASH", digits).replace("HA/", f"{digits[:2]}/")
    with fsspec.open(f"mirror://{path}", **options) as file:
        assert file.read() == photo(number)
    files: MirrorFileSystem = fsspec.filesystem("mirror", **options)
    (name,) = files.glob(path)
    assert "://" not in name
    assert files.info(path)["size"] == len(photo(number))
    assert files.ukey(path) == digits
    assert files.cat_file(path, 10, 20) == photo(number)[10:20]
    assert files.isfile(path)
    assert not files.isdir(path)


def test_a_missing_file_is_an_oserror(files: MirrorFileSystem) -> None:
    for path, words in (
        (f"{HOST}/photos/5000/medium.jpg", "not in the mirror"),
        (f"{HOST}/photos/99/medium.jpg", "blank"),
        ("f" * 32, "not in the mirror"),
    ):
        assert not files.exists(path)
        for read in (files.info, files.cat_file, files.open, files.ls):
            with pytest.raises(FileNotFoundError, match=words):
                read(path)


def test_many_files_are_read_together(files: MirrorFileSystem) -> None:
    paths = [f"{HOST}/photos/{n}/medium.jpg" for n in (1, 2, 99)]
    bodies = files.cat(paths, on_error="return")
    assert [bodies[path] for path in paths[:2]] == [photo(1), photo(2)]
    assert isinstance(bodies[paths[2]], FileNotFoundError)
    assert list(files.cat(paths, on_error="omit")) == paths[:2]
    with pytest.raises(FileNotFoundError):
        files.cat(paths)
    assert len(files.cat(f"{HOST}/photos/*/medium.jpg")) == 12


def test_a_damaged_object_is_no_file_of_zeros(tmp_path: Path) -> None:
    fill(tmp_path / "cache", {url_of(1): photo(1)})
    sync(settings_of(tmp_path, cache={"dir": str(tmp_path / "cache")}))
    (damaged,) = (tmp_path / "mirror" / "objects").rglob("*.jpg")
    damaged.write_bytes(bytes(len(photo(1))))
    files = MirrorFileSystem(settings=settings_of(tmp_path))
    with pytest.raises(OSError, match="repair") as told:
        files.cat_file(url_of(1))
    assert told.value.errno == errno.EIO


@pytest.mark.parametrize(
    "write",
    [
        lambda files: files.open("a.jpg", "wb"),
        lambda files: files.open("a.jpg", "xb"),
        lambda files: files.open("a.jpg", "ab"),
        lambda files: files.open("a.txt", "w"),
        lambda files: files.pipe("a.jpg", b"x"),
        lambda files: files.pipe_file("a.jpg", b"x", mode="create"),
        lambda files: files.touch("a.jpg"),
        lambda files: files.put_file(__file__, "a.jpg"),
        lambda files: files.put(__file__, "a.jpg"),
        lambda files: files.rm(url_of(1)),
        lambda files: files.rm_file(url_of(1)),
        lambda files: files.mv(url_of(1), "a.jpg"),
        lambda files: files.cp_file(url_of(1), "a.jpg"),
        lambda files: files.copy(url_of(1), "a.jpg"),
        lambda files: files.mkdir("a"),
        lambda files: files.makedirs("a/b"),
        lambda files: files.rmdir("a"),
    ],
)
def test_writing_is_refused(files: MirrorFileSystem, write: Any) -> None:
    with pytest.raises(OSError, match="read-only") as told:
        write(files)
    assert told.value.errno == errno.EROFS
    assert files.cat_file(url_of(1)) == photo(1)


def test_a_dataset_is_listed_by_its_urls(files: MirrorFileSystem) -> None:
    assert files.ls("", detail=False) == [
        "127.0.0.1",
        HOST,
        "objects",
        "static.inaturalist.org",
    ]
    assert files.ls(f"{HOST}/photos/3", detail=False) == [f"{HOST}/photos/3/medium.jpg"]
    assert len(files.find("")) == 15
    assert files.isdir(f"{HOST}/photos")
    assert not files.exists(f"{HOST}/photo")


def test_an_unsafe_path_is_listed_by_its_content_hash(
    files: MirrorFileSystem, tmp_path: Path
) -> None:
    """A dataset may be hostile; `get` of a listing writes to the paths in it."""
    assert not any(".." in path for path in files.find(""))
    assert f"objects/{content_hash(51)[:2]}/{content_hash(51)}.jpg" in files.find("")
    files.get("", str(tmp_path / "copy"), recursive=True)
    assert len(list((tmp_path / "copy").rglob("*.jp*"))) == 15


def test_without_a_dataset_the_listing_is_empty(folder: Path) -> None:
    files = MirrorFileSystem(config=folder / "mirror.toml")
    assert files.ls("") == []
    assert files.ls(url_of(1), detail=False) == [url_of(1).removeprefix("https://")]


def test_the_file_system_pickles(files: MirrorFileSystem) -> None:
    again = pickle.loads(pickle.dumps(files))
    assert again.cat_file(url_of(1)) == photo(1)
    assert again == files


def test_a_forked_child_reads(files: MirrorFileSystem, options: dict[str, Any]) -> None:
    """fsspec makes new file systems in a forked child, which cannot use deltalake."""
    assert files.cat_file(url_of(1)) == photo(1)
    child = os.fork()
    if not child:
        status = 1
        try:
            anew = fsspec.filesystem("mirror", **options)
            status = 0 if anew is not files and anew.cat_file(url_of(2)) == photo(2) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_pandas_reads_through_it(options: dict[str, Any]) -> None:
    import pandas as pd  # type: ignore[import-untyped, unused-ignore]

    del options["dataset"]
    url = "mirror://https://example.org/table.jsonl"
    frame = pd.read_json(url, lines=True, storage_options=options)
    assert frame["a"].tolist() == [1, 2]


def test_datasets_opens_images_through_it(options: dict[str, Any], tmp_path: Path) -> None:
    import datasets  # type: ignore[import-untyped, unused-ignore]

    rows = [{"image": f"mirror://{url_of(n)}", "number": n} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    loaded = datasets.load_dataset(
        "json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path)
    )
    fsspec.filesystem("mirror", **options)
    before = dict(fsspec.config.conf)
    fsspec.config.conf["mirror"] = options
    try:
        images = loaded.cast_column("image", datasets.Image())
        assert [row["image"].size for row in images] == [(48, 48)] * 4
    finally:
        fsspec.config.conf.clear()
        fsspec.config.conf.update(before)


def test_imagefolder_has_the_classes_as_labels(options: dict[str, Any], tmp_path: Path) -> None:
    import datasets  # type: ignore[import-untyped, unused-ignore]

    options["label_field"] = "species"
    loaded = datasets.load_dataset(
        "imagefolder",
        data_files="mirror://**",
        storage_options=options,
        split="train",
        cache_dir=str(tmp_path),
    )
    assert loaded.features["label"].names == ["class 0", "class 1", "class 2"]
    assert len(loaded) == 14  # two of 15 have the same content and class
    assert loaded[0]["image"].size == (48, 48)


@given(st.lists(st.lists(st.sampled_from("ab.0-"), min_size=1, max_size=4), max_size=30))
def test_folders_agree_with_a_walk(pieces: list[list[str]]) -> None:
    paths = {"/".join(one).encode() for one in pieces}
    tree = PathTree(paths)
    assert list(tree) == sorted(paths)

    def walk(folder: bytes) -> Iterator[bytes]:
        children = list(tree.children(folder))
        assert len(set(children)) == len(children)
        for path, below in children:
            assert tree.is_folder(path) or not below
            if below:
                yield from walk(path)
            else:
                yield path

    assert sorted(walk(b"")) == sorted(paths)


class Fillable(MirrorFileSystem):
    """Files that fsspec's tests write reach the mirror through a cache and a sync."""

    protocol = "fillable"
    cachable = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._there: set[str] = set()
        self._new: dict[str, bytes] = {}
        self._known: set[str] = {"https://example.org/first"}
        fill(folder / "cache", {"https://example.org/first": b"first"})
        self._sync()
        super().__init__(settings=settings_of(folder), dataset=folder / "files.jsonl")

    def _sync(self) -> None:
        cache = {"cache": {"dir": str(self._folder / "cache")}, "sync": {"inspect": "off"}}
        report = sync(settings_of(self._folder, **cache), SyncOptions())
        assert not report.failed
        self._list()

    def _list(self) -> None:
        lines = (f'{{"image_url": "https://{path}"}}\n' for path in sorted(self._there))
        (self._folder / "files.jsonl").write_text("".join(lines))

    @property
    def _tree(self) -> PathTree:
        if self._new:
            fill(self._folder / "cache", {f"https://{p}": body for p, body in self._new.items()})
            self._known.update(self._new)
            self._new.clear()
            self._sync()
            self.invalidate_cache()
        return super()._tree

    def _found(self, paths: Any) -> Any:
        _ = self._tree
        return super()._found(paths)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        path = self._strip_protocol(path)
        self._there.add(path)
        if path in self._known:
            self._list()
            self._paths = None
        else:
            self._new[path] = value

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        self.pipe_file(path, path.encode())

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        pass

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        below = self._strip_protocol(path)
        self._there = {one for one in self._there if not f"{one}/".startswith(f"{below}/")}
        self._list()
        self._paths = None


@pytest.fixture(scope="module")
def fillable(tmp_path_factory: pytest.TempPathFactory) -> Fillable:
    return Fillable(tmp_path_factory.mktemp("fillable"))


class TestReading(AbstractGetTests, AbstractFixtures):  # type: ignore[misc, unused-ignore]
    """fsspec's own tests of getting files.

    Of its abstract tests these are the ones that read. Copy, put and pipe write to the file system,
    which this one refuses; so does the only test of open, which is of exclusive creation: that they
    are refused is tested above.
    """

    @pytest.fixture
    def fs(self, fillable: Fillable) -> Iterator[Fillable]:
        yield fillable
        fillable.rm("example.org", recursive=True)

    @pytest.fixture
    def fs_path(self) -> str:
        return "example.org/files"

    @pytest.fixture
    def local_fs(self) -> LocalFileSystem:
        return LocalFileSystem(auto_mkdir=True)
