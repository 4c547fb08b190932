"""Uploads one object so that its bytes are certain: acknowledged by the store, or read back."""

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
from mirror.system.files import open_regular

# S3 accepts at most this many parts in one upload.
_MAX_PARTS: Final = 10_000
# How often an object may be deleted or replaced during an upload before the upload fails.
_ATTEMPTS: Final = 3

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
    store: Store, root: bytes, prepared: Prepared, now: Now = time.time, *, exists: bool = False
) -> bool:
    """Upload the object of a file's content, so that a row may name it.

    Args:
        store: the mirror's.
        root: the cache's folder, where a large file is read again.
        prepared: the file.
        now: seconds since 1970, for the age of an object that is already there.
        exists: skip the first PUT, because another one has just found that the key exists.

    Returns:
        True when this call wrote the object. False when the same bytes were already there, read back
        and compared: from another machine, or from a run that was killed before its commit.

    Raises:
        ContentCollision: the object has other bytes with the same xxh3-128.
        StoreError: the store refused, or gc is deleting the object at this moment.
    """
    if prepared.body is not None:
        return await upload_body(store, *new_object(prepared), now, exists=exists)
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
    exists: bool = False,
) -> bool:
    """Upload bytes that are in memory; see `upload`."""
    for _ in range(_ATTEMPTS):
        if not exists:
            try:
                await store.put(key, body, Create(), headers)
            except AlreadyExists:
                pass
            else:
                return True
        exists = False
        try:
            info = await store.head(key)
            existing = await store.get(key)
            if existing == body:
                await _adopt(store, info, body, headers, now)
                return False
            if digest_of(existing).content_hash == digest_of(body).content_hash:
                raise _collision(key)
            # The object is damaged: its bytes do not have the hash in its key. Replace them.
            await _replace(store, info, body, headers)
        except (NotFound, PreconditionFailed):
            continue  # gc has deleted it, or another machine has repaired it
        return True
    raise StoreError("changed at every attempt to upload it; left for the next run")


def _collision(key: str) -> ContentCollision:
    return ContentCollision(
        f"{key} holds other bytes with the same xxh3-128; the file was not uploaded."
    )


async def _adopt(store: Store, info: ObjectInfo, body: bytes, headers: Headers, now: Now) -> None:
    """Adopt an object with the right bytes. gc may be about to delete it if it is old."""
    if not is_young(info.last_modified, datetime.fromtimestamp(now(), UTC)):
        key = info.key
        await adopt_old(store, key, lambda: store.put(key, body, IfMatch(info.etag), headers))


async def _replace(store: Store, info: ObjectInfo, body: bytes, headers: Headers) -> None:
    try:
        await store.put(info.key, body, IfMatch(info.etag), headers)
    except AccessDenied:
        # The upload's first PUT was not refused, so this key may write: a bucket lock is the cause.
        raise StoreError(
            f"{info.key} holds other bytes and may not be overwritten (has the bucket a lock?); "
            "left for the next run"
        ) from None


async def _upload_large(
    store: Store, key: str, path: bytes, digest: Digest, *, headers: Headers, now: Now
) -> bool:
    """Upload in parts. Not every store has conditional multipart, so check for the object before."""

    async def write() -> None:
        await put_large(store, key, path, digest, headers)

    try:
        info = await store.head(key)
        existing = await digest_in(store, key, info.size)
    except NotFound:
        await write()
        return True
    if existing == digest:
        if not is_young(info.last_modified, datetime.fromtimestamp(now(), UTC)):
            await adopt_old(store, key, write)
        return False
    if existing.content_hash == digest.content_hash:  # with another SHA-256 or size
        raise _collision(key)
    await write()
    return True


async def put_large(store: Store, key: str, path: bytes, digest: Digest, headers: Headers) -> None:
    """Write an object in parts, over whatever the key holds.

    Args:
        store: the mirror's.
        key: of the object.
        path: the file to send.
        digest: of the file.
        headers: of the object.

    Raises:
        StoreError: the store refused, or the file no longer has this digest.
    """
    size = digest.size
    part = max(PART_BYTES, -(-size // _MAX_PARTS))

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
    descriptor, _ = open_regular(path)
    with open(descriptor, "rb") as file:
        file.seek(start)
        return file.read(length)
