"""Reads datasets: files of any format, standard input, or a MongoDB collection."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, cast

from mirror.dataset.compression import decompressed
from mirror.dataset.formats.csv_reader import read_csv
from mirror.dataset.formats.file_name import FileName
from mirror.dataset.formats.jsonl import read_jsonl
from mirror.dataset.formats.mongo import read_batches
from mirror.dataset.formats.mongo_url import MongoUrl
from mirror.dataset.formats.parquet import read_parquet
from mirror.dataset.records import Batch, Batches, ReadOptions
from mirror.errors import UsageError
from mirror.run.progress import Progress

STANDARD_INPUT: Final = "-"


class Input(NamedTuple):
    """One dataset to read: a path, `-`, or `mongodb://HOST/DATABASE/COLLECTION`."""

    name: str

    @property
    def path(self) -> Path | None:
        """The path of the file; None if the input is no file."""
        if self.name == STANDARD_INPUT or MongoUrl.is_address(self.name):
            return None
        return Path(self.name)

    @property
    def shown(self) -> str:
        """The name for people, without a password."""
        if self.name == STANDARD_INPUT:
            return "standard input"
        if MongoUrl.is_address(self.name):
            return str(MongoUrl.parse(self.name))
        return self.name

    @property
    def size(self) -> int | None:
        """The size of the file in bytes; None if it is not known."""
        path = self.path
        return path.stat().st_size if path is not None and path.is_file() else None

    def check(self) -> None:
        """Raise UsageError if the file does not exist or cannot be opened, before any work is done."""
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
    """The size of all files in bytes; None if the size of one is not known."""
    sizes = [source.size for source in inputs]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def read(source: Input, reading: ReadOptions, progress: Progress = Progress()) -> Batches:
    """Read the records of a dataset in batches, in order.

    Args:
        source: what to read.
        reading: the fields to read of each record.
        progress: receives the bytes as they are read, `source.size` in total.

    Raises:
        UsageError: the dataset cannot be read, or is not in the format that its name says.
        MirrorError: the database cannot be reached or read.
    """
    if MongoUrl.is_address(source.name):
        yield from read_batches(MongoUrl.parse(source.name), reading)
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
        yield from _with_progress(_read_stream(raw, source, reading), raw, progress)


def _read_stream(raw: io.BufferedReader, source: Input, reading: ReadOptions) -> Batches:
    text = decompressed(raw)
    kind = "jsonl" if source.path is None else FileName.parse(source.path).kind
    if kind == "jsonl":
        yield from read_jsonl(text, reading)
    else:
        delimiter = "\t" if kind == "tsv" else ","
        yield from read_csv(text, reading, source.shown, delimiter=delimiter)


def _with_progress(batches: Batches, raw: io.BufferedReader, progress: Progress) -> Iterator[Batch]:
    reported = 0
    for batch in batches:
        if raw.seekable():
            position = os.lseek(raw.fileno(), 0, os.SEEK_CUR)
            progress.advance(nbytes=position - reported)
            reported = position
        yield batch


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be read ({error.strerror}); name a dataset's file.")
