"""Read the mirror for training: every byte is verified, and iNaturalist is never contacted.

from mirror import Fetcher                          a URL in, the image's bytes out
from mirror.torch import MirrorDataset              a dataset for PyTorch
from mirror.fetch import UrlDownloader, get         drop-ins for a downloader and for requests.get
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
