"""Endpoints that are no S3 server, or none at all: one sentence each, the same for every library."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from mirror.catalog import delta_table
from mirror.catalog.open_mirror import Location
from mirror.config.loading import Layer, merge
from mirror.config.settings import Settings
from mirror.diagnosis.doctor import examine
from mirror.errors import (
    AccessDenied,
    BadCredentials,
    ClockSkew,
    MirrorError,
    NotAnS3Server,
    StoreError,
    Throttled,
    Unreachable,
)
from mirror.store.base import Create, Headers
from mirror.store.object_store_errors import error_of, one_line
from mirror.store.retry import RetryPolicy
from mirror.store.unreachable import etag_in, not_an_s3_server, unreachable
from tests.support.http_servers import answering

ENGINES = ["obstore", "aioboto3"]
SOON = RetryPolicy(base=0.001, cap=0.002)
XML = {"Content-Type": "application/xml"}


@pytest.fixture(autouse=True)
def keys(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(delta_table, "_ATTEMPTS", 1)  # deltalake itself retries ten times


@pytest.fixture
def closed() -> Iterator[str]:
    """The address of a port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def settings(endpoint: str, engine: str = "obstore") -> Settings:
    bucket = {"url": "s3://b/p", "endpoint": endpoint, "region": "us-east-1", "engine": engine}
    return merge([Layer("test", {"bucket": bucket})])


def refusals(endpoint: str, engine: str) -> dict[str, MirrorError]:
    """What reading an object, listing, and with obstore reading the catalog's log raises."""
    location = Location(settings(endpoint, engine))

    async def ask() -> dict[str, MirrorError]:
        store = location.store()
        catalog = location.catalog(store, SOON)
        asked: dict[str, Callable[[], Awaitable[Any]]] = {
            "GET": lambda: store.get("format.json"),
            "LIST": lambda: store.list_page("objects/", ""),
            "PUT": lambda: store.put("k", b"body", Create(), Headers("image/jpeg")),
        }
        if engine == "obstore":
            asked["log"] = lambda: asyncio.to_thread(catalog.version)
        found: dict[str, MirrorError] = {}
        try:
            for name, request in asked.items():
                with pytest.raises(MirrorError) as raised:
                    await request()
                found[name] = raised.value
        finally:
            await store.aclose()
        return found

    return asyncio.run(ask())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_port_on_which_nothing_listens(closed: str, engine: str) -> None:
    for what, error in refusals(f"http://{closed}", engine).items():
        assert isinstance(error, Unreachable), what
        assert str(error).endswith(
            f"http://{closed} cannot be reached (connection refused); start the server, or correct "
            "bucket.endpoint, and run mirror doctor."
        )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_port_that_does_not_speak_tls(engine: str) -> None:
    with answering(200, b"<html>", {}) as url:
        for what, error in refusals(url.replace("http://", "https://"), engine).items():
            assert isinstance(error, Unreachable), what
            assert "it does not speak TLS); write http:// in bucket.endpoint" in str(error)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_proxy_is_named_without_its_password(
    closed: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://someone:password@{closed}")
    for what, error in refusals("http://s3.example.org", engine).items():
        assert isinstance(error, Unreachable), what
        assert f"through the proxy http://{closed}); correct HTTP" in str(error)
        assert "or add the host to NO_PROXY" in str(error)
        assert "password" not in str(error)
        assert "someone" not in str(error)


@pytest.mark.parametrize("status", [400, 403, 404, 405])
def test_a_web_page_is_not_taken_for_an_answer_of_s3(status: int) -> None:
    with answering(status, b"<!DOCTYPE html><html>nope</html>", {}) as url:
        for what, error in refusals(url, "obstore").items():
            assert isinstance(error, NotAnS3Server), what
            assert f"{url} answers with a web page ({status})" in str(error)
            assert error.exit_status == 78


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "ExpiredToken", BadCredentials),
        (403, "InvalidAccessKeyId", BadCredentials),
        (403, "RequestTimeTooSkewed", ClockSkew),
        (403, "AccessDenied", AccessDenied),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_refusal_is_the_same_for_objects_and_for_the_log(
    engine: str, status: int, code: str, kind: type[StoreError]
) -> None:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>"
    with answering(status, body.encode(), XML) as url:
        said = {
            str(error).partition(": ")[2]
            for error in refusals(url, engine).values()
            if type(error) is kind
        }
        assert len(said) == 1, "one sentence, whichever library met it"
        assert len(refusals(url, engine)) == (4 if engine == "obstore" else 3)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_that_answers_everything_with_a_page(engine: str) -> None:
    with answering(200, b"<html>hello</html>", {}) as url:
        checks = {check.name: check for check in examine(settings(url, engine))}
    assert checks["endpoint"].status == "fail"
    assert "answers with a web page (200), so it is no S3 server" in checks["endpoint"].what


# --- the tables alone ---


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("tcp connect error: Connection refused (os error 111)", "connection refused"),
        ("Cannot connect to host h:1 ssl:default [Connect call failed]", "connection refused"),
        ("dns error: failed to lookup address information", "its host name is unknown"),
        ("[Errno -2] Name or service not known", "its host name is unknown"),
        ("received corrupt message of type InvalidContentType", "it does not speak TLS"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "it does not speak TLS"),
        ("Connect timeout on endpoint URL", "no answer in time"),
        ("Network is unreachable (os error 101)", "there is no route to it"),
        ("something new", "the connection failed"),
    ],
)
def test_the_cause_is_told_in_our_words(cause: str, words: str) -> None:
    error = unreachable("GET k", cause, "https://u:p@h.example:9000/b?X-Amz-Signature=1")
    assert str(error).startswith(f"GET k: https://h.example:9000 cannot be reached ({words}); ")


def test_an_address_in_the_cause_is_shown_without_its_query() -> None:
    error = unreachable("GET k", 'Could not connect: "http://[::1]:9/b/k?X-Amz-Signature=secret"')
    assert "http://[::1]:9 cannot" in str(error)
    assert "secret" not in str(error)


def test_an_error_of_another_kind_is_not_translated() -> None:
    for text in ("Invalid table version: 7", "Kernel error\n \x1b[31m↳\x1b[0m no such column"):
        assert error_of(OSError(text), "The log", "http://h", None) is None


def test_a_drawn_tree_becomes_one_line() -> None:
    drawn = "Kernel error\n   \x1b[31m↳\x1b[0m status code\n    \x1b[31m↳\x1b[0m 503 Slow\n"
    assert one_line(drawn) == "Kernel error: status code: 503 Slow"
    assert isinstance(error_of(OSError(drawn), "The log", "http://h", None), Throttled)


def test_an_answer_without_an_etag_is_no_answer_of_s3() -> None:
    assert etag_in({"ETag": '"1"'}, "PUT k") == '"1"'
    with pytest.raises(NotAnS3Server, match="names no object"):
        etag_in({}, "PUT k")
    assert "http://h answers" in str(not_an_s3_server("GET k", 404, "http://h/path"))
