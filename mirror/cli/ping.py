"""Pings to a monitor when a run starts and ends, in the protocol of healthchecks.io.

    POST <url>/start?rid=…     the run has started
    POST <url>/<status>?rid=…  it ended with this exit status; the body is the log

A monitor that does not answer must not fail the run: `ping` returns the reason and never raises.
"""

from __future__ import annotations

import http.client
import urllib.request
import uuid
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from mirror.system.plain_http import opened

TIMEOUT_SECONDS: Final = 5.0
_LONGEST_BODY: Final = 50_000


def ping_url(url: str, signal: str, run_id: str) -> str:
    """The address for a signal: `start`, or an exit status.

    The monitor pairs a start with its end by `rid`. It must be a UUID, so it is made of the run id.
    """
    parts = urlsplit(url)
    rid = uuid.uuid5(uuid.NAMESPACE_OID, run_id)
    query = "&".join(filter(None, [parts.query, urlencode({"rid": rid})]))
    path = f"{parts.path.rstrip('/')}/{signal}"
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def ping(url: str, signal: str, run_id: str, body: str = "") -> str | None:
    """Send a signal. Never raises.

    Returns:
        None if it arrived, else the reason, without the address: its path is a secret.
    """
    request = urllib.request.Request(  # noqa: S310 - the option allows only http and https
        ping_url(url, signal, run_id),
        data=body.encode("utf-8", "replace")[-_LONGEST_BODY:],
        headers={"User-Agent": "dataset-mirror", "Content-Type": "text/plain; charset=utf-8"},
        method="POST",
    )
    try:
        with opened(request, TIMEOUT_SECONDS):
            return None
    except urllib.request.HTTPError as error:
        error.close()
        return f"it answered {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        return str(getattr(reason, "strerror", None) or reason) or type(error).__name__
