"""`format.json`, the mark at the mirror's root: which format this is, and which mirror.

Its `id` tells one mirror from another that later took its place at the same url, so that a local
state never vouches for objects in a bucket that was emptied meanwhile.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from mirror._version import __version__
from mirror.errors import (
    AlreadyExists,
    ConditionalPutIgnored,
    FormatError,
    NotFound,
    PreconditionFailed,
    StoreError,
)
from mirror.layout import FORMAT, FORMAT_KEY
from mirror.store.base import Create, Headers, IfMatch, Store

_LOOKS = 5
_HEADERS = Headers(content_type="application/json", cache_control="no-cache")


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of format.json; further keys are kept for later formats and ignored here.

    `losses` is another one after rows were flagged whose objects were lost: who remembers what of
    its files the mirror has must look at those again.
    """

    format: int
    # A folder of this machine is named by it, so it must not be a path.
    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z-]{0,63}\Z")]
    created_at: str = ""
    created_by: str = ""
    losses: str = ""


async def read_root(store: Store) -> Root:
    """The root of the mirror in `store`. Writes nothing: a key that may only read is enough.

    Raises:
        NotFound: there is no mirror.
        FormatError: the mirror has a format this version does not know.
    """
    try:
        body = await store.get(FORMAT_KEY)
    except NotFound:
        raise NotFound(f"There is no mirror at {store.url}; run mirror sync first.") from None
    return _parse(body, store.url)


async def open_root(store: Store, *, proven: bool) -> Root:
    """The root of the mirror in `store`, created when there is none.

    Args:
        store: rooted at the mirror's prefix.
        proven: this endpoint is known to honour conditional PUTs; otherwise that is tried on
            format.json itself, with the bytes it already holds, at the price of one PUT.

    Raises:
        FormatError: the mirror has a format this version does not know.
        ConditionalPutIgnored: the endpoint overwrites where it must refuse.
    """
    try:
        body = await store.get(FORMAT_KEY)
    except NotFound:
        body = _new_root()
        try:
            await store.put(FORMAT_KEY, body, Create(), _HEADERS)
        except AlreadyExists:
            body = await store.get(FORMAT_KEY)  # another machine was first
    root = _parse(body, store.url)
    if not proven:
        try:
            await store.put(FORMAT_KEY, body, Create(), _HEADERS)
        except AlreadyExists:
            return root
        raise ConditionalPutIgnored(
            f"The endpoint of {store.url} ignores If-None-Match, so two runs could overwrite each "
            "other's catalog; use one that honours it (AWS S3, Cloudflare R2, SeaweedFS, MinIO)."
        )
    return root


async def mark_losses(store: Store) -> None:
    """Give the mirror another `losses`; whatever else format.json holds stays.

    Raises:
        FormatError: the mirror has a format this version does not know.
        StoreError: it could not be written.
    """
    for _ in range(_LOOKS):
        etag = (await store.head(FORMAT_KEY)).etag
        body = await store.get(FORMAT_KEY)
        _parse(body, store.url)
        marked = msgspec.json.decode(body) | {"losses": uuid.uuid4().hex}
        try:
            await store.put(FORMAT_KEY, msgspec.json.encode(marked), IfMatch(etag), _HEADERS)
        except PreconditionFailed:
            continue  # another repair's mark, or our own first attempt's: either way once more
        return
    raise StoreError(f"{store.url}/{FORMAT_KEY} changes at every look; run again.")


def _new_root() -> bytes:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return msgspec.json.encode(
        Root(
            format=FORMAT,
            id=uuid.uuid4().hex,
            created_at=now,
            created_by=f"dataset-mirror {__version__}",
        )
    )


def _parse(body: bytes, url: str) -> Root:
    try:
        root = msgspec.json.decode(body, type=Root)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise FormatError(
            f"{url}/{FORMAT_KEY} is not a mirror's; choose an empty prefix in bucket.url."
        ) from None
    if root.format != FORMAT:
        raise FormatError(
            f"{url} has mirror format {root.format}, and this version knows only {FORMAT}; "
            "upgrade dataset-mirror."
        )
    return root
