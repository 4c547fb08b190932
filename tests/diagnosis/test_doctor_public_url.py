"""A public URL: what it serves is compared with the bucket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mirror.layout import CACHE_CONTROL
from tests.diagnosis.doctor_setup import MakeClinic
from tests.support.http_servers import answering


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
    asked: list[str] = []
    served = smallest.read_bytes() if body is None else body
    with answering(status, served, headers, asked) as url:
        here.bucket["public_url"] = f"{url}/inat"
        found = here.found()["public_url"]
    assert (found.status, words in found.what) == (expected, True), found
    assert asked == [f"/inat/objects/{smallest.parent.name}/{smallest.name}"]


def test_a_public_url_that_nobody_listens_at(clinic: MakeClinic) -> None:
    here = clinic("file")
    here.sync()
    here.bucket["public_url"] = "http://127.0.0.1:9/inat"
    assert here.found()["public_url"].status == "fail"
