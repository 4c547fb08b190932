"""Connected components: records that share contents or groups and must stay in one split."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.splits.split import Keys, as_words
from mirror.duplicates.connected_components import component_roots


class RecordKeys(NamedTuple):
    """Pairs of a record and a key. A record may have any number of keys, in any order.

    Attributes:
        record: the numbers of records, 0 … records - 1.
        key: the key of each pair; same length.
    """

    record: NDArray[np.intp]
    key: Keys

    @classmethod
    def one_each(cls, keys: Keys) -> Self:
        """The pairs of records that have one key each."""
        return cls(np.arange(len(keys), dtype=np.intp), keys)


def component_keys(
    records: int,
    contents: RecordKeys,
    groups: RecordKeys | None = None,
    orders: NDArray[np.int64] | None = None,
) -> NDArray[np.uint64]:
    """A key for each record, equal for records that must be in one split.

    Records that share a content or a group form a connected component. Its key is the smallest key
    of its groups. If it has no group, it is that of its first content by `orders`, and of equally
    early ones the smallest. This has three consequences:

    - New contents in old groups or beside older contents move no record.
    - Without groups, a record with one content has that content's key.
    - When two components are joined, one of them keeps its split.

    Which key is the smallest does not favour a split, because `by_key` mixes it. Every record needs
    a key: for a record that is kept without a mirrored image, pass a key of its URL as its content.

    Args:
        records: the number of records.
        contents: the content keys of records, for example one per image.
        groups: the group keys of records with a group. A group and a content with equal keys are
            not joined.
        orders: for each pair of `contents` its place in time; None if all are equal.

    Raises:
        ValueError: a record has no key.
    """
    tables = [
        RecordKeys(table.record, as_words(table.key)) for table in (groups, contents) if table
    ]
    root = component_roots(records, *np.concatenate([_links(table) for table in tables], axis=1))
    key = np.full(records, np.iinfo(np.uint64).max, np.uint64)
    named = np.zeros(records, np.bool_)
    for table in tables:
        roots = root[table.record]
        counts = ~named[roots]
        if orders is not None and table is tables[-1]:
            first = np.full(records, np.iinfo(np.int64).max)
            np.minimum.at(first, roots, orders)
            counts &= orders == first[roots]
        np.minimum.at(key, roots[counts], table.key[counts])
        named[roots] = True
    if not named[root].all():
        raise ValueError("every record needs a content key or a group key")
    return key[root]


def _links(table: RecordKeys) -> NDArray[np.intp]:
    """Pairs of records with a common key, 2 × pairs: enough to join all records that have it."""
    order = np.argsort(table.key)
    key = table.key[order]
    record = table.record[order]
    common = np.flatnonzero(key[1:] == key[:-1])
    return np.stack([record[common], record[common + 1]])
