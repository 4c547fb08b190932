"""The public URL must serve the same objects as the bucket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mirror.layout import CACHE_CONTROL
from tests.diagnosis.doctor_setup import MakeSetup
from tests.support.http_servers import answering


def test_a_public_url_that_serves_the_bucket(make_setup: MakeSetup) -> None:
    setup = make_setup("miniflare-obstore")
    assert setup.place.server is not None
    base = setup.place.server.public_url(setup.place.url.bucket)
    setup.bucket["public_url"] = f"{base}/{setup.place.url.path}"
    assert setup.found()["public_url"].status == "skip", "no object: nothing is asked for"
    setup.sync()
    found = setup.found()["public_url"]
    assert found.status == "ok", found
    setup.bucket["public_url"] = f"{base}/elsewhere"
    found = setup.found()["public_url"]
    assert found.status == "fail"
    assert "404" in found.what


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
    make_setup: MakeSetup,
    status: int,
    body: bytes | None,
    headers: Mapping[str, str],
    expected: str,
    words: str,
) -> None:
    setup = make_setup("file")
    setup.sync()
    objects = Path(setup.place.url.path) / "objects"
    smallest = min((p for p in objects.rglob("*.jpg")), key=lambda p: (p.stat().st_size, p))
    asked: list[str] = []
    served = smallest.read_bytes() if body is None else body
    with answering(status, served, headers, asked) as url:
        setup.bucket["public_url"] = f"{url}/inat"
        found = setup.found()["public_url"]
    assert (found.status, words in found.what) == (expected, True), found
    assert asked == [f"/inat/objects/{smallest.parent.name}/{smallest.name}"]


def test_a_public_url_at_a_closed_port(make_setup: MakeSetup) -> None:
    setup = make_setup("file")
    setup.sync()
    setup.bucket["public_url"] = "http://127.0.0.1:9/inat"
    assert setup.found()["public_url"].status == "fail"
