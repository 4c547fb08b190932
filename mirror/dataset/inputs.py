"""Reads datasets: files of any format, standard input, or a MongoDB collection."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, cast

from mirror.dataset.compression import decompressed
from mirror.dataset.first_bytes import PARQUET, recognised
from mirror.dataset.formats.csv_reader import read_csv
from mirror.dataset.formats.file_name import REJECTED, FileName
from mirror.dataset.formats.jsonl import read_json_values, read_jsonl
from mirror.dataset.formats.mongo import read_batches
from mirror.dataset.formats.mongo_query import import_pymongo
from mirror.dataset.formats.mongo_url import MongoUrl
from mirror.dataset.formats.parquet import import_pyarrow, read_parquet
from mirror.dataset.records import Batch, Batches, ReadOptions
from mirror.errors import UsageError
from mirror.run.progress import Progress

STANDARD_INPUT: Final = "-"


class Input(NamedTuple):
    """One dataset to read: a path, `-`, or `mongodb://HOST/DATABASE/COLLECTION`.

    `delimiter` stands between the cells of a table; None chooses it by the header.
    """

    name: str
    delimiter: str | None = None

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
        """Raise UsageError if the dataset cannot be read, before any work is done.

        The file does not exist or cannot be opened, or an optional library is not installed.
        """
        path = self.path
        if MongoUrl.is_address(self.name):
            import_pymongo()
        elif path is not None and FileName.parse(path).kind == "parquet":
            import_pyarrow()
        if path is None:
            return
        try:
            # Opening a pipe would wait for its writer.
            if not path.is_fifo():
                path.open("rb").close()
        except OSError as error:
            raise _unreadable(path, error) from None


def inputs_of(names: Iterable[str], delimiter: str | None = None) -> list[Input]:
    """The datasets that a user names.

    A folder stands for its dataset files, a pattern for the files that match it, both by name.
    Hidden files and those of rejected records are left out.

    Args:
        names: files, folders, patterns such as `raw/*.jsonl`, `-`, or addresses of MongoDB.
        delimiter: between the cells of tables; None finds it in their headers.

    Raises:
        UsageError: a folder has no dataset, or nothing matches a pattern.
    """
    return [Input(each, delimiter) for name in names for each in _files_of(name)]


def _files_of(name: str) -> list[str]:
    path = Input(name).path
    if path is None or path.is_file():
        return [name]
    if path.is_dir():
        found = [str(each) for each in path.iterdir()]
        found = [each for each in found if FileName.parse(Path(each)).is_known]
        what = "has no file that ends in .jsonl, .json, .csv, .tsv or .parquet"
    elif not path.exists() and glob.has_magic(name):
        found = glob.glob(name, recursive=True)
        what = "matches no file"
    else:
        return [name]
    files = sorted(each for each in found if os.path.isfile(each) and not _is_aside(each))
    if not files:
        raise UsageError(f"{name} {what}; name a dataset's file.")
    return files


def _is_aside(file: str) -> bool:
    name = os.path.basename(file)
    return name.startswith(".") or name.endswith(REJECTED)


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
    name = None if source.path is None else FileName.parse(source.path)
    kind = name.kind if name is not None and name.is_known else None
    column = ".".join(reading.url)
    what = recognised(decompressed(raw), kind, column, source.shown, source.delimiter)
    if what.found == "json lines":
        yield from read_jsonl(what.text, reading)
    elif what.found == "json values":
        yield from read_json_values(what.text, reading)
    elif what.found == "table":
        yield from read_csv(what.text, reading, source.shown, delimiter=what.delimiter)
    elif source.path is not None and source.path.is_file() and _is_plain_parquet(raw):
        yield from read_parquet(str(source.path), reading)
    else:
        raise UsageError(
            f"{source.shown} is a Parquet file in a stream or in another compression; "
            "name the uncompressed file."
        )


def _is_plain_parquet(raw: io.BufferedReader) -> bool:
    raw.seek(0)
    return raw.read(len(PARQUET)) == PARQUET


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
