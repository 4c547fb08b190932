"""Reading the mirror for training: never iNaturalist, and never a byte that was not checked.

from mirror import Fetcher                          a URL in, its image's bytes out
from mirror.torch import MirrorDataset        the same for PyTorch
from mirror.fetch import UrlDownloader, get         in place of a downloader, of requests.get
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirror.fetch.dropin import Response, UrlDownloader, get

__all__ = ["Response", "UrlDownloader", "get"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("mirror.fetch.dropin"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
