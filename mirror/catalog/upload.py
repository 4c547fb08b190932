"""Uploads one object so that its bytes are certain: acknowledged by the store, or read back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from mirror.cache.prepare import Prepared
from mirror.catalog.gc_lease import is_young, overwrite
from mirror.content.digest import Digest, Hasher, digest_of
from mirror.errors import (
    AccessDenied,
    AlreadyExists,
    ContentCollision,
    NotFound,
    PreconditionFailed,
    StoreError,
)
from mirror.layout import CACHE_CONTROL, content_disposition, content_type, object_key
from mirror.store.base import Create, Headers, IfMatch, NewObject, Store
from mirror.store.read_back import PART_BYTES, digest_in
from mirror.system.files import open_regular

# S3 accepts at most this many parts in one upload.
_MAX_PARTS: Final = 10_000
# How often an object may be deleted or replaced during an upload before the upload fails.
_ATTEMPTS: Final = 3


def object_headers(image_format: str) -> Headers:
    """The headers of an object with content of a format."""
    return Headers(content_type(image_format), CACHE_CONTROL, content_disposition(image_format))


def new_object(prepared: Prepared) -> NewObject:
    """The object of a file whose bytes are in memory."""
    assert prepared.body is not None
    kind = prepared.inspection.format
    return NewObject(
        object_key(prepared.digest.content_hash, kind),
        prepared.body,
        object_headers(kind),
    )


async def upload(store: Store, root: bytes, prepared: Prepared, *, exists: bool = False) -> bool:
    """Upload the object of a file's content, so that a row may name it.

    Args:
        store: the mirror's.
        root: the cache's folder, where a large file is read again.
        prepared: the file.
        exists: skip the first PUT, because another one has just found that the key exists.

    Returns:
        True when this call wrote the object. False when the same bytes were already there, read back
        and compared: from another machine, or from a run that was killed before its commit.

    Raises:
        ContentCollision: the object has other bytes with the same xxh3-128.
        StoreError: the store refused, or gc is deleting the object at this moment.
    """
    if prepared.body is not None:
        return await upload_body(store, *new_object(prepared), exists=exists)
    digest, kind = prepared.digest, prepared.inspection.format
    key = object_key(digest.content_hash, kind)
    headers = object_headers(kind)
    path = root + b"/" + prepared.entry.path
    return await upload_large(store, key, path, digest, headers)


async def upload_body(
    store: Store,
    key: str,
    body: bytes,
    headers: Headers,
    *,
    exists: bool = False,
    named: bool = False,
) -> bool:
    """Upload bytes that are in memory; see `upload`.

    Args:
        store: the mirror's.
        key: of the object.
        body: its bytes.
        headers: of the object.
        exists: as for `upload`.
        named: the catalog names these bytes, so all others there are damage, a collision too.
    """
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
            if existing == body and is_young(info.last_modified, await store.now()):
                return False
            if (
                not named
                and existing != body
                and digest_of(existing).content_hash == digest_of(body).content_hash
            ):
                raise _collision(key)
            # It is old, or damaged: its bytes do not have the hash in its key.
            condition = IfMatch(info.etag)
            await overwrite(store, info, partial(store.put, key, body, condition, headers))
            if existing == body:
                return False
        except (NotFound, PreconditionFailed):
            continue  # gc has deleted it, or another machine has repaired it
        return True
    raise StoreError("changed at every attempt to upload it; left for the next run")


def _collision(key: str) -> ContentCollision:
    return ContentCollision(
        f"{key} holds other bytes with the same xxh3-128; the file was not uploaded."
    )


async def upload_large(
    store: Store,
    key: str,
    path: bytes,
    digest: Digest,
    headers: Headers,
    *,
    named: bool = False,
) -> bool:
    """Upload a file in parts. Not every store has conditional multipart, so check for the object before.

    Args:
        store: the mirror's.
        key: of the object.
        path: the file to send.
        digest: of the file.
        headers: of the object.
        named: as for `upload_body`.

    Returns:
        As `upload`.

    Raises:
        ContentCollision: the object has other bytes with the same xxh3-128.
        StoreError: the store refused, gc is deleting the object at this moment, or the file no
            longer has this digest.
    """

    async def write() -> None:
        await _put_large(store, key, path, digest, headers)

    try:
        info = await store.head(key)
        existing = await digest_in(store, key, info.size)
    except NotFound:
        try:
            await write()
        except AccessDenied:
            raise StoreError(
                f"{key} is sent in parts, which this key may not complete; give it s3:PutObject "
                "without a condition on s3:if-none-match; left for the next run"
            ) from None
        return True
    if existing == digest and is_young(info.last_modified, await store.now()):
        return False
    if not named and existing != digest and existing.content_hash == digest.content_hash:
        raise _collision(key)  # with another SHA-256 or size
    await overwrite(store, info, write)
    return existing != digest


async def _put_large(store: Store, key: str, path: bytes, digest: Digest, headers: Headers) -> None:
    """Write an object in parts, over whatever the key holds."""
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
