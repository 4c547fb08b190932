"""The contract of an object store, which every engine keeps and every wrapper preserves.

A store is rooted at a bucket's prefix: keys are relative to it, and use `/`. Every operation is one
request (a multipart PUT is several), raises only errors of `mirror.errors`, and never retries:
`mirror.store.retry` and `mirror.store.throttle` wrap around it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, TypeVar

from mirror.errors import StoreError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Create:
    """Conditional PUT, `If-None-Match: *`: AlreadyExists when the key is taken."""


@dataclass(frozen=True, slots=True)
class Overwrite:
    """Unconditional PUT: the last one wins."""


@dataclass(frozen=True, slots=True)
class IfMatch:
    """Conditional PUT: PreconditionFailed unless the key holds this ETag."""

    etag: str


PutMode = Create | Overwrite | IfMatch


class Headers(NamedTuple):
    """What is stored beside an object and served with it."""

    content_type: str = "application/octet-stream"
    cache_control: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """`size` in bytes; `etag` as the server gave it, quotes included."""

    key: str
    size: int
    etag: str
    last_modified: datetime


class NewObject(NamedTuple):
    """An object that is to be written whole, under a key that nobody has taken."""

    key: str
    body: bytes
    headers: Headers


class Created(NamedTuple):
    """So many objects, the first of several, were written; `error` is what the next one met, if begun."""

    written: int
    error: StoreError | None


Chunks = Callable[[], AsyncIterator[bytes]]

LIST_PAGE = 1000
DELETE_PAGE = 1000


class Store(Protocol):
    """An object store. Safe to use from many tasks of one event loop."""

    @property
    def url(self) -> str: ...

    async def put(self, key: str, body: bytes, mode: PutMode, headers: Headers) -> str:
        """Write an object whole; returns its ETag.

        The server is given a checksum of the body and refuses other bytes.

        Raises:
            AlreadyExists: mode is Create and the key is taken.
            PreconditionFailed: mode is IfMatch and the key holds another ETag, or none.
        """
        ...

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        """`put` with Create, one object after the other: a turn for many small ones costs least.

        Ends at the first that is not simply written, and before any at which `stopped()` is true,
        which is asked from any thread. What is left is the caller's to put by itself: `put` raises.
        """
        ...

    async def put_multipart(
        self, key: str, chunks: Chunks, part_size: int, headers: Headers
    ) -> str:
        """Write a large object in parts; returns its ETag.

        `chunks()` yields the parts: `part_size` bytes each, the last one fewer (R2 wants them equal).
        Unconditional. If `chunks()` raises, the upload is aborted and the error comes through.
        """
        ...

    async def get(self, key: str) -> bytes:
        """Raises: NotFound."""
        ...

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from offset `start`, fewer at the object's end. Raises: NotFound."""
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Raises: NotFound."""
        ...

    async def list_page(self, prefix: str, after: str) -> list[ObjectInfo]:
        """Up to `LIST_PAGE` objects under `prefix` with keys greater than `after`, in key order.

        Args:
            prefix: empty, or ending with `/`.
            after: a key, or empty. An empty list means that there are no more. The marker of a
                folder, a key that ends with `/`, may be told without the slash; never twice.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete up to `DELETE_PAGE` objects; a missing one is no error."""
        ...

    async def aclose(self) -> None: ...


async def created_in_turn(
    store: Store, objects: Sequence[NewObject], stopped: Callable[[], bool]
) -> Created:
    """`create_in_turn` by means of `put`, for a store to which a turn is nothing special."""
    for count, new in enumerate(objects):
        if stopped():
            return Created(count, None)
        try:
            await store.put(new.key, new.body, Create(), new.headers)
        except StoreError as error:
            return Created(count, error)
    return Created(len(objects), None)


def turn(
    create: Callable[[NewObject], object],
    objects: Sequence[NewObject],
    stopped: Callable[[], bool],
) -> Created:
    """`create_in_turn` for a store whose calls block: all of it is one call, for one thread."""
    for count, new in enumerate(objects):
        if stopped():
            return Created(count, None)
        try:
            create(new)
        except StoreError as error:
            return Created(count, error)
    return Created(len(objects), None)


async def list_all(store: Store, prefix: str) -> AsyncIterator[ObjectInfo]:
    """Every object under `prefix` in key order, a page in memory at a time."""
    after = ""
    while page := await store.list_page(prefix, after):
        for info in page:
            yield info
        after = page[-1].key


Operation = Literal["put", "get", "head", "list", "delete"]


class StoreWrapper(ABC):
    """A store around a store: a subclass says in `_call` what happens around each request.

    Retrying, throttling and counting are wrappers and not code of an engine, so that each is
    written once and every engine is the plain request.
    """

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    @abstractmethod
    async def _call(
        self, operation: Operation, nbytes: int, request: Callable[[], Awaitable[T]]
    ) -> T:
        """Perform `request`, which may be awaited more than once.

        Args:
            operation: what it is billed and counted as.
            nbytes: how many bytes it sends.
            request: makes the request anew at each call.
        """

    @property
    def url(self) -> str:
        return self._inner.url

    async def put(self, key: str, body: bytes, mode: PutMode, headers: Headers) -> str:
        return await self._call("put", len(body), lambda: self._inner.put(key, body, mode, headers))

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        return await created_in_turn(self, objects, stopped)

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

    async def list_page(self, prefix: str, after: str) -> list[ObjectInfo]:
        return await self._call("list", 0, lambda: self._inner.list_page(prefix, after))

    async def delete(self, keys: Sequence[str]) -> None:
        return await self._call("delete", 0, lambda: self._inner.delete(keys))

    async def aclose(self) -> None:
        await self._inner.aclose()
