"""The engine on obstore (Rust's object_store): moves bulk bytes at the least CPU.

What it does not tell: response headers, so a Retry-After stays unknown and back-off decides alone.
Its transfers hang in a forked child; training therefore reads through `mirror.fetch`, not this.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import BaseError, GenericError, UnauthenticatedError
from obstore.store import S3Store

from mirror.errors import (
    AlreadyExists,
    BadCredentials,
    NotFound,
    PreconditionFailed,
    StoreError,
    Unreachable,
)
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
    turn,
)
from mirror.store.responses import deletion_of, error_from, untrusted
from mirror.store.s3_access import CONNECT_SECONDS, REQUEST_SECONDS, S3Access

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import S3Credential

# A missing object is Python's own FileNotFoundError.
_FOREIGN = (BaseError, FileNotFoundError)
_STATUS = re.compile(r"status code: (\d{3})")
# In the tree of causes that debugging is given, and nowhere else.
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")
_CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>|\(code: ([A-Za-z0-9]+)")
# Credentials of a role are asked for again this often; boto3 refreshes them when they are due.
_CREDENTIAL_LIFE = timedelta(minutes=5)
_CREATE: Final = Create()
# Turns at once: no setting asks for more, and a thread is made only when all others are busy.
_MOST_TURNS: Final = 1024


class ObstoreStore:
    """An S3 store, rooted at the bucket url's prefix."""

    def __init__(self, access: S3Access) -> None:
        self.url = str(access.url)
        self._access = access
        self._turns = ThreadPoolExecutor(_MOST_TURNS, "put")
        access.credentials()
        self._store = self._open(max_retries=0)
        # A large object must not start again because one part of it failed.
        self._patient = self._open(max_retries=5)

    def _open(self, max_retries: int) -> S3Store:
        access = self._access
        return S3Store(
            access.url.bucket,
            prefix=access.url.path or None,
            region=access.region,
            aws_endpoint_url_s3=access.address,
            virtual_hosted_style_request=False,
            checksum_algorithm="SHA256",
            credential_provider=self._credentials,
            client_options={
                "allow_http": access.allow_http,
                "connect_timeout": f"{CONNECT_SECONDS}s",
                "timeout": f"{REQUEST_SECONDS}s",
            },
            retry_config={"max_retries": max_retries},
        )

    def _credentials(self) -> S3Credential:
        found = self._access.credentials()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": datetime.now(UTC) + _CREDENTIAL_LIFE,
        }

    async def put(self, key: str, body: bytes, mode: PutMode, headers: Headers) -> str:
        try:
            done = await obstore.put_async(self._store, key, body, **_whole(mode, headers))
        except _FOREIGN as error:
            raise _refusal(error, key, mode) from None
        return done["e_tag"] or ""

    async def create_in_turn(
        self, objects: Sequence[NewObject], stopped: Callable[[], bool]
    ) -> Created:
        # A call that blocks costs half of what an awaited one does, for which a thread of Rust's
        # has to get the interpreter's lock and to wake the loop.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._turns, turn, self._create, objects, stopped)

    def _create(self, new: NewObject) -> None:
        try:
            obstore.put(self._store, new.key, new.body, **_whole(_CREATE, new.headers))
        except _FOREIGN as error:
            raise _refusal(error, new.key, _CREATE) from None

    async def put_multipart(
        self, key: str, chunks: Chunks, part_size: int, headers: Headers
    ) -> str:
        try:
            done = await obstore.put_async(
                self._patient,
                key,
                chunks(),
                attributes=_attributes(headers),
                use_multipart=True,
                chunk_size=part_size,
                max_concurrency=4,
            )
        except _FOREIGN as error:
            raise _translate(error, f"PUT {key}") from None
        return done["e_tag"] or ""

    async def get(self, key: str) -> bytes:
        try:
            result = await obstore.get_async(self._store, key)
            return bytes(await result.bytes_async())
        except _FOREIGN as error:
            raise _translate(error, f"GET {key}") from None

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        try:
            found = await obstore.get_range_async(self._store, key, start=start, length=length)
        except _FOREIGN as error:
            raise _translate(error, f"GET {key}") from None
        return bytes(found)

    async def head(self, key: str) -> ObjectInfo:
        try:
            meta = await obstore.head_async(self._store, key)
        except _FOREIGN as error:
            raise _translate(error, f"HEAD {key}") from None
        return _info(meta)

    async def list_page(self, prefix: str, after: str) -> list[ObjectInfo]:
        # An offset would lose its last slash; with a space more it passes over no key but that one.
        offset = f"{after} " if after.endswith("/") else after or None
        stream = obstore.list(self._store, prefix or None, offset=offset, chunk_size=LIST_PAGE)
        try:
            # The first page only: the stream would fetch the next without a retry of ours.
            page: Sequence[Any] = await stream.__anext__()
        except StopAsyncIteration:
            return []
        except _FOREIGN as error:
            raise _translate(error, f"LIST {prefix}") from None
        return _after(after, [_info(meta) for meta in page])

    async def delete(self, keys: Sequence[str]) -> None:
        try:
            await obstore.delete_async(self._store, list(keys))
        except _FOREIGN as error:
            ours = _translate(error, deletion_of(keys))
            if not isinstance(ours, NotFound):
                raise ours from None

    async def aclose(self) -> None:
        """Nothing but threads to end: connections end with the object."""
        self._turns.shutdown(wait=False)


def _refusal(error: BaseException, key: str, mode: PutMode) -> StoreError:
    """What a PUT met, as an error of ours."""
    ours = _translate(error, f"PUT {key}")
    if isinstance(mode, Create) and isinstance(ours, PreconditionFailed):
        return AlreadyExists(f"PUT {key}: the key is taken.")
    if isinstance(mode, IfMatch) and isinstance(ours, NotFound):
        return PreconditionFailed(f"PUT {key}: there is no such object.")
    return ours


def _whole(mode: PutMode, headers: Headers) -> dict[str, Any]:
    """The arguments of a PUT that is one request."""
    how = (
        "create"
        if isinstance(mode, Create)
        else {"e_tag": mode.etag}
        if isinstance(mode, IfMatch)
        else "overwrite"
    )
    return {"attributes": _attributes(headers), "mode": how, "use_multipart": False}


@cache  # a format's are always the same
def _attributes(headers: Headers) -> Attributes:
    attributes: dict[str, str] = {"Content-Type": headers.content_type}
    if headers.cache_control:
        attributes["Cache-Control"] = headers.cache_control
    return attributes


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"])


def _after(key: str, page: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """A page without what the caller has had.

    Obstore takes the slash off the key of a folder's marker, which is then less than what it stands
    behind: after `objects/ff` the server tells of `objects/ff/` once more, page for page.
    """
    found: list[ObjectInfo] = []
    for info in page:
        if info.key == key and not found:
            continue
        # What comes behind a key that begins with it is a marker.
        marker = key.startswith(info.key)
        found.append(replace(info, key=f"{info.key}/") if marker else info)
        key = found[-1].key
    return found


def _translate(error: BaseException, what: str) -> StoreError:
    """Obstore's errors carry the status and the server's answer in their words only."""
    words = str(error).split("\n\nDebug source:", 1)[0]
    if "BareRedirect" in str(error) or "redirect without LOCATION" in words:
        return error_from(301, "PermanentRedirect", what)
    if refused := _CERTIFICATE.search(str(error)):
        return untrusted(what, refused[1])
    status, named = _STATUS.search(words), _CODE.search(words)
    code = (named[1] or named[2]) if named else ""
    if status is not None:
        return error_from(int(status[1]), code, what)
    if code:  # one key of a DeleteObjects, whose answer as a whole was 200
        return error_from(403 if code == "AccessDenied" else 500, code, what)
    if isinstance(error, UnauthenticatedError):  # by `_credentials`, whose words come last
        said = words.splitlines()[0].rpartition(f"{BadCredentials.__name__}: ")[2]
        return BadCredentials(f"{what}: {said}")
    if isinstance(error, GenericError):
        return Unreachable(f"{what}: the server cannot be reached ({words.splitlines()[0]}).")
    return StoreError(f"{what}: {words.splitlines()[0]}.")
