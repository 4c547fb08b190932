"""`mirror rewrite`: read → resolve → filter → split → write.

Records stream through in batches; what has to be known of all of them before any can be written
(their keys, for splits and for a sample of a fixed size) is kept in arrays, 8 to 40 bytes a record,
while the records themselves wait on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mirror.dataset.assign import Assigner, Assignment
from mirror.dataset.chunks import Chunk
from mirror.dataset.fields import FieldPath
from mirror.dataset.formats import FileName
from mirror.dataset.inputs import Input, read
from mirror.dataset.licenses import license_name
from mirror.dataset.output import Writer, writing
from mirror.dataset.records import Batch, Reading, Rejected
from mirror.dataset.rejects import RejectedFile
from mirror.dataset.report import Example, RewriteReport
from mirror.dataset.resolve import (
    LICENSE,
    NOT_MIRRORED,
    OK,
    OUTCOMES,
    Positions,
    Resolver,
    digests_of,
)
from mirror.dataset.split import Split
from mirror.dataset.spool import Spool
from mirror.errors import DatasetError, UsageError

Missing = Literal["drop", "keep", "fail"]
# Positions in the index → the URLs that take the place of the old ones.
Addresses = Callable[[Positions], Sequence[bytes]]

_WHOLE: Final = "out"


@dataclass(frozen=True)
class RewriteOptions:
    """What is asked of a rewriting.

    Attributes:
        reading: the fields of URL and source; `others` is filled in from the paths below.
        missing: what becomes of records whose image the mirror does not have.
        license: path of the licence; None asks for none.
        allowed: licences that may be written, as `license_name` spells them; empty allows any.
        license_required: a record without a licence is not written.
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
    """

    reading: Reading = field(default_factory=Reading)
    missing: Missing = "drop"
    license: FieldPath | None = None
    allowed: frozenset[str] = frozenset()
    license_required: bool = False
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

    @property
    def fields(self) -> Reading:
        """The reading with every path that is needed."""
        paths = (self.license, self.group, self.stratify)
        others = tuple(dict.fromkeys(path for path in paths if path is not None))
        return Reading(self.reading.url, self.reading.source, others)


class Progress:
    """Is told of how far a rewriting is."""

    def read(self, size: int) -> None:
        """So many bytes of the inputs more have been read."""

    def done(self, report: RewriteReport) -> None:
        """A batch is done with."""


def outputs_of(output: Path, splits: Sequence[Split]) -> dict[str, Path]:
    """The files that are written, by split; `out` is the only one where there are none."""
    if not splits:
        return {_WHOLE: output}
    name = FileName.parse(output)
    return {split.name: Path(name.split(split.name)) for split in splits}


def check_outputs(inputs: Sequence[Input], outputs: Sequence[Path], *, force: bool) -> None:
    """What would be overwritten, before anything is read.

    Raises:
        UsageError: an output is an input or stands twice, or is there already without `force`.
    """
    for source in inputs:
        source.check()
    for at, path in enumerate(outputs):
        for source in inputs:
            read_from = source.path
            if read_from is not None and path.exists() and path.samefile(read_from):
                raise UsageError(f"{path} is an input and an output at once; name another output.")
        if path.absolute() in [other.absolute() for other in outputs[:at]]:
            raise UsageError(f"{path} would be written twice; name another file.")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"The folder of {path} does not exist; make it first.")
        if path.is_dir():
            raise UsageError(f"{path} is a folder; name a file.")
        if path.is_file() and not force:
            raise UsageError(f"{path} exists; --force replaces it.")


def rewrite(
    inputs: Sequence[Input],
    output: Path,
    options: RewriteOptions,
    resolver: Resolver,
    *,
    addresses: Addresses | None,
    progress: Progress | None = None,
) -> RewriteReport:
    """Rewrite datasets to other URLs.

    Args:
        inputs: read one after the other; `check_outputs` has found them there.
        output: where to; with splits their names are put into its name.
        options: what is asked.
        resolver: finds URLs.
        addresses: gives new URLs; None leaves all records as they are, and only filters.
        progress: is told of bytes and batches.

    Raises:
        DatasetError: an invalid record when `strict`, a missing one when `missing` is `fail`.
        UsageError: an input cannot be read, or an output not be written.
        MirrorError: a source that is no file does not answer.
    """
    work = _Rewriting(inputs, output, options, resolver)
    return work.run(addresses, progress or Progress())


class _Rewriting:
    def __init__(
        self,
        inputs: Sequence[Input],
        output: Path,
        options: RewriteOptions,
        resolver: Resolver,
    ) -> None:
        self._inputs = inputs
        self._output = output
        self._options = options
        self._resolver = resolver
        self._report = RewriteReport(dry_run=options.dry_run)
        self._assigner = Assigner(
            options.splits,
            options.seed,
            options.sample if isinstance(options.sample, int) else None,
            options.tolerance,
            allow_leaks=options.allow_leaks,
            grouped=options.group is not None,
            stratified=options.stratify is not None,
        )
        self._missing = 0
        self._spool: Spool | None = None
        self._writers: list[Writer] = []

    def run(self, addresses: Addresses | None, progress: Progress) -> RewriteReport:
        began = time.monotonic()
        self._addresses = addresses
        report, options = self._report, self._options
        outputs = outputs_of(self._output, options.splits)
        with ExitStack() as files:
            if not options.dry_run:
                for path in outputs.values():
                    self._writers.append(files.enter_context(writing(path)))
                if self._assigner.needed:
                    self._spool = files.enter_context(Spool(self._output.absolute().parent))
            rejected = files.enter_context(
                RejectedFile(Path(FileName.parse(self._output).rejected()), options.dry_run)
            )
            for source in self._inputs:
                for batch in read(source, options.fields, progress.read):
                    self._take(batch, source, rejected)
                    progress.done(report)
            self._fail_if_missing()
            report.matched_by_photo = self._resolver.matched_by_photo
            if self._assigner.needed:
                self._distribute(self._assigner.assign())
        if not options.dry_run:
            report.outputs = {name: str(path) for name, path in outputs.items()}
            report.rejected = rejected.written
        report.seconds = time.monotonic() - began
        return report

    def _take(self, batch: Batch, source: Input, rejected: RejectedFile) -> None:
        """Everything that is done with one batch."""
        options, report = self._options, self._report
        refused = list(batch.rejected)
        digests = digests_of(batch.urls)
        at = self._resolver.find(batch.urls, digests)
        outcome = self._resolver.outcomes(at)
        usable = outcome == OK
        if options.missing == "keep":
            usable |= outcome == NOT_MIRRORED
        kept, fate = _by_record(batch, usable, outcome)
        self._judge_licenses(batch, kept, fate)
        if self._addresses is not None:
            for position in sorted(batch.sourced):
                if kept[position] and not self._is_own(batch, position):
                    kept[position] = False
                    fate[position] = OK  # counted as invalid, below
                    reason = (
                        f"its field {options.reading.source!r} holds something else; "
                        "name another with --source-field"
                    )
                    refused.append(Rejected(batch.numbers[position], reason, batch.raw(position)))
        self._refuse(refused, source, rejected)
        report.records += len(batch) + len(batch.rejected)
        self._count_dropped(batch, kept, fate, source)

        firsts = _firsts(batch)
        url_keys = np.frombuffer(digests, ">u8")[::2].astype(np.uint64)
        if isinstance(options.sample, Fraction):
            chosen = self._assigner.in_sample(url_keys[firsts], options.sample)
            report.drop("sample", int(np.count_nonzero(kept & ~chosen)))
            kept &= chosen
        keep = np.flatnonzero(kept)
        if not len(keep):
            return
        within = usable if batch.owners is None else usable & kept[batch.owners]
        if batch.owners is None:
            within = usable & kept
        report.kept_missing += int(np.count_nonzero(outcome[within] == NOT_MIRRORED))
        report.urls_dropped += int(
            np.count_nonzero(kept if batch.owners is None else kept[batch.owners])
        ) - int(np.count_nonzero(within))
        if self._assigner.needed:
            contents = url_keys.copy()
            mirrored = at >= 0
            contents[mirrored] = self._resolver.content_keys(at[mirrored])
            owners = np.arange(len(batch)) if batch.owners is None else batch.owners
            self._assigner.add(
                records=keep,
                owners=owners[within],
                contents=(url_keys if options.allow_leaks else contents)[within],
                url_keys=url_keys[firsts],
                groups=batch.others.get(options.group) if options.group else None,
                classes=batch.others.get(options.stratify) if options.stratify else None,
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
        if self._addresses is None and bool((outcome == OK).all()):
            return batch.unchanged(keep.tolist())
        urls: list[bytes | None] = [None] * len(batch.urls)
        mirrored = np.flatnonzero(within & (outcome == OK))
        if self._addresses is None:
            fresh: Sequence[bytes] = [batch.urls[i] for i in mirrored.tolist()]
        else:
            fresh = self._addresses(at[mirrored])
        for i, url in zip(mirrored.tolist(), fresh, strict=True):
            urls[i] = url
        for i in np.flatnonzero(within & (outcome != OK)).tolist():
            urls[i] = batch.urls[i]
        return batch.rewritten(keep.tolist(), urls)

    def _put(self, chunk: Chunk) -> None:
        if self._spool is not None:
            self._spool.add(chunk)
        else:
            self._writers[0].write(chunk)

    def _judge_licenses(
        self, batch: Batch, kept: NDArray[np.bool_], fate: NDArray[np.uint8]
    ) -> None:
        options = self._options
        if options.license is None or not (options.allowed or options.license_required):
            return
        names = [license_name(value) for value in batch.others[options.license]]
        fine = np.array(
            [name in options.allowed if options.allowed else name is not None for name in names],
            np.bool_,
        )
        fate[kept & ~fine] = LICENSE
        kept &= fine

    def _is_own(self, batch: Batch, position: int) -> bool:
        begin = position if batch.owners is None else int(np.searchsorted(batch.owners, position))
        return self._resolver.own(batch.urls[begin]) is not None

    def _refuse(self, refused: Sequence[Rejected], source: Input, rejected: RejectedFile) -> None:
        report = self._report
        for one in refused:
            if self._options.strict:
                raise DatasetError(
                    f"{source.shown}, record {one.number}: {one.reason}; nothing was written. "
                    "Without --strict such records are set aside."
                )
            report.drop("invalid")
            rejected.write(source.shown, one)
            if report.wants_example("invalid"):
                report.examples["invalid"].append(Example(source.shown, one.number, one.reason))

    def _count_dropped(
        self, batch: Batch, kept: NDArray[np.bool_], fate: NDArray[np.uint8], source: Input
    ) -> None:
        report = self._report
        counts = np.bincount(fate[~kept], minlength=len(OUTCOMES))
        for code in np.flatnonzero(counts).tolist():
            if code == OK:
                continue  # set aside as invalid
            reason = OUTCOMES[code]
            report.drop(reason, int(counts[code]))
            if code == NOT_MIRRORED:
                self._missing += int(counts[code])
            if report.wants_example(reason):
                firsts = _firsts(batch)
                for position in np.flatnonzero(~kept & (fate == code)).tolist():
                    if not report.wants_example(reason):
                        break
                    url = batch.urls[int(firsts[position])].decode(errors="replace")
                    number = batch.numbers[position]
                    report.examples[reason].append(Example(source.shown, number, url))

    def _fail_if_missing(self) -> None:
        if self._options.missing == "fail" and self._missing:
            first = self._report.examples["not_mirrored"][0]
            raise DatasetError(
                f"{self._missing:,} of {self._report.records:,} records are not in the mirror, "
                f"the first in {first.input}, record {first.number}: {first.what}. Nothing was "
                "written; sync them first, or drop them with --missing drop."
            )

    def _distribute(self, assignment: Assignment) -> None:
        """Write what waited to where it belongs."""
        report, options = self._report, self._options
        report.drop("sample", assignment.left_out)
        report.written += assignment.written
        report.moved = assignment.moved
        report.imbalances = assignment.imbalances
        if options.splits:
            names = [split.name for split in options.splits]
            report.splits = dict(zip(names, assignment.counts.tolist(), strict=True))
            report.classes = assignment.classes
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


def _firsts(batch: Batch) -> NDArray[np.intp]:
    """For each record the place of its first URL."""
    if batch.owners is None:
        return np.arange(len(batch))
    firsts: NDArray[np.intp] = np.searchsorted(batch.owners, np.arange(len(batch)))
    return firsts


def _by_record(
    batch: Batch, usable: NDArray[np.bool_], outcome: NDArray[np.uint8]
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """`(is any of a record's URLs usable, what became of its first one that is not)`."""
    if batch.owners is None:
        return usable.copy(), outcome.copy()
    kept = np.bincount(batch.owners[usable], minlength=len(batch)) > 0
    fate = outcome[_firsts(batch)]
    return kept, fate
