"""The contract of an object store. Every engine fulfils it, and every wrapper preserves it.

A store is rooted at a bucket's prefix. Keys are relative to the prefix and use `/`. Every operation
is one request (a multipart PUT is several), raises only errors of `mirror.errors` and never retries.
`mirror.store.retry` and `mirror.store.throttle` wrap a store to add that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, TypeVar

from mirror.errors import AlreadyExists, NotFound, PreconditionFailed, StoreError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Create:
    """Conditional PUT, `If-None-Match: *`: AlreadyExists when the key is taken."""


@dataclass(frozen=True, slots=True)
class Overwrite:
    """Unconditional PUT: the last writer wins."""


@dataclass(frozen=True, slots=True)
class IfMatch:
    """Conditional PUT: PreconditionFailed unless the key holds this ETag."""

    etag: str


PutMode = Create | Overwrite | IfMatch


class Headers(NamedTuple):
    """Headers that are stored with an object and served with it."""

    content_type: str = "application/octet-stream"
    cache_control: str | None = None
    content_disposition: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The facts that a server gives about an object.

    Attributes:
        size: in bytes.
        etag: as the server gave it, quotes included.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime


class NewObject(NamedTuple):
    """An object to write whole, under a key that must be free."""

    key: str
    body: bytes
    headers: Headers


class Created(NamedTuple):
    """The result of writing several objects in order.

    Attributes:
        written: how many of the first objects were written.
        error: why the next one failed; None where all were written or the caller stopped.
    """

    written: int
    error: StoreError | None


Chunks = Callable[[], AsyncIterator[bytes]]

LIST_PAGE = 1000
DELETE_PAGE = 1000


class Store(Protocol):
    """An object store. Many tasks of one event loop may use it."""

    @property
    def url(self) -> str:
        """The bucket url of the store's root."""
        ...

    async def put(self, key: str, body: bytes, mode: PutMode, headers: Headers) -> str:
        """Write an object whole, and return its ETag.

        The request carries a checksum of the body, so the server refuses damaged bytes.

        Raises:
            AlreadyExists: `mode` is Create and the key is taken.
            PreconditionFailed: `mode` is IfMatch, and the key has another ETag or does not exist.
        """
        ...

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        """Create objects one after the other: the cheapest way to write many small ones.

        Stops at the first object that fails. The caller then calls `put` for the rest, which
        raises the error of each.

        Args:
            objects: in the order in which to write them.
            stopped: called before each object, from any thread. True ends the call early.
        """
        ...

    async def put_multipart(
        self, key: str, chunks: Chunks, part_size: int, headers: Headers
    ) -> str:
        """Write a large object in parts, unconditionally, and return its ETag.

        An error that `chunks()` raises aborts the upload and reaches the caller.

        Args:
            key: of the object.
            chunks: yields the parts. A retry calls it again.
            part_size: bytes of every part but the last, which is smaller. R2 wants equal parts.
            headers: to store with the object.
        """
        ...

    async def get(self, key: str) -> bytes:
        """Read an object whole.

        Raises:
            NotFound: there is no such object.
        """
        ...

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Read `length` bytes from offset `start`; fewer at the object's end.

        Raises:
            NotFound: there is no such object.
        """
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Read an object's size, ETag and time.

        Raises:
            NotFound: there is no such object.
        """
        ...

    async def now(self) -> datetime:
        """Read the clock by which the store dates its objects.

        A folder's file system may be another machine's, so it is asked. An S3 store is not: it
        refuses requests of a machine whose clock is a quarter of an hour off, so this machine's
        clock serves.
        """
        ...

    async def list_page(self, prefix: str, after: str) -> list[ObjectInfo]:
        """List up to `LIST_PAGE` objects under `prefix` with keys greater than `after`, in key order.

        A folder marker (a key that ends with `/`) may be listed without its slash, but never twice.

        Args:
            prefix: empty, or ending with `/`.
            after: a key, or empty to begin at the first.

        Returns:
            The objects; empty when there are no more.
        """
        ...

    async def delete(self, keys: Sequence[str], etags: Sequence[str] = ()) -> dict[str, StoreError]:
        """Delete up to `DELETE_PAGE` objects. A missing object is no error.

        No wrapper repeats this request: its answer may be lost after it worked, and another machine
        may have written an object since. A caller checks each object again before another attempt.

        Args:
            keys: of the objects.
            etags: one for each key, to delete it only while it holds this ETag. A server that has no
                conditional deletes ignores them, so they only add to the caller's own check.

        Returns:
            The keys that failed, each with its error: PreconditionFailed where it has another ETag.
            All other objects are gone.

        Raises:
            StoreError: the request as a whole failed. Any of the objects may be gone.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


async def create_with_put(
    store: Store, objects: Sequence[NewObject], stopped: Callable[[], bool]
) -> Created:
    """`Store.create_in_turn` as a sequence of `put`, for stores without a cheaper way."""
    for count, new in enumerate(objects):
        if stopped():
            return Created(count, None)
        try:
            await store.put(new.key, new.body, Create(), new.headers)
        except StoreError as error:
            return Created(count, error)
    return Created(len(objects), None)


def create_blocking(
    create: Callable[[NewObject], object],
    objects: Sequence[NewObject],
    stopped: Callable[[], bool],
) -> Created:
    """`Store.create_in_turn` for stores whose calls block; runs all of it in the calling thread."""
    for count, new in enumerate(objects):
        if stopped():
            return Created(count, None)
        try:
            create(new)
        except StoreError as error:
            return Created(count, error)
    return Created(len(objects), None)


def put_error(error: StoreError, key: str, mode: PutMode) -> StoreError:
    """The error that `Store.put` raises for a refused request.

    Args:
        error: what the server's answer means by itself.
        key: of the object.
        mode: the condition that the request carried.
    """
    if isinstance(mode, Create) and isinstance(error, PreconditionFailed):
        return AlreadyExists(f"PUT {key}: the key is taken.")
    if isinstance(mode, IfMatch) and isinstance(error, NotFound):
        return PreconditionFailed(f"PUT {key}: there is no such object.")
    return error


async def list_all(store: Store, prefix: str) -> AsyncIterator[ObjectInfo]:
    """List every object under `prefix` in key order, with one page in memory at a time."""
    after = ""
    while page := await store.list_page(prefix, after):
        for info in page:
            yield info
        after = page[-1].key


Operation = Literal["put", "get", "head", "list", "delete"]


class StoreWrapper(ABC):
    """A store around another store. A subclass defines in `_call` what happens around each request.

    Retrying, throttling and counting are wrappers, so each is written once and an engine only sends
    the plain request.
    """

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    @abstractmethod
    async def _call(
        self, operation: Operation, nbytes: int, request: Callable[[], Awaitable[T]]
    ) -> T:
        """Perform `request`, which may be awaited more than once.

        Args:
            operation: the kind of request, for billing and counting.
            nbytes: how many bytes it sends.
            request: sends the request; each call sends it again.
        """

    @property
    def url(self) -> str:
        return self._inner.url

    async def put(self, key: str, body: bytes, mode: PutMode, headers: Headers) -> str:
        return await self._call("put", len(body), lambda: self._inner.put(key, body, mode, headers))

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        return await create_with_put(self, objects, stopped)

    async def put_multipart(
        self, key: str, chunks: Chunks, part_size: int, headers: Headers
    ) -> str:
        return await self._call(
            "put", 0, lambda: self._inner.put_multipart(key, chunks, part_size, headers)
        )

    async def get(self, key: str) -> bytes:
        return await self._call("get", 0, lambda: self._inner.get(key))

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        return await self._call("get", 0, lambda: self._inner.get_range(key, start, length))

    async def head(self, key: str) -> ObjectInfo:
        return await self._call("head", 0, lambda: self._inner.head(key))

    async def now(self) -> datetime:
        return await self._inner.now()

    async def list_page(self, prefix: str, after: str) -> list[ObjectInfo]:
        return await self._call("list", 0, lambda: self._inner.list_page(prefix, after))

    async def delete(self, keys: Sequence[str], etags: Sequence[str] = ()) -> dict[str, StoreError]:
        return await self._call("delete", 0, lambda: self._inner.delete(keys, etags))

    async def aclose(self) -> None:
        await self._inner.aclose()
