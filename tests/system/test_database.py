"""Temporary databases: their rows, and one sentence for a full disk in every command."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mirror.dataset.dataset_urls import DatasetUrls, FieldNames
from mirror.dataset.inputs import Input
from mirror.errors import StateError
from mirror.inspection import quarantine_manifest
from mirror.inspection.quarantine import restore
from mirror.inspection.quarantine_manifest import ManifestLine
from mirror.system.database import ScratchDatabase
from mirror.upkeep.gc import _Deletions

SCHEMA = "CREATE TABLE numbers (number INTEGER);"


def test_rows_are_written_and_read() -> None:
    with ScratchDatabase(SCHEMA) as db:
        db.execute("INSERT INTO numbers VALUES (?)", [1])
        db.execute_many("INSERT INTO numbers VALUES (?)", [(2,), (3,)])
        assert list(db.rows("SELECT number FROM numbers WHERE number > ?", [1])) == [(2,), (3,)]
        assert db.row("SELECT sum(number) FROM numbers") == (6,)
        assert db.row("SELECT number FROM numbers WHERE number > 9") is None


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite answers as on a full disk after a few pages."""
    real = sqlite3.connect

    def connect(*arguments, **options):
        db = real(*arguments, **options)
        db.execute("PRAGMA max_page_count = 4")
        return db

    monkeypatch.setattr(sqlite3, "connect", connect)


@pytest.mark.usefixtures("cramped")
def test_a_full_disk_is_one_sentence_that_names_the_need() -> None:
    with (
        ScratchDatabase(SCHEMA, need="about 9 bytes a number") as db,
        pytest.raises(StateError, match=r"full.*make room there \(about 9 bytes.*SQLITE_TMPDIR"),
    ):
        db.execute_many("INSERT INTO numbers VALUES (?)", [(n,) for n in range(10_000)])
    with pytest.raises(StateError, match="make room"):
        ScratchDatabase("".join(f"CREATE TABLE t{n} (x);" for n in range(9)))


@pytest.mark.usefixtures("cramped")
def test_a_full_disk_under_the_objects_of_a_collection() -> None:
    def add_all() -> None:
        for number in range(10_000):
            victims.add(f"objects/{number:040}", number)

    with _Deletions() as victims, pytest.raises(StateError, match="make room"):
        add_all()


@pytest.mark.usefixtures("cramped")
def test_a_full_disk_under_the_urls_of_a_dataset(tmp_path: Path) -> None:
    path = tmp_path / "dataset.jsonl"
    path.write_text(
        "".join(f'{{"image_url": "https://example.org/{n:040}"}}\n' for n in range(1000))
    )
    with (
        pytest.raises(StateError, match="make room"),
        DatasetUrls.read([Input(str(path))], FieldNames()),
    ):
        pass


@pytest.mark.usefixtures("cramped")
def test_a_full_disk_under_the_lines_of_a_manifest(tmp_path: Path) -> None:
    cache, to = tmp_path / "cache", tmp_path / "to"
    cache.mkdir()
    to.mkdir()
    line = ManifestLine("quarantine", b"", "blank", "x" * 100, 1, bytes(16), bytes(32), "")
    lines = (line._replace(path=b"%032x.jpg" % number) for number in range(1000))
    quarantine_manifest.append(to, lines)
    with pytest.raises(StateError, match="make room"):
        restore(bytes(cache), to, dry_run=True)
