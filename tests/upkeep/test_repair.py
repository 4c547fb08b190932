"""Restoring objects from folders, and flagging the rows of those that no folder has."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.catalog.delta_table import Catalog
from mirror.catalog.open_mirror import read_index
from mirror.catalog.root import read_root
from mirror.catalog.row import RowSource
from mirror.content.digest import digest_of
from mirror.errors import CacheError, UsageError
from mirror.layout import url_md5
from mirror.upkeep.change_limit import ChangeLimit
from mirror.upkeep.repair import RepairOptions, RepairReport, repair
from mirror.upkeep.verify import verify
from tests.conftest import MakePlace
from tests.support.chaos_tally import SEED, kills
from tests.support.fault_proxy import SLOW_DOWN, FaultProxy
from tests.support.killing import Killing
from tests.support.mirror_setup import SOON, Workshop, key_of
from tests.support.photos import blank, fill, flipped, name_of, photo, url_of
from tests.sync.test_sync import DatasetSources
from tests.upkeep.test_verify import FULL

READ_ALL = RepairOptions(verify=FULL)
ALL = ChangeLimit(share=1.0)


def stocked(shop: Workshop, count: int = 12) -> None:
    fill(shop.cache, {url_of(n): photo(n) for n in range(count)})
    fill(shop.cache, {url_of(1000 + n): photo(n) for n in range(2)})
    fill(shop.cache, {url_of(2000): blank()})
    assert shop.sync().exit_status == 0


def is_whole(shop: Workshop) -> bool:
    report = verify(shop.settings(), FULL)
    return (report.missing, report.mismatched, report.failed) == (0, 0, 0)


def lose(shop: Workshop, *numbers: int) -> Path:
    """Remove objects from the mirror and move their files out of the cache; returns the new folder."""
    aside = shop.cache.parent / "aside"
    aside.mkdir(exist_ok=True)
    for number in numbers:
        for url in (url_of(number), url_of(1000 + number)):
            if (file := shop.cache / name_of(url)).exists():
                file.rename(aside / file.name)
    shop.remove(*(key_of(photo(number)) for number in numbers))
    return aside


def mended(report: RepairReport) -> tuple[int, int, int, int]:
    return report.missing, report.mismatched, report.repaired, report.lost


def test_all_damage_that_the_cache_can_repair_is_repaired(shop: Workshop) -> None:
    stocked(shop)
    before = shop.objects()
    shop.remove(key_of(photo(0)), key_of(photo(5)))
    shop.put({key_of(photo(3)): photo(3)[:-9], key_of(photo(4)): flipped(photo(4))})
    report = repair(shop.settings(), READ_ALL)
    assert mended(report) == (2, 2, 4, 0)
    assert (report.exit_status, report.error) == (0, None)
    assert report.bytes >= sum(len(photo(n)) for n in (0, 3, 4, 5))
    assert shop.objects() == before
    assert is_whole(shop)
    assert len(shop.rows()) == 15


def test_damage_found_by_an_earlier_pass_is_not_read_again(local: Workshop) -> None:
    stocked(local)
    local.put({key_of(photo(4)): flipped(photo(4))})
    verify(local.settings(), FULL)
    report = repair(local.settings())
    assert (mended(report), report.looked_at) == ((0, 1, 1, 0), 1)
    assert is_whole(local)


def test_a_dry_run_reports_what_could_be_repaired(local: Workshop) -> None:
    stocked(local)
    lose(local, 7)
    local.remove(key_of(photo(0)))
    before = local.objects()
    report = repair(local.settings(), RepairOptions(dry_run=True))
    assert (mended(report), report.repairable) == ((2, 0, 0, 1), 1)
    assert (report.flagged_rows, report.exit_status) == (0, 3)
    assert local.objects() == before
    assert {row["verdict"] for row in local.rows().values()} == {"ok", "blank"}


def test_any_folder_and_any_file_names_will_do(local: Workshop) -> None:
    stocked(local)
    aside = lose(local, 1, 2, 3)
    (aside / "objects" / "ab").mkdir(parents=True)
    (aside / name_of(url_of(2))).rename(aside / "objects" / "ab" / "no extension")
    elsewhere = local.cache.parent / "elsewhere"
    (aside / name_of(url_of(3))).rename(elsewhere)
    (aside / "link.jpg").symlink_to(elsewhere)  # is not followed
    report = repair(local.settings(), RepairOptions(folders=(aside,), limit=ALL))
    assert mended(report) == (3, 0, 2, 1)
    assert not is_whole(local) or report.flagged_rows == 1


def test_only_the_exact_bytes_count(local: Workshop) -> None:
    stocked(local)
    aside = lose(local, 1)
    for file in aside.iterdir():
        body = file.read_bytes()
        (local.cache / file.name).write_bytes(flipped(body))
    report = repair(local.settings(), RepairOptions(dry_run=True))
    assert (report.looked_at, report.repairable, report.lost) == (2, 0, 1)


def test_a_large_object_is_restored_in_parts(
    local: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = photo(1) + os.urandom(9 << 20)
    fill(local.cache, {url_of(1): body})
    local.sync()
    monkeypatch.setattr("mirror.catalog.upload.PART_BYTES", 5 << 20)
    for module in ("mirror.store.read_back", "mirror.upkeep.repair"):
        monkeypatch.setattr(f"{module}.WHOLE_UP_TO", 1 << 20)
    local.put({key_of(body): flipped(body)})
    assert mended(repair(local.settings(), READ_ALL)) == (0, 1, 1, 0)
    assert is_whole(local)


def test_objects_that_no_folder_has_are_no_longer_offered(shop: Workshop) -> None:
    stocked(shop)
    lose(shop, 0, 7)
    (shop.cache / name_of(url_of(4))).unlink()
    shop.put({key_of(photo(4)): flipped(photo(4))})
    report = repair(shop.settings(), READ_ALL)
    assert mended(report) == (2, 1, 0, 3)
    assert (report.flagged_rows, report.exit_status) == (4, 3)
    rows = shop.rows()
    reasons = {n: rows[url_md5(url_of(n))]["reason"] for n in (0, 1000, 7, 4)}
    assert reasons == {
        0: "missing from the mirror",
        1000: "missing from the mirror",
        7: "missing from the mirror",
        4: "damaged in the mirror",
    }
    assert {rows[url_md5(url_of(n))]["verdict"] for n in reasons} == {"corrupt"}
    _, index = read_index(shop.settings())
    for number in reasons:
        sighting = index.sighting(url_md5(url_of(number)))
        assert sighting is not None
        assert sighting.verdict == "corrupt"
    assert verify(shop.settings()).exit_status == 0  # no row names what is not there
    assert mended(repair(shop.settings())) == (0, 0, 0, 0)


def test_a_file_that_comes_back_unchanged_makes_its_rows_good_again(local: Workshop) -> None:
    """The local state had it as acknowledged, and must not rely on that."""
    stocked(local)
    aside = lose(local, 0, 7)
    repair(local.settings())
    for file in aside.iterdir():
        file.rename(local.cache / file.name)
    report = local.sync()
    assert (report.uploaded, report.deduplicated, report.failed) == (2, 1, 0)
    rows = local.rows()
    for number in (0, 1000, 7):
        assert rows[url_md5(url_of(number))]["verdict"] == "ok"
    assert is_whole(local)
    report = local.sync()
    assert (report.unchanged, report.requests["get"]) == (15, 1)  # and once is enough


def test_a_file_that_a_sync_saw_vanish_makes_them_good_again_too(local: Workshop) -> None:
    stocked(local)
    aside = lose(local, 7)
    assert local.sync().vanished == 1
    repair(local.settings())
    assert local.sync().uploaded == 0
    (aside / name_of(url_of(7))).rename(local.cache / name_of(url_of(7)))
    assert local.sync().uploaded == 1
    assert is_whole(local)


def test_another_machine_that_has_the_content_restores_it_by_itself(
    local: Workshop, tmp_path: Path
) -> None:
    stocked(local)
    (tmp_path / "other").mkdir()
    other = Workshop(local.place, tmp_path / "other")
    fill(other.cache, {url_of(7): photo(7), url_of(8): photo(8)})
    other.sync()
    lose(local, 7)
    assert other.sync().unchanged == 2
    assert repair(local.settings()).lost == 1
    report = other.sync()
    assert (report.unchanged, report.uploaded) == (1, 1)
    assert is_whole(local)
    assert other.sync().unchanged == 2


def test_a_dataset_does_not_make_lost_rows_good_again(local: Workshop) -> None:
    stocked(local)
    lose(local, 7)
    told = DatasetSources({url_of(n): RowSource(url_of(n), "CC0", "© her") for n in range(12)})
    fill(local.cache, {url_of(7): photo(7)})
    local.sync(told)  # finds it known, and so the state vouches for it
    (local.cache / name_of(url_of(7))).unlink()
    assert repair(local.settings()).lost == 1
    row = local.rows()[url_md5(url_of(7))]
    assert (row["verdict"], row["source_url"], row["attribution"]) == (
        "corrupt",
        url_of(7),
        "© her",
    )
    other = DatasetSources({url_of(n): RowSource(url_of(n), "CC-BY", "© her") for n in range(12)})
    local.sync(other)
    assert local.rows()[url_md5(url_of(7))]["verdict"] == "corrupt"


def test_a_dataset_does_not_undo_a_verdict_of_the_catalog(local: Workshop) -> None:
    """Six photos share one content: the catalog says placeholder, and the state still says ok."""
    fill(local.cache, {url_of(n): photo(99) for n in range(6)})
    local.sync()
    assert {row["verdict"] for row in local.rows().values()} == {"placeholder"}
    local.sync(DatasetSources({url_of(n): RowSource(url_of(n), "CC0") for n in range(6)}))
    assert {row["verdict"] for row in local.rows().values()} == {"placeholder"}


def test_an_image_that_another_machine_commits_meanwhile_stays_good(
    local: Workshop, tmp_path: Path
) -> None:
    """Between the last check and the rows, that machine commits another content for one URL."""
    stocked(local)
    lose(local, 7, 8)
    (tmp_path / "other").mkdir()
    other = Workshop(local.place, tmp_path / "other")
    fill(other.cache, {url_of(7): photo(77)})
    asked = []

    def now() -> float:
        asked.append(1)
        if len(asked) == 2:
            syncing = threading.Thread(target=other.sync)
            syncing.start()
            syncing.join()
        return time.time()

    report = repair(local.settings(), RepairOptions(limit=ALL), now=now)
    rows = local.rows()
    kept = rows[url_md5(url_of(7))]
    assert (kept["verdict"], kept["content_hash"]) == ("ok", digest_of(photo(77)).content_hash)
    assert rows[url_md5(url_of(8))]["verdict"] == "corrupt"
    assert (len(asked), report.flagged_rows, report.warnings) == (2, 1, [])
    assert verify(local.settings(), FULL).exit_status == 0


def test_a_repair_that_always_loses_the_race_leaves_the_rest_to_the_next(
    local: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(local)
    lose(local, 7)
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "append_after", lambda *_: None)
        report = repair(local.settings(), RepairOptions(limit=ALL))
    assert (report.flagged_rows, report.exit_status) == (0, 3)
    assert "run mirror repair again" in report.warnings[0]
    assert local.rows()[url_md5(url_of(7))]["verdict"] == "ok"
    assert repair(local.settings(), RepairOptions(limit=ALL)).flagged_rows == 1


@pytest.mark.parametrize(("limit", "allowed"), [("2", True), ("1", False), ("10%", False)])
def test_a_repair_that_would_flag_too_much_is_refused(
    local: Workshop, limit: str, allowed: bool
) -> None:
    stocked(local)
    lose(local, 7, 8)
    local.remove(key_of(photo(2)))
    report = repair(local.settings(), RepairOptions(limit=ChangeLimit.parse(limit, "--max-lost")))
    assert mended(report) == (3, 0, 1, 2)  # what can be mended is
    assert report.flagged_rows == (2 if allowed else 0)
    assert report.exit_status == (3 if allowed else 1)
    if not allowed:
        assert "--max-lost 2" in str(report.error)


def test_a_missing_or_empty_folder_is_an_error_before_anything_is_flagged(
    local: Workshop, tmp_path: Path
) -> None:
    stocked(local)
    lose(local, 7)
    for folder in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(CacheError, match="mounted"):
            repair(local.settings(), RepairOptions(folders=(folder,)))
    with pytest.raises(UsageError, match="--from"):
        repair(local.place.settings(state={"dir": str(local.state)}))
    assert local.rows()[url_md5(url_of(7))]["verdict"] == "ok"


def test_objects_that_cannot_be_read_now_are_not_flagged(
    make_place: MakePlace, tmp_path: Path
) -> None:
    place = make_place("moto-obstore")
    assert place.server is not None
    shop = Workshop(place, tmp_path)
    stocked(shop)
    shop.put({key_of(photo(4)): flipped(photo(4))})
    (shop.cache / name_of(url_of(4))).unlink()

    unlucky = key_of(photo(4))
    with FaultProxy(
        place.server.endpoint,
        lambda request: SLOW_DOWN if request.path.endswith(unlucky) else None,
    ) as proxy:
        settings = place.settings(
            bucket={"endpoint": proxy.endpoint},
            cache={"dir": str(shop.cache)},
            state={"dir": str(shop.state)},
        )
        report = repair(settings, RepairOptions(verify=replace(FULL, retry=SOON)))
    assert (report.lost, report.flagged_rows) == (0, 0)
    assert (report.failed > 0, report.exit_status) == (True, 3)


@pytest.mark.chaos("repair")
def test_a_repair_killed_anywhere_is_completed_by_the_next(local: Workshop, tmp_path: Path) -> None:
    stocked(local, 8)
    (tmp_path / "other").mkdir()
    other = Workshop(local.place, tmp_path / "other")  # a machine that has what is lost
    fill(other.cache, {url_of(6): photo(6), url_of(7): photo(7)})
    other.sync()
    words = ["--json", "repair", f"--bucket={local.place.url}", f"--state={local.state}"]
    words += [f"--cache={local.cache}"]
    modules = "mirror.upkeep.repair,mirror.upkeep.damage_log,mirror.upkeep.lost_contents,mirror.catalog.root"

    def damage() -> None:
        local.remove(*(key_of(photo(n)) for n in (1, 2, 3)))
        lose(local, 6, 7)

    damage()
    killing = Killing(modules, words, status=3, after=1 / 3)
    for story in killing.rounds(kills(5), random.Random(SEED)):
        other.sync()  # brings it back
        assert is_whole(local)
        damage()
        killing.run()
        report = repair(local.settings())
        assert report.error is None, story
        assert verify(local.settings(), FULL).exit_status == 0, story
        rows = local.rows()
        for number in (6, 7):
            assert rows[url_md5(url_of(number))]["verdict"] == "corrupt", story
        assert other.sync().uploaded == 2, story  # it was told


def test_the_mark_keeps_the_other_keys_of_format_json(local: Workshop) -> None:
    stocked(local)
    file = Path(local.place.url.path) / "format.json"
    text = file.read_text()
    file.write_text(text[:-1] + ', "later": {"x": [1]}}')
    lose(local, 7)
    repair(local.settings(), now=time.time)

    async def root() -> str:
        store = local.place.open()
        return (await read_root(store)).losses

    assert asyncio.run(root())
    assert '"later":{"x":[1]}' in file.read_text()
    shutil.rmtree(local.state)
    assert local.sync().failed == 0
