"""Assigns records to splits and samples: first gathers the keys of all records, then decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from mirror.dataset.fields import class_name
from mirror.dataset.splits.components import RecordKeys, component_keys
from mirror.dataset.splits.image_keys import (
    NO_LABEL,
    Conflicts,
    CopyCount,
    ImageKeys,
    LabelConflicts,
    NearDuplicates,
    count_copies,
    label_conflicts,
    not_winning,
)
from mirror.dataset.splits.pins import KeptSplits, Pinned, Pins, kept_splits, start_splits
from mirror.dataset.splits.split import Keys, Split, sample_count
from mirror.dataset.splits.strata import StratifiedSplits, stratified

LEFT_OUT: Final = 255


class Imbalance(NamedTuple):
    """A class that does not have its share in every split, and the split that is farthest off.

    Attributes:
        name: of the class.
        reason: see `UnmetClass`.
        records: of the class.
        units: groups of inseparable records that contain the class.
        split: the one farthest off.
        have: records of the class in that split.
        want: the class's share of that split, in records.
    """

    name: str
    reason: str
    records: int
    units: int
    split: str
    have: int
    want: float


@dataclass
class SplitAssignment:
    """The split of each record.

    Attributes:
        split: for each record the number of its split, or `LEFT_OUT`.
        counts: records in each split.
        classes: for each class the records in each split.
        moved: records moved from their key's split so that their class has its shares.
        imbalances: classes that do not have their shares, the largest first.
        ungrouped: records in splits that have no group, if groups were requested.
        unclassed: records in splits that have no class, if classes were requested.
        pins: the splits that were kept from earlier outputs, if there are any.
        near_duplicates: records dropped because another record has a better copy of their images.
        conflicting: records dropped because their photograph has several classes.
        copies: groups of copies among the records, if copies were looked for.
        unhashed: records in splits without a perceptual hash, if copies were looked for.
        conflicts: photographs in records of different classes, if there are labels.
    """

    split: NDArray[np.uint8]
    counts: NDArray[np.intp]
    classes: dict[str, list[int]] = field(default_factory=dict)
    moved: int = 0
    imbalances: list[Imbalance] = field(default_factory=list)
    ungrouped: int = 0
    unclassed: int = 0
    pins: KeptSplits | None = None
    near_duplicates: int = 0
    conflicting: int = 0
    copies: CopyCount | None = None
    unhashed: int = 0
    conflicts: Conflicts | None = None

    @property
    def written(self) -> int:
        return int(self.counts.sum())

    @property
    def left_out(self) -> int:
        """Records that are not in the sample."""
        return len(self.split) - self.written - self.near_duplicates - self.conflicting


class BatchKeys(NamedTuple):
    """Keys of the records of one batch that will be written.

    Attributes:
        records: their positions in the batch, ascending.
        images: of these records; `record` is the position in the batch.
        url_keys: for each record of the batch a key of its URL.
        groups: for each record of the batch the values that keep it together with others; None
            without groups.
        classes: for each record of the batch its class; None without classes.
        labels: for each record of the batch the class that copies are compared by; None without.
    """

    records: NDArray[np.intp]
    images: ImageKeys
    url_keys: Keys
    groups: Sequence[Sequence[Any]] | None
    classes: Sequence[Any] | None
    labels: Sequence[Any] | None = None


@dataclass(frozen=True)
class CopyRules:
    """What to do about copies of one photograph.

    Attributes:
        near_duplicates: `group` keeps them in one split, `drop` writes the best one, `keep` does not
            look for them.
        label_conflicts: what to do with records whose photograph has several classes; None if they
            have no label.
    """

    near_duplicates: NearDuplicates = "keep"
    label_conflicts: LabelConflicts | None = None

    @property
    def need_all(self) -> bool:
        """Whether all records must be seen before one can be written."""
        return self.near_duplicates == "drop" or self.label_conflicts is not None


class SplitAssigner:
    """Gathers the keys of records batch by batch, and assigns all records at the end.

    Args:
        splits: empty for one output.
        seed: of splits and samples.
        sample: how many records; None for all.
        tolerance: of a class's shares, as a fraction of the class.
        allow_leaks: keys of URLs decide, and records of several need not be joined.
        grouped: records have groups.
        stratified: records have classes.
        pins: the splits that images had in earlier outputs.
        copies: what to do about copies of one photograph.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        seed: int,
        sample: int | None,
        tolerance: float,
        *,
        allow_leaks: bool,
        grouped: bool,
        stratified: bool,
        pins: Pins | None = None,
        copies: CopyRules = CopyRules(),
    ) -> None:
        self._splits = splits
        self._seed = seed
        self._sample = sample
        self._tolerance = tolerance
        self._allow_leaks = allow_leaks
        self._grouped = grouped
        self._stratified = stratified
        self._pins = pins
        self._copies = copies
        self._count = 0
        self._url_keys: list[Keys] = []
        self._images: list[ImageKeys] = []
        self._labels: list[NDArray[np.int32]] = []
        self._label_codes: dict[str, int] = {}
        self._groups: list[RecordKeys] = []
        self._classes: list[NDArray[np.int32]] = []
        self._codes: dict[str, int] = {}
        self._pinned: list[Pinned] = []

    @property
    def needed(self) -> bool:
        """Whether all records must be seen before one can be written."""
        return bool(self._splits) or self._sample is not None or self._copies.need_all

    def add(self, keys: BatchKeys) -> None:
        """Take the keys of the next batch."""
        records = keys.records
        number = np.full(len(keys.url_keys), -1, np.intp)
        number[records] = np.arange(self._count, self._count + len(records))
        images = keys.images._replace(record=number[keys.images.record])
        if self._splits or self._copies.need_all:
            self._images.append(images)
        if self._pins is not None:
            found = self._pins.find(np.concatenate([self._deciding(images), images.url]))
            owners = np.tile(images.record - self._count, 2)
            self._pinned.append(found.combined(owners, len(records)))
        if self._sample is not None:
            self._url_keys.append(keys.url_keys[records])
        if keys.groups is not None:
            groups = keys.groups
            pairs = [
                (position, _key_of(value))
                for position in records.tolist()
                for value in groups[position]
            ]
            known = [(number[position], key) for position, key in pairs if key is not None]
            record, key = zip(*known, strict=True) if known else ((), ())
            self._groups.append(RecordKeys(np.array(record, np.intp), np.array(key, np.uint64)))
        if keys.classes is not None:
            self._classes.append(_numbered(keys.classes, records, self._codes))
        if keys.labels is not None:
            self._labels.append(_numbered(keys.labels, records, self._label_codes))
        self._count += len(records)

    def assign(self) -> SplitAssignment:
        """Assign all records, in the order in which they were added."""
        images = ImageKeys.joined(self._images)
        if self._copies.near_duplicates != "keep":
            images = images.with_photos_joined()
        chosen, found = self._without_copies(images)
        if self._sample is not None:
            chosen &= self._sampled(chosen)
        images = images.of_records(chosen)
        if found.copies is not None:
            found.unhashed = self._unhashed(images, int(np.count_nonzero(chosen)))
        return self._assigned(chosen, images, found)

    def _without_copies(self, images: ImageKeys) -> tuple[NDArray[np.bool_], SplitAssignment]:
        """Mark the records that the rules for copies leave, and note what the rules found."""
        chosen = np.ones(self._count, np.bool_)
        found = SplitAssignment(np.empty(0, np.uint8), np.zeros(0, np.intp))
        rules = self._copies
        if rules.near_duplicates != "keep":
            found.copies = count_copies(images, self._splits, self._seed)
        if rules.label_conflicts is not None:
            labels = _joined(self._labels, np.int32)
            found.conflicts = label_conflicts(images, labels, list(self._label_codes))
            if rules.label_conflicts == "drop":
                chosen &= ~found.conflicts.records
                found.conflicting = int(np.count_nonzero(~chosen))
        if rules.near_duplicates == "drop":
            left = images.of_records(chosen)
            chosen[np.flatnonzero(chosen)[not_winning(left, int(np.count_nonzero(chosen)))]] = False
            found.near_duplicates = self._count - found.conflicting - int(np.count_nonzero(chosen))
        return chosen, found

    def _sampled(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mark the sample among the chosen records."""
        assert self._sample is not None
        sampled = chosen.copy()
        keys = _joined(self._url_keys, np.uint64)[chosen]
        sampled[chosen] = sample_count(keys, self._seed, self._sample)
        return sampled

    @staticmethod
    def _unhashed(images: ImageKeys, records: int) -> int:
        hashed = np.zeros(records, bool)
        hashed[images.record[images.hashed]] = True
        return int(np.count_nonzero(~hashed))

    def _assigned(
        self, chosen: NDArray[np.bool_], images: ImageKeys, found: SplitAssignment
    ) -> SplitAssignment:
        """Assign the chosen records to splits; `found` has what is known of their copies."""
        split = np.where(chosen, np.uint8(0), np.uint8(LEFT_OUT))
        if not self._splits:
            return replace(found, split=split, counts=np.array([np.count_nonzero(chosen)]))
        groups = _chosen(self._groups, chosen) if self._grouped else None
        keys = self._component_keys(images, int(np.count_nonzero(chosen)), groups)
        ungrouped = 0 if groups is None else len(keys) - len(np.unique(groups.record))
        pins = None
        if self._pinned:
            pinned = (np.concatenate(column)[chosen] for column in zip(*self._pinned, strict=True))
            pins = kept_splits(Pinned(*pinned), keys, self._splits)
        if not self._stratified:
            split[chosen] = start_splits(keys, self._splits, self._seed, pins and pins.split)
            counts = self._counted(split[chosen])
            return replace(found, split=split, counts=counts, ungrouped=ungrouped, pins=pins)
        classes = _joined(self._classes, np.int32)[chosen]
        result = stratified(
            keys, classes, self._splits, self._seed, self._tolerance, pinned=pins and pins.split
        )
        split[chosen] = result.assignment
        return replace(
            found,
            split=split,
            counts=self._counted(result.assignment),
            classes=self._by_class(result.assignment, classes),
            moved=result.moved,
            imbalances=self._imbalances(result),
            ungrouped=ungrouped,
            unclassed=int(np.count_nonzero(classes == NO_LABEL)),
            pins=pins,
        )

    def _imbalances(self, result: StratifiedSplits) -> list[Imbalance]:
        names = list(self._codes)
        imbalances = [
            Imbalance(
                names[unmet.code],
                unmet.reason,
                unmet.records,
                unmet.units,
                self._splits[unmet.split].name,
                unmet.have,
                round(unmet.want, 2),
            )
            for unmet in result.unmet
        ]
        return sorted(imbalances, key=lambda imbalance: (-imbalance.records, imbalance.name))

    def _deciding(self, images: ImageKeys) -> Keys:
        """The key of each image that decides its split."""
        return images.url if self._allow_leaks else images.key

    def _component_keys(self, images: ImageKeys, total: int, groups: RecordKeys | None) -> Keys:
        """A key for each chosen record, equal for those that must stay together."""
        contents, orders = RecordKeys(images.record, self._deciding(images)), images.order
        # Records with one image each need no joining: their keys are enough.
        if groups is None and len(contents.record) == total:
            return contents.key
        if self._allow_leaks and groups is not None:
            first = np.unique(contents.record, return_index=True)[1]
            contents = RecordKeys(contents.record[first], contents.key[first])
            orders = orders[first]
        return component_keys(total, contents, groups, orders)

    def _counted(self, split: NDArray[np.uint8]) -> NDArray[np.intp]:
        return np.bincount(split, minlength=len(self._splits))

    def _by_class(
        self, split: NDArray[np.uint8], classes: NDArray[np.int32]
    ) -> dict[str, list[int]]:
        known = classes >= 0
        wide = len(self._splits)
        cells = classes[known].astype(np.intp) * wide + split[known]
        counts = np.bincount(cells, minlength=len(self._codes) * wide).reshape(-1, wide)
        return {
            name: counts[code].tolist()
            for name, code in sorted(self._codes.items())
            if counts[code].any()
        }


def _joined(parts: list[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def _chosen(tables: list[RecordKeys], chosen: NDArray[np.bool_]) -> RecordKeys:
    """The pairs of chosen records, with the records numbered without gaps."""
    record = _joined([table.record for table in tables], np.intp)
    key = _joined([table.key for table in tables], np.uint64)
    within = chosen[record]
    number = np.cumsum(chosen) - 1
    return RecordKeys(number[record[within]], key[within])


def _numbered(
    values: Sequence[Any], records: NDArray[np.intp], codes: dict[str, int]
) -> NDArray[np.int32]:
    """The code of each record's class; new names are added to `codes`."""
    names = [class_name(values[position]) for position in records.tolist()]
    numbers = [NO_LABEL if n is None else codes.setdefault(n, len(codes)) for n in names]
    return np.array(numbers, np.int32)


def _key_of(value: Any) -> int | None:
    """64 bits that are equal for equal values; None for a value that is no group."""
    name = class_name(value)
    return None if name is None else xxhash.xxh3_64_intdigest(name.encode())
