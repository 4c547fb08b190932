"""The hosts that a fetch may contact: the mirror's own, and never iNaturalist's. Pure.

The transport asks this module before it opens a connection, sends a request, or follows a redirect.
It allows only origins (scheme, host and port) that the settings name as the mirror's. No option lifts
this, and settings that name iNaturalist as the mirror are an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import urljoin

from mirror.content.photo import from_inaturalist
from mirror.errors import ConfigError, OriginBlocked

_URL: Final = re.compile(
    r"(https?)://([A-Z0-9._-]+|\[[0-9A-F:.]+\])(?::([0-9]{1,5}))?(/[!-\"$-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class HostPort(NamedTuple):
    """An origin: scheme, host in lower case, and port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port as in a URL and in the Host header."""
        default = self.port == _DEFAULT_PORTS[self.scheme]
        return self.host if default else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def split_url(url: str) -> tuple[HostPort, str] | None:
    """Split an http(s) URL into origin and request target; None for any other text."""
    match = _URL.fullmatch(url)
    if match is None:
        return None
    scheme = match[1].lower()
    port = int(match[3]) if match[3] else _DEFAULT_PORTS[scheme]
    return HostPort(scheme, match[2].lower(), port), match[4] or "/"


class AllowedHosts:
    """The origins of the mirror.

    Args:
        bases: http(s) URLs that the URLs of the mirror's objects begin with.

    Raises:
        ConfigError: one of them is iNaturalist's.
    """

    def __init__(self, bases: Iterable[str]) -> None:
        origins = set()
        for base in bases:
            parts = split_url(base)
            if parts is None or from_inaturalist(base):
                raise ConfigError(
                    "bucket.url, bucket.endpoint and bucket.public_url must lead to a mirror of "
                    "your own; one of them leads to iNaturalist, which a training never reads."
                )
            origins.add(parts[0])
        self.origins: Final = frozenset(origins)

    def require(self, origin: HostPort) -> None:
        """Raise OriginBlocked unless the origin is the mirror's."""
        if origin not in self.origins:
            raise OriginBlocked(f"A request to {origin} was not sent: it is not the mirror's host.")

    def redirected(self, url: str, location: str) -> tuple[HostPort, str]:
        """Return origin and request target of a redirect within the mirror.

        Args:
            url: the URL that was requested.
            location: the response's Location header.

        Raises:
            OriginBlocked: the redirect leads out of the mirror.
        """
        whole = urljoin(url, location).partition("#")[0]
        parts = split_url(whole)
        if parts is None or parts[0] not in self.origins or from_inaturalist(whole):
            place = parts[0] if parts else "a place that is no web address"
            raise OriginBlocked(
                f"The mirror's server redirects to {place}, which is not the mirror's host; "
                "the redirect was not followed. Correct the server, or bucket.public_url."
            )
        return parts
