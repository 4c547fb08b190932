"""Groups of contents that show one photograph, in the index of a mirror or of a cache.

Two contents are in one group if chains of these join them: perceptual hashes that differ in at most
`GROUPED` bits, and rows of one iNaturalist photo in any size. The number of a photo is the only way to
join a square crop with its photograph. Chains matter: without them an image of a group could stand in
another split than its nearest copy.

A group is led by the content that the mirror has seen first, in the order of the commits. A copy that
comes later does not change the leader, so nothing that depends on it moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.index import OK_CODE, Batch, Index, positions_of
from mirror.content.perceptual_hash import BITS, LEAST_CONTRAST, VERSION
from mirror.content.photo import SIZE_BITS
from mirror.duplicates.connected_components import component_roots
from mirror.duplicates.near_hashes import PASSES, near_components
from mirror.errors import MirrorError
from mirror.run.progress import Progress, Stage
from mirror.system.files import replacing_bytes

# Bits in which two hashes may differ so that their contents are grouped, and so that one of them may be
# dropped. bench/duplicates.py has the recall and the false merges of both.
GROUPED: Final = 23
DROPPED: Final = 15
# The least contrast of a hash that may have an image dropped, in hundredths of a grey level. Below it a flat
# ground with one bright corner looks like another one.
DROPPED_CONTRAST: Final = 25

_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class CopyGroups:
    """The groups of an index. Contents are positions in `index.objects`.

    Attributes:
        leader: (contents,) for each content the leader of its group; itself if it has no copies.
        first_seen: (contents,) when each content was first seen, in microseconds since 1970.
        hash_hi: (contents,) the first half of each content's hash.
    """

    leader: NDArray[np.intp]
    first_seen: NDArray[np.int64] = field(repr=False)
    hash_hi: NDArray[np.uint64] = field(repr=False)

    def keys_of(self, contents: NDArray[np.intp]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The keys of n contents, equal within a group, and when their leaders were first seen."""
        leader = self.leader[contents]
        return self.hash_hi[leader], self.first_seen[leader]

    def members(self) -> Iterator[NDArray[np.intp]]:
        """Each group of several contents, the largest group first; within it the leader first."""
        order = np.lexsort((np.arange(len(self.leader)), self.first_seen, self.leader))
        ends = np.flatnonzero(np.diff(self.leader[order], append=-1)) + 1
        size = np.diff(ends, prepend=0)
        several = np.flatnonzero(size > 1)
        for at in several[np.argsort(-size[several], kind="stable")].tolist():
            yield order[ends[at] - size[at] : ends[at]]


def usable(near: NDArray[np.void], least: int = LEAST_CONTRAST) -> NDArray[np.bool_]:
    """Mark the stored hashes that count: of this version, and with at least this contrast."""
    stored = near.view(np.uint8).reshape(len(near), near.dtype.itemsize)
    contrast = stored[:, 1].astype(np.intp) << 8 | stored[:, 2]
    marks: NDArray[np.bool_] = (stored[:, 0] == VERSION) & (contrast >= least)
    return marks


def bits_of(near: NDArray[np.void]) -> NDArray[np.uint8]:
    """(n, 32) bytes: the bits of stored hashes."""
    stored = near.view(np.uint8).reshape(len(near), near.dtype.itemsize)
    return stored[:, -BITS // 8 :]


def copy_groups(index: Index, most: int = GROUPED, progress: Progress = Progress()) -> CopyGroups:
    """Find the groups of all contents that live `ok` rows name.

    The groups of a snapshot are kept beside it, so they are computed once for each version of a catalog.

    Args:
        index: of a mirror or of a cache.
        most: bits in which near hashes differ at most.
        progress: receives the passes over the hashes, if they are not kept already.
    """
    first_seen, photos = _by_content(index)
    leader = _kept(index, most)
    if leader is None:
        progress.begin(Stage("passes over the hashes", PASSES))
        leader = _leaders(index.objects, first_seen, photos, most, lambda: progress.advance(1))
        _keep(index, most, leader)
    return CopyGroups(leader, first_seen, index.objects["hash_hi"])


def contents_of(index: Index, at: NDArray[np.intp]) -> NDArray[np.intp]:
    """Contents of the sightings at n positions; -1 for each that no live `ok` row names."""
    objects, rows = index.objects, index.sightings
    return positions_of(
        rows["hash_hi"][at], rows["hash_lo"][at], objects["hash_hi"], objects["hash_lo"]
    )


def _by_content(index: Index) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """When each content was first seen; and the contents of each photo, as links, (2, links)."""
    rows = index.sightings
    ok = np.flatnonzero(rows["verdict"] == OK_CODE)
    content = contents_of(index, ok)
    first_seen = np.full(len(index.objects["hash_hi"]), _NEVER, np.int64)
    np.minimum.at(first_seen, content, rows["first_seen"][ok])
    photo = rows["photo"][ok] >> np.uint64(SIZE_BITS)
    known = np.flatnonzero(photo)
    order = known[np.argsort(photo[known], kind="stable")]
    same = np.flatnonzero(photo[order][1:] == photo[order][:-1])
    links = np.stack([content[order[same]], content[order[same + 1]]])
    return first_seen, links[:, links[0] != links[1]]


def _leaders(
    objects: Batch,
    first_seen: NDArray[np.int64],
    photos: NDArray[np.intp],
    most: int,
    passed: Callable[[], object],
) -> NDArray[np.intp]:
    """For each content the first seen of its group; of equally early ones that of the smaller hash."""
    hashed = np.flatnonzero(usable(objects["near"], _least(most)))
    near = near_components(bits_of(objects["near"][hashed]), most, passed)
    links = np.concatenate([photos, np.stack([hashed, hashed[near]])], axis=1)
    root = component_roots(len(first_seen), *links)
    order = np.lexsort((np.arange(len(root)), first_seen, root))
    starts = np.diff(root[order], prepend=-1) != 0
    leader = np.empty(len(root), np.intp)
    leader[order] = order[starts][np.cumsum(starts) - 1]
    return leader


def _least(most: int) -> int:
    """The contrast that hashes need to be near within this many bits."""
    return DROPPED_CONTRAST if most <= DROPPED else LEAST_CONTRAST


def _file(snapshot: Path, most: int) -> Path:
    return snapshot / f"copies-{VERSION}-{most}-{_least(most)}.npy"


def _kept(index: Index, most: int) -> NDArray[np.intp] | None:
    """The leaders that an earlier run has kept beside the snapshot, or None."""
    if index.path is None:
        return None
    try:
        leader = np.fromfile(_file(index.path, most), np.int64)
    except OSError:
        return None
    contents = len(index.objects["hash_hi"])
    whole = len(leader) == contents and (
        not contents or 0 <= leader.min() <= leader.max() < contents
    )
    return leader if whole else None


def _keep(index: Index, most: int, leader: NDArray[np.intp]) -> None:
    """Keep leaders beside the snapshot."""
    if index.path is None:
        return
    # A snapshot of a folder that cannot be written has none: the groups are only a cache.
    with suppress(MirrorError), replacing_bytes(_file(index.path, most)) as file:
        file.write(leader.astype(np.int64).tobytes())
