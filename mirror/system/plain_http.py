"""One request over http or https by the standard library: checked TLS, a timeout, no redirect followed.

A redirect is the server's word for where to go: a reader of the mirror does not follow one out of it,
and a monitor's address is a secret that is nobody else's.
"""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse
from typing import cast


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Nowhere: the redirect becomes the HTTPError of its status."""


def opened(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    """The answer to a request, with a status of 2xx.

    Args:
        request: its address begins with http:// or https://, which its maker has seen to.
        timeout: seconds of silence.

    Raises:
        urllib.error.HTTPError: any other status.
        OSError: no connection, no trusted certificate, no answer in time.
        http.client.HTTPException: it is no HTTP that came.
    """
    return cast("HTTPResponse", urllib.request.build_opener(_Stay).open(request, timeout=timeout))
