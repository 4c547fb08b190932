"""Rows that wait for their commit are weighed again when the catalog changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mirror.catalog.delta_table import Catalog
from mirror.catalog.index import Sighting, StoredObject
from mirror.catalog.row import UNKNOWN_SOURCE, Row, RowSource
from mirror.content.digest import digest_of
from mirror.content.image import Verdict
from mirror.layout import object_key, url_md5
from mirror.sync.run_sync import SyncOptions, sync
from mirror.sync.sync_report import SyncReport
from mirror.sync.weigh import Basis, ContentFacts, Waiting, weigh
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.repair import RepairOptions, repair
from tests.support.mirror_setup import MirrorSetup, key_of
from tests.support.photos import blank, fill, photo, url_of
from tests.sync.test_sync import DatasetSources

CONTENT, OTHER = bytes(16), bytes(15) + b"\1"
SHA = bytes(32)
STORED = StoredObject(SHA, "unknown", hashed=False)
HASHED = STORED._replace(hashed=True)
NEAR = bytes([1]) + bytes(34)


def waiting(basis: Basis, verdict: Verdict = "ok") -> Waiting:
    row = Row(b"u" * 16, CONTENT, SHA, 9, "jpeg", 4, 4, verdict, "", UNKNOWN_SOURCE, 100)
    return Waiting(row, basis, epoch=3)


def with_near(waiting: Waiting) -> Waiting:
    return waiting._replace(row=waiting.row._replace(near=NEAR))


def prior(verdict: Verdict, content: bytes = CONTENT, seen_at: int = 50) -> Sighting:
    return Sighting(content, 9, 4, 4, "unknown", verdict, False, seen_at)


def facts(
    stored: StoredObject | None = None, *, placeholder: bool = False, flagged_at: int = 0
) -> ContentFacts:
    return ContentFacts(stored, placeholder, flagged_at)


# waiting, the latest row of its URL, its content in the catalog | does it hold, is it written
CASES: list[tuple[Waiting, Sighting | None, ContentFacts, bool, bool]] = [
    (waiting(Basis.UPLOADED), None, facts(), True, True),
    (waiting(Basis.UPLOADED), prior("ok"), facts(STORED), True, False),
    (waiting(Basis.UPLOADED), prior("ok", OTHER), facts(), True, True),
    (waiting(Basis.UPLOADED), None, facts(flagged_at=3), True, True),
    (waiting(Basis.UPLOADED), None, facts(flagged_at=4), False, False),
    (waiting(Basis.DUPLICATE), None, facts(STORED), True, True),
    (waiting(Basis.DUPLICATE), None, facts(), False, False),
    (
        waiting(Basis.DUPLICATE),
        None,
        facts(StoredObject(b"\1" * 32, "jpeg", hashed=True)),
        False,
        False,
    ),
    (waiting(Basis.DUPLICATE), None, facts(STORED, flagged_at=4), False, False),
    (waiting(Basis.FLAGGED, "blank"), None, facts(), True, True),
    (waiting(Basis.FLAGGED, "blank"), prior("ok", OTHER), facts(), True, False),
    (waiting(Basis.FLAGGED, "blank"), prior("blank"), facts(), True, False),
    (with_near(waiting(Basis.DUPLICATE)), prior("ok"), facts(STORED), True, True),
    (with_near(waiting(Basis.DUPLICATE)), prior("ok"), facts(HASHED), True, False),
    (with_near(waiting(Basis.UPLOADED)), prior("ok"), facts(STORED), True, True),
    (with_near(waiting(Basis.FLAGGED, "blank")), prior("blank"), facts(STORED), True, False),
    (waiting(Basis.SOURCE), prior("ok"), facts(), True, True),
    (waiting(Basis.SOURCE), prior("corrupt"), facts(), False, False),
    (waiting(Basis.SOURCE), prior("ok", OTHER), facts(), False, False),
    (waiting(Basis.SOURCE), None, facts(), False, False),
    (waiting(Basis.EVIDENCE, "placeholder"), prior("ok"), facts(), True, True),
    (waiting(Basis.EVIDENCE, "placeholder"), prior("placeholder"), facts(), True, False),
    (waiting(Basis.EVIDENCE, "placeholder"), prior("corrupt"), facts(), False, False),
    (waiting(Basis.EVIDENCE, "placeholder"), prior("ok", OTHER), facts(), False, False),
]


@pytest.mark.parametrize(("row", "latest", "content", "holds", "write"), CASES)
def test_what_still_holds(
    row: Waiting, latest: Sighting | None, content: ContentFacts, holds: bool, write: bool
) -> None:
    weighed = weigh(row, latest, content)
    assert (weighed.holds, weighed.write) == (holds, write)


def test_a_placeholder_that_others_have_found_flags_a_waiting_file() -> None:
    weighed = weigh(waiting(Basis.DUPLICATE), None, facts(STORED, placeholder=True))
    assert (weighed.holds, weighed.write) == (True, True)
    assert weighed.waiting.row.verdict == "placeholder"
    weighed = weigh(waiting(Basis.UPLOADED), prior("ok", OTHER), facts(placeholder=True))
    assert (weighed.holds, weighed.write) == (True, False), "it would replace a good image"


def test_a_row_is_later_than_the_one_it_supersedes_and_keeps_the_stored_format() -> None:
    weighed = weigh(waiting(Basis.DUPLICATE), prior("blank", OTHER, 200), facts(STORED))
    assert weighed.waiting.row.seen_at == 201
    assert weighed.waiting.row.format == "unknown"
    weighed = weigh(waiting(Basis.SOURCE), prior("ok", seen_at=200), facts())
    assert (weighed.waiting.row.seen_at, weighed.waiting.row.format) == (201, "unknown")


@pytest.fixture
def other(folder_setup: MirrorSetup, tmp_path: Path) -> MirrorSetup:
    """Another machine with the same mirror."""
    (tmp_path / "other").mkdir()
    return MirrorSetup(folder_setup.place, tmp_path / "other")


def meanwhile(patch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Run `action` between the decision on the next batch and its commit."""
    append_after = Catalog.append_after

    def late(self: Catalog, version: int, rows: Sequence[Row], mark: str = "") -> int | None:
        patch.undo()
        action()
        return append_after(self, version, rows, mark)

    patch.setattr(Catalog, "append_after", late)


def repaired(setup: MirrorSetup) -> None:
    assert repair(setup.settings(), RepairOptions(limit=ChangeLimit(10))).flagged_rows == 1


def dangling(setup: MirrorSetup) -> list[Any]:
    """The `ok` rows whose object is missing."""
    objects = setup.objects()
    return [
        url
        for url, row in setup.rows().items()
        if row["verdict"] == "ok" and object_key(row["content_hash"], row["format"]) not in objects
    ]


def test_a_duplicate_of_a_content_that_was_lost_meanwhile_is_uploaded_again(
    folder_setup: MirrorSetup, other: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(6)})
    fill(other.cache, {url_of(90): photo(90)})
    folder_setup.sync(), other.sync()
    folder_setup.remove(key_of(photo(3)))
    fill(folder_setup.cache, {url_of(103): photo(3)})
    with monkeypatch.context() as patch:
        meanwhile(patch, lambda: repaired(other))
        report = folder_setup.sync()
    assert (report.deduplicated, report.uploaded, report.exit_status) == (0, 0, 0)
    assert "1 file waited" in report.warnings[0]
    assert url_md5(url_of(103)) not in folder_setup.rows()
    assert not dangling(folder_setup)
    assert folder_setup.sync().uploaded == 1
    assert not dangling(folder_setup)
    assert folder_setup.rows()[url_md5(url_of(103))]["verdict"] == "ok"


def described(setup: MirrorSetup, numbers: Sequence[int]) -> SyncReport:
    sources = {url_of(n): RowSource(url_of(n), "CC0") for n in numbers}
    return setup.sync(DatasetSources(sources))


def test_a_source_does_not_undo_what_a_repair_has_flagged_meanwhile(
    folder_setup: MirrorSetup, other: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(6)})
    fill(other.cache, {url_of(90): photo(90)})
    folder_setup.sync(), other.sync()
    folder_setup.remove(key_of(photo(3)))
    with monkeypatch.context() as patch:
        meanwhile(patch, lambda: repaired(other))
        report = described(folder_setup, range(6))
    assert (report.described, report.exit_status) == (5, 0)
    assert folder_setup.rows()[url_md5(url_of(3))]["verdict"] == "corrupt"
    assert described(folder_setup, range(6)).uploaded == 1
    row = folder_setup.rows()[url_md5(url_of(3))]
    assert (row["verdict"], row["license"]) == ("ok", "CC0")


def test_a_source_does_not_bring_back_an_older_image(
    folder_setup: MirrorSetup, other: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(6)})
    folder_setup.sync()
    fill(other.cache, {url_of(3): photo(333)})
    with monkeypatch.context() as patch:
        meanwhile(patch, other.sync)
        assert described(folder_setup, range(6)).described == 5
    row = folder_setup.rows()[url_md5(url_of(3))]
    assert row["content_hash"] == digest_of(photo(333)).content_hash


def test_a_placeholder_that_was_found_meanwhile_is_one_under_every_url(
    folder_setup: MirrorSetup, other: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder_setup.cache, {url_of(1): photo(1)})
    fill(other.cache, {url_of(n): photo(777) for n in range(10, 13)})
    folder_setup.sync(), other.sync()
    fill(folder_setup.cache, {url_of(50): photo(777)})

    def more() -> None:
        fill(other.cache, {url_of(n): photo(777) for n in range(13, 20)})
        assert other.sync().flagged["placeholder"] == 10

    with monkeypatch.context() as patch:
        meanwhile(patch, more)
        assert folder_setup.sync().flagged["placeholder"] == 1
    flagged = [row for row in folder_setup.rows().values() if row["verdict"] == "placeholder"]
    assert len(flagged) == 11


def test_a_flagged_file_that_waits_never_replaces_a_good_image(
    folder_setup: MirrorSetup, other: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder_setup.cache, {url_of(1): blank()})
    fill(other.cache, {url_of(1): photo(1)})
    with monkeypatch.context() as patch:
        meanwhile(patch, other.sync)
        folder_setup.sync()
    assert folder_setup.rows()[url_md5(url_of(1))]["verdict"] == "ok"
    assert folder_setup.sync().unchanged == 1


def test_known_content_keeps_the_format_under_which_it_is_stored(
    folder_setup: MirrorSetup, other: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the program may sniff another format."""
    for number, setup in enumerate((folder_setup, other)):
        fill(setup.cache, {url_of(number): photo(5)})
    with monkeypatch.context() as patch:
        patch.setattr("mirror.content.image.sniff", lambda _: "unknown")
        assert sync(folder_setup.settings(), SyncOptions(inspect="off")).uploaded == 1
    report = sync(other.settings(), SyncOptions(inspect="off"))
    assert (report.uploaded, report.deduplicated) == (0, 1)
    assert not dangling(folder_setup)
    assert {row["format"] for row in folder_setup.rows().values()} == {"unknown"}
    sources = DatasetSources({url_of(1): RowSource(url_of(1), "CC0")})
    assert sync(other.settings(), sources=sources).described == 1
    assert not dangling(folder_setup)


@pytest.mark.parametrize("basis", [Basis.UPLOADED, Basis.DUPLICATE, Basis.FLAGGED])
@pytest.mark.parametrize("verdict", ["ok", "placeholder"])
def test_a_file_is_left_if_its_hash_has_another_sha256_by_now(
    basis: Basis, verdict: Verdict
) -> None:
    forged = StoredObject(b"f" * 32, "png", hashed=True)
    assert not weigh(waiting(basis, verdict), None, facts(forged)).holds
    assert weigh(waiting(basis, verdict), None, facts(STORED)).holds
