"""Restoring objects from folders, and flagging the rows of those that no folder has."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.catalog.delta_table import Catalog
from mirror.catalog.open_mirror import Location, read_index
from mirror.catalog.root import read_root
from mirror.catalog.row import UNKNOWN_SOURCE, Row, RowSource
from mirror.content.digest import digest_of
from mirror.errors import CacheError, UsageError
from mirror.layout import object_key, url_md5
from mirror.store.retry import RetryPolicy
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.repair import RepairOptions, RepairReport, repair
from mirror.upkeep.verify import verify
from tests.conftest import MakePlace
from tests.support.chaos_tally import SEED, kills
from tests.support.fault_proxy import SLOW_DOWN, FaultProxy
from tests.support.killing import Killing
from tests.support.mirror_setup import SOON, MirrorSetup, key_of
from tests.support.photos import blank, fill, flipped, name_of, photo, url_of
from tests.sync.test_sync import DatasetSources
from tests.upkeep.test_verify import FULL

READ_ALL = RepairOptions(verify=FULL)
ALL = ChangeLimit(share=1.0)


def stocked(mirror_setup: MirrorSetup, count: int = 12) -> None:
    fill(mirror_setup.cache, {url_of(n): photo(n) for n in range(count)})
    fill(mirror_setup.cache, {url_of(1000 + n): photo(n) for n in range(2)})
    fill(mirror_setup.cache, {url_of(2000): blank()})
    assert mirror_setup.sync().exit_status == 0


def is_whole(mirror_setup: MirrorSetup) -> bool:
    report = verify(mirror_setup.settings(), FULL)
    return (report.missing, report.mismatched, report.failed) == (0, 0, 0)


def lose(mirror_setup: MirrorSetup, *numbers: int) -> Path:
    """Remove objects from the mirror and move their files out of the cache; returns the new folder."""
    aside = mirror_setup.cache.parent / "aside"
    aside.mkdir(exist_ok=True)
    for number in numbers:
        for url in (url_of(number), url_of(1000 + number)):
            if (file := mirror_setup.cache / name_of(url)).exists():
                file.rename(aside / file.name)
    mirror_setup.remove(*(key_of(photo(number)) for number in numbers))
    return aside


def mended(report: RepairReport) -> tuple[int, int, int, int]:
    return report.missing, report.mismatched, report.repaired, report.lost


def test_all_damage_that_the_cache_can_repair_is_repaired(mirror_setup: MirrorSetup) -> None:
    stocked(mirror_setup)
    before = mirror_setup.objects()
    mirror_setup.remove(key_of(photo(0)), key_of(photo(5)))
    mirror_setup.put({key_of(photo(3)): photo(3)[:-9], key_of(photo(4)): flipped(photo(4))})
    report = repair(mirror_setup.settings(), READ_ALL)
    assert mended(report) == (2, 2, 4, 0)
    assert (report.exit_status, report.error) == (0, None)
    assert report.bytes >= sum(len(photo(n)) for n in (0, 3, 4, 5))
    assert mirror_setup.objects() == before
    assert is_whole(mirror_setup)
    assert len(mirror_setup.rows()) == 15


def test_damage_found_by_an_earlier_pass_is_not_read_again(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    folder_setup.put({key_of(photo(4)): flipped(photo(4))})
    verify(folder_setup.settings(), FULL)
    report = repair(folder_setup.settings())
    assert (mended(report), report.looked_at) == ((0, 1, 1, 0), 1)
    assert is_whole(folder_setup)


def test_a_dry_run_reports_what_could_be_repaired(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    lose(folder_setup, 7)
    folder_setup.remove(key_of(photo(0)))
    before = folder_setup.objects()
    report = repair(folder_setup.settings(), RepairOptions(dry_run=True))
    assert (mended(report), report.repairable) == ((2, 0, 0, 1), 1)
    assert (report.flagged_rows, report.exit_status) == (0, 3)
    assert folder_setup.objects() == before
    assert {row["verdict"] for row in folder_setup.rows().values()} == {"ok", "blank"}


def test_any_folder_and_any_file_names_will_do(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    aside = lose(folder_setup, 1, 2, 3)
    (aside / "objects" / "ab").mkdir(parents=True)
    (aside / name_of(url_of(2))).rename(aside / "objects" / "ab" / "no extension")
    elsewhere = folder_setup.cache.parent / "elsewhere"
    (aside / name_of(url_of(3))).rename(elsewhere)
    (aside / "link.jpg").symlink_to(elsewhere)  # is not followed
    report = repair(folder_setup.settings(), RepairOptions(folders=(aside,), limit=ALL))
    assert mended(report) == (3, 0, 2, 1)
    assert not is_whole(folder_setup) or report.flagged_rows == 1


def test_only_the_exact_bytes_count(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    aside = lose(folder_setup, 1)
    for file in aside.iterdir():
        body = file.read_bytes()
        (folder_setup.cache / file.name).write_bytes(flipped(body))
    report = repair(folder_setup.settings(), RepairOptions(dry_run=True))
    assert (report.looked_at, report.repairable, report.lost) == (2, 0, 1)


def test_a_large_object_is_restored_in_parts(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = photo(1) + os.urandom(9 << 20)
    fill(folder_setup.cache, {url_of(1): body})
    folder_setup.sync()
    monkeypatch.setattr("mirror.catalog.upload.PART_BYTES", 5 << 20)
    for module in ("mirror.store.read_back", "mirror.upkeep.repair"):
        monkeypatch.setattr(f"{module}.WHOLE_UP_TO", 1 << 20)
    folder_setup.put({key_of(body): flipped(body)})
    assert mended(repair(folder_setup.settings(), READ_ALL)) == (0, 1, 1, 0)
    assert is_whole(folder_setup)


def two_extensions(setup: MirrorSetup) -> set[str]:
    """Rows that name one content under two extensions, as two versions that sniff differently do."""
    stocked(setup)
    row = setup.rows()[url_md5(url_of(5))]
    catalog = Location(setup.settings()).catalog(setup.place.open(), RetryPolicy())
    other = Row(
        url_md5(url_of(3000)), row["content_hash"], row["sha256"], row["size"], "unknown", 0, 0,
        "ok", "", UNKNOWN_SOURCE, 1,
    )  # fmt: skip
    catalog.append([other])
    keys = {key_of(photo(5)), object_key(row["content_hash"], "unknown")}
    setup.put(dict.fromkeys(keys, photo(5)))
    return keys


def test_both_extensions_of_a_content_are_restored(folder_setup: MirrorSetup) -> None:
    keys = two_extensions(folder_setup)
    assert is_whole(folder_setup)
    folder_setup.remove(*keys)
    report = repair(folder_setup.settings())
    assert (report.missing, report.repaired, report.exit_status) == (2, 2, 0)
    assert keys <= set(folder_setup.objects())
    assert is_whole(folder_setup)


def test_an_extension_that_no_row_names_any_more_is_no_damage(folder_setup: MirrorSetup) -> None:
    keys = two_extensions(folder_setup)
    gone = next(key for key in keys if key.endswith(".bin"))
    folder_setup.put({gone: bytes(len(photo(5)))})
    assert verify(folder_setup.settings(), FULL).mismatched == 1
    fill(folder_setup.cache, {url_of(3000): photo(6)})
    folder_setup.sync()
    assert verify(folder_setup.settings()).mismatched == 0
    assert repair(folder_setup.settings()).exit_status == 0


def test_objects_that_no_folder_has_are_no_longer_offered(mirror_setup: MirrorSetup) -> None:
    stocked(mirror_setup)
    lose(mirror_setup, 0, 7)
    (mirror_setup.cache / name_of(url_of(4))).unlink()
    mirror_setup.put({key_of(photo(4)): flipped(photo(4))})
    report = repair(mirror_setup.settings(), READ_ALL)
    assert mended(report) == (2, 1, 0, 3)
    assert (report.flagged_rows, report.exit_status) == (4, 3)
    rows = mirror_setup.rows()
    reasons = {n: rows[url_md5(url_of(n))]["reason"] for n in (0, 1000, 7, 4)}
    assert reasons == {
        0: "missing from the mirror",
        1000: "missing from the mirror",
        7: "missing from the mirror",
        4: "damaged in the mirror",
    }
    assert {rows[url_md5(url_of(n))]["verdict"] for n in reasons} == {"corrupt"}
    _, index = read_index(mirror_setup.settings())
    for number in reasons:
        sighting = index.sighting(url_md5(url_of(number)))
        assert sighting is not None
        assert sighting.verdict == "corrupt"
    assert verify(mirror_setup.settings()).exit_status == 0  # no row names what is not there
    assert mended(repair(mirror_setup.settings())) == (0, 0, 0, 0)


def test_a_file_that_comes_back_unchanged_makes_its_rows_good_again(
    folder_setup: MirrorSetup,
) -> None:
    """The local state had it as acknowledged, and must not rely on that."""
    stocked(folder_setup)
    aside = lose(folder_setup, 0, 7)
    repair(folder_setup.settings())
    for file in aside.iterdir():
        file.rename(folder_setup.cache / file.name)
    report = folder_setup.sync()
    assert (report.uploaded, report.deduplicated, report.failed) == (2, 1, 0)
    rows = folder_setup.rows()
    for number in (0, 1000, 7):
        assert rows[url_md5(url_of(number))]["verdict"] == "ok"
    assert is_whole(folder_setup)
    report = folder_setup.sync()
    assert (report.unchanged, sum(report.requests.values())) == (15, 1)  # and once is enough


def test_a_file_that_a_sync_saw_vanish_makes_them_good_again_too(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    aside = lose(folder_setup, 7)
    assert folder_setup.sync().vanished == 1
    repair(folder_setup.settings())
    assert folder_setup.sync().uploaded == 0
    (aside / name_of(url_of(7))).rename(folder_setup.cache / name_of(url_of(7)))
    assert folder_setup.sync().uploaded == 1
    assert is_whole(folder_setup)


def test_another_machine_that_has_the_content_restores_it_by_itself(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    stocked(folder_setup)
    (tmp_path / "other").mkdir()
    other = MirrorSetup(folder_setup.place, tmp_path / "other")
    fill(other.cache, {url_of(7): photo(7), url_of(8): photo(8)})
    other.sync()
    lose(folder_setup, 7)
    assert other.sync().unchanged == 2
    assert repair(folder_setup.settings()).lost == 1
    report = other.sync()
    assert (report.unchanged, report.uploaded) == (1, 1)
    assert is_whole(folder_setup)
    assert other.sync().unchanged == 2


def test_a_machine_that_has_another_image_of_a_lost_url_offers_that_one(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    """The later of two images was mirrored last, and is lost. The earlier one takes its place."""
    fill(folder_setup.cache, {url_of(0): photo(0), url_of(1): photo(1)})
    assert folder_setup.sync().uploaded == 2
    (tmp_path / "other").mkdir()
    other = MirrorSetup(folder_setup.place, tmp_path / "other")
    fill(other.cache, {url_of(0): photo(2)})
    assert other.sync().uploaded == 1
    folder_setup.remove(key_of(photo(2)))
    assert repair(folder_setup.settings()).lost == 1
    assert folder_setup.sync().exit_status == 0
    row = folder_setup.rows()[url_md5(url_of(0))]
    assert (row["verdict"], row["sha256"]) == ("ok", hashlib.sha256(photo(0)).digest())


def test_a_machine_offers_its_image_though_a_bad_file_came_after_the_loss(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    """A bad file supersedes a lost image, so the latest row no longer says that it was lost."""
    fill(folder_setup.cache, {url_of(n): photo(n) for n in range(4)})
    folder_setup.sync()
    folder_setup.remove(key_of(photo(0)))
    (tmp_path / "other").mkdir()
    other = MirrorSetup(folder_setup.place, tmp_path / "other")
    fill(other.cache, {url_of(1): photo(1)})
    assert repair(other.settings()).flagged_rows == 1
    fill(other.cache, {url_of(0): b"<html>429</html>"})
    other.sync()
    assert folder_setup.rows()[url_md5(url_of(0))]["verdict"] == "not_image"
    assert folder_setup.sync().exit_status == 0
    assert folder_setup.rows()[url_md5(url_of(0))]["verdict"] == "ok"


def test_a_dataset_does_not_make_lost_rows_good_again(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    lose(folder_setup, 7)
    told = DatasetSources({url_of(n): RowSource(url_of(n), "CC0", "© her") for n in range(12)})
    fill(folder_setup.cache, {url_of(7): photo(7)})
    folder_setup.sync(told)  # finds it known, and so the state vouches for it
    (folder_setup.cache / name_of(url_of(7))).unlink()
    assert repair(folder_setup.settings()).lost == 1
    row = folder_setup.rows()[url_md5(url_of(7))]
    assert (row["verdict"], row["source_url"], row["attribution"]) == (
        "corrupt",
        url_of(7),
        "© her",
    )
    other = DatasetSources({url_of(n): RowSource(url_of(n), "CC-BY", "© her") for n in range(12)})
    folder_setup.sync(other)
    assert folder_setup.rows()[url_md5(url_of(7))]["verdict"] == "corrupt"


def test_a_dataset_does_not_undo_a_verdict_of_the_catalog(folder_setup: MirrorSetup) -> None:
    """Six photos share one content: the catalog says placeholder, and the state still says ok."""
    fill(folder_setup.cache, {url_of(n): photo(99) for n in range(6)})
    folder_setup.sync()
    assert {row["verdict"] for row in folder_setup.rows().values()} == {"placeholder"}
    folder_setup.sync(DatasetSources({url_of(n): RowSource(url_of(n), "CC0") for n in range(6)}))
    assert {row["verdict"] for row in folder_setup.rows().values()} == {"placeholder"}


def test_an_image_that_another_machine_commits_meanwhile_stays_good(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    """Between the last check and the rows, that machine commits another content for one URL."""
    stocked(folder_setup)
    lose(folder_setup, 7, 8)
    (tmp_path / "other").mkdir()
    other = MirrorSetup(folder_setup.place, tmp_path / "other")
    fill(other.cache, {url_of(7): photo(77)})
    asked = []

    def now() -> float:
        asked.append(1)
        if len(asked) == 2:
            syncing = threading.Thread(target=other.sync)
            syncing.start()
            syncing.join()
        return time.time()

    report = repair(folder_setup.settings(), RepairOptions(limit=ALL), now=now)
    rows = folder_setup.rows()
    kept = rows[url_md5(url_of(7))]
    assert (kept["verdict"], kept["content_hash"]) == ("ok", digest_of(photo(77)).content_hash)
    assert rows[url_md5(url_of(8))]["verdict"] == "corrupt"
    assert (len(asked), report.flagged_rows, report.warnings) == (2, 1, [])
    assert verify(folder_setup.settings(), FULL).exit_status == 0


def test_a_repair_that_always_loses_the_race_leaves_the_rest_to_the_next(
    folder_setup: MirrorSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(folder_setup)
    lose(folder_setup, 7)
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "append_after", lambda *_: None)
        report = repair(folder_setup.settings(), RepairOptions(limit=ALL))
    assert (report.flagged_rows, report.exit_status) == (0, 3)
    assert "run mirror repair again" in report.warnings[0]
    assert folder_setup.rows()[url_md5(url_of(7))]["verdict"] == "ok"
    assert repair(folder_setup.settings(), RepairOptions(limit=ALL)).flagged_rows == 1


@pytest.mark.parametrize(("limit", "allowed"), [("2", True), ("1", False), ("10%", False)])
def test_a_repair_that_would_flag_too_much_is_refused(
    folder_setup: MirrorSetup, limit: str, allowed: bool
) -> None:
    stocked(folder_setup)
    lose(folder_setup, 7, 8)
    folder_setup.remove(key_of(photo(2)))
    report = repair(
        folder_setup.settings(), RepairOptions(limit=ChangeLimit.parse(limit, "--max-lost"))
    )
    assert mended(report) == (3, 0, 1, 2)  # what can be mended is
    assert report.flagged_rows == (2 if allowed else 0)
    assert report.exit_status == (3 if allowed else 1)
    if not allowed:
        assert "--max-lost 2" in str(report.error)


def test_a_missing_or_empty_folder_is_an_error_before_anything_is_flagged(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    stocked(folder_setup)
    lose(folder_setup, 7)
    for folder in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(CacheError, match="mounted"):
            repair(folder_setup.settings(), RepairOptions(folders=(folder,)))
    with pytest.raises(UsageError, match="--from"):
        repair(folder_setup.place.settings(state={"dir": str(folder_setup.state)}))
    assert folder_setup.rows()[url_md5(url_of(7))]["verdict"] == "ok"


def test_objects_that_cannot_be_read_now_are_not_flagged(
    make_place: MakePlace, tmp_path: Path
) -> None:
    place = make_place("moto-obstore")
    assert place.server is not None
    mirror_setup = MirrorSetup(place, tmp_path)
    stocked(mirror_setup)
    mirror_setup.put({key_of(photo(4)): flipped(photo(4))})
    (mirror_setup.cache / name_of(url_of(4))).unlink()

    unlucky = key_of(photo(4))
    with FaultProxy(
        place.server.endpoint,
        lambda request: SLOW_DOWN if request.path.endswith(unlucky) else None,
    ) as proxy:
        settings = place.settings(
            bucket={"endpoint": proxy.endpoint},
            cache={"dir": str(mirror_setup.cache)},
            state={"dir": str(mirror_setup.state)},
        )
        report = repair(settings, RepairOptions(verify=replace(FULL, retry=SOON)))
    assert (report.lost, report.flagged_rows) == (0, 0)
    assert (report.failed > 0, report.exit_status) == (True, 3)


@pytest.mark.chaos("repair")
def test_a_repair_killed_anywhere_is_completed_by_the_next(
    folder_setup: MirrorSetup, tmp_path: Path
) -> None:
    stocked(folder_setup, 8)
    (tmp_path / "other").mkdir()
    other = MirrorSetup(folder_setup.place, tmp_path / "other")  # a machine that has what is lost
    fill(other.cache, {url_of(6): photo(6), url_of(7): photo(7)})
    other.sync()
    words = [
        "--json",
        "repair",
        f"--bucket={folder_setup.place.url}",
        f"--state={folder_setup.state}",
    ]
    words += [f"--cache={folder_setup.cache}"]
    modules = "mirror.upkeep.repair,mirror.upkeep.damage_log,mirror.upkeep.lost_contents,mirror.catalog.root"

    def damage() -> None:
        folder_setup.remove(*(key_of(photo(n)) for n in (1, 2, 3)))
        lose(folder_setup, 6, 7)

    damage()
    killing = Killing(modules, words, status=3, after=1 / 3)
    for story in killing.rounds(kills(5), random.Random(SEED)):
        other.sync()  # brings it back
        assert is_whole(folder_setup)
        damage()
        killing.run()
        report = repair(folder_setup.settings())
        assert report.error is None, story
        assert verify(folder_setup.settings(), FULL).exit_status == 0, story
        rows = folder_setup.rows()
        for number in (6, 7):
            assert rows[url_md5(url_of(number))]["verdict"] == "corrupt", story
        assert other.sync().uploaded == 2, story  # it was told


def test_the_mark_keeps_the_other_keys_of_format_json(folder_setup: MirrorSetup) -> None:
    stocked(folder_setup)
    file = Path(folder_setup.place.url.path) / "format.json"
    text = file.read_text()
    file.write_text(text[:-1] + ', "later": {"x": [1]}}')
    lose(folder_setup, 7)
    repair(folder_setup.settings(), now=time.time)

    async def root() -> str:
        store = folder_setup.place.open()
        return (await read_root(store)).losses

    assert asyncio.run(root())
    assert '"later":{"x":[1]}' in file.read_text()
    shutil.rmtree(folder_setup.state)
    assert folder_setup.sync().failed == 0
