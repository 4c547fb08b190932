"""The samples of a dataset in flat buffers: a URL each, and classes and fields of its record.

Every worker soon has its own copy of a Python list of strings, because reading an element changes its
reference count. These buffers are mapped from files that all workers share, and take about 100 bytes
a sample, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from mirror.catalog.lookup import OK, OUTCOMES
from mirror.dataset.fields import MISSING, FieldPath, class_name, parse_path
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


class TableFiles(NamedTuple):
    """The buffers of a table. The ends of texts and lists say where each begins and ends.

    Attributes:
        urls: end to end.
        url_ends: one for each sample.
        labels: class numbers.
        label_ends: one for each sample with several classes; else empty.
        values: the fields of each sample, as JSON.
        value_ends: one for each sample; empty without fields.
    """

    urls: SharedFile
    url_ends: SharedFile
    labels: SharedFile
    label_ends: SharedFile
    values: SharedFile
    value_ends: SharedFile

    @classmethod
    def empty(cls) -> Self:
        return cls(*(SharedFile() for _ in range(6)))


class SampleTable:
    """URLs, class numbers and fields of samples, by position.

    Attributes:
        classes: class names; a class number is an index here. They are as given, else sorted, as
            integers if all names are integers.
        labelled: whether samples have classes.
        fingerprint: hash of all URLs and class numbers in order: 16 hexadecimal digits.
    """

    def __init__(self, files: TableFiles, classes: tuple[str, ...] | None) -> None:
        self._files = files
        self.labelled = classes is not None
        self.classes = classes or ()
        self._text = files.urls.mapped(np.uint8)
        self._ends = files.url_ends.mapped(np.int64)
        self._labels = files.labels.mapped(np.int32)
        self._label_ends = files.label_ends.mapped(np.int64)
        self._values = files.values.mapped(np.uint8)
        self._value_ends = files.value_ends.mapped(np.int64)
        digest = xxhash.xxh3_64()
        for column in (self._text, self._ends, self._labels, self._label_ends):
            digest.update(column.data)
        self.fingerprint = digest.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleTable, (self._files, self.classes if self.labelled else None)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def has_fields(self) -> bool:
        """Whether samples have fields of their records."""
        return len(self._value_ends) > 0

    def url(self, index: int) -> str:
        return self._text[_span(self._ends, index)].tobytes().decode()

    def fields(self, index: int) -> dict[str, Any]:
        """The fields of a sample's record; only for a dataset with fields."""
        found: dict[str, Any] = msgspec.json.decode(
            self._values[_span(self._value_ends, index)].tobytes()
        )
        return found

    def target(self, index: int) -> int | NDArray[np.float32]:
        """The class number of a sample; of one with several classes a 1 for each of them.

        Only for a dataset with classes. The array has one element for each class.
        """
        if not len(self._label_ends):
            return int(self._labels[index])
        marks = np.zeros(len(self.classes), np.float32)
        marks[self._labels[_span(self._label_ends, index)]] = 1
        return marks

    @property
    def labels(self) -> NDArray[np.int32]:
        """(n,) class numbers, read-only; empty without classes.

        With several classes a sample they are end to end.
        """
        labels = self._labels.view()
        labels.flags.writeable = False
        return labels


def _span(ends: NDArray[np.int64], index: int) -> slice:
    return slice(int(ends[index - 1]) if index else 0, int(ends[index]))


def read_table(
    source: Input,
    coverage: Callable[[list[str]], Coverage],
    *,
    url_field: str,
    label_field: str | None = None,
    multi_label: bool = False,
    classes: Sequence[str] | None = None,
    fields: Sequence[str] = (),
    on_missing: OnMissing = "raise",
    missing_file: str | Path | None = None,
) -> tuple[SampleTable, DatasetCheck]:
    """Read a dataset into a table, with a sample for each URL that the mirror has.

    Args:
        source: a dataset in any format that `mirror rewrite` reads.
        coverage: looks up which URLs the mirror has.
        url_field: dotted path of the field with a record's URL or URLs.
        label_field: dotted path of the field with its class; None for samples without classes.
        multi_label: the field holds a list of classes.
        classes: all class names in the order of their numbers; None takes those of the dataset,
            sorted.
        fields: dotted paths of fields to keep of each record.
        on_missing: what to do about samples that cannot be used: `raise`, or `drop` them.
        missing_file: where to list the samples that cannot be used, as JSON lines.

    Raises:
        DatasetError: samples cannot be used and `on_missing` is `raise`, or no sample is left.
        UsageError: the dataset cannot be read, or none of its records has the field of the class or one
            of the fields.
    """
    paths = {name: parse_path(name) for name in dict.fromkeys(fields)}
    label_path = None if label_field is None else parse_path(label_field)
    wanted = (*paths.values(), *([label_path] if label_path else []))
    reading = ReadOptions(parse_path(url_field), others=tuple(dict.fromkeys(wanted)))
    files = TableFiles.empty()
    codes = {name: code for code, name in enumerate(classes or ())}
    known = None if classes is None else codes
    check = DatasetCheck()
    absent = dict.fromkeys(reading.others)  # fields that no record has had so far
    example: bytes | None = None
    for batch in read(source, reading):
        if absent and len(batch):
            example = example or batch.raw(0)
            for path in list(absent):
                if any(value is not MISSING for value in batch.others[path]):
                    del absent[path]
        labels = _labels_of(batch, label_path, multi_label=multi_label)
        kept, names = _usable(batch, coverage, labels, known, check)
        _append(files.urls, files.url_ends, [batch.urls[at] for at in kept])
        numbers = [[codes.setdefault(n, len(codes)) for n in several] for several in names]
        packed = [np.array(several, np.int32).tobytes() for several in numbers]
        if multi_label:
            _append(files.labels, files.label_ends, packed, 4)
        else:
            files.labels.append(b"".join(packed))
        if paths:
            _append(files.values, files.value_ends, _fields_of(batch, paths, kept))
    if absent and example:
        name = ".".join(next(iter(absent)))
        raise UsageError(
            f"{source.shown} has no field {name!r} among {field_names(example)}; name the field of the "
            "class with label_field, and others with fields."
        )
    if missing_file is not None:
        check.write(missing_file)
    if check.unusable and on_missing == "raise":
        raise DatasetError(_refusal(source, check, missing_file))
    if not files.url_ends.size:
        raise DatasetError(f"{source.shown} has no sample that can be used ({check}).")
    if label_path is None:
        return SampleTable(files, None), check
    if classes is None:
        sorted_names = _sorted_classes(codes)
        _renumber(files.labels.mapped(np.int32), [codes[name] for name in sorted_names])
        return SampleTable(files, tuple(sorted_names)), check
    return SampleTable(files, tuple(classes)), check


def _append(text: SharedFile, ends: SharedFile, parts: Sequence[bytes], width: int = 1) -> None:
    """Append texts to a buffer, and their ends, counted in elements of `width` bytes."""
    end = text.size // width
    lengths = np.fromiter(map(len, parts), np.int64, len(parts)) // width
    text.append(b"".join(parts))
    ends.append((end + lengths.cumsum()).tobytes())


def _labels_of(
    batch: Batch, path: FieldPath | None, *, multi_label: bool
) -> list[list[str] | None] | None:
    """The class names of each record; None for a record without one. None without classes."""
    if path is None:
        return None
    found: list[list[str] | None] = []
    for value in batch.others[path]:
        values = value if multi_label and isinstance(value, list) else [value]
        names = [name for name in map(class_name, values) if name is not None]
        # An empty list of classes says that no class is right; a missing one says nothing.
        found.append(names if names or (multi_label and value == []) else None)
    return found


def _fields_of(batch: Batch, paths: dict[str, FieldPath], kept: Sequence[int]) -> list[bytes]:
    """The fields of the records of usable URLs as JSON; null where a record lacks one."""
    columns = {name: batch.others[path] for name, path in paths.items()}
    encoded: dict[int, bytes] = {}
    found = []
    for at in kept:
        owner = at if batch.owners is None else int(batch.owners[at])
        if owner not in encoded:
            values = {
                name: None if column[owner] is MISSING else column[owner]
                for name, column in columns.items()
            }
            encoded[owner] = msgspec.json.encode(values, enc_hook=str)
        found.append(encoded[owner])
    return found


def _usable(
    batch: Batch,
    coverage: Callable[[list[str]], Coverage],
    labels: Sequence[list[str] | None] | None,
    known: dict[str, int] | None,
    check: DatasetCheck,
) -> tuple[list[int], list[list[str]]]:
    """The positions of usable URLs in a batch, and their class names; counts all in `check`."""
    texts = [url.decode() for url in batch.urls]
    outcomes = coverage(texts).outcomes
    owners = np.arange(len(texts)) if batch.owners is None else batch.owners
    bad = [(at, OUTCOMES[outcomes[at]]) for at in np.flatnonzero(outcomes != OK).tolist()]
    kept = np.flatnonzero(outcomes == OK).tolist()
    names: list[list[str]] = []
    if labels is not None:
        of_url = [(at, labels[owners[at]]) for at in kept]
        usable = [
            (at, several)
            for at, several in of_url
            if several is not None and (known is None or all(name in known for name in several))
        ]
        kept, names = [at for at, _ in usable], [several for _, several in usable]
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
