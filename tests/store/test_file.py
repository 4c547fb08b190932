"""The engine for folders: its promises beyond the contract of all stores."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from mirror.errors import (
    AccessDenied,
    AlreadyExists,
    Busy,
    NotFound,
    PreconditionFailed,
    StoreError,
)
from mirror.layout import BucketUrl
from mirror.store.base import Create, Headers, IfMatch, Overwrite, PutMode
from mirror.store.engines.file import FileStore, is_temporary

PLAIN = Headers()


def store_at(folder: Path) -> FileStore:
    return FileStore(BucketUrl("file", "", str(folder)))


def listed(store: FileStore) -> list[str]:
    return [info.key for info in asyncio.run(store.list_page("", ""))]


# A store whose process dies at a given step of a PUT.
KILLED = """
import asyncio, os, signal, sys
from mirror.layout import BucketUrl
from mirror.store.base import Create, Headers, Overwrite
from mirror.store.engines.file import FileStore

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

async def dying():
    yield b"first part"
    die()

folder, step = sys.argv[1:]
store = FileStore(BucketUrl("file", "", folder))
if step == "parts":
    asyncio.run(store.put_multipart("objects/ab/k", dying, 10, Headers()))
else:
    store._publish = die
    mode = Create() if step == "create" else Overwrite()
    asyncio.run(store.put("objects/ab/k", b"body", mode, Headers()))
"""


@pytest.mark.parametrize("step", ["create", "overwrite", "parts"])
def test_a_killed_write_leaves_no_object(step: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), step], check=False)
    assert done.returncode == -signal.SIGKILL
    store = store_at(tmp_path)
    left = [name for _, _, names in os.walk(tmp_path) for name in names]
    assert len(left) == 1, "the kill came too early to show anything"
    assert is_temporary(left[0]), "gc must know it"
    assert listed(store) == []
    with pytest.raises(NotFound):
        asyncio.run(store.get("objects/ab/k"))
    asyncio.run(store.put("objects/ab/k", b"again", Create(), PLAIN))
    assert listed(store) == ["objects/ab/k"]


@pytest.mark.parametrize("mode", [Create(), Overwrite(), IfMatch('"other"')])
def test_a_put_leaves_nothing_beside_its_object(mode: PutMode, tmp_path: Path) -> None:
    store = store_at(tmp_path)
    asyncio.run(store.put("k", b"first", Create(), PLAIN))
    with suppress(AlreadyExists, PreconditionFailed):
        asyncio.run(store.put("k", b"second", mode, PLAIN))
    assert {name for name in os.listdir(tmp_path) if not name.endswith("lock")} == {"k"}


def test_an_object_may_be_read_by_a_web_server(tmp_path: Path) -> None:
    asyncio.run(store_at(tmp_path).put("k", b"x", Create(), PLAIN))
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o644


def test_a_reader_meets_the_old_bytes_or_the_new_ones_whole(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    bodies = [bytes([n]) * 200_000 for n in range(2)]

    async def story() -> None:
        await store.put("k", bodies[0], Create(), PLAIN)

        async def write() -> None:
            for n in range(40):
                await store.put("k", bodies[n % 2], Overwrite(), PLAIN)

        async def read() -> None:
            for _ in range(40):
                assert await store.get("k") in bodies

        await asyncio.gather(write(), read())

    asyncio.run(story())


async def parts() -> AsyncIterator[bytes]:
    yield b"second"


REPLACING: dict[str, Callable[[FileStore, str], Coroutine[Any, Any, object]]] = {
    "overwrite": lambda store, _: store.put("k", b"second", Overwrite(), PLAIN),
    "if match": lambda store, etag: store.put("k", b"second", IfMatch(etag), PLAIN),
    "in parts": lambda store, _: store.put_multipart("k", parts, 10, PLAIN),
}


@pytest.mark.parametrize("how", REPLACING)
def test_a_replacement_is_on_disk_before_it_gets_its_name(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(tmp_path)
    etag = asyncio.run(store.put("k", b"first", Create(), PLAIN))
    synced: list[tuple[int, bytes]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, (tmp_path / "k").read_bytes()))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        asyncio.run(REPLACING[how](store, etag))
    assert (tmp_path / "k").read_bytes() == b"second"
    assert synced == [((tmp_path / "k").stat().st_ino, b"first")]


RACING = """
import sys
from mirror.errors import AlreadyExists
from mirror.layout import BucketUrl
from mirror.store.base import Create
from mirror.store.engines.file import FileStore

store = FileStore(BucketUrl("file", "", sys.argv[1]))
name = sys.argv[2]
print("ready", flush=True)
sys.stdin.read()
for key in range(300):
    try:
        store._put(f"{key}", name.encode(), Create())
    except AlreadyExists:
        continue
    print(key)
"""


def test_of_many_processes_one_creates_each_object(tmp_path: Path) -> None:
    start, gun = os.pipe()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACING, str(tmp_path), str(n)],
            stdin=start,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    os.close(start)
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    os.close(gun)
    won = [racer.communicate()[0].split() for racer in racers]
    assert sorted(key for keys in won for key in keys) == sorted(str(key) for key in range(300))
    for number, keys in enumerate(won):
        assert {(tmp_path / key).read_text() for key in keys} <= {str(number)}


@contextmanager
def as_somebody() -> Iterator[None]:
    """Permissions do not bind root, so become another user for a while."""
    me = os.geteuid()
    os.seteuid(65534 if me == 0 else me)
    try:
        yield
    finally:
        os.seteuid(me)


Action = Callable[[FileStore], Coroutine[Any, Any, object]]


@pytest.mark.parametrize("how", ["if match", "in parts", "delete"])
def test_a_stopped_holder_of_the_lock_is_not_waited_for_forever(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.store.engines.file.LOCK_SECONDS", 0.1)
    store = store_at(tmp_path)
    etag = asyncio.run(store.put("k", b"first", Create(), PLAIN))
    action = REPLACING.get(how) or (lambda store, etag: store.delete(["k"], [etag]))
    with FileLock(tmp_path / ".mirror-lock"), pytest.raises(Busy, match="stopped"):
        asyncio.run(action(store, etag))
    assert (tmp_path / "k").read_bytes() == b"first"


@pytest.mark.parametrize("stalls", ["before the name", "at the name"])
def test_a_process_that_stalls_publishes_no_object_that_is_old_already(
    stalls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gc would take it for an old one before its row is committed."""
    hours = 30 * 24
    passed = 0.0
    real = os.link

    def stall(path: Path) -> None:
        nonlocal passed
        passed += hours * 3600
        written = path.stat().st_mtime - hours * 3600
        os.utime(path, (written, written))

    def link(temporary: Path, target: Path) -> None:
        if stalls == "at the name":
            stall(temporary)
        real(temporary, target)

    def write_bytes(path: Path, body: bytes) -> None:
        with path.open("wb") as file:
            file.write(body)
        if stalls == "before the name":
            stall(path)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    monkeypatch.setattr("mirror.store.engines.file.since_boot", lambda: passed)
    store = store_at(tmp_path)
    etag = asyncio.run(store.put("k", b"first", Create(), PLAIN))
    info = asyncio.run(store.head("k"))
    assert info.etag == etag
    assert abs((info.last_modified - asyncio.run(store.now())).total_seconds()) < 60


def test_delete_compares_the_etag_of_each_file(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    etags = [asyncio.run(store.put(key, b"first", Create(), PLAIN)) for key in ("a", "b", "c")]
    asyncio.run(store.put("b", b"first", Overwrite(), PLAIN))  # the same bytes, written again
    failures = asyncio.run(store.delete(["a", "b", "c", "never-was"], [*etags, "x"]))
    assert isinstance(failures.pop("b"), PreconditionFailed)
    assert failures == {}
    assert listed(store) == ["b"]


async def deleted(store: FileStore, key: str) -> None:
    for error in (await store.delete([key])).values():
        raise error


FORBIDDEN: dict[str, Action] = {
    "put": lambda store: store.put("new", b"x", Create(), PLAIN),
    "put in a new folder": lambda store: store.put("objects/ab/new", b"x", Create(), PLAIN),
    "delete": lambda store: deleted(store, "k"),
    "get": lambda store: store.get("k"),
    "get_range": lambda store: store.get_range("k", 0, 1),
    "list": lambda store: store.list_page("closed/", ""),
}


@pytest.mark.parametrize("action", FORBIDDEN)
def test_a_lack_of_permission_is_access_denied(action: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(store_at(folder).put("k", b"x", Create(), PLAIN))
        (folder / "k").chmod(0)
        (folder / "closed").mkdir(0)
        folder.chmod(0o555)
        may = "writable" if action.startswith(("put", "delete")) else "readable"
        with as_somebody(), pytest.raises(AccessDenied, match=f"permission denied; .* {may}"):
            asyncio.run(FORBIDDEN[action](store_at(folder)))
        folder.chmod(0o755)


@pytest.mark.parametrize("taken", ["objects", "objects/ab"])
def test_a_file_where_a_folder_belongs_is_a_store_error(taken: str, tmp_path: Path) -> None:
    store = store_at(tmp_path)
    asyncio.run(store.put(taken, b"a stranger's file", Create(), PLAIN))
    with pytest.raises(StoreError):
        asyncio.run(store.put("objects/ab/k", b"x", Create(), PLAIN))
    assert (tmp_path / taken).read_bytes() == b"a stranger's file"


@pytest.mark.parametrize("operation", ["get", "get_range", "head"])
def test_a_folder_is_not_an_object(operation: str, tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    store = store_at(tmp_path)
    arguments = (0, 1) if operation == "get_range" else ()
    with pytest.raises(NotFound):
        asyncio.run(getattr(store, operation)("objects", *arguments))
    assert listed(store) == []


def test_a_mirror_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert listed(store_at(tmp_path / "not" / "yet")) == []


KEYS = ["a.txt", "a/1", "a/b/2", "a/b.c", "a0", "a-/x", "b", "é/1", "z/\U0001f331"]


def test_keys_are_listed_in_order_across_folders(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    for key in KEYS:
        asyncio.run(store.put(key, b"x", Create(), PLAIN))
    assert listed(store) == sorted(KEYS)
    for after in ["", *KEYS, "a", "a/", "a/b/", "zz"]:
        rest = [info.key for info in asyncio.run(store.list_page("", after))]
        assert rest == [key for key in sorted(KEYS) if key > after], after


def test_a_page_opens_no_folder_outside_its_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(tmp_path)
    for number in range(40):
        asyncio.run(store.put(f"objects/{number:02}/x", b"x", Create(), PLAIN))
    monkeypatch.setattr("mirror.store.engines.file.LIST_PAGE", 3)
    opened: list[str] = []
    real = os.scandir

    def scandir(path: Any) -> Any:
        opened.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    page = asyncio.run(store.list_page("objects/", "objects/20/x"))
    assert [info.key for info in page] == [f"objects/{n}/x" for n in (21, 22, 23)]
    assert opened == ["objects", "20", "21", "22", "23"]
