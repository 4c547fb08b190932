"""The engine on aioboto3 (botocore over aiohttp).

It serves set-ups with proxies or credentials that only botocore supports, and platforms without a
wheel of obstore. It is an extra: `pip install "dataset-mirror[aioboto3]"`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import aioboto3
import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import get_cert_path

from mirror.errors import ConfigError, StoreError, Unreachable
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
    create_with_put,
    put_error,
)
from mirror.store.conditional_delete import ConditionalDelete
from mirror.store.responses import deletion_of
from mirror.store.s3_access import (
    REQUEST_SECONDS,
    S3Access,
    chain_failed,
    drop_expect_header,
    translate_botocore,
)
from mirror.store.unreachable import etag_in

_FOREIGN = (ClientError, BotoCoreError, aiohttp.ClientError, asyncio.TimeoutError, OSError)


class _Verifying(AIOHTTPSession):  # type: ignore[misc]
    """aiobotocore's HTTP session, with certificates checked for trust and for the host's name.

    aiobotocore by itself accepts a trusted certificate of any host, because botocore leaves the check
    of the name to urllib3, which is absent here. Through a proxy it accepts any certificate.
    """

    def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            limit=self._max_pool_connections,
            ssl=ssl.create_default_context(cafile=get_cert_path(self._verify)),
            **self._connector_args,
        )


class Aioboto3Store:
    """An S3 store, rooted at the bucket url's prefix. The first request makes the client.

    Args:
        access: where the bucket is, and its credentials.
        connections: how many connections may stay open.
        seconds: how long sending a body may take. aiohttp's own timeout begins only when the whole
            body is written, which never happens if the peer stops reading.
    """

    def __init__(
        self, access: S3Access, connections: int = 64, seconds: float = REQUEST_SECONDS
    ) -> None:
        self.url = str(access.url)
        self._access = access
        self._bucket = access.url.bucket
        self._prefix = access.prefix
        self._connections = connections
        self._seconds = seconds
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._opened: Any = None
        self._deletion = ConditionalDelete()

    async def _client(self) -> Any:
        async with self._opening:
            if self._opened is None:
                from aiobotocore.config import AioConfig

                self._access.credentials()
                options = self._access.client_options()
                ours = AioConfig(max_pool_connections=self._connections).merge(options["config"])
                ours.http_session_cls = _Verifying  # set after the merge, which drops it
                options["config"] = ours
                try:
                    client = await self._stack.enter_async_context(
                        aioboto3.Session().client("s3", **options)
                    )
                except (BotoCoreError, ValueError, OSError) as error:  # before any request
                    raise ConfigError(
                        f"There is no S3 client for these settings: {str(error).rstrip('.')}; correct "
                        "bucket.endpoint, bucket.region, or the AWS_* environment."
                    ) from None
                client.meta.events.register("before-call.s3", drop_expect_header)
                self._opened = client
        return self._opened

    @asynccontextmanager
    async def _translated(self, what: str) -> AsyncIterator[None]:
        try:
            yield
        except _FOREIGN as error:
            if isinstance(error, (ClientError, BotoCoreError)):
                raise translate_botocore(error, what) from None
            why = str(error) or type(error).__name__
            raise Unreachable(f"{what}: the connection broke ({why}).") from None
        except RuntimeError as error:
            if "credentials" not in str(error):
                raise
            raise chain_failed(error) from None  # botocore met credentials that had expired

    async def put(self, key: str, body: bytes, mode: PutMode, headers: Headers) -> str:
        condition: dict[str, str] = {}
        if isinstance(mode, Create):
            condition = {"IfNoneMatch": "*"}
        elif isinstance(mode, IfMatch):
            condition = {"IfMatch": mode.etag}
        client = await self._client()
        try:
            async with self._translated(f"PUT {key}"), asyncio.timeout(self._seconds):
                done = await client.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + key,
                    Body=body,
                    ContentMD5=_content_md5(body),
                    **_fields(headers),
                    **condition,
                )
        except StoreError as error:
            raise put_error(error, key, mode) from None
        return etag_in(done, f"PUT {key}")

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        return await create_with_put(self, objects, stopped)

    async def put_multipart(
        self, key: str, chunks: Chunks, part_size: int, headers: Headers
    ) -> str:
        client = await self._client()
        where = {"Bucket": self._bucket, "Key": self._prefix + key}
        async with self._translated(f"PUT {key}"):
            begun = await client.create_multipart_upload(**where, **_fields(headers))
            where["UploadId"] = begun["UploadId"]
            try:
                parts: list[dict[str, Any]] = []
                async for chunk in chunks():
                    number = len(parts) + 1
                    async with asyncio.timeout(self._seconds):
                        done = await client.upload_part(
                            **where, PartNumber=number, Body=chunk, ContentMD5=_content_md5(chunk)
                        )
                    parts.append({"ETag": etag_in(done, f"PUT {key}"), "PartNumber": number})
                finished = await client.complete_multipart_upload(
                    **where, MultipartUpload={"Parts": parts}
                )
            except BaseException:
                # Unfinished parts are billed until they are removed. The first error is the one to raise.
                with suppress(Exception):
                    await asyncio.shield(client.abort_multipart_upload(**where))
                raise
        return etag_in(finished, f"PUT {key}")

    async def get(self, key: str) -> bytes:
        return await self._read(key, {})

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        return await self._read(key, {"Range": f"bytes={start}-{start + length - 1}"})

    async def _read(self, key: str, fields: dict[str, str]) -> bytes:
        client = await self._client()
        async with self._translated(f"GET {key}"):
            answer = await client.get_object(Bucket=self._bucket, Key=self._prefix + key, **fields)
            async with answer["Body"] as stream:
                data: bytes = await stream.read()
        return data

    async def head(self, key: str) -> ObjectInfo:
        client = await self._client()
        async with self._translated(f"HEAD {key}"):
            found = await client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        etag = etag_in(found, f"HEAD {key}")
        return ObjectInfo(key, found["ContentLength"], etag, found["LastModified"])

    async def now(self) -> datetime:
        return datetime.now(UTC)

    async def list_page(self, prefix: str, after: str) -> list[ObjectInfo]:
        client = await self._client()
        start = {"StartAfter": self._prefix + after} if after else {}
        async with self._translated(f"LIST {prefix}"):
            page = await client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix + prefix, MaxKeys=LIST_PAGE, **start
            )
        return [
            ObjectInfo(
                item["Key"].removeprefix(self._prefix),
                item["Size"],
                item["ETag"],
                item["LastModified"],
            )
            for item in page.get("Contents", ())
        ]

    async def delete(self, keys: Sequence[str], etags: Sequence[str] = ()) -> dict[str, StoreError]:
        client = await self._client()

        async def send(request: dict[str, Any]) -> Mapping[str, Any]:
            async with self._translated(deletion_of(keys)):
                answer: Mapping[str, Any] = await client.delete_objects(
                    Bucket=self._bucket, Delete=request
                )
            return answer

        return await self._deletion.send(send, self._prefix, keys, etags)

    async def aclose(self) -> None:
        await self._stack.aclose()
        self._opened = None


def _fields(headers: Headers) -> dict[str, str]:
    fields = {"ContentType": headers.content_type}
    if headers.cache_control:
        fields["CacheControl"] = headers.cache_control
    if headers.content_disposition:
        fields["ContentDisposition"] = headers.content_disposition
    return fields


def _content_md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
