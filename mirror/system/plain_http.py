"""One HTTP request by the standard library: verified TLS, a timeout, and no redirects.

Following a redirect could lead a reader out of the mirror. It could also send the secret address of
a monitor to another server.
"""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse
from typing import cast


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Return None, so the redirect becomes an HTTPError with its status."""


def opened(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    """Send a request and return the response, which has a 2xx status.

    Args:
        request: its URL begins with http:// or https://; the caller has checked that.
        timeout: seconds without any data after which the request fails.

    Raises:
        urllib.error.HTTPError: any other status.
        OSError: no connection, no trusted certificate, or no answer in time.
        http.client.HTTPException: the response is not HTTP.
    """
    return cast(
        "HTTPResponse", urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout)
    )
