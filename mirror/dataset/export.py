"""`mirror export`: a MongoDB collection → a dataset's file."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirror.dataset.formats.documents import Rendering, Style
from mirror.dataset.formats.mongo import BATCH_SIZE, RETRY, Break, MongoUrl, connected
from mirror.dataset.formats.mongo_query import Query
from mirror.dataset.formats.writers import check_not_replaced, check_output, writing
from mirror.errors import EXIT_DONE, EXIT_SOME_FAILED
from mirror.run.failures import Failures
from mirror.run.progress import Progress, Stage
from mirror.store.retry import RetryPolicy


@dataclass(frozen=True)
class ExportOptions:
    """What is asked of an export.

    Attributes:
        query: which documents, and what of them.
        style: how what JSON has not is written; see `mirror.dataset.formats.documents`.
        batch_size: documents asked for at a time.
        force: replaces an output that is there.
        retry: how often in a row the scan may break, and the pauses between.
    """

    query: Query = field(default_factory=Query)
    style: Style = "plain"
    batch_size: int = BATCH_SIZE
    force: bool = False
    retry: RetryPolicy = RETRY


@dataclass
class ExportReport:
    """What an export did.

    Attributes:
        documents: matched and read.
        written: records in the output.
        failed: documents left out since they are not valid BSON; `failures` are the first of them,
            as `(_id, reason)`.
        non_finite: numbers written as null since JSON has no NaN and no infinity; plain only.
        resumed: times that the scan broke and went on.
        seconds: wall time.
    """

    output: Path
    documents: int = 0
    written: int = 0
    failed: int = 0
    failures: Failures = field(default_factory=Failures)
    non_finite: int = 0
    resumed: int = 0
    seconds: float = 0.0

    @property
    def exit_status(self) -> int:
        return EXIT_SOME_FAILED if self.failed else EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "written": self.written,
            "failed": self.failed,
            "failures": [{"_id": name, "reason": reason} for name, reason in self.failures],
            "non_finite": self.non_finite,
            "resumed": self.resumed,
            "output": str(self.output),
            "seconds": round(self.seconds, 3),
        }


def export(
    url: MongoUrl,
    output: Path,
    options: ExportOptions | None = None,
    *,
    progress: Progress = Progress(),
    sleep: Callable[[float], object] = time.sleep,
    jitter: Callable[[], float] = random.random,
) -> ExportReport:
    """Write all documents of a collection that a query finds, in the order of their `_id`.

    Args:
        url: where the collection is.
        output: its name says the format, as `mirror.dataset.formats.writers.writing` has it. It appears
            whole or not at all.
        options: what is asked for.
        progress: receives the progress of the run.
        sleep: called with the seconds of a pause after a break.
        jitter: random numbers, uniform in [0, 1), for the length of a pause.

    Raises:
        UsageError: the output is there already or can not be made, or the server does not take the
            query.
        ConfigError: user and password are refused, or wanted and not given.
        DatasetError: the server is out of reach, has no such collection, or is lost for good.
    """
    options = options or ExportOptions()
    check_output(output)
    check_not_replaced(output, force=options.force)
    began_at = time.monotonic()
    report = ExportReport(output)
    rendering = Rendering(options.style, keep_id=options.query.keeps_id)

    def broke(what: Break) -> None:
        report.resumed += 1
        progress.say(str(what))

    with writing(output) as (writer,), connected(url) as source:
        progress.begin(Stage("documents", source.count(options.query)))
        for batch in source.batches(
            options.query,
            batch_size=options.batch_size,
            retry=options.retry,
            told=broke,
            sleep=sleep,
            jitter=jitter,
        ):
            chunk, undecodable = rendering.chunk(batch)
            writer.write(chunk)
            report.written += len(chunk)
            for one in undecodable:
                report.failures.note(one.shown_id or f"document {one.number}", one.reason)
            progress.advance(len(chunk) + len(undecodable))
    report.documents = rendering.documents
    report.failed = rendering.undecodable
    report.non_finite = rendering.non_finite
    report.seconds = time.monotonic() - began_at
    return report
