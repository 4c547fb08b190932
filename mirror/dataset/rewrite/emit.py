"""Stage 4 of a rewrite: put new URLs into records, and write each record to its file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirror.catalog.lookup import OK, Positions
from mirror.dataset.chunks import Chunk
from mirror.dataset.formats.writers import Writer, writing
from mirror.dataset.rewrite.judge import JudgedBatch
from mirror.dataset.spool import Spool
from mirror.system.files import Access

# Positions in the index → the URLs that replace the old ones.
NewUrls = Callable[[Positions], Sequence[bytes]]


def rewritten(judged: JudgedBatch, new_urls: NewUrls | None) -> Chunk:
    """The written records of a batch, with new URLs; without `new_urls` URLs stay as they are."""
    batch, positions, _, outcomes, _ = judged.resolved
    keep = judged.keep.tolist()
    if new_urls is None and batch.owners is None:
        return batch.unchanged(keep)
    urls: list[bytes | None] = [None] * len(batch.urls)
    written = judged.written_urls
    replaced = written & (outcomes == OK) & (new_urls is not None)
    for index in np.flatnonzero(written & ~replaced).tolist():
        urls[index] = batch.urls[index]
    if new_urls is not None:
        fresh = new_urls(positions[replaced])
        for index, url in zip(np.flatnonzero(replaced).tolist(), fresh, strict=True):
            urls[index] = url
    return batch.rewritten(keep, urls)


class RecordOutput:
    """The output files. Records wait on disk if they must all be seen before one is written.

    Args:
        writers: one per split, or a single one.
        spool: where records wait; None to write them at once to the first writer.
    """

    def __init__(self, writers: Sequence[Writer], spool: Spool | None) -> None:
        self._writers = writers
        self._spool = spool

    def add(self, chunk: Chunk) -> None:
        """Take the next records, in the order of the input."""
        if self._spool is not None:
            self._spool.add(chunk)
        else:
            self._writers[0].write(chunk)

    def show_columns(self, sample: Chunk) -> None:
        """Give tables without records their columns; the files share them."""
        self._writers[0].show_columns(sample)

    def distribute(self, splits: NDArray[np.uint8]) -> None:
        """Write the records that waited.

        Args:
            splits: for each record the number of its writer; other numbers leave it out.
        """
        assert self._spool is not None
        begin = 0
        for chunk in self._spool:
            part = splits[begin : begin + len(chunk)]
            begin += len(chunk)
            for number, writer in enumerate(self._writers):
                taken = np.flatnonzero(part == number).tolist()
                if taken:
                    writer.write(chunk if len(taken) == len(chunk) else chunk.take(taken))


@contextmanager
def record_output(
    paths: Sequence[Path], spool_folder: Path | None, access: Access = Access.INHERITED
) -> Iterator[RecordOutput]:
    """Open the output files. They all appear when the block ends without an error.

    Args:
        paths: of the files.
        spool_folder: where records wait until they are assigned; None to write them at once.
        access: who may read the files.
    """
    with ExitStack() as files:
        writers = files.enter_context(writing(*paths, access=access))
        spool = None if spool_folder is None else files.enter_context(Spool(spool_folder))
        yield RecordOutput(writers, spool)
