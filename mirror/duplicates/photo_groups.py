"""Lists groups of images that show one photograph, with what a person wants to know of each copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.index import FORMAT_NAMES, OK_CODE, Index
from mirror.duplicates.copy_groups import GROUPED, bits_of, contents_of, copy_groups, usable
from mirror.duplicates.near_hashes import distances
from mirror.run.progress import Progress

# A group that may hold more than one photograph: it is a long chain, or a large crowd.
WIDE_BITS: Final = 2 * GROUPED
WIDE_COPIES: Final = 50


class Copy(NamedTuple):
    """One content of a group.

    Attributes:
        position: of its first sighting in the index.
        names: of its images: paths in a cache, or MD5s of URLs in hexadecimal.
        content_hash: XXH3-128 of the bytes, 16 bytes.
        size: bytes.
        width: pixels, 0 if unknown.
        height: pixels, 0 if unknown.
        format: a name of `mirror.layout.FORMATS`.
        distance: bits in which its hash differs from that of the group's first content; None if one of
            them has no hash that counts.
    """

    position: int
    names: list[str]
    content_hash: bytes
    size: int
    width: int
    height: int
    format: str
    distance: int | None


class PhotoGroup(NamedTuple):
    """Images of one photograph. The first copy is the one that was seen first."""

    copies: list[Copy]

    @property
    def images(self) -> int:
        return sum(len(copy.names) for copy in self.copies)

    @property
    def farthest(self) -> int:
        """The largest known distance of a copy, in bits."""
        return max(copy.distance or 0 for copy in self.copies)

    @property
    def is_wide(self) -> bool:
        """Whether the group may hold more than one photograph."""
        return len(self.copies) > WIDE_COPIES or self.farthest > WIDE_BITS


def photo_groups(
    index: Index, name_of: Callable[[int], str], progress: Progress = Progress()
) -> Iterator[PhotoGroup]:
    """Yield the groups of several images, those of the most images first.

    Equal files are a group too, of one content.

    Args:
        index: of a mirror or a cache.
        name_of: gives the name of the sighting at a position of the index.
        progress: receives the search for near hashes.
    """
    rows = index.sightings
    ok = np.flatnonzero(rows["verdict"] == OK_CODE)
    if not len(ok):
        return
    content = contents_of(index, ok)
    groups = copy_groups(index, progress=progress)
    leader = groups.leader[content]
    order = np.lexsort((rows["url_hi"][ok], content, groups.first_seen[content], leader))
    ends = np.flatnonzero(np.diff(leader[order], append=-1)) + 1
    images = np.diff(ends, prepend=0)
    several = np.flatnonzero(images > 1)
    for at in several[np.argsort(-images[several], kind="stable")].tolist():
        members = order[ends[at] - images[at] : ends[at]]
        yield PhotoGroup(list(_copies(index, ok[members], content[members], name_of)))


def _copies(
    index: Index,
    sightings: NDArray[np.intp],
    contents: NDArray[np.intp],
    name_of: Callable[[int], str],
) -> Iterator[Copy]:
    """The copies of one group, from its sightings in the order of their contents."""
    rows, near = index.sightings, index.objects["near"]
    starts = np.flatnonzero(np.diff(contents, prepend=-1))
    firsts = contents[starts]
    counts = usable(near[firsts])
    words = np.ascontiguousarray(bits_of(near[firsts])).view(np.uint64)
    bits = distances(words, np.broadcast_to(words[0], words.shape))
    hashes = index.content_hashes(sightings[starts])
    ends = np.append(starts[1:], len(contents))
    for number, (begin, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        row = int(sightings[begin])
        yield Copy(
            row,
            [name_of(int(position)) for position in sightings[begin:end]],
            hashes[number].tobytes(),
            int(rows["size"][row]),
            int(rows["width"][row]),
            int(rows["height"][row]),
            FORMAT_NAMES[rows["format"][row]],
            int(bits[number]) if counts[0] and counts[number] else None,
        )
