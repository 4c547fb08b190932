"""Assigns records to splits and samples: first gathers the keys of all records, then decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from mirror.dataset.fields import class_name
from mirror.dataset.splits.components import RecordKeys, component_keys
from mirror.dataset.splits.pins import KeptSplits, Pinned, Pins, kept_splits, start_splits
from mirror.dataset.splits.split import Keys, Split, sample_count
from mirror.dataset.splits.strata import StratifiedSplits, stratified

LEFT_OUT: Final = 255
_NO_CLASS: Final = -1


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
    """

    split: NDArray[np.uint8]
    counts: NDArray[np.intp]
    classes: dict[str, list[int]] = field(default_factory=dict)
    moved: int = 0
    imbalances: list[Imbalance] = field(default_factory=list)
    ungrouped: int = 0
    unclassed: int = 0
    pins: KeptSplits | None = None

    @property
    def written(self) -> int:
        return int(self.counts.sum())

    @property
    def left_out(self) -> int:
        return len(self.split) - self.written


class BatchKeys(NamedTuple):
    """Keys of the records of one batch that will be written.

    Attributes:
        records: their positions in the batch, ascending.
        owners: for each content key the position of its record.
        contents: keys of the contents of their images.
        image_urls: for each content key a key of its URL; None without pins.
        url_keys: for each record of the batch a key of its URL.
        groups: for each record of the batch the values that keep it together with others; None
            without groups.
        classes: for each record of the batch its class; None without classes.
    """

    records: NDArray[np.intp]
    owners: NDArray[np.intp]
    contents: Keys
    url_keys: Keys
    groups: Sequence[Sequence[Any]] | None
    classes: Sequence[Any] | None
    image_urls: Keys | None = None


class SplitAssigner:
    """Gathers the keys of records batch by batch, and assigns all records at the end.

    Args:
        splits: empty for one output.
        seed: of splits and samples.
        sample: how many records; None for all.
        tolerance: of a class's shares, as a fraction of the class.
        allow_leaks: the content keys are keys of URLs, and records of several need not be joined.
        grouped: records have groups.
        stratified: records have classes.
        pins: the splits that images had in earlier outputs.
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
    ) -> None:
        self._splits = splits
        self._seed = seed
        self._sample = sample
        self._tolerance = tolerance
        self._allow_leaks = allow_leaks
        self._grouped = grouped
        self._stratified = stratified
        self._pins = pins
        self._count = 0
        self._url_keys: list[Keys] = []
        self._contents: list[RecordKeys] = []
        self._groups: list[RecordKeys] = []
        self._classes: list[NDArray[np.int32]] = []
        self._codes: dict[str, int] = {}
        self._pinned: list[Pinned] = []

    @property
    def needed(self) -> bool:
        """Whether all records must be seen before one can be written."""
        return bool(self._splits) or self._sample is not None

    def add(self, keys: BatchKeys) -> None:
        """Take the keys of the next batch."""
        records = keys.records
        number = np.full(len(keys.url_keys), -1, np.intp)
        number[records] = np.arange(self._count, self._count + len(records))
        if self._splits:
            self._contents.append(RecordKeys(number[keys.owners], keys.contents))
        if self._pins is not None:
            assert keys.image_urls is not None
            found = self._pins.find(np.concatenate([keys.contents, keys.image_urls]))
            owners = np.tile(number[keys.owners] - self._count, 2)
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
            codes = [self._code_of(keys.classes[position]) for position in records.tolist()]
            self._classes.append(np.array(codes, np.int32))
        self._count += len(records)

    def _code_of(self, value: Any) -> int:
        name = class_name(value)
        return _NO_CLASS if name is None else self._codes.setdefault(name, len(self._codes))

    def assign(self) -> SplitAssignment:
        """Assign all records, in the order in which they were added."""
        chosen = np.ones(self._count, np.bool_)
        if self._sample is not None:
            chosen = sample_count(_joined(self._url_keys, np.uint64), self._seed, self._sample)
        split = np.where(chosen, np.uint8(0), np.uint8(LEFT_OUT))
        if not self._splits:
            return SplitAssignment(split, np.array([np.count_nonzero(chosen)]))
        groups = _chosen(self._groups, chosen) if self._grouped else None
        keys = self._component_keys(chosen, groups)
        ungrouped = 0 if groups is None else len(keys) - len(np.unique(groups.record))
        pins = None
        if self._pinned:
            pinned = (np.concatenate(column)[chosen] for column in zip(*self._pinned, strict=True))
            pins = kept_splits(Pinned(*pinned), keys, self._splits)
        if not self._stratified:
            split[chosen] = start_splits(keys, self._splits, self._seed, pins and pins.split)
            return SplitAssignment(
                split, self._counted(split[chosen]), ungrouped=ungrouped, pins=pins
            )
        classes = _joined(self._classes, np.int32)[chosen]
        result = stratified(
            keys, classes, self._splits, self._seed, self._tolerance, pinned=pins and pins.split
        )
        split[chosen] = result.assignment
        return SplitAssignment(
            split,
            self._counted(result.assignment),
            self._by_class(result.assignment, classes),
            result.moved,
            self._imbalances(result),
            ungrouped,
            int(np.count_nonzero(classes == _NO_CLASS)),
            pins,
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

    def _component_keys(self, chosen: NDArray[np.bool_], groups: RecordKeys | None) -> Keys:
        """A key for each chosen record, equal for those that must stay together."""
        contents = _chosen(self._contents, chosen)
        total = int(np.count_nonzero(chosen))
        # Records with one content each need no joining: their content keys are enough.
        if groups is None and len(contents.record) == total:
            return contents.key
        if self._allow_leaks and groups is not None:
            first = np.unique(contents.record, return_index=True)[1]
            contents = RecordKeys(contents.record[first], contents.key[first])
        return component_keys(total, contents, groups)

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


def _key_of(value: Any) -> int | None:
    """64 bits that are equal for equal values; None for a value that is no group."""
    name = class_name(value)
    return None if name is None else xxhash.xxh3_64_intdigest(name.encode())
