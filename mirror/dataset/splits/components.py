"""Joins records that must stay in one split: the connected components of shared contents and groups."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.splits.split import Keys, as_words


class RecordKeys(NamedTuple):
    """Keys that records have, as pairs: any number of keys a record, in any order.

    Attributes:
        record: the records' places, 0 … records - 1.
        key: a key of each of those records; same length.
    """

    record: NDArray[np.intp]
    key: Keys

    @classmethod
    def one_each(cls, keys: Keys) -> Self:
        """The pairs when each record has one key."""
        return cls(np.arange(len(keys), dtype=np.intp), keys)


def component_keys(
    records: int, contents: RecordKeys, groups: RecordKeys | None = None
) -> NDArray[np.uint64]:
    """A key for each record that is equal for all that must be in one split.

    Records belong together that share a content or a group, or are joined by others that do: the
    connected components. A component goes by the smallest key of its groups or, when it has none,
    of its contents. So new contents in old groups move nothing, without groups a record of one
    content goes by that content's key, and when two components are joined one of them stays. Which
    key is the smallest says nothing about a split: `by_key` mixes it.

    Every record needs a key. For one with neither content nor group (kept, but not in the mirror),
    pass a key of its URL as its content.

    Args:
        records: how many there are.
        contents: the content keys of records, for example of each of their images.
        groups: the group keys of the records that have a group. They are apart from the contents:
            a group and a content with equal keys are not thereby joined.

    Raises:
        ValueError: a record has no key.
    """
    tables = [
        RecordKeys(table.record, as_words(table.key)) for table in (groups, contents) if table
    ]
    root = _roots(records, *np.concatenate([_links(table) for table in tables], axis=1))
    key = np.full(records, np.iinfo(np.uint64).max, np.uint64)
    named = np.zeros(records, np.bool_)
    for table in tables:
        at = root[table.record]
        unnamed = ~named[at]
        np.minimum.at(key, at[unnamed], table.key[unnamed])
        named[at] = True
    if not named[root].all():
        raise ValueError("every record needs a content key or a group key")
    return key[root]


def _links(table: RecordKeys) -> NDArray[np.intp]:
    """Pairs of records that have a key in common, 2 × pairs: enough to join all that have it."""
    order = np.argsort(table.key)
    key = table.key[order]
    record = table.record[order]
    common = np.flatnonzero(key[1:] == key[:-1])
    return np.stack([record[common], record[common + 1]])


def _roots(nodes: int, one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each node, one node of its connected component: the same for all of it.

    Borůvka's rounds. Links are numbered and each node takes the first of its own, so what is taken
    has no circle but two nodes that took the same link, of which one becomes a root. Each node that
    has a link is joined to another: rounds are at most log2(nodes), whatever the input's order. The
    trees of a round are flattened by pointer jumping, in at most log2(nodes) steps.
    """
    root = np.arange(nodes)
    while True:
        apart = one != other
        one, other = one[apart], other[apart]
        if not len(one):
            return root
        links = np.arange(len(one))
        first = np.full(nodes, len(one))
        np.minimum.at(first, one, links)
        np.minimum.at(first, other, links)
        linked = np.flatnonzero(first < len(one))
        taken = first[linked]
        up = np.arange(nodes)
        up[linked] = one[taken] + other[taken] - linked
        tops = linked[(up[up[linked]] == linked) & (linked < up[linked])]
        up[tops] = tops
        while not np.array_equal(above := up[up[linked]], up[linked]):
            up[linked] = above
        root, one, other = up[root], up[one], up[other]
