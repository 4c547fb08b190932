"""A catalog that was made before a column was added, and columns that other programs wrote."""

from __future__ import annotations

import asyncio
from typing import Any

import arro3.core as arrow
import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable, Field, Schema, write_deltalake
from deltalake.schema import PrimitiveType

from mirror.catalog.arrow_rows import ADDED, FIELDS, NULLABLE, to_arrow
from mirror.catalog.delta_table import Catalog
from mirror.catalog.row import Row
from mirror.store.throttle import Counting
from tests.catalog.test_delta_table import EMPTY, ROWS, Table, folder, here, knows

__all__ = ["folder", "here"]

OLD_ROWS, NEW_ROWS = ROWS[:7], ROWS[7:]


def without_added(rows: list[Row]) -> arrow.Table:
    table = to_arrow(rows)
    return table.select([name for name, _ in FIELDS if name not in ADDED])


def made_before(table: Table) -> None:
    """A catalog as the version before wrote it: created with its columns, then appended to."""
    DeltaTable.create(
        table.uri,
        schema=Schema(
            [
                Field(name, PrimitiveType(kind), nullable=name in NULLABLE)
                for name, kind in FIELDS
                if name not in ADDED
            ]
        ),
        configuration={"delta.appendOnly": "true"},
        storage_options=table.options,
    )
    opened = DeltaTable(table.uri, storage_options=table.options)
    write_deltalake(opened, without_added(OLD_ROWS), mode="append")


def hashed(table: Table) -> dict[bytes, Any]:
    frame = pl.read_delta(table.uri, storage_options=table.options)
    return dict(zip(frame["url_md5"], frame["near"], strict=True))


def test_rows_of_an_older_table_have_no_hash(here: Table) -> None:
    made_before(here)
    index, _ = here.refreshed(EMPTY)
    knows(index, OLD_ROWS)
    assert not any(value.tobytes().strip(b"\0") for value in index.objects["near"])


def test_an_append_adds_the_column_and_keeps_the_rows(here: Table) -> None:
    made_before(here)
    index, _ = here.refreshed(EMPTY)
    here.append(NEW_ROWS)
    index, read = here.refreshed(index)
    assert read == 1
    knows(index, ROWS)
    expected = {row.url_md5: None for row in OLD_ROWS} | {row.url_md5: row.near for row in NEW_ROWS}
    assert hashed(here) == expected
    knows(here.refreshed(EMPTY)[0], ROWS)


def test_a_writer_that_opened_the_older_table_learns_the_column_and_commits(here: Table) -> None:
    made_before(here)

    async def story(catalog: Catalog, store: Counting) -> int | None:
        index = await catalog.refresh(EMPTY)
        await asyncio.to_thread(here.append, NEW_ROWS[:4])
        first = await asyncio.to_thread(catalog.append_after, index.version, NEW_ROWS[4:])
        assert first is None
        index = await catalog.refresh(index)
        return await asyncio.to_thread(catalog.append_after, index.version, NEW_ROWS[4:])

    assert here.with_catalog(story) == 3
    knows(here.refreshed(EMPTY)[0], ROWS)
    assert sum(near is not None for near in hashed(here).values()) == sum(
        row.near is not None for row in NEW_ROWS
    )


def test_a_compaction_merges_files_with_and_without_the_column(here: Table) -> None:
    made_before(here)
    here.append(NEW_ROWS)
    before = hashed(here)
    table = DeltaTable(here.uri, storage_options=here.options)
    table.optimize.compact()
    assert len(table.file_uris()) == 1
    assert hashed(here) == before
    knows(here.refreshed(EMPTY)[0], ROWS)


def test_duckdb_and_pandas_read_an_older_and_a_newer_table(folder: Table) -> None:
    table = folder
    made_before(table)
    here_files = DeltaTable(table.uri).file_uris()
    count = "SELECT count(*) FROM read_parquet(?, union_by_name=true)"
    assert duckdb.execute(count, [here_files]).fetchall() == [(len(OLD_ROWS),)]
    table.append(NEW_ROWS)
    here_files = DeltaTable(table.uri).file_uris()
    count = "SELECT count(*), count(near) FROM read_parquet(?, union_by_name=true)"
    known = sum(row.near is not None for row in NEW_ROWS)
    assert duckdb.execute(count, [here_files]).fetchall() == [(len(ROWS), known)]
    frame = pl.read_delta(table.uri).to_pandas()
    assert int(frame["near"].notna().sum()) == known


@pytest.mark.parametrize("kind", [pl.String, pl.Int64, pl.List(pl.Binary)])
def test_a_column_of_another_type_counts_as_no_hash(folder: Table, kind: pl.DataType) -> None:
    folder.append(ROWS)
    (file,) = DeltaTable(folder.uri).file_uris()
    foreign = pl.read_parquet(file).with_columns(near=pl.lit(None).cast(kind))
    foreign.write_parquet(file)
    index, _ = folder.refreshed(EMPTY)
    knows(index, ROWS)
    assert not any(value.tobytes().strip(b"\0") for value in index.objects["near"])
