"""A dataset's information about the cache's files: which it uses, and where they come from."""

from __future__ import annotations

from typing import Protocol

import xxhash

from mirror.catalog.row import RowSource


class Sources(Protocol):
    """URLs of a dataset by their MD5. `mirror.dataset.dataset_urls` builds it from a file."""

    def get(self, url_md5: bytes) -> RowSource | None: ...

    def __contains__(self, url_md5: bytes) -> bool: ...


def source_digest(source: RowSource) -> bytes:
    """Eight bytes by which the state recognises a source that it has catalogued already."""
    joined = "\0".join("" if part is None else f"={part}" for part in source)
    return xxhash.xxh3_64_digest(joined.encode())
