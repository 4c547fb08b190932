"""`mirror rewrite` as a function: datasets → the URLs of a mirror, or of a cache folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec

from mirror.cache.scan import display
from mirror.config.settings import Settings
from mirror.dataset.inputs import inputs_of
from mirror.dataset.rewrite.image_source import open_image_source, scheme_of
from mirror.dataset.rewrite.output_files import check_files, outputs_of
from mirror.dataset.rewrite.rewrite_dataset import rewrite_dataset
from mirror.dataset.rewrite.rewrite_options import ConfigOptions, RewriteOptions
from mirror.dataset.rewrite.rewrite_report import RewriteReport
from mirror.dataset.yaml_edit.assignment import Assignment
from mirror.dataset.yaml_edit.training_config import check_config, update_config
from mirror.errors import UsageError
from mirror.run.progress import Progress
from mirror.system.files import Access, folders_made, replacing

_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9_-]+)\}")


def rewrite(
    settings: Settings,
    inputs: Sequence[str],
    output: Path,
    options: RewriteOptions,
    *,
    progress: Progress = Progress(),
) -> RewriteReport:
    """Rewrite datasets to the URLs of the mirror; filter and split them.

    This is the one entry for `mirror rewrite` and `Mirror.rewrite`. `parse_options` makes the
    options from the names and texts of the command line.

    Args:
        settings: where the mirror is; with `options.images.cached_only` only the cache folder and
            the settings of its inspection are used.
        inputs: files, `-` for standard input, or `mongodb://HOST/DATABASE/COLLECTION`.
        output: the file to write; its name says the format. With splits, their names are put into
            it: `plants_train.jsonl`. All files appear whole, and only if the run succeeds.
        options: what to keep, how to split, and what else to write.
        progress: receives the progress of the run.

    Returns: counts, examples and file names; `exit_status` is 3 if records were invalid or files of
        the cache unreadable. If no record is left, `error` says why, and only the report is written.

    Raises:
        UsageError: an option does not fit, an input cannot be read, or an output cannot be written.
        ConfigError: no mirror is configured, or it has no URLs of the chosen scheme.
        DatasetError: a record is invalid and `strict` is set; an image is missing and `missing` is
            `fail`; no record has the field to group or to stratify by.
        CacheError: the cache folder cannot be read.
        MirrorError: there is no mirror, the disk is full, or a server does not answer.
    """
    began_at = time.monotonic()
    scheme = scheme_of(settings, options.images)
    # A public URL publishes the image, so its licence must be known.
    if scheme == "public":
        options = replace(options, license=replace(options.license, required=True))
    datasets = inputs_of(inputs, options.delimiter)
    check_files(datasets, output, options)
    config = options.config
    assignments: list[Assignment] = []
    if config is not None:
        assignments = _with_file_names(config, outputs_of(output, options.splits))
        check_config(config.file, assignments)
    with ExitStack() as files:
        report_file = None
        if options.report_file is not None:
            files.enter_context(folders_made(options.report_file))
            report_file = files.enter_context(replacing(options.report_file))
        images = open_image_source(settings, options.images, scheme, progress)
        report = rewrite_dataset(
            datasets,
            output,
            options,
            images.lookup,
            new_urls=images.new_urls,
            # Each presigned URL is a secret while it is valid.
            access=Access.OWNER if scheme == "presigned" else Access.INHERITED,
            progress=progress,
        )
        report.warnings[:0] = images.warnings
        report.unreadable = images.unreadable
        if config is not None and report.error is None:
            _update(config, assignments, report)
        report.seconds = time.monotonic() - began_at  # with the inspection of a cache
        if report_file is not None:
            body = msgspec.json.format(msgspec.json.encode(report.as_json()), indent=2)
            report_file.write(body.decode() + "\n")
    return report


def _with_file_names(config: ConfigOptions, files: Mapping[str, Path]) -> list[Assignment]:
    """The assignments, with files' names in place of `{train}`, `{val}` or `{out}`."""

    def file_name(match: re.Match[str]) -> str:
        if match[1] not in files:
            known = ", ".join(f"{{{name}}}" for name in files)
            raise UsageError(f"--set has an unknown {match[0]}; the files written are {known}.")
        return str(files[match[1]])

    return [
        replace(assignment, value=_PLACEHOLDER.sub(file_name, assignment.value))
        for assignment in config.assignments
    ]


def _update(config: ConfigOptions, assignments: list[Assignment], report: RewriteReport) -> None:
    """Point the training configuration at the new files, unless they are empty."""
    if not report.written:
        report.warnings.append(f"{config.file} is unchanged, because no record was written.")
        return
    updated = update_config(config.file, assignments, dry_run=report.dry_run)
    report.config_diff = display(os.fsencode(updated.diff))
    backup = updated.backup
    report.config_backup = None if backup is None else display(os.fsencode(backup))
