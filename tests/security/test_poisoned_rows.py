"""Rows that a thief of the writer's key has left: they are ignored, counted and named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arro3.core as arrow
import pytest
from deltalake import DeltaTable, write_deltalake

from mirror import Mirror
from mirror.catalog.arrow_rows import to_arrow
from mirror.catalog.row import BEGINNING, UNKNOWN_SOURCE, Row, latest_seen_at
from mirror.content.digest import digest_of
from mirror.layout import url_md5
from tests.support.mirror_setup import MirrorSetup, folder_setup
from tests.support.photos import fill, name_of, photo, url_of

__all__ = ["folder_setup"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
FOREVER = (1 << 63) - 1


def forged(**change: Any) -> Row:
    """A row that gives url 0 another image."""
    digest = digest_of(photo(66))
    row = Row(
        url_md5(url_of(0)), digest.content_hash, digest.sha256, digest.size, "jpeg", 48, 48, "ok",
        "", UNKNOWN_SOURCE, 1_900_000_000_000_000,
    )  # fmt: skip
    return row._replace(**change)


POISON: dict[str, Row] = {
    "the end of time": forged(seen_at=FOREVER),
    "twenty years ahead": forged(seen_at=2_400_000_000_000_000),
    "before all time": forged(seen_at=-FOREVER),
    "a short url_md5": forged(url_md5=b"short"),
    "a long hash": forged(content_hash=bytes(17)),
    "an empty sha256": forged(sha256=b""),
    "a negative size": forged(size=-1),
    "a negative width": forged(width=-5),
    "an unknown format": forged(format="../../etc/passwd"),
    "an unknown verdict": forged(verdict="fine"),
}


@pytest.fixture
def mirrored(folder_setup: MirrorSetup) -> MirrorSetup:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(3)})
    assert folder_setup.sync().uploaded == 3
    return folder_setup


def catalog_of(setup: MirrorSetup) -> DeltaTable:
    return DeltaTable(f"{setup.place.url.path}/catalog")


def opened(setup: MirrorSetup, state: Path | None = None) -> Mirror:
    return Mirror.open(
        cache=setup.cache, bucket=setup.place.layer["url"], state=state or setup.state
    )


def says_so(warnings: list[str], rows: int) -> bool:
    return any(f"{rows} rows of the catalog break its format" in one for one in warnings)


@pytest.mark.parametrize("known", [True, False])
def test_every_command_goes_on_and_the_rows_are_named(
    mirrored: MirrorSetup, tmp_path: Path, known: bool
) -> None:
    write_deltalake(catalog_of(mirrored), to_arrow(list(POISON.values())), mode="append")
    here = opened(mirrored, None if known else tmp_path / "another state")
    verified = here.verify()
    assert (verified.exit_status, verified.missing) == (0, 0)
    assert says_so(verified.warnings, len(POISON))
    assert here.status().ignored_rows == len(POISON)
    (finding,) = (one for one in here.doctor().checks if one["name"] == "catalog")
    assert (finding["status"], "docs/security.md" in finding["fix"]) == ("warn", True)
    fill(mirrored.cache, {url_of(0): photo(10), url_of(9): photo(9)})
    assert (here.sync().uploaded, here.sync().exit_status) == (2, 0)
    assert here.gc(dry_run=True).planned == 0
    restored = tmp_path / "restored"
    restored.mkdir()
    there = Mirror.open(cache=restored, bucket=mirrored.place.layer["url"], state=mirrored.state)
    assert there.pull().pulled == 4
    assert (restored / name_of(url_of(0))).read_bytes() == photo(10)
    with here.fetcher() as fetch:
        assert fetch(url_of(0)) == photo(10)


def without(name: str) -> Callable[[arrow.Table], arrow.Table]:
    return lambda table: table.select([n for n in table.column_names if n != name])


def test_a_row_with_nulls_is_ignored(mirrored: MirrorSetup) -> None:
    table = to_arrow([forged()])
    nulls = arrow.Array([None], arrow.DataType.int64())
    at = table.column_names.index("size")
    field = arrow.Field("size", arrow.DataType.int64(), nullable=True)
    poisoned = table.set_column(at, field, arrow.ChunkedArray([nulls]))
    plant(mirrored, poisoned)
    assert says_so(opened(mirrored).verify().warnings, 1)


def test_a_data_file_with_other_columns_has_no_rows(mirrored: MirrorSetup) -> None:
    plant(mirrored, without("sha256")(to_arrow([forged(), forged()])))
    verified = opened(mirrored).verify()
    assert (verified.exit_status, verified.missing) == (0, 0)
    assert says_so(verified.warnings, 2)


def plant(setup: MirrorSetup, table: arrow.Table) -> None:
    """Commit a data file that deltalake would refuse to write."""
    elsewhere = setup.state.with_name("elsewhere")
    write_deltalake(str(elsewhere), table)
    (part,) = elsewhere.glob("*.parquet")
    catalog = Path(setup.place.url.path) / "catalog"
    (catalog / part.name).write_bytes(part.read_bytes())
    size = part.stat().st_size
    version = catalog_of(setup).version() + 1
    (catalog / "_delta_log" / f"{version:020}.json").write_text(
        f'{{"add":{{"path":"{part.name}","partitionValues":{{}},"size":{size},'
        '"modificationTime":0,"dataChange":true}}\n'
    )


def test_the_steps_of_the_document_delete_the_rows(mirrored: MirrorSetup) -> None:
    bad = [row for row in POISON.values() if row.seen_at != 1_900_000_000_000_000]
    bad += [POISON["a short url_md5"], POISON["an empty sha256"], POISON["a long hash"]]
    write_deltalake(catalog_of(mirrored), to_arrow(bad), mode="append")
    assert says_so(opened(mirrored).verify().warnings, len(bad))
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    exec(code.replace("s3://plants/inat/catalog", f"{mirrored.place.url.path}/catalog"), {})
    verified = opened(mirrored).verify()
    assert (verified.exit_status, verified.warnings) == (0, [])
    assert opened(mirrored).sync().unchanged == 3
    fill(mirrored.cache, {url_of(7): photo(7)})
    assert opened(mirrored).sync().uploaded == 1


def test_a_clock_without_a_battery_ignores_no_row() -> None:
    assert latest_seen_at(0.0) == latest_seen_at(BEGINNING.timestamp())
    year_2030 = 1_893_456_000
    assert latest_seen_at(year_2030) == int((year_2030 + 3652 * 86_400) * 1e6)
