"""Rewrites datasets: read → resolve → judge → assign → emit.

Records stream through in batches. Splits, and a sample of a fixed number, need the keys of all
records before one can be written. The keys are kept in arrays, 8 to 40 bytes a record, while the
records wait on disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mirror.cache.scan import display
from mirror.catalog.lookup import UrlLookup
from mirror.dataset.inputs import Input, read, total_size
from mirror.dataset.records import Batch, Rejected
from mirror.dataset.rewrite.batch_keys import ImageKeyFinder, batch_keys, read_pins
from mirror.dataset.rewrite.emit import NewUrls, record_output, rewritten
from mirror.dataset.rewrite.judge import judge
from mirror.dataset.rewrite.output_files import outputs_of, rejected_path, shown_name
from mirror.dataset.rewrite.rejected_file import RejectedFile
from mirror.dataset.rewrite.resolve import resolve
from mirror.dataset.rewrite.rewrite_options import RewriteOptions
from mirror.dataset.rewrite.rewrite_report import RewriteReport, explained
from mirror.dataset.rewrite.tally import Tally
from mirror.dataset.splits.assign import SplitAssigner
from mirror.errors import DatasetError, NothingLeft
from mirror.run.progress import Progress, Stage
from mirror.system.files import Access, cut_short, folders_made


def rewrite_dataset(
    inputs: Sequence[Input],
    output: Path,
    options: RewriteOptions,
    lookup: UrlLookup,
    *,
    new_urls: NewUrls | None,
    access: Access = Access.INHERITED,
    progress: Progress = Progress(),
) -> RewriteReport:
    """Rewrite datasets to other URLs.

    Args:
        inputs: read one after the other; `check_files` has checked them.
        output: the file to write; splits put their names into its name.
        options: of the rewrite; `images`, `report_file` and `config` are not used here.
        lookup: finds the images.
        new_urls: gives new URLs; None only filters records and leaves them unchanged.
        access: who may read the outputs.
        progress: receives the bytes and the records that were read.

    Raises:
        DatasetError: a record is invalid and `strict` is set; an image is missing and `missing` is
            `fail`; no record has the field to group or to stratify by.
        UsageError: an input cannot be read, or an output cannot be written.
        MirrorError: the disk is full, or a database does not answer.

    Returns: the report. If no record is left, `report.error` says why, and nothing was written.
    """
    started = time.monotonic()
    tally = Tally(options, lookup)
    report = tally.report
    images = ImageKeyFinder.of(lookup, options.copies, progress)
    assigner = SplitAssigner(
        options.splits,
        options.seed,
        options.sample if isinstance(options.sample, int) else None,
        options.tolerance,
        allow_leaks=options.allow_leaks,
        grouped=options.group is not None,
        stratified=options.stratify is not None,
        pins=read_pins(options.pins, options.splits, options.reading, images)
        if options.pins
        else None,
        copies=options.copies,
    )
    outputs = outputs_of(output, options.splits)
    with suppress(NothingLeft), _disk_errors(output), ExitStack() as files:
        if not options.dry_run:
            files.enter_context(folders_made(*outputs.values()))
        # Entered before the outputs, so it takes its place last: after all outputs have taken theirs.
        rejected = files.enter_context(
            RejectedFile(rejected_path(output, options), options.dry_run)
        )
        emitter = None
        sampled: Batch | None = None
        if not options.dry_run:
            spool_folder = (
                next(iter(outputs.values())).absolute().parent if assigner.needed else None
            )
            emitter = files.enter_context(record_output([*outputs.values()], spool_folder, access))
        progress.begin(Stage("records read", nbytes=total_size(inputs)))
        for source in inputs:
            name = shown_name(source)
            for batch in _batches(source, options, progress):
                judged = judge(resolve(batch, lookup), options, replaces_urls=new_urls is not None)
                _set_aside(judged.rejected, name, rejected, strict=options.strict)
                tally.add(judged, name)
                if sampled is None or not len(sampled):
                    sampled = batch
                if len(judged.keep):
                    if assigner.needed:
                        assigner.add(batch_keys(judged, images, options))
                    else:
                        report.written += len(judged.keep)
                    if emitter is not None:
                        emitter.add(rewritten(judged, new_urls))
                progress.advance(len(batch) + len(batch.rejected))
        tally.check_missing()
        if assigner.needed:
            assignment = assigner.assign()
            tally.add_assignment(assignment)
            if emitter is not None:
                emitter.distribute(assignment.split)
        if not options.allow_empty:
            tally.check_left(outputs)
        if emitter is not None and sampled is not None and not report.written:
            emitter.show_columns(sampled.sample(replaced=new_urls is not None))
    if not options.dry_run and report.error is None:
        report.outputs = {split: display(os.fsencode(path)) for split, path in outputs.items()}
        report.rejected = rejected.written and display(os.fsencode(rejected.written))
    if report.error is None:
        report.warnings += tally.warnings()
    report.seconds = time.monotonic() - started
    return report


def _set_aside(
    records: Sequence[Rejected], source: str, file: RejectedFile, *, strict: bool
) -> None:
    for record in records:
        if strict:
            raise DatasetError(
                f"{source}, record {record.number}: {explained(record)}; nothing was written. "
                "Without --strict such records are set aside."
            )
        file.write(source, record)


def _batches(source: Input, options: RewriteOptions, progress: Progress) -> Iterator[Batch]:
    try:
        yield from read(source, options.fields, progress)
    except OSError as error:
        raise DatasetError(
            f"{shown_name(source)} cannot be read to its end ({error.strerror or error})."
        ) from None


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    """Raise errors of the disk that is written to as a MirrorError."""
    try:
        yield
    except OSError as error:
        raise cut_short(output, error) from None
