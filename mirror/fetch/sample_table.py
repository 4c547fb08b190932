"""The samples of a dataset in flat buffers: a URL and a class each.

Every worker soon has its own copy of a Python list of strings, because reading an element changes its
reference count. These buffers are mapped from files that all workers share, and take about 100 bytes
a sample, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from mirror.catalog.lookup import OK, OUTCOMES
from mirror.dataset.fields import MISSING, FieldPath, class_name
from mirror.dataset.inputs import Input, read
from mirror.dataset.records import Batch, ReadOptions, field_names
from mirror.errors import DatasetError, UsageError
from mirror.fetch.image_lookup import Coverage
from mirror.fetch.shared_memory import SharedFile
from mirror.system.files import replacing_bytes

OnMissing = Literal["raise", "drop"]

# The one canonical spelling of an integer: two different names are never the same number.
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_EXAMPLES: Final = 20
_PIECE: Final = 1 << 20


class DatasetCheck:
    """Which of a dataset's samples can be used; known before the first step.

    Attributes:
        counts (dict[str, int]): samples by outcome: `ok`, `not_mirrored`, or a verdict. A sample
            without a known class is `unlabelled`; a record that cannot be read is `invalid`.
        examples (list[tuple[str, str]]): `(URL or reason, outcome)` of the first 20 that are not `ok`.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: list[tuple[str, str]] = []
        self._file = SharedFile()

    @property
    def unusable(self) -> int:
        """Samples and records that are not `ok`."""
        return sum(count for outcome, count in self.counts.items() if outcome != "ok")

    def write(self, path: str | Path) -> None:
        """List everything that is not `ok` in a file of JSON lines.

        Each line has `record` (its number), `outcome`, and `url` or `reason`.

        Args:
            path: the file to write; it is replaced.

        Raises:
            UsageError: the file cannot be written.
        """
        with replacing_bytes(Path(path)) as out:
            at = 0
            while piece := self._file.read(at, _PIECE):
                out.write(piece)
                at += len(piece)

    def __str__(self) -> str:
        usable = self.counts.get("ok", 0)
        others = [f"{n:,} {name}" for name, n in self.counts.items() if n and name != "ok"]
        total = usable + self.unusable
        return f"{usable:,} of {total:,} samples are mirrored" + "".join(f", {o}" for o in others)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def _add(self, outcome: str, count: int) -> None:
        if count:
            self.counts[outcome] = self.counts.get(outcome, 0) + count

    def _record(self, usable: int, unusable: Sequence[tuple[int, str, str, str]]) -> None:
        """Count the samples of a batch.

        Args:
            usable: how many are `ok`.
            unusable: for each of the others: record number, outcome, `url` or `reason`, its text.
        """
        self._add("ok", usable)
        for _, outcome, _, text in unusable:
            self._add(outcome, 1)
            if len(self.examples) < _EXAMPLES:
                self.examples.append((text, outcome))
        lines = [
            msgspec.json.encode({"record": number, "outcome": outcome, kind: text}) + b"\n"
            for number, outcome, kind, text in unusable
        ]
        self._file.append(b"".join(lines))


class SampleTable:
    """URLs and class numbers of samples, by position.

    Attributes:
        classes: class names; a class number is an index here. They are as given, else sorted, as
            integers if all names are integers.
        labelled: whether samples have classes.
        fingerprint: hash of all URLs and class numbers in order: 16 hexadecimal digits.
    """

    def __init__(
        self,
        text: SharedFile,
        ends: SharedFile,
        labels: SharedFile,
        classes: tuple[str, ...] | None,
    ) -> None:
        self._files = text, ends, labels
        self.labelled = classes is not None
        self.classes = classes or ()
        self._text = text.mapped(np.uint8)
        self._ends = ends.mapped(np.int64)
        self._labels = labels.mapped(np.int32)
        digest = xxhash.xxh3_64()
        for column in (self._text, self._ends, self._labels):
            digest.update(column.data)
        self.fingerprint = digest.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleTable, (*self._files, self.classes if self.labelled else None)

    def __len__(self) -> int:
        return len(self._ends)

    def url(self, index: int) -> str:
        begin = self._ends[index - 1] if index else 0
        return self._text[begin : self._ends[index]].tobytes().decode()

    def label(self, index: int) -> int:
        """The class number of a sample; only for a dataset with classes."""
        return int(self._labels[index])

    @property
    def labels(self) -> NDArray[np.int32]:
        """(n,) class numbers, read-only; empty without classes."""
        labels = self._labels.view()
        labels.flags.writeable = False
        return labels


def read_table(
    source: Input,
    coverage: Callable[[list[str]], Coverage],
    *,
    url_field: str,
    label_field: str | None = None,
    classes: Sequence[str] | None = None,
    on_missing: OnMissing = "raise",
    missing_file: str | Path | None = None,
) -> tuple[SampleTable, DatasetCheck]:
    """Read a dataset into a table, with a sample for each URL that the mirror has.

    Args:
        source: a dataset in any format that `mirror rewrite` reads.
        coverage: looks up which URLs the mirror has.
        url_field: dotted path of the field with a record's URL or URLs.
        label_field: dotted path of the field with its class; None for samples without classes.
        classes: all class names in the order of their numbers; None takes those of the dataset,
            sorted.
        on_missing: what to do about samples that cannot be used: `raise`, or `drop` them.
        missing_file: where to list the samples that cannot be used, as JSON lines.

    Raises:
        DatasetError: samples cannot be used and `on_missing` is `raise`, or no sample is left.
        UsageError: the dataset cannot be read, or none of its records has the field of the class.
    """
    reading = ReadOptions.of(url_field, "source_url", label_field)
    label_path = reading.others[0] if reading.others else None
    text, ends, labels = SharedFile(), SharedFile(), SharedFile()
    codes = {name: code for code, name in enumerate(classes or ())}
    known = None if classes is None else codes
    check = DatasetCheck()
    end = 0
    unlabelled: bytes | None = None  # the first record, until one with a label is found
    labelled = label_path is None
    for batch in read(source, reading):
        if label_path is not None and not labelled and len(batch):
            labelled = any(value is not MISSING for value in batch.others[label_path])
            unlabelled = unlabelled or batch.raw(0)
        kept, names = _usable(batch, coverage, label_path, known, check)
        urls = [batch.urls[at] for at in kept]
        lengths = np.fromiter(map(len, urls), np.int64, len(urls))
        text.append(b"".join(urls))
        ends.append((end + lengths.cumsum()).tobytes())
        end += int(lengths.sum())
        if label_path is not None:
            numbers = [codes.setdefault(name, len(codes)) for name in names]
            labels.append(np.array(numbers, np.int32).tobytes())
    if unlabelled and not labelled:
        raise UsageError(
            f"{source.shown} has no field {label_field!r} among {field_names(unlabelled)}; name the "
            "field of the class with label_field."
        )
    if missing_file is not None:
        check.write(missing_file)
    if check.unusable and on_missing == "raise":
        raise DatasetError(_refusal(source, check, missing_file))
    if not ends.size:
        raise DatasetError(f"{source.shown} has no sample that can be used ({check}).")
    if label_path is None:
        return SampleTable(text, ends, labels, None), check
    if classes is None:
        names = _sorted_classes(codes)
        _renumber(labels.mapped(np.int32), [codes[name] for name in names])
        return SampleTable(text, ends, labels, tuple(names)), check
    return SampleTable(text, ends, labels, tuple(classes)), check


def _usable(
    batch: Batch,
    coverage: Callable[[list[str]], Coverage],
    label_path: FieldPath | None,
    known: dict[str, int] | None,
    check: DatasetCheck,
) -> tuple[list[int], list[str]]:
    """The positions of usable URLs in a batch, and their class names; counts all in `check`."""
    texts = [url.decode() for url in batch.urls]
    outcomes = coverage(texts).outcomes
    owners = np.arange(len(texts)) if batch.owners is None else batch.owners
    bad = [(at, OUTCOMES[outcomes[at]]) for at in np.flatnonzero(outcomes != OK).tolist()]
    kept = np.flatnonzero(outcomes == OK).tolist()
    names: list[str] = []
    if label_path is not None:
        of_record = [class_name(value) for value in batch.others[label_path]]
        of_url = [(at, of_record[owners[at]]) for at in kept]
        usable = [(at, n) for at, n in of_url if n is not None and (known is None or n in known)]
        kept, names = [at for at, _ in usable], [name for _, name in usable]
        unlabelled = {at for at, _ in of_url}.difference(kept)
        bad = sorted([*bad, *((at, "unlabelled") for at in unlabelled)])
    check._record(  # noqa: SLF001 - filled in by this module
        len(kept),
        [(batch.numbers[owners[at]], outcome, "url", texts[at]) for at, outcome in bad]
        + [(record.number, "invalid", "reason", record.reason) for record in batch.rejected],
    )
    return kept, names


def _sorted_classes(names: Collection[str]) -> list[str]:
    """Sort class names, as integers if all are: classes 0 to N - 1 then keep their numbers."""
    return sorted(names, key=int if all(map(_INTEGER.fullmatch, names)) else None)


def _renumber(labels: NDArray[np.int32], order: list[int]) -> None:
    """Renumber classes in place: from the order of first occurrence to that of their names."""
    new_number = np.empty(len(order), np.int32)
    new_number[order] = np.arange(len(order))
    for begin in range(0, len(labels), _PIECE):
        labels[begin : begin + _PIECE] = new_number[labels[begin : begin + _PIECE]]


def _refusal(source: Input, check: DatasetCheck, missing_file: str | Path | None) -> str:
    shown = "".join(f"\n  {outcome}: {text}" for text, outcome in check.examples[:5])
    listed = f"; {missing_file} lists the rest" if missing_file is not None else ""
    return (
        f"{source.shown}: {check}; filter it with mirror rewrite, fill the mirror with mirror sync, "
        f"or leave them out with on_missing='drop'{listed}:{shown}"
    )
