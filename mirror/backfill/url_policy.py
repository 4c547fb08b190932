"""Which URLs and addresses may be requested, and how often. Pure: host names are looked up elsewhere.


A dataset is a stranger's file, and a redirect comes from a stranger's server. Neither may make this
machine send requests into its own network, or to a server that its user has not listed.

| a URL is refused if                            | reason given                            |
|------------------------------------------------|-----------------------------------------|
| it does not parse, or has no host              | no address                              |
| its scheme is not http or https                | its scheme                              |
| it has a user name or a password               | it carries a password                   |
| its host is not on the list                    | its host                                |
| its port is neither the scheme's nor listed    | its port                                |
| its host is a refused address                  | the address                             |

| an address is refused if it is                 | unless                                  |
|------------------------------------------------|-----------------------------------------|
| not globally reachable: loopback, private,     | `allow_private` is set                  |
|   link-local, shared, reserved, unspecified    |                                         |
| multicast                                      | –                                       |
| an IPv4 address inside an IPv6 one (mapped,    | – (the system would connect to another  |
|   6to4, Teredo). NAT64's is judged as the IPv4 |   address than the one that is checked) |
|   address inside                               |                                         |
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from mirror.dataset.licenses import license_names
from mirror.errors import ConfigError

# Hosts that serve the same photos and share one limit.
_SOURCES: Final = {
    "static.inaturalist.org": "inaturalist",
    "inaturalist-open-data.s3.amazonaws.com": "inaturalist",
}
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_BASE: Final = re.compile(r"[^/?#\\]*//[^/?#\\]*")
_HOST: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_ROBOTS_AGENT: Final = "dataset-mirror"
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_CRAWL_DELAY: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?").fullmatch
_REQUEST_RATE: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,9})s?").fullmatch
# Only the beginning of a longer robots.txt counts; RFC 9309 requires at least this much.
_ROBOTS_BYTES: Final = 500 << 10
# Seconds. A site that asks for more than an hour between two images has made a mistake.
_LONGEST_INTERVAL: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a URL is not requested."""

    reason: str


@dataclass(frozen=True)
class UrlPolicy:
    """The hosts and addresses that may be contacted.

    Args:
        hosts: each `HOST` or `HOST:PORT`.
        allow_private: allow any address and any port of these hosts. Only for tests.

    Raises:
        ConfigError: an entry of `hosts` is not a host.
    """

    hosts: tuple[str, ...]
    allow_private: bool = False
    _ports: dict[str, set[int | None]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ports: dict[str, set[int | None]] = {}
        for text in self.hosts:
            match = _HOST.fullmatch(text.strip())
            if not match:
                raise ConfigError(
                    f"backfill.hosts holds {text!r}, which is not a host; write img.example.org, "
                    "or img.example.org:8080."
                )
            port = int(match[2]) if match[2] else None
            ports.setdefault(_normalised(match[1].strip("[]")), set()).add(port)
        object.__setattr__(self, "_ports", ports)

    def judge(self, text: str) -> URL | Refusal:
        """The parsed URL if it may be requested, or why not.

        Args:
            text: an absolute URL from a dataset or a Location header.
        """
        # One parser: the value that is judged here is the one that is requested.
        url = parsed(text.strip())
        if url is None:
            return Refusal("no address")
        host, port = url.host, url.port
        if url.scheme not in ("http", "https"):
            return Refusal(f"scheme {url.scheme[:20]!r}" if url.scheme else "no address")
        if not host:
            return Refusal("no address")
        if url.user is not None or url.password is not None:
            return Refusal("carries a password")
        ports = self._ports.get(_normalised(host))
        if ports is None:
            return Refusal(f"host {host[:80]} is not on the list")
        is_listed = port in ports or (None in ports and url.is_default_port())
        if not is_listed and not self.allow_private:
            return Refusal(f"port {port} is not on the list")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return url
        refused = self.refused_address(str(address))
        return Refusal(refused) if refused else url

    def refused_address(self, text: str) -> str | None:
        """Why an address may not be contacted; None if it may.

        Args:
            text: an IPv4 or IPv6 address, perhaps with a zone.
        """
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return "no address"
        if isinstance(address, ipaddress.IPv6Address):
            if address in _NAT64:
                address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
            elif address.ipv4_mapped or address.sixtofour or address.teredo:
                return f"address {text} hides another"
            elif address.is_site_local and not self.allow_private:  # the old fec0::/10
                return f"address {text} is not public"
        if address.is_multicast:
            return f"address {text} is multicast"
        if self.allow_private:
            return None
        inside = address.is_private or address.is_loopback or address.is_link_local
        if inside or address.is_reserved or address.is_unspecified or not address.is_global:
            return f"address {text} is not public"
        return None


def base_of(url: str) -> str:
    """A URL up to its path: scheme, host and port. A URL without a host is returned whole."""
    match = _BASE.match(url)
    return match[0] if match else url


def source_of(url: URL) -> str:
    """The source whose limits apply: the host, or `inaturalist` for all of its hosts."""
    host = _normalised(url.host or "")
    return _SOURCES.get(host, host)


def robots_interval(robots: bytes) -> float:
    """Seconds between two requests that a robots.txt asks for; 0 if it asks for none.

    Reads `Crawl-delay` and `Request-rate` of the rules for our agent, or of those for all agents. A
    value that cannot be read states no rate. Python's own parser raises an error for some of them.
    """
    text = robots[:_ROBOTS_BYTES].decode("utf-8-sig", "replace")
    intervals: dict[str, float] = {}  # by agent
    agents: list[str] = []
    in_rules = False
    for line in _LINE_END.split(text):
        name, colon, value = line.partition("#")[0].partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon:
            continue
        if name == "user-agent":
            if in_rules:
                agents, in_rules = [], False
            agents.append(value.partition("/")[0].strip().lower())
            intervals.setdefault(agents[-1], 0.0)
            continue
        if name == "sitemap":  # it belongs to no group
            continue
        in_rules = True
        stated = _stated_interval(name, value)
        for agent in agents:
            intervals[agent] = max(intervals[agent], stated)
    return min(intervals.get(_ROBOTS_AGENT, intervals.get("*", 0.0)), _LONGEST_INTERVAL)


def _stated_interval(name: str, value: str) -> float:
    """Seconds between two requests that one rule of a robots.txt states, or 0."""
    if name == "crawl-delay" and _CRAWL_DELAY(value):
        return float(value)
    if name == "request-rate" and (rate := _REQUEST_RATE(value)) and int(rate[1]):
        return int(rate[2]) / int(rate[1])
    return 0.0


def _normalised(host: str) -> str:
    return host.lower().rstrip(".")


def configured_licenses(licenses: Sequence[str]) -> frozenset[str]:
    """Return the names of the licences that `backfill.licenses` allows; empty for any.

    Raises:
        ConfigError: an entry names no licence.
    """
    for text in licenses:
        if not license_names([text]):
            raise ConfigError(
                f"backfill.licenses holds {text!r}, which names no licence; write such as cc-by or cc0."
            )
    return license_names(licenses)


def parsed(text: str) -> URL | None:
    """Return text as an address; None if it is none.

    yarl raises ValueError for most of what is no address, and IndexError for some brackets (1.25).
    """
    try:
        url = URL(text)
        _ = url.host, url.port
    except (ValueError, IndexError):
        return None
    return url
