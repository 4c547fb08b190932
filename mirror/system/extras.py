"""Optional libraries, by the extra of this package that installs them."""

from __future__ import annotations

import importlib
from typing import Any, Final

from mirror.errors import UsageError

# Library → extra. pyproject.toml has the same extras.
EXTRAS: Final = {
    "aioboto3": "aioboto3",
    "fsspec": "fsspec",
    "moto": "demo",
    "pyarrow": "parquet",
    "pymongo": "mongo",
    "skimage": "demo",
    "torch": "torch",
}


def import_optional(library: str, what: str) -> Any:
    """Import a library that a base install lacks.

    Args:
        library: a key of `EXTRAS`.
        what: needs it, as the subject of a sentence.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError:
        raise UsageError(missing(library, what)) from None


def missing(library: str, what: str) -> str:
    """The sentence about a library that is not installed."""
    return f"{what} needs {library}; install it: pip install 'dataset-mirror[{EXTRAS[library]}]'."
