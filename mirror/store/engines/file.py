"""The engine for a mirror in a folder (`file:///folder`): the same contract without a server.

An object appears whole or not at all: a temporary file gets its name by a link or a rename. Create is
exclusive between processes, because link(2) refuses a name that exists. A new object is acknowledged
before it is on disk; `Catalog` syncs it to disk before it commits a row that names it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice, zip_longest
from pathlib import Path
from typing import BinaryIO, Final

from filelock import FileLock, Timeout

from mirror.errors import (
    AccessDenied,
    AlreadyExists,
    Busy,
    NotFound,
    PreconditionFailed,
    StoreError,
)
from mirror.layout import BucketUrl
from mirror.store.base import (
    LIST_PAGE,
    Chunks,
    Create,
    Created,
    Headers,
    IfMatch,
    NewObject,
    ObjectInfo,
    Overwrite,
    PutMode,
    create_blocking,
)
from mirror.system.clock import since_boot
from mirror.system.files import open_private, open_regular
from mirror.system.folders import folder_below

# Prefix of names that a listing skips: temporary files, and the lock for conditional PUTs.
HIDDEN = ".mirror-"
# An object's age counts from its name. A process that stalls between the bytes and the name would
# publish an object that is old already, which gc may delete.
_STALLED_SECONDS: Final = 60.0
_IS_TEMPORARY: Final = re.compile(re.escape(HIDDEN) + "[0-9a-f]{16}").fullmatch
# How long to wait for the folder's lock. A process holds it for two system calls, so a longer wait
# means that its holder is stopped.
LOCK_SECONDS: Final = 15.0


def is_temporary(name: str) -> bool:
    """Whether a file has the name of an unfinished write. No other file has 16 random digits."""
    return _IS_TEMPORARY(name) is not None


class FileStore:
    """Objects as files below a folder. A web server must add Content-Type and Cache-Control."""

    def __init__(self, url: BucketUrl) -> None:
        self.url = str(url)
        self._root = Path(url.path)

    async def put(self, key: str, body: bytes, mode: PutMode, headers: Headers) -> str:
        return await asyncio.to_thread(self._put, key, body, mode)

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        def create(new: NewObject) -> None:
            self._put(new.key, new.body, Create())

        return await asyncio.to_thread(create_blocking, create, objects, stopped)

    def _put(self, key: str, body: bytes, mode: PutMode) -> str:
        with self._translated(f"PUT {key}"):
            temporary = self._temporary(key)
            try:
                with self._new(temporary) as file:
                    file.write(body)
                return self._publish(temporary, self._path(key), mode)
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()

    def _publish(self, temporary: Path, target: Path, mode: PutMode) -> str:
        began = since_boot()
        os.utime(temporary)
        self._give_name(temporary, target, mode)
        if since_boot() - began > _STALLED_SECONDS:
            os.utime(target)
        return _etag(target.stat())

    def _give_name(self, temporary: Path, target: Path, mode: PutMode) -> None:
        if isinstance(mode, Create):
            try:
                os.link(temporary, target)
            except FileExistsError:
                raise AlreadyExists(f"PUT {target}: the file exists.") from None
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                    raise StoreError(
                        f"PUT {target}: this file system has no hard links, which a mirror in a "
                        "folder needs; choose a folder on another one."
                    ) from None
                raise
            return
        # A loss of power leaves either the old bytes or the new ones. Flushing them before the lock
        # is taken keeps the lock short.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        with self._locked(f"PUT {target}"):
            if isinstance(mode, IfMatch) and _etag_of(target) != mode.etag:
                raise PreconditionFailed(f"PUT {target}: the file has changed.")
            temporary.replace(target)

    @contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        """Hold the lock under which a file is compared and replaced or deleted."""
        path = self._root / f"{HIDDEN}lock"
        try:
            with FileLock(path, timeout=LOCK_SECONDS):
                yield
        except Timeout:
            raise Busy(
                f"{what}: another process has held {path} for {LOCK_SECONDS:.0f} seconds; if it is "
                "stopped, let it continue or end it, and run again."
            ) from None

    async def put_multipart(
        self, key: str, chunks: Chunks, part_size: int, headers: Headers
    ) -> str:
        with self._translated(f"PUT {key}"):
            temporary = self._temporary(key)
            try:
                with self._new(temporary) as file:
                    async for chunk in chunks():
                        await asyncio.to_thread(file.write, chunk)
                return await asyncio.to_thread(
                    self._publish, temporary, self._path(key), Overwrite()
                )
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()

    async def get(self, key: str) -> bytes:
        with self._translated(f"GET {key}"):
            return await asyncio.to_thread(self._read, key)

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        with self._translated(f"GET {key}"):
            return await asyncio.to_thread(self._read, key, start, length)

    def _read(self, key: str, start: int = 0, length: int = -1) -> bytes:
        *folders, name = self._path(key).relative_to(self._root).parts
        with folder_below(self._root, *folders) as folder:
            descriptor, _ = open_regular(name, dir_fd=folder)
        with open(descriptor, "rb") as file:
            return file.read() if length < 0 else os.pread(descriptor, length, start)

    async def head(self, key: str) -> ObjectInfo:
        with self._translated(f"HEAD {key}"):
            path = self._path(key)
            if path.is_dir():
                raise IsADirectoryError
            return _info(key, path.stat())

    async def now(self) -> datetime:
        with self._translated("PUT a file for the time"):
            return await asyncio.to_thread(self._now)

    def _now(self) -> datetime:
        with tempfile.TemporaryFile(dir=self._root) as file:
            file.write(b"now")  # the file system dates what is written
            file.flush()
            return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)

    async def list_page(self, prefix: str, after: str) -> list[ObjectInfo]:
        with self._translated(f"LIST {prefix}"):
            return await asyncio.to_thread(
                lambda: list(islice(self._walk(prefix, after), LIST_PAGE))
            )

    def _walk(self, folder: str, after: str) -> Iterator[ObjectInfo]:
        """Walk objects below `folder` with keys greater than `after`, in key order.

        The order lets a page end the walk early.

        Args:
            folder: empty, or ending with `/`.
            after: a key, or empty.
        """
        try:
            entries = [(_sort_name(entry), entry) for entry in os.scandir(self._root / folder)]
        except FileNotFoundError:
            return
        for name, entry in sorted(entries, key=lambda named: named[0]):
            key = folder + name
            if name.startswith(HIDDEN):
                continue
            if name.endswith("/"):
                if f"{key[:-1]}0" > after:  # "0" follows "/": the folder may hold greater keys
                    yield from self._walk(key, after)
            elif key > after:
                with suppress(FileNotFoundError):
                    yield _info(key, entry.stat())

    async def delete(self, keys: Sequence[str], etags: Sequence[str] = ()) -> dict[str, StoreError]:
        return await asyncio.to_thread(self._delete, keys, etags)

    def _delete(self, keys: Sequence[str], etags: Sequence[str]) -> dict[str, StoreError]:
        failures: dict[str, StoreError] = {}
        for key, etag in zip_longest(keys, etags):
            try:
                with self._translated(f"DELETE {key}"):
                    self._delete_one(self._path(key), etag)
            except StoreError as error:
                if not isinstance(error, NotFound):
                    failures[key] = error
        return failures

    def _delete_one(self, path: Path, etag: str | None) -> None:
        if etag is None:
            path.unlink()
            return
        with self._locked(f"DELETE {path}"):
            if _etag(path.stat()) != etag:
                raise PreconditionFailed(f"DELETE {path}: the file has changed.")
            path.unlink()

    async def aclose(self) -> None:
        """Nothing to close."""

    def _path(self, key: str) -> Path:
        if any(piece in ("", ".", "..") for piece in key.split("/")):
            raise StoreError(f"{key!r} is not a key: it would leave the mirror's folder.")
        return self._root / key

    def _temporary(self, key: str) -> Path:
        """A name for an unfinished write beside an object, whose folder is made."""
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._path(key)
        folders = path.relative_to(self._root).parts[:-1]
        with folder_below(self._root, *folders, make=True):
            return path.with_name(f"{HIDDEN}{secrets.token_hex(8)}")

    def _new(self, path: Path) -> BinaryIO:
        """Open a new file. A name that exists, a link included, is an error."""
        file = open(path, "xb", opener=open_private)  # noqa: SIM115 - for a with block
        os.fchmod(file.fileno(), 0o644)
        return file

    def _translated(self, what: str) -> _Translated:
        return _Translated(what)


class _Translated:
    """A context that translates the operating system's errors into those of the contract."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
            raise NotFound(f"{self._what}: there is no such file.") from None
        if isinstance(error, PermissionError):
            may = "writable" if self._what.startswith(("PUT", "DELETE")) else "readable"
            raise AccessDenied(
                f"{self._what}: permission denied; make the mirror's folder {may} for this user."
            ) from None
        if isinstance(error, OSError):
            raise StoreError(f"{self._what}: {error.strerror or error}.") from None


def _sort_name(entry: os.DirEntry[str]) -> str:
    """The name by which an entry sorts. A folder gets a `/`, as its keys have."""
    return f"{entry.name}/" if entry.is_dir() else entry.name


def _etag_of(path: Path) -> str | None:
    try:
        return _etag(path.stat())
    except FileNotFoundError:
        return None


def _etag(stat: os.stat_result) -> str:
    return f'"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"'


def _info(key: str, stat: os.stat_result) -> ObjectInfo:
    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
    return ObjectInfo(key, stat.st_size, _etag(stat), modified)
