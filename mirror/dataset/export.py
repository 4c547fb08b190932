"""`mirror export` as a function: a MongoDB collection → a file of a dataset."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirror.dataset.formats.documents import Rendering, Style
from mirror.dataset.formats.file_name import FileName
from mirror.dataset.formats.mongo import BATCH_SIZE, RETRY, Break, connected
from mirror.dataset.formats.mongo_query import Query, import_pymongo
from mirror.dataset.formats.mongo_url import MongoUrl
from mirror.dataset.formats.writers import check_not_replaced, check_output, writing
from mirror.errors import MirrorError, NothingLeft, UsageError, exit_status_of
from mirror.run.failures import Failures
from mirror.run.progress import Progress, Stage
from mirror.store.retry import RetryPolicy
from mirror.system.files import folders_made


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        query: which documents to read, and which of their fields.
        style: how types that JSON lacks are written; see `mirror.dataset.formats.documents`.
        batch_size: documents requested at a time.
        force: replace an existing output.
        allow_empty: write an output without records.
        retry: how often in a row the scan may break, and the pauses between attempts.
    """

    query: Query = field(default_factory=Query)
    style: Style = "plain"
    batch_size: int = BATCH_SIZE
    force: bool = False
    allow_empty: bool = False
    retry: RetryPolicy = RETRY


@dataclass
class ExportReport:
    """Counts of an export.

    Attributes:
        output: the file written.
        documents: documents that were read.
        written: records in the output.
        failed: documents left out because they are not valid BSON.
        failures: the first of them, as `(_id, reason)`.
        non_finite: numbers written as null because JSON has no NaN and no infinity; only for the
            plain style.
        resumed: how often the scan broke and was resumed.
        seconds: wall time.
        error: why nothing was written, although the collection was read to its end.
    """

    output: Path
    documents: int = 0
    written: int = 0
    failed: int = 0
    failures: Failures = field(default_factory=Failures)
    non_finite: int = 0
    resumed: int = 0
    seconds: float = 0.0
    error: MirrorError | None = None

    @property
    def exit_status(self) -> int:
        return exit_status_of(self.error, interrupted=False, failed=self.failed > 0)

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "documents": self.documents,
            "written": self.written,
            "failed": self.failed,
            "failures": [{"_id": name, "reason": reason} for name, reason in self.failures],
            "non_finite": self.non_finite,
            "resumed": self.resumed,
            "output": str(self.output),
            "seconds": round(self.seconds, 3),
        }
        if self.error is not None:
            out["error"] = str(self.error)
        return out


def export(
    url: MongoUrl,
    output: Path,
    options: ExportOptions | None = None,
    *,
    progress: Progress = Progress(),
    sleep: Callable[[float], object] = time.sleep,
    jitter: Callable[[], float] = random.random,
) -> ExportReport:
    """Write the documents that a query finds, in the order of their `_id`.

    Args:
        url: the address of the collection.
        output: the file to write; its name says the format. It appears whole or not at all.
        options: of the export.
        progress: receives the progress of the run.
        sleep: called with the seconds of a pause after a break.
        jitter: random numbers, uniform in [0, 1), for the length of a pause.

    Raises:
        UsageError: the output exists or cannot be written, or the server rejects the query.
        ConfigError: the server rejects the user and password, or requires them.
        DatasetError: the server cannot be reached, has no such collection, or fails repeatedly.

    Returns: the report. If it has no record to write, `error` says why, and nothing was written.
    """
    options = options or ExportOptions()
    check_output(output)
    if FileName.parse(output).names_split:
        raise UsageError(f"{output} names a split, and an export has none; leave {{split}} out.")
    check_not_replaced(output, force=options.force)
    import_pymongo()
    started = time.monotonic()
    report = ExportReport(output)
    rendering = Rendering(options.style, keep_id=options.query.keeps_id)

    def resume(lost: Break) -> None:
        report.resumed += 1
        progress.say(str(lost))

    with (
        suppress(NothingLeft),
        folders_made(output),
        writing(output) as (writer,),
        connected(url) as source,
    ):
        progress.begin(Stage("documents", source.count(options.query)))
        for batch in source.batches(
            options.query,
            batch_size=options.batch_size,
            retry=options.retry,
            on_break=resume,
            sleep=sleep,
            jitter=jitter,
        ):
            chunk, undecodable = rendering.chunk(batch)
            writer.write(chunk)
            report.written += len(chunk)
            for invalid in undecodable:
                name = invalid.shown_id or f"document {invalid.number}"
                report.failures.note(name, invalid.reason)
            progress.advance(len(chunk) + len(undecodable))
        if not report.written and not options.allow_empty:
            report.error = NothingLeft(_none_written(url, report, options.query))
            raise report.error
    report.documents = rendering.documents
    report.failed = rendering.undecodable
    report.non_finite = rendering.non_finite
    report.seconds = time.monotonic() - started
    return report


def _none_written(url: MongoUrl, report: ExportReport, query: Query) -> str:
    if report.failures:
        why = f"None of the documents of {url} is valid BSON"
    elif query.filter:
        why = f"The filter matches no document of {url}"
    else:
        why = f"{url} has no documents"
    return f"{why}; nothing was written. --allow-empty writes an empty output."
