"""The images of records as columns of keys, and the rules for copies of one photograph. Pure.

    key        says which images belong together; the split is a function of it
    content    differs for different bytes
    photo      joins images of one photo whose contents no hash has joined

An image that no rule joins with another keeps its own key, and so the split that it always had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.splits.split import Keys, Split, by_key
from mirror.duplicates.connected_components import component_roots

NearDuplicates = Literal["group", "drop", "keep"]
LabelConflicts = Literal["keep", "drop"]

# The order of an image that is not mirrored: every image that is comes before it.
LAST: Final = np.iinfo(np.int64).max
NO_LABEL: Final = -1
# Conflicts that a report lists, and records of each.
_LISTED: Final = 100
_RECORDS_LISTED: Final = 10


class ImageKeys(NamedTuple):
    """Images, one element for each.

    Attributes:
        record: number of the record.
        key: equal for images that belong together.
        order: when the image that gave the key was first seen; `LAST` if it is not mirrored.
        content: a key of the bytes; of the URL if the image is not mirrored.
        url: a key of the URL.
        photo: number of the photo that the URL shows; 0 if unknown.
        hashed: whether the image has a perceptual hash that counts.
        same: equal for images of which one is enough, under `--near-duplicates drop`.
        pixels: width × height; 0 if the image is not mirrored.
    """

    record: NDArray[np.intp]
    key: Keys
    order: NDArray[np.int64]
    content: Keys
    url: Keys
    photo: Keys
    hashed: NDArray[np.bool_]
    same: Keys
    pixels: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The images of several batches."""
        kinds: tuple[Any, ...] = (np.intp, "u8", "i8", "u8", "u8", "u8", "?", "u8", "i8")
        columns: list[Any] = [np.empty(0, kind) for kind in kinds]
        whole: list[Any] = [np.concatenate(both) for both in zip(columns, *parts, strict=True)]
        return cls(*whole)

    def of_records(self, chosen: NDArray[np.bool_]) -> Self:
        """The images of chosen records, with the records numbered without gaps."""
        within = chosen[self.record]
        number = np.cumsum(chosen) - 1
        columns: list[Any] = [column[within] for column in self]
        images = type(self)(*columns)
        return images._replace(record=number[images.record])

    def with_photos_joined(self) -> Self:
        """The same images, where those of one photo have one key: the one that was seen first."""
        key, order = _joined_by_photo(self.key, self.order, self.photo)
        same, _ = _joined_by_photo(self.same, np.zeros_like(order), self.photo)
        return self._replace(key=key, order=order, same=same)


def _joined_by_photo(
    keys: Keys, orders: NDArray[np.int64], photos: Keys
) -> tuple[Keys, NDArray[np.int64]]:
    """The keys and their orders, where images of one photo have the first of their keys."""
    known = np.flatnonzero(photos)
    known = known[np.argsort(photos[known], kind="stable")]
    links = photos[known][1:] == photos[known][:-1]
    links &= keys[known][1:] != keys[known][:-1]
    if not links.any():
        return keys, orders
    distinct, number = np.unique(keys, return_inverse=True)
    at = np.flatnonzero(links)
    root = component_roots(len(distinct), number[known[at]], number[known[at + 1]])[number]
    by_order = np.lexsort((keys, orders, root))
    starts = np.diff(root[by_order], prepend=-1) != 0
    first = np.empty(len(keys), np.intp)
    first[by_order] = by_order[starts][np.cumsum(starts) - 1]
    return keys[first], orders[first]


class CopyCount(NamedTuple):
    """How many copies of photographs there are among images.

    Attributes:
        groups: groups of images of one photograph with different contents.
        crossing: those that the splits of their contents would have torn apart.
    """

    groups: int
    crossing: int


def count_copies(images: ImageKeys, splits: Sequence[Split], seed: int) -> CopyCount:
    """Count groups of copies, and how many would have been in several splits."""
    order = np.lexsort((images.content, images.key))
    key, content = images.key[order], images.content[order]
    distinct = np.ones(len(order), bool)
    distinct[1:] = (key[1:] != key[:-1]) | (content[1:] != content[:-1])
    key, content = key[distinct], content[distinct]
    ends = np.flatnonzero(np.append(key[1:] != key[:-1], [True] * bool(len(key)))) + 1
    begins = np.append(0, ends[:-1]).astype(np.intp)
    several = ends - begins > 1
    if not several.any():
        return CopyCount(0, 0)
    if not splits:
        return CopyCount(int(np.count_nonzero(several)), 0)
    split = by_key(content, splits, seed)
    apart = np.maximum.reduceat(split, begins) != np.minimum.reduceat(split, begins)
    return CopyCount(int(np.count_nonzero(several)), int(np.count_nonzero(several & apart)))


def not_winning(images: ImageKeys, records: int) -> NDArray[np.bool_]:
    """Mark the records none of whose images is the best of its copies.

    The best has the most pixels; of equally large ones it is that with the smaller content key, then
    that of the first record. Images that are not mirrored have no copies.

    Args:
        images: of all records.
        records: their number.
    """
    order = np.lexsort((images.record, images.content, -images.pixels, images.same))
    best = np.ones(len(order), bool)
    best[1:] = images.same[order][1:] != images.same[order][:-1]
    best |= images.order[order] == LAST
    losing = np.ones(records, bool)
    losing[images.record[order[best]]] = False
    return losing


class CopiesUnderSeveralClasses(NamedTuple):
    """Images of one photograph in records of different classes.

    Attributes:
        classes: names of the classes.
        records: numbers of the first records.
    """

    classes: list[str]
    records: list[int]


class Conflicts(NamedTuple):
    """All conflicts of labels.

    Attributes:
        photographs: how many photographs are in records of different classes.
        records: marks the records of these photographs.
        listed: the first conflicts.
    """

    photographs: int
    records: NDArray[np.bool_]
    listed: list[CopiesUnderSeveralClasses]


def label_conflicts(
    images: ImageKeys, labels: NDArray[np.int32], names: Sequence[str]
) -> Conflicts:
    """Find photographs in records of different classes.

    Args:
        images: of all records.
        labels: the class of each record, as a position in `names`; `NO_LABEL` for none.
        names: of the classes.
    """
    marked = np.zeros(len(labels), bool)
    known = np.flatnonzero(labels[images.record] != NO_LABEL)
    key, record = images.key[known], images.record[known]
    label = labels[record]
    order = np.lexsort((record, label, key))
    key, record, label = key[order], record[order], label[order]
    change = np.append(key[1:] != key[:-1], [True] * bool(len(key)))
    ends = np.flatnonzero(change) + 1
    begins = np.append(0, ends[:-1]).astype(np.intp)
    apart = label[begins] != label[ends - 1] if len(ends) else np.zeros(0, bool)
    listed: list[CopiesUnderSeveralClasses] = []
    for begin, end in zip(begins[apart].tolist(), ends[apart].tolist(), strict=True):
        marked[record[begin:end]] = True
        if len(listed) < _LISTED:
            classes = [names[code] for code in np.unique(label[begin:end]).tolist()]
            firsts = sorted(set(record[begin:end].tolist()))[:_RECORDS_LISTED]
            listed.append(CopiesUnderSeveralClasses(classes, firsts))
    return Conflicts(int(np.count_nonzero(apart)), marked, listed)
