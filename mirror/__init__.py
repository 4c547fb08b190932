"""Mirror a URL-keyed image cache to a bucket of your own, and train from it.

    from mirror import Mirror

    m = Mirror.open("mirror.toml")
    m.sync(progress=True)
    with m.fetcher() as fetch:
        data = fetch(url)

Public are the names of this module, of `mirror.torch` and of `mirror.testing`, the drop-ins of
`mirror.fetch`, and the file system of `mirror.fetch.filesystem`. docs/api.md documents all of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mirror._version import __version__

if TYPE_CHECKING:
    from mirror.api import Mirror
    from mirror.content.decode import rgb
    from mirror.errors import (
        AccessDenied,
        AlreadyExists,
        BadCredentials,
        BucketMissing,
        Busy,
        CacheError,
        CatalogError,
        ClockSkew,
        ConditionalPutIgnored,
        ConfigError,
        Conflict,
        ContentCollision,
        CorruptObject,
        DatasetError,
        FetchError,
        Flagged,
        FormatError,
        Interrupted,
        MirrorError,
        NotAnS3Server,
        NotCached,
        NotFound,
        NothingLeft,
        NotMirrored,
        OriginBlocked,
        OutputError,
        PreconditionFailed,
        StateDamaged,
        StateError,
        StoreError,
        StoreSetupError,
        StoreUnavailable,
        Throttled,
        TooManyBadSamples,
        Transient,
        Undecodable,
        Unreachable,
        Untrusted,
        UsageError,
        WrongRegion,
    )
    from mirror.fetch.client import AsyncFetcher, Fetcher
    from mirror.run.progress import Progress, Stage
    from mirror.run.report import Report

# Where each name is. A module loads when one of its names is first used: `mirror --version` and
# `from mirror import NotMirrored` should not pay for NumPy.
_MODULES: Final = {
    "mirror.api": ("Mirror",),
    "mirror.content.decode": ("rgb",),
    "mirror.fetch.client": ("AsyncFetcher", "Fetcher"),
    "mirror.run.progress": ("Progress", "Stage"),
    "mirror.run.report": ("Report",),
    "mirror.errors": (
        "MirrorError",
        "UsageError",
        "ConfigError",
        "Busy",
        "Interrupted",
        "OutputError",
        "CacheError",
        "StateError",
        "StateDamaged",
        "DatasetError",
        "NothingLeft",
        "TooManyBadSamples",
        "FormatError",
        "CatalogError",
        "ContentCollision",
        "FetchError",
        "NotMirrored",
        "Flagged",
        "CorruptObject",
        "Undecodable",
        "OriginBlocked",
        "StoreUnavailable",
        "NotCached",
        "StoreError",
        "NotAnS3Server",
        "NotAnS3Server",
        "NotFound",
        "AlreadyExists",
        "PreconditionFailed",
        "Transient",
        "Throttled",
        "Unreachable",
        "Conflict",
        "StoreSetupError",
        "AccessDenied",
        "BadCredentials",
        "BucketMissing",
        "WrongRegion",
        "NotAnS3Server",
        "Untrusted",
        "ClockSkew",
        "ConditionalPutIgnored",
    ),
}

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "AsyncFetcher",
    "BadCredentials",
    "BucketMissing",
    "Busy",
    "CacheError",
    "CatalogError",
    "ClockSkew",
    "ConditionalPutIgnored",
    "ConfigError",
    "Conflict",
    "ContentCollision",
    "CorruptObject",
    "DatasetError",
    "FetchError",
    "Fetcher",
    "Flagged",
    "FormatError",
    "Interrupted",
    "Mirror",
    "MirrorError",
    "NotAnS3Server",
    "NotCached",
    "NotFound",
    "NotMirrored",
    "NothingLeft",
    "OriginBlocked",
    "OutputError",
    "PreconditionFailed",
    "Progress",
    "Report",
    "Stage",
    "StateDamaged",
    "StateError",
    "StoreError",
    "StoreSetupError",
    "StoreUnavailable",
    "Throttled",
    "TooManyBadSamples",
    "Transient",
    "Undecodable",
    "Unreachable",
    "Untrusted",
    "UsageError",
    "WrongRegion",
    "__version__",
    "rgb",
]


if not TYPE_CHECKING:  # type checkers see the imports above, and refuse any other name

    def __getattr__(name: str) -> Any:
        for module, names in _MODULES.items():
            if name in names:
                value = globals()[name] = getattr(import_module(module), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
