"""A minimal AWS Signature Version 4, so that the servers' set-up needs no client library."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import http.client
import urllib.parse


def signed_request(
    method: str,
    url: str,
    body: bytes = b"",
    *,
    access_key: str,
    secret_key: str,
    region: str,
    timeout: float = 10.0,
) -> int:
    """Send one request to a loopback server and return its status. The path must not need quoting."""
    parts = urllib.parse.urlsplit(url)
    now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "host": parts.netloc,
        "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
        "x-amz-date": now,
    }
    names = ";".join(headers)
    lines = [f"{name}:{value}" for name, value in headers.items()]
    canonical = [method, parts.path, "", *lines, "", names, headers["x-amz-content-sha256"]]
    scope = f"{now[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    key = f"AWS4{secret_key}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.digest(
        key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}".encode(), "sha256"
    ).hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    # Not urllib, which would use a proxy from the environment for loopback.
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    with contextlib.closing(connection):
        connection.request(method, parts.path, body, headers)
        return connection.getresponse().status
