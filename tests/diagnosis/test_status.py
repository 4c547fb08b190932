"""`mirror status`: contents, savings, unsynced files and costs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mirror.catalog.cost import epoch_usd, requests_usd, storage_usd_month, sync_estimate
from mirror.cli.main import run
from mirror.config.settings import PriceSettings, R2Prices, Settings
from mirror.diagnosis.status import contents_of, status
from mirror.errors import NotFound
from mirror.sync.run_sync import SyncOptions, sync
from tests.conftest import MakePlace, Place
from tests.support.photos import blank, fill, photo, url_of

S3, R2 = PriceSettings(), R2Prices()


def settings_of(place: Place, folder: Path, **more: dict[str, Any]) -> Settings:
    sections = {"cache": {"dir": str(folder / "cache")}, "state": {"dir": str(folder / "state")}}
    return place.settings(**sections | more)


@pytest.fixture
def settings(make_place: MakePlace, tmp_path: Path) -> Settings:
    """Seven photographs under twelve URLs and a blank one are synced; two more files are not."""
    found = settings_of(make_place("file"), tmp_path)
    cache = tmp_path / "cache"
    fill(cache, {url_of(n): photo(n % 7) for n in range(12)} | {url_of(99): blank()})
    sync(found)
    fill(cache, {url_of(0): photo(100), url_of(50): photo(50)})
    return found


def test_contents_and_unsynced_files(settings: Settings) -> None:
    found = status(settings)
    sizes = [len(photo(n % 7)) for n in range(12)]
    assert found.contents.files == 13
    assert found.contents.verdicts == {
        "ok": 12, "blank": 1, "corrupt": 0, "not_image": 0, "placeholder": 0,
    }  # fmt: skip
    assert (found.contents.objects, found.contents.bytes) == (7, sum(sizes[:7]))
    assert found.contents.bytes_saved == sum(sizes[7:])
    assert found.pending is not None
    assert (found.pending.new, found.pending.changed) == (1, 1)
    assert found.catalog_version == 1
    ((record, report),) = found.shown_runs()
    assert (record.exit_status, report["uploaded"]) == (0, 7)


def test_costs_are_those_of_the_lists(settings: Settings) -> None:
    found = status(settings)
    size = found.contents.bytes
    for name, prices in {"s3": S3, "r2": R2}.items():
        cost = found.costs[name]
        assert cost.storage_month == size / 1e9 * prices.storage_gb_month
        assert cost.epoch == epoch_usd(12, found.contents.bytes_named, prices)
    assert found.prices == "s3"
    # The same figure as a dry run, by the same price list.
    dry = sync(settings, SyncOptions(dry_run=True)).estimate
    assert dry is not None
    assert found.costs["s3"].sync == dry.request_usd


def test_requests_are_this_months(settings: Settings) -> None:
    this_month = status(settings).costs["s3"].requests_month
    report = status(settings).shown_runs()[0][1]
    assert this_month == requests_usd(report["requests"], S3) > 0
    now = datetime.now(UTC)
    later = datetime(now.year + now.month // 12, now.month % 12 + 1, 2, tzinfo=UTC)
    assert status(settings, now=later.timestamp).costs["s3"].requests_month == 0


def test_a_machine_that_only_reads(
    settings: Settings, make_place: MakePlace, tmp_path: Path
) -> None:
    reader = make_place("file").settings(state={"dir": str(tmp_path / "elsewhere")})
    found = status(reader)
    assert (found.pending, found.not_looked) == (None, "no cache is configured")
    assert found.contents.objects == 7
    assert found.costs["r2"].sync is None


def test_a_cache_that_is_not_mounted_does_not_hide_the_mirror(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "cache").rename(tmp_path / "away")
    found = status(settings)
    assert found.pending is None
    assert "does not exist" in found.not_looked
    assert found.contents.objects == 7


def test_without_a_walk(settings: Settings) -> None:
    found = status(settings, scan=False)
    assert (found.pending, found.not_looked) == (None, "--no-scan")
    assert found.runs


def test_no_mirror_is_an_error(make_place: MakePlace, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="run mirror sync first"):
        status(settings_of(make_place("file"), tmp_path))


def test_an_empty_mirror_costs_nothing(make_place: MakePlace, tmp_path: Path) -> None:
    found = settings_of(make_place("file"), tmp_path)
    (tmp_path / "cache").mkdir()
    sync(found)
    setup = status(found)
    assert (setup.contents.files, setup.contents.objects, setup.catalog_version) == (0, 0, None)
    assert setup.costs["s3"].storage_month == setup.costs["s3"].epoch == 0


def test_the_list_in_use_follows_the_endpoint() -> None:
    from mirror.config.loading import Layer, merge

    endpoint = {"endpoint": "https://account.r2.cloudflarestorage.com"}
    assert isinstance(merge([Layer("test", {"bucket": endpoint})]).price_list, R2Prices)


def test_the_facts_that_people_plan_by() -> None:
    """900,000 images of 1.44 MB, compared with the providers' calculators."""
    size = 900_000 * 1_440_000
    assert storage_usd_month(size, R2) == pytest.approx(19.44)
    assert storage_usd_month(size, S3) == pytest.approx(29.81, abs=0.01)
    assert epoch_usd(900_000, size, R2) == pytest.approx(0.324)
    assert epoch_usd(900_000, size, S3) == pytest.approx(117.0, abs=0.1)
    assert sync_estimate(900_000, size, S3, 5000, None).request_usd == pytest.approx(4.5, abs=0.05)


def test_the_index_is_counted_without_a_mirror() -> None:
    from mirror.catalog.index import Index

    assert contents_of(Index.empty()).objects == 0


def flags(settings: Settings) -> list[str]:
    where = {
        "bucket": settings.bucket.url, "cache": settings.cache.dir, "state": settings.state.dir
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in where.items()]


def test_the_command(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--json", "status", *flags(settings)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["files"], printed["objects"]) == (13, 7)
    assert printed["unsynced"] == {
        "new": 1, "changed": 1, "bytes": len(photo(50)) + len(photo(100)),
    }  # fmt: skip
    assert printed["cost"].keys() == {"s3", "r2"}
    assert printed["last_runs"][0]["uploaded"] == 7

    assert run(["status", *flags(settings)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "files 13 URLs that the mirror knows" in lines
    assert any(line.startswith("deduplicated 5 ") for line in lines)
    assert any(line.startswith("not synced 2 ") for line in lines)
    assert "cost AWS S3 Cloudflare R2" in lines
