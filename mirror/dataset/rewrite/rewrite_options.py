"""The options of a rewrite: values for the stages, and the texts that users write them as."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np

from mirror.catalog.lookup import Match
from mirror.content.image import Level
from mirror.dataset.fields import FieldPath, parse_path
from mirror.dataset.licenses import license_names
from mirror.dataset.records import SOURCE_FIELD, NanRule, ReadOptions, whole
from mirror.dataset.rewrite.license_rule import LicenseRule
from mirror.dataset.splits.assign import CopyRules
from mirror.dataset.splits.image_keys import LabelConflicts, NearDuplicates
from mirror.dataset.splits.split import Split, parse_splits, positions
from mirror.dataset.yaml_edit.assignment import Assignment, parse_assignment
from mirror.errors import UsageError
from mirror.urls import Scheme

Missing = Literal["drop", "keep", "fail"]
UrlScheme = Scheme | Literal["presigned"]

_SCHEMES: Final = (None, *get_args(Scheme), "presigned")
_LEVELS: Final = ("decode", "header")
_COUNT: Final = re.compile(r"[0-9]{1,18}")
_SHARE: Final = re.compile(r"([0-9]{0,18}\.?[0-9]{1,18})(%?)")


@dataclass(frozen=True)
class ImageOptions:
    """Where images are looked up, and what their new URLs are.

    Attributes:
        scheme: of the new URLs. None chooses `public` if `bucket.public_url` is set, otherwise the
            scheme of `bucket.url`; with `cached_only` it leaves URLs unchanged.
        expires_days: how long presigned URLs are valid, at most 7 days.
        match: `photo` also finds an iNaturalist photo under another spelling of its URL.
        min_side: the number of pixels that the shorter side must have.
        cached_only: look images up in the cache folder instead of a mirror.
        level: how thoroughly the images of a cache are inspected.
    """

    scheme: UrlScheme | None = None
    expires_days: float = 7.0
    match: Match = "url"
    min_side: int = 0
    cached_only: bool = False
    level: Level = "decode"


class EarlierOutput(NamedTuple):
    """A file that an earlier rewrite wrote, and the name of the split that its records were in."""

    split: str
    file: Path


@dataclass(frozen=True)
class ConfigOptions:
    """A training configuration to update. `{train}`, `{val}` or `{out}` in a value is a file's name."""

    file: Path
    assignments: tuple[Assignment, ...]


@dataclass(frozen=True)
class RewriteOptions:
    """Options of a rewrite.

    Attributes:
        reading: the fields of the URL and the original URL; `fields` adds the other paths.
        delimiter: between the cells of tables that are read; None finds it in their headers.
        missing: what happens to records whose image is not mirrored. `drop` and `keep` treat a list
            of URLs as missing if all of them are; `fail` if any of them is.
        license: which licences may be written.
        sample: a share of the records (a Fraction) or a number of them (an int).
        splits: empty for one output.
        seed: of splits and sample, 0 … 2**64 - 1.
        group: path of the field whose equal values stay in one split.
        stratify: path of the class whose share is held in each split.
        tolerance: how far a class's share may be off, as a fraction of the class.
        allow_leaks: records with the same image may be in different splits.
        pins: earlier outputs whose records keep their splits.
        near_duplicates: `group` keeps copies of one photograph in one split, `drop` writes the best
            of them, `keep` does not look for them.
        label: path of the class by which copies are compared; None does not compare them.
        label_conflicts: what to do with records whose photograph has several classes.
        strict: stop at the first invalid record.
        force: replace existing files.
        allow_empty: write outputs without records, also over files that have some.
        dry_run: read and count, but write nothing except the report.
        images: where images are looked up, and their new URLs.
        report_file: where the report is written as JSON.
        config: a training configuration to point at the new files.

    Raises:
        UsageError: the seed is out of its range.
    """

    reading: ReadOptions = field(default_factory=ReadOptions)
    delimiter: str | None = None
    missing: Missing = "drop"
    license: LicenseRule = field(default_factory=LicenseRule)
    sample: Fraction | int | None = None
    splits: tuple[Split, ...] = ()
    seed: int = 0
    group: FieldPath | None = None
    stratify: FieldPath | None = None
    tolerance: float = 0.01
    allow_leaks: bool = False
    pins: tuple[EarlierOutput, ...] = ()
    near_duplicates: NearDuplicates = "group"
    label: FieldPath | None = None
    label_conflicts: LabelConflicts = "keep"
    strict: bool = False
    force: bool = False
    allow_empty: bool = False
    dry_run: bool = False
    images: ImageOptions = field(default_factory=ImageOptions)
    report_file: Path | None = None
    config: ConfigOptions | None = None

    def __post_init__(self) -> None:
        positions(np.zeros(0, np.uint64), self.seed)

    @property
    def copies(self) -> CopyRules:
        """What to do about copies of one photograph."""
        near: NearDuplicates = self.near_duplicates
        if near == "group" and (self.allow_leaks or not (self.splits or self.label)):
            near = "keep"  # nothing depends on them
        return CopyRules(near, None if self.label is None else self.label_conflicts)

    @property
    def fields(self) -> ReadOptions:
        """The fields to read of each record, with every path that is needed."""
        grouping = () if self.group is None else whole(self.group)
        classes = (path for path in (self.stratify, self.label) if path is not None)
        others = tuple(dict.fromkeys((*self.license.paths, *grouping, *classes)))
        return ReadOptions(self.reading.url, self.reading.source, others, self.reading.nan)


def parse_options(
    *,
    url_field: str = "image_url",
    delimiter: str | None = None,
    source_field: str = SOURCE_FIELD,
    nan: NanRule = "reject",
    scheme: UrlScheme | None = None,
    expires: float = 7.0,
    match: Match = "url",
    missing: Missing = "drop",
    min_size: int = 0,
    license_field: str | None = None,
    allow_license: str | Sequence[str] = (),
    sample: str | float | None = None,
    split: str | Mapping[str, float | str] | None = None,
    seed: int = 0,
    group_by: str | None = None,
    stratify_by: str | None = None,
    tolerance: float = 0.01,
    allow_leaks: bool = False,
    pin: Sequence[str] = (),
    near_duplicates: NearDuplicates = "group",
    label_field: str | None = None,
    label_conflicts: LabelConflicts = "keep",
    cached_only: bool = False,
    level: Level = "decode",
    known_bad: str | None = None,
    strict: bool = False,
    force: bool = False,
    allow_empty: bool = False,
    dry_run: bool = False,
    report: Path | str | None = None,
    update_config: Path | str | None = None,
    assignments: Sequence[str] = (),
) -> RewriteOptions:
    """Options by the names and texts of the command line.

    Args:
        url_field: dotted path of the field that holds a record's URL or URLs.
        delimiter: between the cells of tables that are read.
        source_field: the field beside it that takes the original URL.
        nan: see `ReadOptions`.
        scheme: see `ImageOptions`.
        expires: days that presigned URLs are valid.
        match: see `ImageOptions`.
        missing: see `RewriteOptions`.
        min_size: pixels that the shorter side must have.
        license_field: dotted path of the licence; `license` if `allow_license` is given.
        allow_license: licences such as `cc-by`, as a list or separated by commas.
        sample: a number of records (`1000`) or a share (`0.1`, `10%`).
        split: `train=0.8,val=0.1,test=0.1`, or a mapping of names to shares.
        seed: of splits and sample.
        group_by: dotted path of the group.
        stratify_by: dotted path of the class.
        tolerance: see `RewriteOptions`.
        allow_leaks: see `RewriteOptions`.
        pin: `SPLIT=FILE` texts that name earlier outputs.
        near_duplicates: see `RewriteOptions`.
        label_field: dotted path of the class by which copies are compared; `stratify_by` if None.
        label_conflicts: see `RewriteOptions`.
        cached_only: look images up in the cache folder instead of a mirror.
        level: how thoroughly the cache is inspected.
        known_bad: the file of hashes that `inspect.known_bad` is set to, for a cache folder.
        strict: stop at the first invalid record.
        force: replace existing files.
        allow_empty: see `RewriteOptions`.
        dry_run: write nothing except the report.
        report: where the report is written as JSON.
        update_config: a training configuration to point at the new files.
        assignments: `KEY=VALUE` texts for that configuration.

    Raises:
        UsageError: a value is not understood, or an option needs another one.
    """
    choices: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("scheme", scheme, _SCHEMES),
        ("match", match, get_args(Match)),
        ("missing", missing, get_args(Missing)),
        ("nan", nan, get_args(NanRule)),
        ("near-duplicates", near_duplicates, get_args(NearDuplicates)),
        ("label-conflicts", label_conflicts, get_args(LabelConflicts)),
        ("level", level, _LEVELS),
    )
    for name, value, known in choices:
        if value not in known:
            listed = ", ".join(filter(None, known))
            raise UsageError(f"--{name} {value} is not known; choose one of {listed}.")
    if known_bad is not None and not cached_only:
        raise UsageError(
            "--known-bad needs --cached-only, because it applies to the inspection of a cache. For a "
            "mirror set inspect.known_bad, and run mirror sync."
        )
    licenses = [allow_license] if isinstance(allow_license, str) else allow_license
    allowed = license_names(licenses)
    if licenses and not allowed:
        raise UsageError("--allow-license names no licence; write a name such as cc-by or cc0.")
    if licenses and license_field is None:
        license_field = "license"
    if assignments and update_config is None:
        raise UsageError("--set needs --update-config FILE, the file to change.")
    if update_config is not None and not assignments:
        raise UsageError("--update-config needs --set KEY=VALUE, a value to set.")
    for option, value in (("--group-by", group_by), ("--stratify-by", stratify_by)):
        if value is not None and split is None:
            raise UsageError(f"{option} needs --split, such as train=0.8,val=0.1,test=0.1.")
    if pin and split is None:
        raise UsageError("--pin needs --split, such as train=0.8,val=0.1,test=0.1.")
    label_field = label_field or stratify_by
    if label_conflicts == "drop" and label_field is None:
        raise UsageError(
            "--label-conflicts drop needs --label-field FIELD, the field of the class."
        )
    splits = () if split is None else parse_splits(_split_text(split))
    return RewriteOptions(
        reading=ReadOptions(parse_path(url_field), source_field, nan=nan),
        delimiter=delimiter,
        missing=missing,
        license=LicenseRule(_path(license_field), allowed),
        sample=None if sample is None else _sample(str(sample)),
        splits=splits,
        seed=seed,
        group=_path(group_by),
        stratify=_path(stratify_by),
        tolerance=tolerance,
        allow_leaks=allow_leaks,
        pins=tuple(_earlier_output(text, splits) for text in pin),
        near_duplicates=near_duplicates,
        label=_path(label_field),
        label_conflicts=label_conflicts,
        strict=strict,
        force=force,
        allow_empty=allow_empty,
        dry_run=dry_run,
        images=ImageOptions(scheme, expires, match, min_size, cached_only, level),
        report_file=None if report is None else Path(report),
        config=None
        if update_config is None
        else ConfigOptions(Path(update_config), tuple(map(parse_assignment, assignments))),
    )


def _path(text: str | None) -> FieldPath | None:
    return None if text is None else parse_path(text)


def _split_text(split: str | Mapping[str, float | str]) -> str:
    if isinstance(split, str):
        return split
    return ",".join(f"{name}={share}" for name, share in split.items())


def _earlier_output(text: str, splits: Sequence[Split]) -> EarlierOutput:
    name, equals, file = text.partition("=")
    if not equals or not file:
        raise UsageError(f"--pin {text} is not SPLIT=FILE; write it as train=plants_train.jsonl.")
    names = [split.name for split in splits]
    if name not in names:
        raise UsageError(
            f"--pin {text} names no split of --split; write one of {', '.join(names)} before the =."
        )
    if file == "-" or "://" in file:
        raise UsageError(f"--pin {text}: an earlier output is a file; write its path after the =.")
    return EarlierOutput(name, Path(file))


def _sample(text: str) -> Fraction | int:
    if _COUNT.fullmatch(text):
        return int(text)
    if match := _SHARE.fullmatch(text):
        share = Fraction(match[1]) / (100 if match[2] else 1)
        if share <= 1:
            return share
    raise UsageError(
        f"--sample {text} is neither a number of records nor a share; write 1000 or 0.1."
    )
