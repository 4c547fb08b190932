"""Metrics of a run, in the text format that node-exporter's textfile collector reads.

All of them have the labels `command`, `bucket` and `cache`.

    mirror_run_timestamp_seconds          when the last run ended
    mirror_run_success_timestamp_seconds  when the last successful run ended
    mirror_run_exit_status                exit status of the last run
    mirror_run_duration_seconds           how long the last run took
    mirror_run_items                      counts of the report, by outcome
    mirror_run_items_by_reason            counts that the report divides, such as flagged by verdict
    mirror_run_bytes                      bytes, by what was done with them
    mirror_run_requests                   requests, by operation
    mirror_run_retries                    requests that were sent again
    mirror_catalog_version                the last version that a run saw

The time of the last success and the catalog's version survive runs that do not know them: they are
copied from the file that is replaced.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mirror.errors import UsageError
from mirror.system.files import Access, open_regular, replacing

HELP: Final = {
    "mirror_run_timestamp_seconds": "When the last run ended, in seconds since 1970.",
    "mirror_run_success_timestamp_seconds": "When the last successful run ended, in seconds since 1970.",
    "mirror_run_exit_status": "Exit status of the last run.",
    "mirror_run_duration_seconds": "How long the last run took.",
    "mirror_run_items": "Counts of the last run, by outcome.",
    "mirror_run_items_by_reason": "Counts of the last run, by outcome and reason.",
    "mirror_run_bytes": "Bytes that the last run moved, by what was done with them.",
    "mirror_run_requests": "Requests of the last run to the store, by operation.",
    "mirror_run_retries": "Requests that the last run sent again.",
    "mirror_catalog_version": "The catalog's version that a run saw last.",
}
_KEPT: Final = ("mirror_run_success_timestamp_seconds", "mirror_catalog_version")
# A run that could not begin found nothing: these counts of the run before it stay.
_KEPT_OUTCOMES: Final = ("missing", "mismatched")
# Numbers of a report that have their own metric, or none.
_NO_ITEMS: Final = {"catalog_commits", "seconds", "exit_status", "seed"}
# bytes, bytes_uploaded, orphaned_bytes
_BYTES: Final = re.compile(r"bytes(?:_(\w+))?|(\w+)_bytes").fullmatch


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that has ended.

    Attributes:
        labels: command, bucket and cache; they tell its series from those of other runs.
        exit_status: the exit status of the process.
        ended_at: seconds since 1970.
        seconds: how long it took.
        report: the object of `--json`; empty if the run could not begin.
        succeeded: whether the run did its work.
    """

    labels: Mapping[str, str]
    exit_status: int
    ended_at: float
    seconds: float
    report: Mapping[str, Any]
    succeeded: bool


def samples(run: FinishedRun) -> Iterator[Sample]:
    """The samples of a run. Pure."""
    base = tuple(run.labels.items())
    yield Sample("mirror_run_timestamp_seconds", base, run.ended_at)
    if run.succeeded:
        yield Sample("mirror_run_success_timestamp_seconds", base, run.ended_at)
    yield Sample("mirror_run_exit_status", base, run.exit_status)
    yield Sample("mirror_run_duration_seconds", base, run.seconds)
    for key, value in run.report.items():
        if isinstance(value, Mapping):
            for name, number in value.items():
                if not _is_count(number):
                    continue
                if key == "requests":
                    yield Sample("mirror_run_requests", (*base, ("operation", name)), number)
                else:
                    labels = (*base, ("outcome", key), ("reason", name))
                    yield Sample("mirror_run_items_by_reason", labels, number)
        elif not _is_count(value):
            continue
        elif (match := _BYTES(key)) is not None:
            what = match[1] or match[2] or "moved"
            yield Sample("mirror_run_bytes", (*base, ("outcome", what)), value)
        elif key == "requests":  # a backfill sends only GET requests
            yield Sample("mirror_run_requests", (*base, ("operation", "get")), value)
        elif key == "retries":
            yield Sample("mirror_run_retries", base, value)
        elif key == "catalog_version":
            if value >= 0:  # -1: there is no catalog yet
                yield Sample("mirror_catalog_version", base, value)
        elif key not in _NO_ITEMS:
            yield Sample("mirror_run_items", (*base, ("outcome", key)), value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def rendered(found: list[Sample]) -> str:
    """The samples in the text format, grouped by name under an explanation."""
    lines: list[str] = []
    for name, help_ in HELP.items():
        of_name = [sample for sample in found if sample.name == name]
        if of_name:
            lines += [f"# HELP {name} {help_}", f"# TYPE {name} gauge"]
        lines += [f"{_series(name, sample.labels)} {sample.value:.15g}" for sample in of_name]
    return "\n".join(lines) + "\n"


def _series(name: str, labels: Iterable[tuple[str, str]]) -> str:
    return name + "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels) + "}"


def _escaped(value: str) -> str:
    # Bytes of a path that are not UTF-8 must not cost the metrics.
    plain = value.encode("utf-8", "replace").decode()
    return plain.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def write(path: Path, run: FinishedRun) -> None:
    """Replace the file with the metrics of this run. A reader sees the old or the new file, whole.

    Raises:
        UsageError: the file cannot be written, or the path is not a plain file.
        OSError: the disk is full, or fails.
    """
    # Other users may write to the folder. A link is not followed: its target is not ours to replace.
    # Reading a device such as /dev/full never ends, and its mode is not ours to change.
    if os.path.lexists(path) and not path.is_symlink() and not path.is_file():
        raise UsageError("it is not a plain file; name one that ends in .prom.")
    found = list(samples(run))
    names = {sample.name for sample in found}
    before = ""
    with suppress(OSError, UnicodeDecodeError):
        descriptor, _ = open_regular(path)
        with open(descriptor, encoding="utf-8") as old:
            before = old.read()
    labels = tuple(run.labels.items())
    kept = [(name, labels) for name in _KEPT]
    kept += [("mirror_run_items", (*labels, ("outcome", outcome))) for outcome in _KEPT_OUTCOMES]
    for name, with_labels in kept:
        series = re.escape(_series(name, with_labels))
        value = re.search(rf"^{series} (\d[\d.e+]*)$", before, re.MULTILINE)
        if name not in names and value:
            found.append(Sample(name, with_labels, float(value[1])))
    # The exporter runs as another user.
    with replacing(path, access=Access.EVERYONE, follow=False) as file:
        file.write(rendered(found))
