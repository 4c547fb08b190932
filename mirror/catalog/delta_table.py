"""The catalog: a Delta table in the bucket, appended to and never rewritten.

A commit is one conditional PUT of the next file in `_delta_log`, so two writers never take the
same version: the one who comes second reads what the first one wrote and takes the next. DuckDB,
Polars, pandas, Spark and Ray read the table as it is.
"""

from __future__ import annotations

import asyncio
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import arro3.core as arrow
import numpy as np
from deltalake import (
    CommitProperties,
    DeltaTable,
    Field,
    PostCommitHookProperties,
    QueryBuilder,
    Schema,
    convert_to_deltalake,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.schema import PrimitiveType

from mirror.catalog.index import FORMAT_CODES, VERDICT_CODES, Batch, Index, halves
from mirror.catalog.row import Row, RowSource
from mirror.content.photo import photo_key
from mirror.errors import CatalogError
from mirror.layout import CATALOG
from mirror.store.base import Store
from mirror.store.retry import RetryPolicy

T = TypeVar("T")

_FIELDS: Final = (
    ("url_md5", "binary"),
    ("content_hash", "binary"),
    ("sha256", "binary"),
    ("size", "long"),
    ("format", "string"),
    ("width", "integer"),
    ("height", "integer"),
    ("verdict", "string"),
    ("reason", "string"),
    ("source_url", "string"),
    ("license", "string"),
    ("attribution", "string"),
    ("seen_at", "timestamp"),
)
_NULLABLE: Final = {"source_url", "license", "attribution"}

_ARROW: Final = {
    "binary": arrow.DataType.binary(),
    "long": arrow.DataType.int64(),
    "integer": arrow.DataType.int32(),
    "string": arrow.DataType.string(),
}

# Of these, what an index is made from.
_INDEXED: Final = (
    "url_md5", "content_hash", "sha256", "size", "width", "height", "format", "verdict",
    "source_url", "seen_at",
)  # fmt: skip

# Once this many commits stand uncompacted, their small files are merged into few.
COMPACT_AFTER: Final = 50
# What it makes of them; one at a time, it holds about seven times as much in memory.
_COMPACTED_BYTES: Final = 16 << 20
# A conflict is another writer's commit; the loser reads it and tries the next version.
_COMMIT_RETRIES: Final = 50
# The log is kept. deltalake would delete its entries once they are a month old, and fail the commit
# after which it did: the key that commits may not delete.
_AFTER_A_COMMIT: Final = PostCommitHookProperties(cleanup_expired_logs=False)
_ANSWER: Final = re.compile(r"<\?xml|<Error>|<!|<html", re.IGNORECASE)
_ANSWERED: Final = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")
# Around deltalake's own attempts, for what it does not repeat.
_ATTEMPTS: Final = 5

# What one commit costs in requests that deltalake sends itself (tests/catalog/test_requests.py
# counts them): the data file and the log's entry; listings of the log; the entries it reads.
COMMIT_PUTS: Final = 2
COMMIT_LISTS: Final = 2
COMMIT_GETS: Final = 2
# At most, of a run: to make the table, to open it, and to bring the index up to date.
OPEN_PUTS: Final = 1
OPEN_LISTS: Final = 8
OPEN_GETS: Final = 18


class Catalog:
    """The catalog of one mirror.

    Args:
        store: rooted at the mirror; data files are read through it.
        uri: the same place for deltalake: `s3://…/catalog` or a folder.
        options: gives deltalake's storage options, with the credentials of the moment.
        retry: how soon what deltalake does not repeat itself is tried again.
        sleep: waits so many seconds.
        settle: returns when what was written to the mirror so far survives a loss of power. A
            server promises that by its answer, a folder does not.
    """

    def __init__(
        self,
        store: Store,
        uri: str,
        options: Callable[[], dict[str, str]],
        retry: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        *,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._retry = replace(retry or RetryPolicy(), attempts=_ATTEMPTS)
        self._sleep = sleep
        self._settle = settle
        self._in_doubt: str | None = None
        self._uri = uri
        self._options = options
        self._table: DeltaTable | None = None
        self._opened_with: dict[str, str] = {}

    def _open(self) -> DeltaTable | None:
        """The table at the version last seen, reopened for new credentials; None if there is none."""
        options = self._options()
        if self._table is None or options != self._opened_with:
            self._table = self._attempt(lambda: _opened(self._uri, options))
            self._opened_with = options
        return self._table

    def _open_or_create(self) -> DeltaTable:
        table = self._open()
        if table is None:
            table = self._table = self._attempt(lambda: _created(self._uri, self._opened_with))
        return table

    def append(self, rows: Sequence[Row]) -> int:
        """Commit rows; returns the catalog's version, which holds them all. Blocks: call in a thread.

        Raises:
            CatalogError: nothing was committed (or the answer was lost: rows may then stand twice,
                which means the same as once).
        """
        table = self._open_or_create()
        data = _to_arrow(rows)
        self._settled()  # objects before the rows that name them
        self._attempt(lambda: _write(table, data, _COMMIT_RETRIES))
        self._settled()  # and rows before the state that vouches for them
        return int(table.version())

    def append_after(self, version: int, rows: Sequence[Row]) -> int | None:
        """`append`, if this is the newest version; None, and nothing committed, where another is.

        Another may be this very commit, by an attempt whose answer was lost.
        """
        table = self._open_or_create()
        data = _to_arrow(rows)

        def write() -> bool:
            try:
                _write(table, data, 0)
            except CommitFailedError:
                return False
            return True

        self._settled()
        if table.version() != version or not self._attempt(write):
            return None
        self._settled()
        return int(table.version())

    async def refresh(self, index: Index, folder: Path | None = None) -> Index:
        """`index` brought up to the catalog's newest version, reading only files that are new to it.

        Writes nothing to the mirror. A compaction brings rows that the index has already, in new
        files: merging them again changes nothing.

        Args:
            index: of any earlier version, or empty.
            folder: where snapshots are kept, memory-mapped, by this process and others: what one of
                them has read meanwhile is not read again. None keeps the new index in memory.
        """
        if folder is not None:
            kept = await asyncio.to_thread(Index.load, folder)
            index = kept if kept.version > index.version else index
        table = await asyncio.to_thread(self._newest)
        if table is None:
            return Index.empty()
        version, files = int(table.version()), frozenset(self._files(table))
        if version == index.version and files == index.files:
            return index
        if version <= index.version:  # not the catalog that the index was made from
            index = Index.empty()
        columns = ", ".join(_INDEXED)
        query = f"SELECT {columns} FROM catalog"  # noqa: S608 - our names
        batches: list[Batch] = []
        for file in sorted(files - index.files):
            batches += await self.read_file(file, query, batch_from_arrow)
        return await asyncio.to_thread(index.merged, batches, version, files, folder)

    async def sources_of(self, urls: Iterable[bytes]) -> dict[bytes, RowSource]:
        """The latest known source of each `url_md5` that has one; reads the whole catalog."""
        wanted = ", ".join(f"X'{url.hex()}'" for url in urls)
        if not wanted:
            return {}
        query = (
            "SELECT arrow_cast(url_md5, 'Binary'), arrow_cast(seen_at, 'Int64'), "  # noqa: S608
            "source_url, license, attribution "
            f"FROM catalog WHERE source_url IS NOT NULL AND url_md5 IN ({wanted})"
        )
        latest: dict[bytes, tuple[int, RowSource]] = {}
        table = await asyncio.to_thread(self._newest)
        for file in self._files(table) if table else ():
            for rows in await self.read_file(file, query, _rows_of):
                for url, seen_at, *source in rows:
                    if url not in latest or latest[url][0] < seen_at:
                        latest[url] = (seen_at, RowSource(*source))
        return {url: source for url, (_, source) in latest.items()}

    def data_files(self) -> dict[str, int]:
        """Name below the catalog, and bytes, of each data file of the newest version; blocks."""
        table = self._newest()
        return {} if table is None else _sizes(table)

    def data_files_at(self, version: int) -> dict[str, int]:
        """The same of an older version. Raises: CatalogError when it cannot be read any more."""
        options = self._options()
        return _sizes(
            self._attempt(lambda: DeltaTable(self._uri, version=version, storage_options=options))
        )

    def _attempt(self, action: Callable[[], T]) -> T:
        """The result of `action`, which may be called again; blocks.

        deltalake repeats what was refused, but not a conditional PUT whose connection broke, because
        it may have been written. Here it may be repeated: a row that stands twice means the same as
        once.
        """
        failures = 0
        while True:
            try:
                return action()
            except Exception as error:  # noqa: BLE001 - it becomes ours, whatever it is
                # deltalake raises OSError for what is the network's doing, DeltaError, and others.
                failures += 1
                if failures == _ATTEMPTS or not isinstance(error, OSError):
                    raise _failed(error) from None
                pause = self._retry.pause(failures, None, random.random())  # noqa: S311 - no secret
            self._sleep(pause)

    def _settled(self) -> None:
        """Raises: CatalogError, then and at every later call: of what was lost a disk tells once."""
        if self._in_doubt is None:
            try:
                self._settle()
            except OSError as error:
                self._in_doubt = (
                    "Not all that was written to the mirror's folder is on its disk "
                    f"({error.strerror or error}); look after the disk, and run mirror verify --full."
                )
        if self._in_doubt is not None:
            raise CatalogError(self._in_doubt)

    def _newest(self) -> DeltaTable | None:
        table = self._open()
        if table is not None:
            self._attempt(table.update_incremental)
        return table

    def _files(self, table: DeltaTable) -> list[str]:
        """The data files of the table's version, relative to the catalog."""
        return [uri.rsplit("/", 1)[1] for uri in table.file_uris()]

    async def read_file(
        self, file: str, query: str, convert: Callable[[arrow.RecordBatch], T]
    ) -> list[T]:
        """The answer of one data file to a query over `catalog`, each batch converted.

        The file comes through the store and is read from a local copy. deltalake's own readers hold
        the interpreter's lock while they wait for the network, which stops uploads and signals.
        """
        body = await self._store.get(f"{CATALOG}/{file}")
        return await asyncio.to_thread(_query_parquet, body, query, convert)

    def compact(self) -> bool:
        """Merge small files when there are many; True when it did.

        Appends of other machines do not conflict with it. The files it replaces stay until gc.
        """
        table = self._open()
        if table is None:
            return False
        sizes = table.get_add_actions().column("size_bytes").to_pylist()
        if sum(size < _COMPACTED_BYTES // 2 for size in sizes) < COMPACT_AFTER:
            return False
        self._attempt(
            lambda: table.optimize.compact(
                target_size=_COMPACTED_BYTES,
                max_concurrent_tasks=1,
                post_commithook_properties=_AFTER_A_COMMIT,
            )
        )
        self._attempt(table.create_checkpoint)
        return True


def _sizes(table: DeltaTable) -> dict[str, int]:
    added = table.get_add_actions()
    paths, sizes = (added.column(name).to_pylist() for name in ("path", "size_bytes"))
    return dict(zip(paths, sizes, strict=True))


def _opened(uri: str, options: dict[str, str]) -> DeltaTable | None:
    try:
        return DeltaTable(uri, storage_options=options)
    except TableNotFoundError:
        return None


def _write(table: DeltaTable, rows: arrow.Table, retries: int) -> None:
    write_deltalake(
        table,
        rows,
        mode="append",
        commit_properties=CommitProperties(max_commit_retries=retries),
        post_commithook_properties=_AFTER_A_COMMIT,
    )


def _created(uri: str, options: dict[str, str]) -> DeltaTable:
    # Several machines may make it at once: one does, and whoever lost opens what that one made.
    # Tried again, the loser would commit its metadata as version 1, under others' appends.
    with suppress(CommitFailedError):
        DeltaTable.create(
            uri,
            schema=Schema(
                [Field(n, PrimitiveType(t), nullable=n in _NULLABLE) for n, t in _FIELDS]
            ),
            mode="ignore",
            name="dataset-mirror catalog",
            configuration={
                "delta.appendOnly": "true",
                # To open the table costs two requests an entry of the log since a checkpoint.
                "delta.checkpointInterval": "10",
                "delta.enableExpiredLogCleanup": "false",
            },
            storage_options=options,
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    return DeltaTable(uri, storage_options=options)


def _query_parquet(body: bytes, query: str, convert: Callable[[arrow.RecordBatch], T]) -> list[T]:
    def read(folder: str) -> list[T]:
        (Path(folder) / "part.parquet").write_bytes(body)
        convert_to_deltalake(folder)
        builder = QueryBuilder().register("catalog", DeltaTable(folder))
        return [convert(batch) for batch in builder.execute(query)]

    try:
        with tempfile.TemporaryDirectory(prefix="mirror-catalog-") as folder:
            return read(folder)
    except CatalogError:
        raise
    except OSError as error:  # of this machine: nothing here asks the network
        raise CatalogError(
            f"The catalog cannot be read in the temporary folder ({_words(error)}); make room "
            "there, or let TMPDIR name another one, and run again."
        ) from None
    except Exception as error:  # noqa: BLE001 - the same
        raise _failed(error) from None


def _rows_of(batch: arrow.RecordBatch) -> list[tuple[Any, ...]]:
    columns = [batch.column(at).to_pylist() for at in range(len(batch.schema.names))]
    return list(zip(*columns, strict=True))


def _to_arrow(rows: Sequence[Row]) -> arrow.Table:
    columns = list(zip(*rows, strict=True))
    sources = list(zip(*columns[9], strict=True))
    values = [*columns[:9], *sources, columns[10]]
    arrays: dict[str, arrow.Array] = {}
    for (name, kind), column in zip(_FIELDS, values, strict=True):
        if kind == "timestamp":
            micros = arrow.Array(column, arrow.DataType.int64())
            arrays[name] = micros.cast(arrow.DataType.timestamp("us", tz="UTC"))
        else:
            arrays[name] = arrow.Array(column, _ARROW[kind])
    schema = arrow.Schema(
        [arrow.Field(n, arrays[n].type, nullable=n in _NULLABLE) for n, _ in _FIELDS]
    )
    return arrow.Table.from_arrays(list(arrays.values()), schema=schema)


def batch_from_arrow(batch: arrow.RecordBatch) -> Batch:
    """A record batch of the catalog's columns as the arrays that an index keeps."""
    column = {name: batch.column(at) for at, name in enumerate(batch.schema.names)}
    url_hi, url_lo = halves(_joined(column["url_md5"], "url_md5", 16))
    hash_hi, hash_lo = halves(_joined(column["content_hash"], "content_hash", 16))
    formats, verdicts = column["format"].to_pylist(), column["verdict"].to_pylist()
    urls = column["source_url"].to_pylist()
    return {
        "url_hi": url_hi,
        "url_lo": url_lo,
        "hash_hi": hash_hi,
        "hash_lo": hash_lo,
        "sha256": np.frombuffer(_joined(column["sha256"], "sha256", 32), "V32"),
        "size": column["size"].to_numpy().astype("i8"),
        "width": column["width"].to_numpy().astype("i4"),
        "height": column["height"].to_numpy().astype("i4"),
        "format": np.array([FORMAT_CODES[name] for name in formats], "u1"),
        "verdict": np.array([VERDICT_CODES[name] for name in verdicts], "u1"),
        "sourced": np.array([url is not None for url in urls], "?"),
        "photo": np.array([photo_key(url) if url else 0 for url in urls], "u8"),
        "seen_at": column["seen_at"].cast(arrow.DataType.int64()).to_numpy().astype("i8"),
    }


def _joined(column: arrow.Array, name: str, length: int) -> bytes:
    """Values of one length, end to end: Delta itself does not hold a writer to it."""
    values = column.to_pylist()
    if any(len(value) != length for value in values):
        raise CatalogError(
            f"A row of the catalog has a {name} that is not {length} bytes long; it was written by "
            "something that does not keep docs/format.md."
        )
    return b"".join(values)


def _failed(error: Exception) -> CatalogError:
    return CatalogError(
        f"The catalog could not be read or written ({_words(error)}); "
        "nothing that was acknowledged is lost, run again."
    )


def _words(error: Exception) -> str:
    """Deltalake draws the causes of an error as a coloured tree; here they are one line.

    A server's answer may repeat what was signed, a temporary key's token among it: its code is told.
    """
    text = str(error).split("\n\nDebug source:", 1)[0]
    if answer := _ANSWER.search(text):
        code = _ANSWERED.search(text, answer.start())
        text = f"{text[: answer.start()]}{code[1] if code else 'an answer that is not told'}"
    lines = [re.sub(r"\x1b\[\d+m|↳", "", line).strip() for line in text.splitlines()]
    return ": ".join(line for line in lines if line) or type(error).__name__
