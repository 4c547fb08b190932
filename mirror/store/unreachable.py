"""Why a server cannot be reached, in one sentence with what to do. Pure.

Libraries nest the cause deep in their errors, and each in its own words. This table is the only place
that knows the words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from mirror.errors import NotAnS3Server, StoreError, Unreachable

_DOCTOR: Final = "run mirror doctor"

# What a cause's text contains, the cause in words, and what to do about it.
_CAUSES: Final = (
    (
        r"Connection refused|Connect call failed|actively refused",
        "connection refused",
        "start the server, or correct bucket.endpoint",
    ),
    (
        r"dns error|Name or service not known|nodename nor servname|No address associated|getaddrinfo",
        "its host name is unknown",
        "correct bucket.endpoint, or check the network's DNS",
    ),
    (
        r"InvalidContentType|WRONG_VERSION_NUMBER|wrong version number|record layer failure",
        "it does not speak TLS",
        "write http:// in bucket.endpoint if the server is in your own network",
    ),
    (
        r"timed out|[Tt]imeout",
        "no answer in time",
        "check the network and bucket.endpoint",
    ),
    (
        r"No route to host|Network is unreachable|Host is unreachable",
        "there is no route to it",
        "check the network and bucket.endpoint",
    ),
)  # fmt: skip
# A page for people in place of an answer of S3's.
_PAGE: Final = re.compile(r"<!doctype html|<html", re.IGNORECASE)
_WEB_ADDRESS: Final = re.compile(r"https?://[^\s\"'()]+")


def unreachable(what: str, cause: str, address: str = "", proxy: str | None = None) -> Unreachable:
    """Return the error for a request that met no server.

    Args:
        what: the request in words, such as `PUT objects/3f/….jpg`.
        cause: all that the library says of it. Only words that the table knows are passed on, because
            the rest may hold a signed address.
        address: of the server; looked for in the cause if it is empty.
        proxy: the address of the proxy that the request took. Its password is not shown.
    """
    found = address or next(iter(_WEB_ADDRESS.findall(cause)), "")
    server = _origin(found) if found else "the server"
    words, remedy = next(
        ((words, remedy) for text, words, remedy in _CAUSES if re.search(text, cause)),
        ("the connection failed", "check the network and bucket.endpoint"),
    )
    if proxy:
        remedy = f"correct {urlsplit(found).scheme.upper() or 'HTTPS'}_PROXY, or add the host to NO_PROXY"
        words = f"{words}, through the proxy {_origin(proxy)}"
    return Unreachable(f"{what}: {server} cannot be reached ({words}); {remedy}, and {_DOCTOR}.")


def is_page(answer: str) -> bool:
    """Whether an answer is a page for people, and not one of S3's."""
    return _PAGE.search(answer) is not None


def not_an_s3_server(what: str, status: int, address: str = "") -> StoreError:
    """Return the error for an answer that no S3 server gives."""
    server = _origin(address) if address else "the server"
    return NotAnS3Server(
        f"{what}: {server} answers with a web page ({status}), so it is no S3 server; correct "
        f"bucket.endpoint, and {_DOCTOR}."
    )


def etag_in(answer: Mapping[str, Any], what: str) -> str:
    """Return the ETag of boto3's answer to a write.

    Raises:
        NotAnS3Server: there is none, as in every answer of a web server.
    """
    if "ETag" not in answer:
        raise NotAnS3Server(
            f"{what}: the answer names no object, so this is no S3 server; correct bucket.endpoint, "
            f"and {_DOCTOR}."
        )
    return str(answer["ETag"])


def _origin(address: str) -> str:
    """Scheme, host and port of an address: without a user, a password, a path and a query."""
    parts = urlsplit(address)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"{parts.scheme}://{host}{port}"
