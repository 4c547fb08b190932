"""Objects read back: their digest, whatever their size, in bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from mirror.content.digest import WHOLE_UP_TO, Digest, Hasher, digest_of
from mirror.store.base import Store

PART_BYTES: Final = 16 << 20
# Hashing more than this is worth the hop to a thread: the event loop must not wait for it.
_HASHED_AT_ONCE: Final = 64 << 10


def bytes_held(size: int) -> int:
    """What reading an object of this size holds in memory."""
    return size if size <= WHOLE_UP_TO else 2 * PART_BYTES


async def parts_of(store: Store, key: str, size: int) -> AsyncIterator[bytes]:
    """An object's bytes: whole up to `WHOLE_UP_TO`, else in parts.

    Args:
        store: the mirror's.
        key: of the object.
        size: that it should have. A large one may turn out to have another: then as many bytes come
            as there are.

    Raises:
        NotFound: it is not there.
    """
    if size <= WHOLE_UP_TO:
        yield await store.get(key)
        return
    size = (await store.head(key)).size
    for start in range(0, size, PART_BYTES):
        yield await store.get_range(key, start, PART_BYTES)


async def digest_in(store: Store, key: str, size: int) -> Digest:
    """The digest of an object as it is read back; `size` and errors as of `parts_of`."""
    if size <= WHOLE_UP_TO:
        return await hashed(await store.get(key))
    hasher = Hasher()
    async for part in parts_of(store, key, size):
        await asyncio.to_thread(hasher.update, part)
    return hasher.digest()


async def hashed(body: bytes) -> Digest:
    if len(body) <= _HASHED_AT_ONCE:
        return digest_of(body)
    return await asyncio.to_thread(digest_of, body)
