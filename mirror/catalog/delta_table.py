"""The catalog: a Delta table in the bucket that is only appended to.

A commit is one conditional PUT of the next file in `_delta_log`, so two writers never take the
same version: the slower one reads what the other wrote and takes the next version. DuckDB, Polars,
pandas, Spark and Ray can read the table.
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
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import arro3.core as arrow
import msgspec
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

from mirror.catalog.arrow_rows import ADDED, FIELDS, INDEXED, NULLABLE, batch_from_arrow, to_arrow
from mirror.catalog.index import Batch, Index
from mirror.catalog.row import Row, RowSource, is_sound, latest_seen_at
from mirror.errors import CatalogError, MirrorError, NotFound, StoreSetupError
from mirror.layout import CATALOG, log_entry_key
from mirror.store.base import Store
from mirror.store.object_store_errors import one_line
from mirror.store.retry import RetryPolicy

T = TypeVar("T")

# Merge small data files into few when there are this many.
COMPACT_AFTER: Final = 50
# Size of the merged files. Compaction holds about seven times as much in memory, one file at a time.
_COMPACTED_BYTES: Final = 16 << 20
# Each conflict is another writer's commit; deltalake reads it and tries the next version.
_COMMIT_RETRIES: Final = 50
# Keep the log. deltalake would delete entries that are a month old, and would fail the commit after
# which it tries to: a writer's key may not delete.
_AFTER_A_COMMIT: Final = PostCommitHookProperties(cleanup_expired_logs=False)
_ANSWER: Final = re.compile(r"<\?xml|<Error>|<!|<html", re.IGNORECASE)
_ERROR_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")
# Attempts around deltalake's own, for requests that it does not repeat.
_ATTEMPTS: Final = 5

# Requests that deltalake itself sends for one commit, counted by tests/catalog/test_requests.py:
# PUTs of the data file and the log's entry; listings of the log; GETs of its entries.
COMMIT_PUTS: Final = 2
COMMIT_LISTS: Final = 2
COMMIT_GETS: Final = 2
# The most that a run sends besides: to create or open the table, and to refresh the index.
OPEN_PUTS: Final = 1
OPEN_LISTS: Final = 8
OPEN_GETS: Final = 18


class Catalog:
    """The catalog of one mirror.

    Args:
        store: rooted at the mirror; data files are read through it.
        uri: the same place for deltalake: `s3://…/catalog` or a folder.
        options: returns deltalake's storage options, with the current credentials.
        retry: pauses between attempts at requests that deltalake does not repeat.
        sleep: waits for a number of seconds.
        translate: the error of ours for a request of deltalake's that failed; None for other errors.
        settle: returns when everything written to the mirror so far survives a loss of power. A
            server's answer promises that already; a folder needs it.
        now: seconds since 1970. Rows from a distant future do not count.
    """

    def __init__(
        self,
        store: Store,
        uri: str,
        options: Callable[[], dict[str, str]],
        retry: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        *,
        translate: Callable[[Exception], MirrorError | None] = lambda _: None,
        settle: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._now = now
        self._retry = replace(retry or RetryPolicy(), attempts=_ATTEMPTS)
        self._sleep = sleep
        self._translate = translate
        self._settle = settle
        self._in_doubt: str | None = None
        self._uri = uri
        self._options = options
        self._table: DeltaTable | None = None
        self._opened_with: dict[str, str] = {}

    def _open(self) -> DeltaTable | None:
        """The table at the version last read, reopened for new credentials; None if there is none."""
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
        """Commit rows after whatever version is the newest. Blocks: call it in a thread.

        Returns:
            The catalog's version that has all the rows.

        Raises:
            CatalogError: nothing was committed; or the answer was lost, and the next run may commit
                the rows a second time, which means the same.
        """
        table = self._open_or_create()
        data = to_arrow(rows)
        self._require_settled()  # objects before the rows that name them
        self._attempt(lambda: _write(table, data, _COMMIT_RETRIES))
        self._require_settled()  # and rows before the state that relies on them
        return int(table.version())

    def append_after(self, version: int, rows: Sequence[Row], mark: str = "") -> int | None:
        """Commit rows directly after `version`. Blocks: call it in a thread.

        Args:
            version: the newest one, as far as the caller knows.
            rows: to commit.
            mark: a text that no other commit has, by which the entry of the log is recognised.

        Returns:
            The new version; None, with nothing committed, when there is a newer one than `version`.
            That may be this very commit, by an earlier attempt whose answer was lost.

        Raises:
            CatalogError: as `append`.
        """
        table = self._open_or_create()
        data = to_arrow(rows)

        def write() -> bool:
            try:
                _write(table, data, 0, mark)
            except CommitFailedError:
                return False
            return True

        self._require_settled()
        if table.version() != version or not self._attempt(write):
            return None
        self._require_settled()
        return int(table.version())

    async def refresh(self, index: Index, folder: Path | None = None) -> Index:
        """Bring an index up to the catalog's newest version; only data files new to it are read.

        Writes nothing to the mirror. A compaction puts rows that the index already has into new
        files; merging them again changes nothing.

        Args:
            index: of any earlier version, or empty.
            folder: where this process and others keep snapshots, so that no process reads what
                another one has read already. None keeps the new index in memory.

        Raises:
            CatalogError, StoreError: the catalog could not be read.
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
        rejected: Path | None = None
        if version <= index.version or not (
            index.files <= files or await self._has_committed(index)
        ):
            # Another catalog than the index was built from: it was replaced, or rolled back.
            rejected, index = index.path, Index.empty()
        columns = ", ".join(INDEXED)
        query = f"SELECT {columns} FROM sound"  # noqa: S608 - our names
        batches: list[Batch] = []
        ignored: dict[str, int] = {}
        for file in sorted(files - index.files):
            sound, rows = await self._read_file(file, query, batch_from_arrow)
            if found := rows - sum(len(batch["size"]) for batch in sound):
                ignored[file] = found
            batches += sound
        merged = partial(index.merged, folder=folder, rejected=rejected, ignored=ignored)
        return await asyncio.to_thread(merged, batches, version, files)

    async def _has_committed(self, index: Index) -> bool:
        """Whether the log's entry of an index's version is the one that the index was built from.

        Data files have random names, so the entry is the same if it added files of the index.
        """
        try:
            body = await self._store.get(log_entry_key(index.version))
        except NotFound:
            return False
        try:
            actions = [msgspec.json.decode(line) for line in body.splitlines() if line.strip()]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        added = {action["add"]["path"] for action in actions if "add" in action}
        return bool(added) and added <= index.files

    async def sources_of(self, urls: Iterable[bytes]) -> dict[bytes, RowSource]:
        """The latest known source of each `url_md5` that has one. Reads the whole catalog."""
        wanted = ", ".join(f"X'{url.hex()}'" for url in urls)
        if not wanted:
            return {}
        query = (
            "SELECT arrow_cast(url_md5, 'Binary'), arrow_cast(seen_at, 'Int64'), "  # noqa: S608
            "source_url, license, attribution "
            f"FROM sound WHERE source_url IS NOT NULL AND url_md5 IN ({wanted})"
        )
        latest: dict[bytes, tuple[int, RowSource]] = {}
        table = await asyncio.to_thread(self._newest)
        for file in self._files(table) if table else ():
            for rows in await self.read_file(file, query, _rows_of):
                for url, seen_at, *source in rows:
                    if url not in latest or latest[url][0] < seen_at:
                        latest[url] = (seen_at, RowSource(*source))
        return {url: source for url, (_, source) in latest.items()}

    def version(self) -> int:
        """The version last read or committed; -1 where there is no table. Blocks."""
        table = self._open()
        return -1 if table is None else int(table.version())

    def data_files(self) -> dict[str, int]:
        """Size in bytes of each data file of the newest version, by its name. Blocks."""
        table = self._newest()
        return {} if table is None else _sizes(table)

    def data_files_at(self, version: int) -> dict[str, int]:
        """`data_files` of an older version. Raises: CatalogError when it can no longer be read."""
        options = self._options()
        return _sizes(
            self._attempt(lambda: DeltaTable(self._uri, version=version, storage_options=options))
        )

    def _attempt(self, action: Callable[[], T]) -> T:
        """Call `action` until it succeeds, at most `_ATTEMPTS` times; returns its result. Blocks.

        deltalake repeats requests that were refused, but not a conditional PUT whose connection
        broke, because it may have been written. Here it may be repeated: a row that is committed
        twice means the same as one.
        """
        failures = 0
        while True:
            try:
                return action()
            except Exception as error:  # noqa: BLE001 - every kind becomes a CatalogError
                # deltalake raises OSError for failures of the network, DeltaError, and others.
                failures += 1
                ours = self._translate(error)
                passes = isinstance(error, OSError) and not isinstance(ours, StoreSetupError)
                if failures == _ATTEMPTS or not passes:
                    raise ours or _failed(error) from None
                pause = self._retry.pause(failures, None, random.random())  # noqa: S311 - no secret
            self._sleep(pause)

    def _require_settled(self) -> None:
        """Wait until everything written so far is safe on the disk.

        Raises:
            CatalogError: it is not; then every later call raises it too, because a disk reports a
                lost write only once.
        """
        if self._in_doubt is None:
            try:
                self._settle()
            except OSError as error:
                self._in_doubt = (
                    "Not all that was written to the mirror's folder is on its disk "
                    f"({error.strerror or error}); check the disk, then run mirror verify --full."
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
        """Query the rows of one data file that count, as the table `sound`.

        Returns:
            Each record batch converted.
        """
        return (await self._read_file(file, query, convert))[0]

    async def _read_file(
        self, file: str, query: str, convert: Callable[[arrow.RecordBatch], T]
    ) -> tuple[list[T], int]:
        """`read_file`, and how many rows the file has, those that do not count among them.

        The file is fetched through the store and read from a local copy. deltalake's own readers
        hold the interpreter's lock while they wait for the network, which stops uploads and signals.
        """
        body = await self._store.get(f"{CATALOG}/{file}")
        condition = is_sound(latest_seen_at(self._now()))
        return await asyncio.to_thread(_query_parquet, body, condition, query, convert)

    def compact(self) -> bool:
        """Merge small data files when there are many; returns whether it did.

        Other machines' appends do not conflict with it. The replaced files stay until gc.
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


def _write(table: DeltaTable, rows: arrow.Table, retries: int, mark: str = "") -> None:
    write_deltalake(
        table,
        rows,
        mode="append",
        schema_mode="merge",  # adds the columns that a table made by an earlier version lacks
        commit_properties=CommitProperties(
            max_commit_retries=retries, custom_metadata={"mirror.commit": mark} if mark else None
        ),
        post_commithook_properties=_AFTER_A_COMMIT,
    )


def _created(uri: str, options: dict[str, str]) -> DeltaTable:
    # Several machines may create the table at once. One succeeds, and the others open its table. If
    # they tried again, they would commit their metadata as version 1, under the appends of others.
    with suppress(CommitFailedError):
        DeltaTable.create(
            uri,
            schema=Schema([Field(n, PrimitiveType(t), nullable=n in NULLABLE) for n, t in FIELDS]),
            mode="ignore",
            name="dataset-mirror catalog",
            configuration={
                "delta.appendOnly": "true",
                # Opening the table costs two requests for each log entry since a checkpoint.
                "delta.checkpointInterval": "10",
                "delta.enableExpiredLogCleanup": "false",
            },
            storage_options=options,
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    return DeltaTable(uri, storage_options=options)


def _query_parquet(
    body: bytes, condition: str, query: str, convert: Callable[[arrow.RecordBatch], T]
) -> tuple[list[T], int]:
    """The converted result of a query on the rows that meet a condition, and the number of all rows."""

    def read(folder: str) -> tuple[list[T], int]:
        (Path(folder) / "part.parquet").write_bytes(body)
        convert_to_deltalake(folder)
        table = DeltaTable(folder)
        builder = QueryBuilder().register("catalog", table)
        (rows,) = builder.execute("SELECT count(*) FROM catalog")  # from the file's metadata
        count = int(rows.column(0).to_pylist()[0])
        columns = _our_columns(table)
        if columns is None:
            return [], count
        sound = f"WITH sound AS (SELECT {columns} FROM catalog WHERE {condition}) "  # noqa: S608 - our names
        return [convert(batch) for batch in builder.execute(sound + query)], count

    try:
        with tempfile.TemporaryDirectory(prefix="mirror-catalog-") as folder:
            return read(folder)
    except CatalogError:
        raise
    except OSError as error:  # from this machine: nothing here uses the network
        raise CatalogError(
            f"The catalog cannot be read in the temporary folder ({_one_line(error)}); make room "
            "there, or let TMPDIR name another one, and run again."
        ) from None
    except Exception as error:  # noqa: BLE001 - every kind becomes a CatalogError
        raise _failed(error) from None


def _our_columns(table: DeltaTable) -> str | None:
    """The catalog's columns of a data file in SQL, or None if it lacks one or has another type.

    They may be in any order, and others may be there. A column that was added to the format later
    may be missing.
    """
    found = {field.name: getattr(field.type, "type", "") for field in table.schema().fields}
    unlike = {name for name, kind in FIELDS if found.get(name) != kind}
    if not unlike <= ADDED.keys():
        return None
    return ", ".join(f"{ADDED[n]} AS {n}" if n in unlike else n for n, _ in FIELDS)


def _rows_of(batch: arrow.RecordBatch) -> list[tuple[Any, ...]]:
    columns = [batch.column(at).to_pylist() for at in range(len(batch.schema.names))]
    return list(zip(*columns, strict=True))


def _failed(error: Exception) -> CatalogError:
    return CatalogError(
        f"The catalog could not be read or written ({_one_line(error)}); "
        "nothing that was acknowledged is lost, run again."
    )


def _one_line(error: Exception) -> str:
    """An error of deltalake in one line.

    A server's answer may repeat the signed request with a temporary key's token in it, so only the
    answer's error code is kept.
    """
    text = str(error).split("\n\nDebug source:", 1)[0]
    if answer := _ANSWER.search(text):
        code = _ERROR_CODE.search(text, answer.start())
        text = f"{text[: answer.start()]}{code[1] if code else 'an answer without an error code'}"
    return one_line(text) or type(error).__name__
