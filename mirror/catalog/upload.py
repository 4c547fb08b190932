"""Bytes to the bucket so that what stands there is certain: one object, acknowledged and checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Final

from mirror.cache.prepare import Prepared
from mirror.catalog.gc_lease import adopt_old, is_young
from mirror.content.digest import Digest, Hasher, digest_of
from mirror.errors import (
    AccessDenied,
    AlreadyExists,
    ContentCollision,
    NotFound,
    PreconditionFailed,
    StoreError,
)
from mirror.layout import CACHE_CONTROL, content_type, object_key
from mirror.store.base import Create, Headers, IfMatch, NewObject, ObjectInfo, Store
from mirror.store.read_back import PART_BYTES, digest_in

_MOST_PARTS = 10_000
# How often an object may be removed or replaced while it is looked at, before somebody is told.
_LOOKS: Final = 3

Now = Callable[[], float]


def new_object(prepared: Prepared) -> NewObject:
    """The object of a file whose bytes are in memory."""
    assert prepared.body is not None
    kind = prepared.inspection.format
    return NewObject(
        object_key(prepared.digest.content_hash, kind),
        prepared.body,
        Headers(content_type(kind), CACHE_CONTROL),
    )


async def upload(
    store: Store, root: bytes, prepared: Prepared, now: Now = time.time, *, taken: bool = False
) -> bool:
    """Make the object of a file's content stand in the store, for a row to name it.

    Args:
        store: the mirror's.
        root: the cache's folder, where a large file is read again.
        prepared: the file.
        now: seconds since 1970, by which what stands there already is young or old.
        taken: a PUT was just told that the key is.

    Returns:
        True when this call wrote the object; False when the same bytes stood there already (another
        machine's upload, or an earlier run's that was killed before its commit), read back and
        compared.

    Raises:
        ContentCollision: other bytes with the same xxh3-128 stand there.
        StoreError: the store refused, or the object is being removed at this moment.
    """
    if prepared.body is not None:
        return await upload_body(store, *new_object(prepared), now, taken=taken)
    digest, kind = prepared.digest, prepared.inspection.format
    key = object_key(digest.content_hash, kind)
    headers = Headers(content_type(kind), CACHE_CONTROL)
    path = root + b"/" + prepared.entry.path
    return await _upload_large(store, key, path, digest, headers=headers, now=now)


async def upload_body(
    store: Store,
    key: str,
    body: bytes,
    headers: Headers,
    now: Now = time.time,
    *,
    taken: bool = False,
) -> bool:
    """`upload`, of bytes that are in memory."""
    for _ in range(_LOOKS):
        if not taken:
            try:
                await store.put(key, body, Create(), headers)
            except AlreadyExists:
                pass
            else:
                return True
        taken = False
        try:
            info = await store.head(key)
            standing = await store.get(key)
            if standing == body:
                await _adopt(store, info, body, headers, now)
                return False
            if digest_of(standing).content_hash == digest_of(body).content_hash:
                raise _collision(key)
            # What stands there is not what its name says: damaged. The right bytes are at hand.
            await _replace(store, info, body, headers)
        except (NotFound, PreconditionFailed):
            continue  # gc has removed it, or another machine repaired it: look again
        return True
    raise StoreError("changed at every look while it was uploaded; left for the next run")


def _collision(key: str) -> ContentCollision:
    return ContentCollision(
        f"{key} holds other bytes with the same xxh3-128; the file was not uploaded."
    )


async def _adopt(store: Store, info: ObjectInfo, body: bytes, headers: Headers, now: Now) -> None:
    """The object is what it should be; if it is old, no row may have named it for as long."""
    if not is_young(info.last_modified, datetime.fromtimestamp(now(), UTC)):
        key = info.key
        await adopt_old(store, key, lambda: store.put(key, body, IfMatch(info.etag), headers))


async def _replace(store: Store, info: ObjectInfo, body: bytes, headers: Headers) -> None:
    try:
        await store.put(info.key, body, IfMatch(info.etag), headers)
    except AccessDenied:
        # It could be asked for, so this key may write: the bucket's lock protects the damage.
        raise StoreError(
            f"{info.key} holds other bytes and may not be overwritten (has the bucket a lock?); "
            "left for the next run"
        ) from None


async def _upload_large(
    store: Store, key: str, path: bytes, digest: Digest, *, headers: Headers, now: Now
) -> bool:
    """Multipart, which cannot be conditional everywhere: what stands there is looked at before."""

    async def write() -> None:
        await put_large(store, key, path, digest, headers)

    try:
        info = await store.head(key)
        standing = await digest_in(store, key, info.size)
    except NotFound:
        await write()
        return True
    if standing == digest:
        if not is_young(info.last_modified, datetime.fromtimestamp(now(), UTC)):
            await adopt_old(store, key, write)
        return False
    if standing.content_hash == digest.content_hash:  # of another size, perhaps
        raise _collision(key)
    await write()
    return True


async def put_large(store: Store, key: str, path: bytes, digest: Digest, headers: Headers) -> None:
    """Write an object in parts, whatever stands there.

    Raises:
        StoreError: the store refused, or the file is not what its digest says.
    """
    size = digest.size
    part = max(PART_BYTES, -(-size // _MOST_PARTS))

    async def parts() -> AsyncIterator[bytes]:
        hasher = Hasher()
        for start in range(0, size, part):
            chunk = await asyncio.to_thread(_read_part, path, start, part)
            hasher.update(chunk)
            yield chunk
        if hasher.digest() != digest:
            raise StoreError("changed while it was sent; left for the next run")

    await store.put_multipart(key, parts, part, headers)


def _read_part(path: bytes, start: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(length)
