"""A server that reads the head of a PUT, and then nothing more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

import pytest

from mirror.config.settings import BucketSettings
from mirror.errors import Unreachable
from mirror.layout import BucketUrl
from mirror.store.base import Create, Headers
from mirror.store.engines.aioboto3 import Aioboto3Store
from mirror.store.s3_access import S3Access
from tests.support.http_servers import serving

# More bytes than the buffers of both ends hold.
BODY = bytes(32 << 20)
BEGUN = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"


class Stalling(NamedTuple):
    """A server; it breaks its connections when it is `over`."""

    endpoint: str
    over: threading.Event


@pytest.fixture
def stalling(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stalling]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            over.wait()

        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BEGUN)))
            self.end_headers()
            self.wfile.write(BEGUN)

        def do_DELETE(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silence."""

    with serving(Handler) as url:
        try:
            yield Stalling(url, over)
        finally:
            over.set()


async def chunks() -> AsyncIterator[bytes]:
    yield BODY


STORIES: dict[str, Callable[[Aioboto3Store], Awaitable[object]]] = {
    "whole": lambda store: store.put("k", BODY, Create(), Headers()),
    "in parts": lambda store: store.put_multipart("k", chunks, len(BODY), Headers()),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("story", STORIES)
def test_a_body_that_the_server_does_not_read_is_given_up_as_transient(
    story: str, stalling: Stalling
) -> None:
    settings = BucketSettings(endpoint=stalling.endpoint, region="auto")
    access = S3Access(BucketUrl.parse("s3://plants"), settings)

    async def tell() -> None:
        store = Aioboto3Store(access, seconds=0.2)
        try:
            with pytest.raises(Unreachable, match="TimeoutError"):
                await STORIES[story](store)
        finally:
            await store.aclose()
        stalling.over.set()
        loop: Any = asyncio.get_running_loop()
        # The connection still holds unwritten bytes; no event says when it has closed.
        while len(loop._selector.get_map()) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0)

    asyncio.run(tell())
