"""Bytes to the bucket so that what stands there is certain: one object, acknowledged and checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from mirror.cache.prepare import Prepared
from mirror.content.digest import Hasher, digest_of
from mirror.errors import AlreadyExists, ContentCollision, NotFound, StoreError
from mirror.layout import CACHE_CONTROL, content_type, object_key
from mirror.store.base import Create, Headers, Overwrite, Store

PART_BYTES = 16 << 20
_MOST_PARTS = 10_000


async def upload(store: Store, root: bytes, prepared: Prepared) -> bool:
    """Make the object of a file's content stand in the store.

    Args:
        store: the mirror's.
        root: the cache's folder, where a large file is read again.
        prepared: the file.

    Returns:
        True when this call wrote the object; False when the same bytes stood there already (another
        machine's upload, or an earlier run's that was killed before its commit), read back and
        compared.

    Raises:
        ContentCollision: other bytes with the same xxh3-128 stand there.
        StoreError: the store refused.
    """
    digest, kind = prepared.digest, prepared.inspection.format
    key = object_key(digest.content_hash, kind)
    headers = Headers(content_type(kind), CACHE_CONTROL)
    if prepared.body is None:
        return await _upload_large(store, root, prepared, key, headers)
    try:
        await store.put(key, prepared.body, Create(), headers)
    except AlreadyExists:
        standing = await store.get(key)
        if standing == prepared.body:
            return False
        if digest_of(standing).content_hash == digest.content_hash:
            raise ContentCollision(
                f"{key} holds other bytes with the same xxh3-128; the file was not uploaded."
            ) from None
        # What stands there is not what its name says: damaged. The right bytes are at hand.
        await store.put(key, prepared.body, Overwrite(), headers)
    return True


async def _upload_large(
    store: Store, root: bytes, prepared: Prepared, key: str, headers: Headers
) -> bool:
    """Multipart. It cannot be conditional everywhere, and need not be: a key's bytes are its hash."""
    size = prepared.digest.size
    try:
        if (await store.head(key)).size == size and await _reads_back(store, key, prepared):
            return False
    except NotFound:
        pass
    part = max(PART_BYTES, -(-size // _MOST_PARTS))
    path = root + b"/" + prepared.entry.path

    async def parts() -> AsyncIterator[bytes]:
        hasher = Hasher()
        for start in range(0, size, part):
            chunk = await asyncio.to_thread(_read_part, path, start, part)
            hasher.update(chunk)
            yield chunk
        if hasher.digest() != prepared.digest:
            raise StoreError("changed while it was sent; left for the next run")

    await store.put_multipart(key, parts, part, headers)
    return True


def _read_part(path: bytes, start: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(length)


async def _reads_back(store: Store, key: str, prepared: Prepared) -> bool:
    hasher = Hasher()
    size = prepared.digest.size
    for start in range(0, size, PART_BYTES):
        hasher.update(await store.get_range(key, start, PART_BYTES))
    return hasher.digest() == prepared.digest
