"""Mirror a URL-keyed image cache to a bucket of your own, and train from it.

from mirror import Fetcher

with Fetcher.from_config("mirror.toml") as fetch:
    data = fetch(url)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mirror._version import __version__

if TYPE_CHECKING:
    from mirror.fetch.client import AsyncFetcher, Fetcher

__all__ = ["AsyncFetcher", "Fetcher", "__version__"]


def __getattr__(name: str) -> Any:
    # By name and when asked for: `mirror --version` must not pay for NumPy.
    if name in ("AsyncFetcher", "Fetcher"):
        return getattr(import_module("mirror.fetch.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
