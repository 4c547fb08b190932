"""A dataset being read: files of any format, standard input, a MongoDB collection."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, cast

from mirror.dataset.compression import decompressed
from mirror.dataset.formats import mongo
from mirror.dataset.formats.file_name import FileName
from mirror.dataset.formats.jsonl import read_jsonl
from mirror.dataset.formats.tables import read_csv, read_parquet
from mirror.dataset.records import Batch, Batches, ReadOptions
from mirror.errors import UsageError
from mirror.run.progress import Progress

STANDARD_INPUT: Final = "-"


class Input(NamedTuple):
    """One dataset to read: a path, `-`, or `mongodb://HOST/DATABASE/COLLECTION`."""

    name: str

    @property
    def path(self) -> Path | None:
        """The file that it is, if it is one."""
        if self.name == STANDARD_INPUT or mongo.MongoUrl.is_one(self.name):
            return None
        return Path(self.name)

    @property
    def shown(self) -> str:
        """Its name as people may see it: no password in it."""
        if self.name == STANDARD_INPUT:
            return "standard input"
        if mongo.MongoUrl.is_one(self.name):
            return str(mongo.MongoUrl.parse(self.name))
        return self.name

    @property
    def size(self) -> int | None:
        """Bytes of the file, for a progress bar; None where that is not known."""
        path = self.path
        return path.stat().st_size if path is not None and path.is_file() else None

    def check(self) -> None:
        """Raises: UsageError: it is not there, or not to be read; said before any work is done."""
        path = self.path
        if path is None:
            return
        try:
            # Opening a pipe would wait for its writer.
            if not path.is_fifo():
                path.open("rb").close()
        except OSError as error:
            raise _unreadable(path, error) from None


def total_size(inputs: Iterable[Input]) -> int | None:
    """Bytes of all files, for a progress bar; None where one of the inputs has no size."""
    sizes = [source.size for source in inputs]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def read(source: Input, reading: ReadOptions, progress: Progress = Progress()) -> Batches:
    """Batches of a dataset's records, in its order.

    Args:
        source: what to read.
        reading: what is wanted of each record.
        progress: receives the bytes as they are read, `source.size` in all.

    Raises:
        UsageError: it cannot be read, or not as what its name says.
        MirrorError: the database does not answer as it should.
    """
    if mongo.MongoUrl.is_one(source.name):
        yield from mongo.read_batches(mongo.MongoUrl.parse(source.name), reading)
        return
    path = source.path
    if path is not None and FileName.parse(path).kind == "parquet":
        yield from read_parquet(str(path), reading)
        return
    with ExitStack() as stack:
        if path is None:
            raw = cast("io.BufferedReader", sys.stdin.buffer)
        else:
            try:
                raw = stack.enter_context(path.open("rb"))
            except OSError as error:
                raise _unreadable(path, error) from None
        yield from _reported(_read_stream(raw, source, reading), raw, progress)


def _read_stream(raw: io.BufferedReader, source: Input, reading: ReadOptions) -> Batches:
    text = decompressed(raw)
    kind = "jsonl" if source.path is None else FileName.parse(source.path).kind
    if kind == "jsonl":
        yield from read_jsonl(text, reading)
    else:
        delimiter = "\t" if kind == "tsv" else ","
        yield from read_csv(text, reading, source.shown, delimiter=delimiter)


def _reported(batches: Batches, raw: io.BufferedReader, progress: Progress) -> Iterator[Batch]:
    at = 0
    for batch in batches:
        if raw.seekable():
            now = os.lseek(raw.fileno(), 0, os.SEEK_CUR)
            progress.advance(nbytes=now - at)
            at = now
        yield batch


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be read ({error.strerror}); name a dataset's file.")
