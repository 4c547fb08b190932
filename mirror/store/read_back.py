"""Read objects back and hash them in bounded memory, whatever their size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from mirror.content.digest import WHOLE_UP_TO, Digest, Hasher, digest_of
from mirror.store.base import Store

PART_BYTES: Final = 16 << 20
# Hashing more bytes than this goes to a thread, so that the event loop does not wait for it.
_HASHED_ON_THE_LOOP: Final = 64 << 10


def bytes_held(size: int) -> int:
    """How many bytes of memory it takes to read an object of `size` bytes."""
    return size if size <= WHOLE_UP_TO else 2 * PART_BYTES


async def parts_of(store: Store, key: str, size: int) -> AsyncIterator[bytes]:
    """Read an object: whole up to `WHOLE_UP_TO` bytes, else in parts of `PART_BYTES`.

    Args:
        store: the mirror's store.
        key: of the object.
        size: the bytes that it should have. A large object of another size is read to its own end.

    Raises:
        NotFound: there is no such object.
    """
    if size <= WHOLE_UP_TO:
        yield await store.get(key)
        return
    size = (await store.head(key)).size
    for start in range(0, size, PART_BYTES):
        yield await store.get_range(key, start, PART_BYTES)


async def digest_in(store: Store, key: str, size: int) -> Digest:
    """Read an object back and hash it. Arguments and errors are those of `parts_of`."""
    if size <= WHOLE_UP_TO:
        return await hashed(await store.get(key))
    hasher = Hasher()
    async for part in parts_of(store, key, size):
        await asyncio.to_thread(hasher.update, part)
    return hasher.digest()


async def hashed(body: bytes) -> Digest:
    """Hash bytes without holding up the event loop."""
    if len(body) <= _HASHED_ON_THE_LOOP:
        return digest_of(body)
    return await asyncio.to_thread(digest_of, body)
