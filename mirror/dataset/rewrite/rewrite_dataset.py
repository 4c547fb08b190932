"""`mirror rewrite`: read → resolve → filter → split → write.

Records stream through in batches; what has to be known of all of them before any can be written
(their keys, for splits and for a sample of a fixed size) is kept in arrays, 8 to 40 bytes a record,
while the records themselves wait on disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.cache.scan import display
from mirror.catalog.lookup import (
    LICENSE,
    NOT_MIRRORED,
    OK,
    OUTCOMES,
    Positions,
    UrlLookup,
    digests_of,
)
from mirror.dataset.chunks import Chunk
from mirror.dataset.fields import FieldPath
from mirror.dataset.formats.file_name import FileName
from mirror.dataset.formats.spool import Spool
from mirror.dataset.formats.writers import Writer, check_not_replaced, check_output, writing
from mirror.dataset.inputs import Input, read, total_size
from mirror.dataset.records import Batch, ReadOptions, Rejected, whole
from mirror.dataset.rewrite.judge import (
    Judgement,
    LicenseRule,
    Missing,
    firsts_of,
    judge,
    owners_of,
    per_record,
    set_aside_overwriting,
)
from mirror.dataset.rewrite.rejected_file import RejectedFile
from mirror.dataset.rewrite.rewrite_report import (
    EXAMPLES,
    Asked,
    Example,
    Place,
    RewriteReport,
    doubts,
    explained,
)
from mirror.dataset.splits.assign import LEFT_OUT, SplitAssigner, SplitAssignment
from mirror.dataset.splits.split import Split, positions
from mirror.errors import DatasetError, UsageError
from mirror.run.progress import Progress, Stage
from mirror.system.files import cut_short

# Positions in the index → the URLs that take the place of the old ones.
Addresses = Callable[[Positions], Sequence[bytes]]

_WHOLE: Final = "out"


@dataclass(frozen=True)
class RewriteOptions:
    """What is asked of a rewriting.

    Attributes:
        reading: the fields of URL and source; `others` is filled in from the paths below.
        missing: what becomes of records whose image the mirror does not have. A list of URLs is
            missing when all of it is; with `fail`, when any of it is.
        license: which licences may be written.
        sample: a share of the records (a Fraction) or a number of them.
        splits: empty for one output.
        seed: of splits and sample.
        group: path of what must stay in one split.
        stratify: path of the class whose shares are held in each split.
        tolerance: how far a class's share may be off, as a share of the class.
        allow_leaks: records with the same image may fall into different splits.
        strict: the first invalid record ends it.
        force: replaces what is there.
        dry_run: reads and counts, and writes nothing.

    Raises:
        UsageError: the seed is out of its range.
    """

    reading: ReadOptions = field(default_factory=ReadOptions)
    missing: Missing = "drop"
    license: LicenseRule = field(default_factory=LicenseRule)
    sample: Fraction | int | None = None
    splits: tuple[Split, ...] = ()
    seed: int = 0
    group: FieldPath | None = None
    stratify: FieldPath | None = None
    tolerance: float = 0.01
    allow_leaks: bool = False
    strict: bool = False
    force: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        positions(np.zeros(0, np.uint64), self.seed)

    @property
    def fields(self) -> ReadOptions:
        """The reading with every path that is needed."""
        grouping = () if self.group is None else whole(self.group)
        classes = () if self.stratify is None else (self.stratify,)
        others = tuple(dict.fromkeys((*self.license.paths, *grouping, *classes)))
        return ReadOptions(self.reading.url, self.reading.source, others)


def outputs_of(output: Path, splits: Sequence[Split]) -> dict[str, Path]:
    """The files that are written, by split; `out` is the only one where there are none."""
    if not splits:
        return {_WHOLE: output}
    name = FileName.parse(output)
    return {split.name: Path(name.split(split.name)) for split in splits}


def check_files(
    inputs: Sequence[Input], output: Path, options: RewriteOptions, beside: Sequence[Path] = ()
) -> None:
    """What would be read and what be overwritten, before either is done.

    Args:
        inputs: to be read.
        output: as for `rewrite`.
        options: as for `rewrite`; a dry run may name outputs that exist.
        beside: other files that the same call writes, dry or not.

    Raises:
        UsageError: an input is not there; an output is an input, stands twice, is there already
            without `force`, or cannot be a file.
    """
    for source in inputs:
        source.check()
        _shown(source)  # an address that is none is refused here
    for path in (output, *beside):
        check_output(path)
    outputs = list(outputs_of(output, options.splits).values())
    written: list[str] = []
    rejected = _rejected_file(output, options)
    for path in (*outputs, rejected, *beside):
        if not os.path.isdir(path.absolute().parent):
            raise UsageError(f"The folder of {path} does not exist; make it first.")
        if os.path.exists(path) and not os.path.isfile(path):
            raise UsageError(f"{path} is no plain file; name one that may be replaced.")
        if any(source.path is not None and _is_same(path, source.path) for source in inputs):
            raise UsageError(f"{path} is an input and an output at once; name another output.")
        if os.path.realpath(path) in written:
            raise UsageError(f"{path} would be written twice; name another file.")
        written.append(os.path.realpath(path))
    for path in beside if options.dry_run else (*outputs, rejected, *beside):
        check_not_replaced(path, force=options.force)


def _rejected_file(output: Path, options: RewriteOptions) -> Path:
    """`plants.rejected.jsonl`; beside what was set aside for another output, the whole name's."""
    path = Path(FileName.parse(output).rejected())
    if path.exists() and not options.force:
        return output.with_name(f"{output.name}.rejected.jsonl")
    return path


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _shown(source: Input) -> str:
    return display(os.fsencode(source.shown))


def rewrite(
    inputs: Sequence[Input],
    output: Path,
    options: RewriteOptions,
    resolver: UrlLookup,
    *,
    addresses: Addresses | None,
    progress: Progress = Progress(),
) -> RewriteReport:
    """Rewrite datasets to other URLs.

    Args:
        inputs: read one after the other; `check_files` has found them there.
        output: where to; with splits their names are put into its name.
        options: what is asked.
        resolver: finds URLs.
        addresses: gives new URLs; None leaves all records as they are, and only filters.
        progress: receives the progress of the run.

    Raises:
        DatasetError: an invalid record when `strict`; a missing one when `missing` is `fail`; no
            record has the field to group or to stratify by; the disk is full.
        UsageError: an input cannot be read, or an output not be written.
        MirrorError: a source that is no file does not answer.
    """
    return _Rewriting(output, options, resolver, addresses).run(inputs, progress)


class _Notes(NamedTuple):
    """What is told of written records, an element for each of them."""

    missing: NDArray[np.bool_]
    urls_dropped: NDArray[np.int32]
    by_photo: NDArray[np.int32]


class _Rewriting:
    def __init__(
        self,
        output: Path,
        options: RewriteOptions,
        resolver: UrlLookup,
        addresses: Addresses | None,
    ) -> None:
        self._output = output
        self._options = options
        self._resolver = resolver
        self._addresses = addresses
        place: Place = "mirror" if resolver.of_mirror else "cache"
        self._report = RewriteReport(place, dry_run=options.dry_run)
        self._assigner = SplitAssigner(
            options.splits,
            options.seed,
            options.sample if isinstance(options.sample, int) else None,
            options.tolerance,
            allow_leaks=options.allow_leaks,
            grouped=options.group is not None,
            stratified=options.stratify is not None,
        )
        self._found = 0
        self._notes: list[_Notes] = []  # of records of which a sample is still to be taken
        self._spool: Spool | None = None
        self._writers: list[Writer] = []

    def run(self, inputs: Sequence[Input], progress: Progress) -> RewriteReport:
        began = time.monotonic()
        report, options = self._report, self._options
        outputs = outputs_of(self._output, options.splits)
        with _on_disk(self._output), ExitStack() as files:
            # Entered first, it takes its place last: not before all outputs have taken theirs.
            rejected = files.enter_context(
                RejectedFile(_rejected_file(self._output, options), options.dry_run)
            )
            if not options.dry_run:
                self._writers = files.enter_context(writing(*outputs.values()))
                if self._assigner.needed:
                    self._spool = files.enter_context(Spool(self._output.absolute().parent))
            progress.begin(Stage("records read", nbytes=total_size(inputs)))
            for source in inputs:
                for batch in _batches(source, options, progress):
                    self._take(batch, _shown(source), rejected)
                    progress.advance(len(batch) + len(batch.rejected))
            self._fail_if_missing()
            if self._assigner.needed:
                self._distribute(self._assigner.assign())
        if not options.dry_run:
            report.outputs = {name: display(os.fsencode(p)) for name, p in outputs.items()}
            report.rejected = rejected.written and display(os.fsencode(rejected.written))
        by_photo = self._resolver.match == "photo"
        asked = Asked(len(self._resolver.index), self._found, by_photo)
        report.warnings += doubts(report, asked)
        if options.splits and options.group is None and report.kept_missing:
            report.warnings.append(
                f"{report.kept_missing:,} records are kept though the mirror lacks an image of theirs: "
                "they go by their URLs, so another URL of one photo may be in another split, and they "
                "may move once it is mirrored. --group-by keeps them together and in their place."
            )
        report.seconds = time.monotonic() - began
        return report

    def _take(self, batch: Batch, source: str, rejected: RejectedFile) -> None:
        """Everything that is done with one batch."""
        options, report = self._options, self._report
        digests = digests_of(batch.urls)
        at, by_photo = self._resolver.find(batch.urls, digests)
        outcome = self._resolver.outcomes(at)
        self._found += int(np.count_nonzero(at >= 0))
        judgement = judge(batch, outcome, options.missing)
        usable, kept = judgement.usable, judgement.kept
        options.license.apply(batch, judgement)
        refused = batch.rejected
        if self._addresses is not None and batch.sourced:
            refused = refused + set_aside_overwriting(
                batch, judgement, outcome, options.reading.source
            )
        self._refuse(sorted(refused, key=lambda one: one.number), source, rejected)
        report.records += len(batch) + len(batch.rejected)
        self._count_dropped(batch, judgement, source)

        url_keys = np.frombuffer(digests, ">u8")[::2].astype(np.uint64)
        first_keys = url_keys[firsts_of(batch)]
        if isinstance(options.sample, Fraction):
            chosen = self._assigner.in_sample(first_keys, options.sample)
            report.drop("sample", int(np.count_nonzero(kept & ~chosen)))
            kept &= chosen
        keep = np.flatnonzero(kept)
        if not len(keep):
            return
        owners = owners_of(batch)
        within = usable & kept[owners]
        self._note(
            _Notes(
                per_record(batch, within & (outcome == NOT_MIRRORED))[keep] > 0,
                per_record(batch, ~usable)[keep].astype(np.int32),
                per_record(batch, within & by_photo)[keep].astype(np.int32),
            )
        )
        if self._assigner.needed:
            contents = url_keys.copy()
            mirrored = at >= 0
            contents[mirrored] = self._resolver.content_keys(at[mirrored])
            self._assigner.add(
                records=keep,
                owners=owners[within],
                contents=(url_keys if options.allow_leaks else contents)[within],
                url_keys=first_keys,
                groups=batch.all_values(options.group) if options.group else None,
                classes=batch.others[options.stratify] if options.stratify else None,
            )
        else:
            report.written += len(keep)
        if not options.dry_run:
            self._put(self._chunk(batch, keep, at, outcome, within))

    def _chunk(
        self,
        batch: Batch,
        keep: NDArray[np.intp],
        at: Positions,
        outcome: NDArray[np.uint8],
        within: NDArray[np.bool_],
    ) -> Chunk:
        if self._addresses is None and batch.owners is None:
            return batch.unchanged(keep.tolist())
        urls: list[bytes | None] = [None] * len(batch.urls)
        replaced = within & (outcome == OK) & (self._addresses is not None)
        for i in np.flatnonzero(within & ~replaced).tolist():
            urls[i] = batch.urls[i]
        if self._addresses is not None:
            fresh = self._addresses(at[replaced])
            for i, url in zip(np.flatnonzero(replaced).tolist(), fresh, strict=True):
                urls[i] = url
        return batch.rewritten(keep.tolist(), urls)

    def _put(self, chunk: Chunk) -> None:
        if self._spool is not None:
            self._spool.add(chunk)
        else:
            self._writers[0].write(chunk)

    def _refuse(self, refused: Sequence[Rejected], source: str, rejected: RejectedFile) -> None:
        report = self._report
        for one in refused:
            if self._options.strict:
                raise DatasetError(
                    f"{source}, record {one.number}: {explained(one)}; nothing was written. "
                    "Without --strict such records are set aside."
                )
            report.drop("invalid")
            rejected.write(source, one)
            if report.wants_example("invalid"):
                report.examples["invalid"].append(Example(source, one.number, explained(one)))

    def _count_dropped(self, batch: Batch, judgement: Judgement, source: str) -> None:
        report = self._report
        _, kept, fate, blamed = judgement
        counts = np.bincount(fate[~kept], minlength=len(OUTCOMES))
        counts[OK] = 0  # set aside as invalid
        for code in np.flatnonzero(counts).tolist():
            reason = OUTCOMES[code]
            report.drop(reason, int(counts[code]))
            if not report.wants_example(reason):
                continue
            wanted = EXAMPLES - len(report.examples[reason])
            for position in np.flatnonzero(~kept & (fate == code))[:wanted].tolist():
                what = batch.urls[int(blamed[position])].decode(errors="replace")
                if code == LICENSE:
                    what = f"{self._options.license.shown(batch, position)}: {what}"
                report.examples[reason].append(Example(source, batch.numbers[position], what))

    def _note(self, notes: _Notes) -> None:
        if isinstance(self._options.sample, int):
            self._notes.append(notes)
        else:
            self._count(notes)

    def _count(self, notes: _Notes) -> None:
        self._report.kept_missing += int(notes.missing.sum())
        self._report.urls_dropped += int(notes.urls_dropped.sum())
        self._report.matched_by_photo += int(notes.by_photo.sum())

    def _fail_if_missing(self) -> None:
        missing = self._report.dropped["not_mirrored"]
        if self._options.missing == "fail" and missing:
            first = self._report.examples["not_mirrored"][0]
            remedy = "download them" if self._report.place == "cache" else "sync them"
            raise DatasetError(
                f"{missing:,} of {self._report.records:,} records have an image that is not in the "
                f"{self._report.place}, the first in {first.input}, record {first.number}: {first.what}. "
                f"Nothing was written; {remedy} first, or drop the records with --missing drop."
            )

    def _distribute(self, assignment: SplitAssignment) -> None:
        """Write what waited to where it belongs."""
        report, options = self._report, self._options
        report.drop("sample", assignment.left_out)
        report.written += assignment.written
        report.moved = assignment.moved
        report.imbalances = assignment.imbalances
        if self._notes:
            chosen = assignment.split != LEFT_OUT
            columns = (np.concatenate(parts) for parts in zip(*self._notes, strict=True))
            self._count(_Notes(*(column[chosen] for column in columns)))
        if options.splits:
            names = [split.name for split in options.splits]
            report.splits = dict(zip(names, assignment.counts.tolist(), strict=True))
            report.classes = assignment.classes
            self._say_lacking(options.group, assignment.ungrouped, "--group-by", "group")
            self._say_lacking(options.stratify, assignment.unclassed, "--stratify-by", "class")
        if self._spool is None:
            return
        begin = 0
        for chunk in self._spool:
            part = assignment.split[begin : begin + len(chunk)]
            begin += len(chunk)
            for at, writer in enumerate(self._writers):
                taken = np.flatnonzero(part == at).tolist()
                if taken:
                    writer.write(chunk if len(taken) == len(chunk) else chunk.take(taken))

    def _say_lacking(self, path: FieldPath | None, lacking: int, option: str, what: str) -> None:
        """A field that is in no record is a slip of the pen; in some of them, worth a word."""
        report = self._report
        if path is None or not lacking:
            return
        name = ".".join(path)
        if lacking == report.written:
            raise DatasetError(
                f"Not one of {lacking:,} records has a value in {name!r}, the field of {option}; "
                "nothing was written. Name another field, or leave the option out."
            )
        report.warnings.append(
            f"{lacking:,} of {report.written:,} records have no value in {name!r}: "
            f"they are in no {what}."
        )


def _batches(source: Input, options: RewriteOptions, progress: Progress) -> Iterator[Batch]:
    try:
        yield from read(source, options.fields, progress)
    except OSError as error:
        raise DatasetError(
            f"{_shown(source)} cannot be read to its end ({error.strerror or error})."
        ) from None


@contextmanager
def _on_disk(output: Path) -> Iterator[None]:
    """Errors of the disk that is written to, as one of ours."""
    try:
        yield
    except OSError as error:
        raise cut_short(output, error) from None
