"""The files that a rewrite writes: their names, and checks on them before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mirror.cache.scan import display
from mirror.dataset.formats.file_name import FileName
from mirror.dataset.formats.writers import check_is_file, check_not_replaced, check_output
from mirror.dataset.inputs import Input, read
from mirror.dataset.records import ReadOptions
from mirror.dataset.rewrite.rewrite_options import RewriteOptions
from mirror.dataset.splits.split import Split
from mirror.errors import UsageError

_UNSPLIT: Final = "out"


def outputs_of(output: Path, splits: Sequence[Split]) -> dict[str, Path]:
    """The files to write, by split; without splits there is only `out`."""
    if not splits:
        return {_UNSPLIT: output}
    name = FileName.parse(output)
    return {split.name: Path(name.split(split.name)) for split in splits}


def rejected_path(output: Path, options: RewriteOptions) -> Path:
    """The file for invalid records, such as `plants.rejected.jsonl`.

    If that file exists and may not be replaced, the name is built from the whole name of the output.
    """
    path = Path(FileName.parse(output).rejected())
    if path.exists() and not options.force:
        return output.with_name(f"{output.name}.rejected.jsonl")
    return path


def check_files(inputs: Sequence[Input], output: Path, options: RewriteOptions) -> None:
    """Check the files to read and to write before any of them is opened.

    Args:
        inputs: the datasets to read.
        output: the file to write, before splits' names are put into its name.
        options: of the rewrite. A dry run may name outputs that exist, but its report must not.

    Raises:
        UsageError: an input does not exist; an output is also an input, is named twice, exists
            already without `force`, or cannot be a file.
    """
    for pin in options.pins:
        Input(str(pin.file)).check()
    for source in inputs:
        source.check()
        shown_name(source)  # refuses a malformed address
    reports = [] if options.report_file is None else [options.report_file]
    check_output(output)
    for path in reports:
        check_is_file(path)
    if FileName.parse(output).names_split and not options.splits:
        raise UsageError(
            f"{output} names a split; {{split}} needs --split, such as train=0.9,val=0.1."
        )
    datasets = [*outputs_of(output, options.splits).values(), rejected_path(output, options)]
    seen: set[str] = set()
    for path in (*datasets, *reports):
        if os.path.exists(path) and not os.path.isfile(path):
            raise UsageError(f"{path} is not a regular file; name another output.")
        if any(source.path is not None and _is_same(path, source.path) for source in inputs):
            raise UsageError(f"{path} is both an input and an output; name another output.")
        if os.path.realpath(path) in seen:
            raise UsageError(
                f"{path} would be written twice; choose another name for one of the files."
            )
        seen.add(os.path.realpath(path))
    for path in reports if options.dry_run else (*datasets, *reports):
        check_not_replaced(path, force=options.force)


def has_records(path: Path, reading: ReadOptions) -> bool:
    """Whether a file holds a dataset with records. A file that is no dataset counts if it has bytes."""
    if not path.is_file():
        return False
    try:
        return any(len(batch) or batch.rejected for batch in read(Input(str(path)), reading))
    except UsageError:
        return path.stat().st_size > 0


def shown_name(source: Input) -> str:
    """The name of an input as text for people: without a password, whatever bytes a path has."""
    return display(os.fsencode(source.shown))


def _is_same(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
