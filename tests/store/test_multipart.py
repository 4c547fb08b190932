"""Objects in parts, when the network or the server fails one of their requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from mirror.errors import Throttled
from mirror.store import open_store
from mirror.store.base import Headers, Store
from mirror.store.retry import Retrying
from mirror.store.s3_access import S3Access
from tests.conftest import MakePlace
from tests.support.fault_proxy import (
    ACCESS_DENIED,
    SLOW_DOWN,
    Fault,
    FaultProxy,
    Request,
    ResetAfter,
    refusal,
)
from tests.support.mirror_setup import SOON

PART = 5 << 20
BODY = bytes(PART) + b"tail"
Story = Callable[[Store], Awaitable[None]]


@pytest.fixture
def proxy(make_place: MakePlace) -> Iterator[FaultProxy]:
    with FaultProxy(make_place("moto-obstore").layer["endpoint"]) as proxy:
        yield proxy


async def chunks() -> AsyncIterator[bytes]:
    for start in range(0, len(BODY), PART):
        yield BODY[start : start + PART]


def run(make_place: MakePlace, name: str, proxy: FaultProxy, story: Story) -> None:
    place = make_place(name)
    settings = place.settings(bucket={"endpoint": proxy.endpoint})

    async def tell() -> None:
        access = S3Access(place.url, settings.bucket)
        store = open_store(place.url, access, settings.bucket, concurrency=4)
        try:
            await story(store)
        finally:
            await store.aclose()

    asyncio.run(tell())


@pytest.mark.parametrize("name", ["moto-obstore", "moto-aioboto3"])
def test_an_upload_whose_completion_was_not_answered_is_sent_again(
    name: str, make_place: MakePlace, proxy: FaultProxy
) -> None:
    """The repeated completion meets no upload, which does not mean a missing object."""
    completed: list[str] = []

    def rule(request: Request) -> Fault | None:
        if request.method != "POST" or "uploadId=" not in request.target:
            return None
        completed.append(request.target)
        if len(completed) == 1:
            return ResetAfter()
        return refusal(404, "NoSuchUpload") if request.target == completed[0] else None

    async def story(store: Store) -> None:
        await Retrying(store, SOON).put_multipart("large", chunks, PART, Headers())
        assert await store.get("large") == BODY

    proxy.rule = rule
    run(make_place, name, proxy, story)
    assert len(set(completed)) == 2


def test_a_failed_abort_does_not_hide_the_first_error(
    make_place: MakePlace, proxy: FaultProxy
) -> None:
    """A part is throttled and the abort is denied; the first error is the one raised."""

    def rule(request: Request) -> Fault | None:
        if request.method == "PUT":
            return SLOW_DOWN
        return ACCESS_DENIED if request.method == "DELETE" else None

    async def story(store: Store) -> None:
        with pytest.raises(Throttled):
            await store.put_multipart("large", chunks, PART, Headers())

    proxy.rule = rule
    run(make_place, "moto-aioboto3", proxy, story)
    assert "DELETE" in {method for method, _ in proxy.requests}
