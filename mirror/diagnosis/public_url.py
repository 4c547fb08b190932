"""Does `bucket.public_url` serve the bucket's objects? Checked with one object that exists.

The check never requests a missing key: a CDN caches "not found" for longer than an upload takes.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Final

from mirror.diagnosis.finding import Finding, fail, ok, skip, warn
from mirror.layout import CACHE_CONTROL, FORMATS, parse_object_key
from mirror.system.plain_http import opened
from mirror.urls import ObjectUrls

_SECONDS: Final = 20.0
_FIX: Final = "Let bucket.public_url be the address that serves the prefix: HOST/PREFIX."


def examine(urls: ObjectUrls, key: str | None, body: bytes) -> Finding:
    """Send one GET for an object, as a reader without credentials does.

    Args:
        urls: addresses of a mirror with a public URL.
        key: of the object, relative to the prefix; None if the mirror has no object yet.
        body: the object's bytes in the bucket.
    """
    if key is None:
        return skip("public_url", "not checked: the mirror has no object yet")
    address = urls.url("public", key)
    try:
        served, headers = _get(address)
    except urllib.error.HTTPError as error:
        error.close()
        fix = "Allow everyone to read objects/ there."
        if error.code == 404:
            fix = _FIX
        elif 300 <= error.code < 400:
            fix = f"{_FIX} Readers do not follow redirects."
        return fail("public_url", f"{address} answers {error.code}", fix)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", "") or error
        return fail("public_url", f"{address} cannot be reached ({reason})", _FIX)
    if served != body:
        fix = f"{_FIX} If it does, purge the CDN's cache: it holds another object."
        return fail("public_url", f"{address} serves other bytes than the bucket", fix)
    parsed = parse_object_key(key)
    types = dict(FORMATS.values())
    wanted = types.get(parsed[1]) if parsed else None
    kind = (headers.get("Content-Type") or "").partition(";")[0].strip()
    if wanted is not None and kind != wanted:
        fix = "Let the CDN pass the bucket's Content-Type on."
        return fail("public_url", f"{address} is served as {kind or 'no type'}, not {wanted}", fix)
    if "immutable" not in (headers.get("Cache-Control") or ""):
        fix = f'Let the CDN pass "Cache-Control: {CACHE_CONTROL}" on: without it readers reload images.'
        return warn("public_url", "the same bytes, but without the bucket's Cache-Control", fix)
    if "r2.dev" in address:
        return warn(
            "public_url",
            "r2.dev is throttled, so it is too slow for training",
            "Use a custom domain.",
        )
    return ok("public_url", f"{address} serves the same bytes and headers")


def _get(address: str) -> tuple[bytes, http.client.HTTPMessage]:
    request = urllib.request.Request(address, headers={"User-Agent": "dataset-mirror"})  # noqa: S310 - http(s), by ObjectUrls
    with opened(request, _SECONDS) as answer:
        return answer.read(), answer.headers
