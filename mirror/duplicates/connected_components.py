"""Connected components of a graph whose nodes are numbers. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def component_roots(
    nodes: int, left: NDArray[np.intp], right: NDArray[np.intp]
) -> NDArray[np.intp]:
    """For each node the representative of its connected component, by Borůvka's algorithm.

    In each round every node takes the first of its links. The taken links have no cycle, except two
    nodes that took the same link; one of them becomes a root. Every node with a link is joined to
    another, so there are at most log2(nodes) rounds for any order of the input. Pointer jumping
    flattens the trees of a round in at most log2(nodes) steps.

    Args:
        nodes: how many there are; they are 0 … nodes - 1.
        left: one end of each link.
        right: the other end.

    Returns:
        (nodes,) nodes, equal for nodes of one component.
    """
    root = np.arange(nodes)
    while True:
        apart = left != right
        left, right = left[apart], right[apart]
        if not len(left):
            return root
        links = np.arange(len(left))
        first = np.full(nodes, len(left))
        np.minimum.at(first, left, links)
        np.minimum.at(first, right, links)
        linked = np.flatnonzero(first < len(left))
        taken = first[linked]
        up = np.arange(nodes)
        up[linked] = left[taken] + right[taken] - linked
        tops = linked[(up[up[linked]] == linked) & (linked < up[linked])]
        up[tops] = tops
        while not np.array_equal(above := up[up[linked]], up[linked]):
            up[linked] = above
        root, left, right = up[root], up[left], up[right]
