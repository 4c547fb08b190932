"""Errors of Rust's object_store, which obstore and deltalake share, translated by their text. Pure.

Both libraries give a request's status and the server's answer only in a message, with the cause of a
failed connection in a tree below it.
"""

from __future__ import annotations

import re
from typing import Final

from mirror.errors import BadCredentials, StoreError
from mirror.store.responses import error_from, untrusted
from mirror.store.unreachable import is_page, not_an_s3_server, unreachable

_STATUS: Final = re.compile(r"status code: (\d{3})")
_DRAWN: Final = re.compile(r"\x1b\[\d+m|↳")
# Only the tree of causes in the debug output names it.
_CERTIFICATE: Final = re.compile(r"InvalidCertificate\(\s*(\w+)")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]+)</Code>|\(code: ([A-Za-z0-9]+)")
_NO_CONNECTION: Final = re.compile(
    r"error sending request|operation timed out|connection closed", re.IGNORECASE
)
_CREDENTIALS: Final = re.compile(rf"{BadCredentials.__name__}: ([^\n]+)")


def error_of(error: BaseException, what: str, address: str, proxy: str | None) -> StoreError | None:
    """Translate an error of obstore or deltalake; None if it came from no request.

    Args:
        error: of the library.
        what: the request in words, such as `PUT objects/3f/….jpg`.
        address: of the server.
        proxy: the address of the proxy that requests take.
    """
    text = one_line(str(error)) if "↳" in str(error) else str(error)
    message = text.split("\n\nDebug source:", 1)[0]
    if "BareRedirect" in text or "redirect without LOCATION" in message:
        return error_from(301, "PermanentRedirect", what)
    if untrusted_because := _CERTIFICATE.search(text):
        return untrusted(what, untrusted_because[1])
    if status := _STATUS.search(message):
        if is_page(message):
            return not_an_s3_server(what, int(status[1]), address)
        named = _CODE.search(message)
        return error_from(int(status[1]), (named[1] or named[2]) if named else "", what)
    if said := _CREDENTIALS.search(text):  # raised by the provider of credentials
        return BadCredentials(f"{what}: {said[1]}")
    if _NO_CONNECTION.search(text):
        return unreachable(what, text, address, proxy)
    return None


def one_line(text: str) -> str:
    """Return a message in one line. deltalake draws its causes as a coloured tree."""
    lines = [_DRAWN.sub("", line).strip() for line in text.splitlines()]
    return ": ".join(line for line in lines if line)
