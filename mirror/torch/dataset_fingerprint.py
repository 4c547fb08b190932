"""The fingerprint of a dataset: a hash that two datasets share only if their samples are the same.

A state stores it, so that an epoch continues only with the samples that it began with. Subsets,
concatenated and stacked datasets are hashed from their parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xxhash
from torch.utils.data import ConcatDataset, StackDataset, Subset


def fingerprint_of(dataset: Any) -> str | None:
    """Hash what can be known of a dataset's samples and their order.

    A dataset's own `fingerprint`, if it is a string, is taken as it is. A `Subset` (so each part of a
    `random_split`) adds its indices to the hash of its source. `ConcatDataset` and `StackDataset` add
    the hashes of their datasets, in order. Of any other wrapper, the hash covers the `dataset`
    inside, but not what the wrapper does to it. A part without a fingerprint counts by its length.

    Args:
        dataset: a map-style dataset.

    Returns:
        The fingerprint; None for a dataset that has none and wraps no other.
    """
    own = getattr(dataset, "fingerprint", None)
    if isinstance(own, str):
        return own
    if isinstance(dataset, Subset):
        indices = np.asarray(dataset.indices, "<i8")
        return _digest("subset", _of_part(dataset.dataset), indices.tobytes())
    if isinstance(dataset, ConcatDataset):
        return _digest("concat", *map(_of_part, dataset.datasets))
    if isinstance(dataset, StackDataset):
        columns = dataset.datasets
        if isinstance(columns, dict):
            return _digest("stack", *columns, *map(_of_part, columns.values()))
        return _digest("stack", *map(_of_part, columns))
    if hasattr(dataset, "dataset"):
        return _digest("wrapper", _of_part(dataset.dataset))
    return None


def _of_part(dataset: Any) -> str:
    known = fingerprint_of(dataset)
    if known is not None:
        return known
    return f"{len(dataset)} samples" if hasattr(dataset, "__len__") else "unknown"


def _digest(*parts: str | bytes) -> str:
    """Hash a list of texts; the length before each keeps two lists apart."""
    digest = xxhash.xxh3_64()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
