"""The engine on obstore (Rust's object_store): moves bulk bytes with the least CPU time.

obstore does not expose response headers. A Retry-After therefore stays unknown, and back-off decides
alone. Its transfers hang in a forked child, so training reads through `mirror.fetch` instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

import obstore
from obstore.exceptions import BaseError, GenericError
from obstore.store import S3Store

from mirror.errors import StoreError
from mirror.store.base import (
    LIST_PAGE,
    Chunks,
    Create,
    Created,
    Headers,
    IfMatch,
    NewObject,
    ObjectInfo,
    PutMode,
    create_blocking,
    put_error,
)
from mirror.store.conditional_delete import ConditionalDelete
from mirror.store.object_store_errors import error_of
from mirror.store.object_store_options import object_store_options
from mirror.store.responses import deletion_of
from mirror.store.s3_access import (
    REQUEST_SECONDS,
    Credentials,
    S3Access,
    translate_botocore,
)
from mirror.store.unreachable import unreachable
from mirror.system.lazy import lazy

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import S3Config, S3Credential

# obstore reports a missing object as Python's own FileNotFoundError.
_FOREIGN = (BaseError, FileNotFoundError)
# How often obstore asks for credentials again; boto3 refreshes them when they are due.
_CREDENTIAL_LIFE = timedelta(minutes=5)
_CREATE: Final = Create()
# No setting asks for more threads. The pool starts one only when all others are busy.
_MAX_THREADS: Final = 1024


def open_s3_store(access: S3Access, provide: Callable[[], S3Credential], **options: Any) -> S3Store:
    """Open obstore's S3 store at the bucket url's prefix.

    Args:
        access: where the bucket is.
        provide: returns credentials. obstore would complete keys that it got as plain options with
            AWS_SESSION_TOKEN from the environment, which may belong to other keys.
        options: further arguments of `S3Store`.
    """
    return S3Store(
        access.url.bucket,
        prefix=access.url.path or None,
        config=cast("S3Config", object_store_options(access, REQUEST_SECONDS)),
        credential_provider=provide,
        **options,
    )


def credential_of(credentials: Credentials, life: timedelta | None = None) -> S3Credential:
    """Credentials as obstore wants them.

    Args:
        credentials: the credentials at this moment.
        life: how soon obstore asks for them again; never when None.
    """
    return {
        "access_key_id": credentials.access_key,
        "secret_access_key": credentials.secret_key,
        "token": credentials.token,
        "expires_at": datetime.now(UTC) + life if life else None,
    }


class ObstoreStore:
    """An S3 store, rooted at the bucket url's prefix.

    Args:
        access: where the bucket is, and its credentials.

    Raises:
        BadCredentials: the AWS chain has none, or its provider fails.
    """

    def __init__(self, access: S3Access) -> None:
        self.url = str(access.url)
        self._access = access
        self._threads = ThreadPoolExecutor(_MAX_THREADS, "put")
        self._deletion = ConditionalDelete()
        access.credentials()
        self._store = self._open(max_retries=0)
        # One failed part must not restart the upload of a large object.
        self._retrying = self._open(max_retries=5)

    def _open(self, max_retries: int) -> S3Store:
        access = self._access
        return open_s3_store(
            access,
            lambda: credential_of(access.credentials(), _CREDENTIAL_LIFE),
            retry_config={"max_retries": max_retries},
        )

    async def put(self, key: str, body: bytes, mode: PutMode, headers: Headers) -> str:
        try:
            done = await obstore.put_async(self._store, key, body, **_put_options(mode, headers))
        except _FOREIGN as error:
            raise put_error(self._translated(error, f"PUT {key}"), key, mode) from None
        return done["e_tag"] or ""

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        # A blocking call costs half of an awaited one: there, a thread of Rust's must take the
        # interpreter's lock and wake the event loop.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, create_blocking, self._create, objects, stopped
        )

    def _create(self, new: NewObject) -> None:
        try:
            obstore.put(self._store, new.key, new.body, **_put_options(_CREATE, new.headers))
        except _FOREIGN as error:
            raise put_error(self._translated(error, f"PUT {new.key}"), new.key, _CREATE) from None

    async def put_multipart(
        self, key: str, chunks: Chunks, part_size: int, headers: Headers
    ) -> str:
        try:
            done = await obstore.put_async(
                self._retrying,
                key,
                chunks(),
                attributes=_attributes(headers),
                use_multipart=True,
                chunk_size=part_size,
                max_concurrency=4,
            )
        except _FOREIGN as error:
            raise self._translated(error, f"PUT {key}") from None
        return done["e_tag"] or ""

    async def get(self, key: str) -> bytes:
        try:
            result = await obstore.get_async(self._store, key)
            return bytes(await result.bytes_async())
        except _FOREIGN as error:
            raise self._translated(error, f"GET {key}") from None

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        try:
            found = await obstore.get_range_async(self._store, key, start=start, length=length)
        except _FOREIGN as error:
            raise self._translated(error, f"GET {key}") from None
        return bytes(found)

    async def head(self, key: str) -> ObjectInfo:
        try:
            meta = await obstore.head_async(self._store, key)
        except _FOREIGN as error:
            raise self._translated(error, f"HEAD {key}") from None
        return _info(meta)

    async def now(self) -> datetime:
        return datetime.now(UTC)

    async def list_page(self, prefix: str, after: str) -> list[ObjectInfo]:
        # obstore strips the last slash of an offset. With a space behind it, only that key is skipped.
        offset = f"{after} " if after.endswith("/") else after or None
        stream = obstore.list(self._store, prefix or None, offset=offset, chunk_size=LIST_PAGE)
        try:
            # Only the first page: the stream would fetch the next one without our retries.
            page: Sequence[Any] = await stream.__anext__()
        except StopAsyncIteration:
            return []
        except _FOREIGN as error:
            raise self._translated(error, f"LIST {prefix}") from None
        return _after(after, [_info(meta) for meta in page])

    async def delete(self, keys: Sequence[str], etags: Sequence[str] = ()) -> dict[str, StoreError]:
        # By boto3: obstore sends no conditions, and names only the first key that failed.
        def send(request: dict[str, Any]) -> Mapping[str, Any]:
            from botocore.exceptions import BotoCoreError, ClientError

            try:
                answer: Mapping[str, Any] = self._boto3.delete_objects(
                    Bucket=self._access.url.bucket, Delete=request
                )
            except (BotoCoreError, ClientError) as error:
                raise translate_botocore(error, deletion_of(keys)) from None
            return answer

        return await self._deletion.send(
            lambda request: asyncio.to_thread(send, request), self._access.prefix, keys, etags
        )

    def _translated(self, error: BaseException, what: str) -> StoreError:
        access = self._access
        if (found := error_of(error, what, access.address, access.proxy)) is not None:
            return found
        first = str(error).splitlines()[0]
        if isinstance(error, GenericError):
            return unreachable(what, str(error), access.address, access.proxy)
        return StoreError(f"{what}: {first}.")

    @lazy
    def _boto3(self) -> Any:
        return self._access.client()

    async def aclose(self) -> None:
        """End the threads. Connections end with this object."""
        self._threads.shutdown(wait=False)


def _put_options(mode: PutMode, headers: Headers) -> dict[str, Any]:
    """Arguments of `obstore.put` for a PUT of one request."""
    how = (
        "create"
        if isinstance(mode, Create)
        else {"e_tag": mode.etag}
        if isinstance(mode, IfMatch)
        else "overwrite"
    )
    return {"attributes": _attributes(headers), "mode": how, "use_multipart": False}


@cache  # few distinct values: one for each image format
def _attributes(headers: Headers) -> Attributes:
    attributes: dict[str, str] = {"Content-Type": headers.content_type}
    if headers.cache_control:
        attributes["Cache-Control"] = headers.cache_control
    if headers.content_disposition:
        attributes["Content-Disposition"] = headers.content_disposition
    return attributes


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"])


def _after(key: str, page: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """A page without a key that the page before has listed.

    obstore strips the slash from the key of a folder marker. The next page then begins after
    `objects/ff`, and the server lists the marker `objects/ff/` again, on every page.
    """
    found: list[ObjectInfo] = []
    for info in page:
        if info.key == key and not found:
            continue
        # A key that sorts behind one that it is a prefix of is a folder marker.
        marker = key.startswith(info.key)
        found.append(replace(info, key=f"{info.key}/") if marker else info)
        key = found[-1].key
    return found
