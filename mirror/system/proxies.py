"""The proxy for a URL: one rule for every engine, by the variables that curl reads, too.

Libraries read these variables in different ways: some know no networks in NO_PROXY, some no ALL_PROXY.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from mirror.errors import ConfigError

_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The address of the proxy for requests to a URL; None where they go straight to the server.

    | variable                                   | meaning                                          |
    |--------------------------------------------|--------------------------------------------------|
    | `HTTPS_PROXY`, `HTTP_PROXY`, by the scheme | the proxy; without a scheme it is `http://`      |
    | `ALL_PROXY`                                | the proxy where the one above is absent or empty |
    | `NO_PROXY`, entries separated by commas    | which hosts have none                            |

    An entry is a name, which stands for its subdomains too; an address; a network such as
    `10.0.0.0/8`; or `*`, for all hosts. A name or address may have a port. Lower case goes first.

    Raises:
        ConfigError: the proxy does not speak HTTP.
    """
    parts = urlsplit(url)
    proxy = _variable(f"{parts.scheme}_proxy", environ) or _variable("all_proxy", environ)
    entries = _variable("no_proxy", environ).replace(" ", ",").split(",")
    if not proxy or any(_is_for(entry.lower(), parts) for entry in entries if entry):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    scheme = urlsplit(proxy).scheme
    if scheme not in _PORTS:
        raise ConfigError(
            f"The environment names a {scheme} proxy, and mirror knows only HTTP proxies; set "
            f"{parts.scheme.upper()}_PROXY to one, or add {parts.hostname} to NO_PROXY."
        )
    return proxy


def _variable(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _is_for(entry: str, url: SplitResult) -> bool:
    """Whether an entry of NO_PROXY is for the host of a URL."""
    host = url.hostname or ""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # one of them is a name, or the entry has a port
        pass
    name, _, port = entry.rpartition(":")
    if name and port.isdecimal():
        if int(port) != (url.port or _PORTS.get(url.scheme)):
            return False
        entry = name.strip("[]")
    name = entry.removeprefix("*").removeprefix(".")
    return host == name or host.endswith(f".{name}")
