"""`format.json`, at the mirror's root: it identifies the format and the mirror.

Its `id` distinguishes a mirror from a later one at the same URL, so that a local state is never used
for a bucket that was emptied meanwhile.
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
from mirror.store.unreachable import is_page

_ATTEMPTS = 5
_HEADERS = Headers(content_type="application/json", cache_control="no-cache")


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of format.json. This version ignores other keys, and keeps them for later ones.

    Attributes:
        format: number of the format.
        id: of the mirror.
        created_at: ISO 8601.
        created_by: program and version.
        losses: changes whenever a repair has flagged rows of lost objects. A state that knows
            another value must check which of its files were lost.
    """

    format: int
    # It names a folder on this machine, so it must not be a path.
    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z-]{0,63}\Z")]
    created_at: str = ""
    created_by: str = ""
    losses: str = ""


async def read_root(store: Store) -> Root:
    """Read the root of the mirror in `store`. A key that may only read is enough.

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
    """Read the root of the mirror in `store`, or create it.

    Args:
        store: rooted at the mirror's prefix.
        proven: this endpoint is known to honour conditional PUTs. Otherwise one PUT tests it on
            format.json itself, with the bytes that the file already holds.

    Raises:
        FormatError: the mirror has a format that this version does not know.
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
    """Give the mirror a new `losses`; everything else in format.json stays.

    Raises:
        FormatError: the mirror has a format that this version does not know.
        StoreError: it could not be written.
    """
    for _ in range(_ATTEMPTS):
        etag = (await store.head(FORMAT_KEY)).etag
        body = await store.get(FORMAT_KEY)
        _parse(body, store.url)
        marked = msgspec.json.decode(body) | {"losses": uuid.uuid4().hex}
        try:
            await store.put(FORMAT_KEY, msgspec.json.encode(marked), IfMatch(etag), _HEADERS)
        except PreconditionFailed:
            continue  # from another repair, or from our own first attempt: retry in both cases
        return
    raise StoreError(f"{store.url}/{FORMAT_KEY} changed at every attempt to update it; run again.")


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
        if url.startswith("s3:") and is_page(body[:1024].decode("latin-1")):
            raise FormatError(
                f"{url}/{FORMAT_KEY} is not a mirror's but a web page; correct bucket.endpoint if no "
                "S3 server answers there, or choose an empty prefix in bucket.url."
            ) from None
        raise FormatError(
            f"{url}/{FORMAT_KEY} is not a mirror's; choose an empty prefix in bucket.url."
        ) from None
    if root.format != FORMAT:
        raise FormatError(
            f"{url} has mirror format {root.format}, and this version knows only {FORMAT}; "
            "upgrade dataset-mirror."
        )
    return root
