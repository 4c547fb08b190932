"""A public URL: what it serves is compared with the bucket."""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Self

import pytest

from mirror.layout import CACHE_CONTROL
from tests.diagnosis.clinic import MakeClinic


def test_a_public_url_that_serves_the_bucket(clinic: MakeClinic) -> None:
    here = clinic("miniflare-obstore")
    assert here.place.server is not None
    base = here.place.server.public_url(here.place.url.bucket)
    here.bucket["public_url"] = f"{base}/{here.place.url.path}"
    assert here.found()["public_url"].status == "skip", "no object: nothing is asked for"
    here.sync()
    found = here.found()["public_url"]
    assert found.status == "ok", found
    here.bucket["public_url"] = f"{base}/elsewhere"
    found = here.found()["public_url"]
    assert found.status == "fail"
    assert "404" in found.what


class Web:
    """A CDN: answers every GET the same, and remembers what it was asked for."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Self:
        self.url = f"http://127.0.0.1:{self._server.server_port}/inat"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


GOOD = {"Content-Type": "image/jpeg", "Cache-Control": CACHE_CONTROL}


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected", "words"),
    [
        (200, None, GOOD, "ok", "same bytes"),
        (403, b"", {}, "fail", "answers 403"),
        (404, b"", {}, "fail", "answers 404"),
        (302, b"", {"Location": "http://127.0.0.1:9/"}, "fail", "answers 302"),
        (200, b"another picture", GOOD, "fail", "other bytes"),
        (200, None, GOOD | {"Content-Type": "text/plain"}, "fail", "text/plain, not image/jpeg"),
        (200, None, {"Content-Type": "image/jpeg"}, "warn", "Cache-Control"),
    ],
)
def test_a_public_url_is_compared_with_the_bucket(
    clinic: MakeClinic,
    status: int,
    body: bytes | None,
    headers: Mapping[str, str],
    expected: str,
    words: str,
) -> None:
    here = clinic("file")
    here.sync()
    objects = Path(here.place.url.path) / "objects"
    smallest = min((p for p in objects.rglob("*.jpg")), key=lambda p: (p.stat().st_size, p))
    with Web(status, smallest.read_bytes() if body is None else body, headers) as web:
        here.bucket["public_url"] = web.url
        found = here.found()["public_url"]
    assert (found.status, words in found.what) == (expected, True), found
    (asked,) = web.asked
    assert asked == f"/inat/objects/{smallest.parent.name}/{smallest.name}"


def test_a_public_url_that_nobody_listens_at(clinic: MakeClinic) -> None:
    here = clinic("file")
    here.sync()
    here.bucket["public_url"] = "http://127.0.0.1:9/inat"
    assert here.found()["public_url"].status == "fail"
