"""A content that implausibly many photos share is detected as a placeholder, and kept out."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mirror.catalog.row import RowSource
from mirror.cli.main import run
from mirror.errors import CatalogError
from mirror.layout import url_md5
from mirror.run.progress import Progress
from mirror.sync.run_sync import SyncOptions, sync
from mirror.sync.sync_report import SyncReport
from tests.conftest import MakePlace
from tests.support.mirror_setup import MirrorSetup
from tests.support.photos import fill, photo, url_of
from tests.sync.test_sync import DatasetSources

REPLACEMENT = photo(999)


@pytest.fixture
def mirror_setup(make_place: MakePlace, tmp_path: Path) -> MirrorSetup:
    return MirrorSetup(make_place("file"), tmp_path)


def replaced(mirror_setup: MirrorSetup, numbers: Sequence[int]) -> None:
    """Files in which these photos are replaced by one picture."""
    fill(mirror_setup.cache, {url_of(number): REPLACEMENT for number in numbers})


def verdicts(mirror_setup: MirrorSetup) -> dict[bytes, str]:
    return {url: row["verdict"] for url, row in mirror_setup.rows().items()}


def sync_with(mirror_setup: MirrorSetup, sources: Any = None, **inspect: Any) -> SyncReport:
    settings = mirror_setup.place.settings(
        cache={"dir": str(mirror_setup.cache)},
        state={"dir": str(mirror_setup.state)},
        inspect=inspect,
    )
    return sync(settings, SyncOptions(), sources=sources)


def test_a_content_under_five_photos_is_a_placeholder_and_four_are_not(
    mirror_setup: MirrorSetup,
) -> None:
    replaced(mirror_setup, range(4))
    fill(mirror_setup.cache, {url_of(n): photo(n) for n in range(10, 14)})
    assert mirror_setup.sync().flagged["placeholder"] == 0
    assert set(verdicts(mirror_setup).values()) == {"ok"}
    replaced(mirror_setup, [4])
    report = mirror_setup.sync()
    assert report.flagged["placeholder"] == 5
    assert {url for url, verdict in verdicts(mirror_setup).items() if verdict == "placeholder"} == {
        url_md5(url_of(n)) for n in range(5)
    }
    row = mirror_setup.rows()[url_md5(url_of(0))]
    assert row["reason"] == "one content under 5 photos"


def test_a_detected_placeholder_is_flagged_at_once_in_later_runs(mirror_setup: MirrorSetup) -> None:
    replaced(mirror_setup, range(5))
    mirror_setup.sync()
    objects = mirror_setup.objects()
    replaced(mirror_setup, [7])
    report = mirror_setup.sync()
    assert (report.flagged["placeholder"], report.uploaded, report.deduplicated) == (1, 0, 0)
    assert verdicts(mirror_setup)[url_md5(url_of(7))] == "placeholder"
    assert mirror_setup.objects() == objects
    again = mirror_setup.sync()
    assert (again.flagged["placeholder"], again.catalog_commits) == (0, 0)


def test_the_evidence_of_several_machines_adds_up(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("file")
    shops = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shops.append(MirrorSetup(place, tmp_path / name))
    replaced(shops[0], range(3))
    replaced(shops[1], range(3, 6))
    assert shops[0].sync().flagged["placeholder"] == 0
    assert shops[1].sync().flagged["placeholder"] == 6
    assert set(verdicts(shops[0]).values()) == {"placeholder"}


def test_the_threshold_is_a_setting(mirror_setup: MirrorSetup) -> None:
    replaced(mirror_setup, range(5))
    assert sync_with(mirror_setup, placeholder_photos=6).flagged["placeholder"] == 0
    replaced(mirror_setup, range(6))
    assert sync_with(mirror_setup, placeholder_photos=6).flagged["placeholder"] == 6


def test_spellings_of_one_photo_count_once_where_a_dataset_has_the_urls(
    mirror_setup: MirrorSetup,
) -> None:
    spellings = [
        f"https://{host}/photos/77/medium.{extension}"
        for host in ("static.inaturalist.org", "inaturalist-open-data.s3.amazonaws.com")
        for extension in ("jpg", "jpeg", "jpg?1545", "jpeg?1545")
    ]
    fill(mirror_setup.cache, dict.fromkeys(spellings, REPLACEMENT))
    told = DatasetSources({url: RowSource(url) for url in spellings})
    assert mirror_setup.sync(told).flagged["placeholder"] == 0
    shutil.rmtree(mirror_setup.state)  # or all of the catalog is weighed
    assert mirror_setup.sync().flagged["placeholder"] == 0
    assert set(verdicts(mirror_setup).values()) == {"ok"}


def test_a_row_with_a_new_verdict_keeps_its_source(mirror_setup: MirrorSetup) -> None:
    replaced(mirror_setup, range(5))
    told = DatasetSources({url_of(n): RowSource(url_of(n), "CC0", "© her") for n in range(5)})
    assert mirror_setup.sync(told).flagged["placeholder"] == 5
    row = mirror_setup.rows()[url_md5(url_of(1))]
    assert (row["verdict"], row["source_url"], row["license"]) == ("placeholder", url_of(1), "CC0")


def test_a_good_image_in_its_place_becomes_ok(mirror_setup: MirrorSetup) -> None:
    replaced(mirror_setup, range(5))
    mirror_setup.sync()
    fill(mirror_setup.cache, {url_of(1): photo(1)})
    assert mirror_setup.sync().uploaded == 1
    assert verdicts(mirror_setup)[url_md5(url_of(1))] == "ok"


def test_nothing_is_judged_when_inspection_is_off(mirror_setup: MirrorSetup) -> None:
    replaced(mirror_setup, range(8))
    assert mirror_setup.sync(inspect="off").flagged["placeholder"] == 0


class Interrupting(Progress):
    """Ctrl-C at the first file that is done."""

    asked = False

    def advance(self, items: int = 0, nbytes: int = 0, outcome: str = "") -> None:
        if not self.asked:
            self.asked = True
            os.kill(os.getpid(), signal.SIGINT)


def broken_off(mirror_setup: MirrorSetup, error: BaseException, **options: Any) -> None:
    """A run that commits everything and fails before it examines the rows for placeholders."""

    async def fails(*_: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch, suppress(ZeroDivisionError):
        patch.setattr("mirror.sync.run_sync.new_placeholders", fails)
        sync(mirror_setup.settings(), **options)


UNWEIGHED: dict[str, Callable[[MirrorSetup], object]] = {
    "killed": lambda mirror_setup: broken_off(mirror_setup, ZeroDivisionError()),
    "failed": lambda mirror_setup: broken_off(mirror_setup, CatalogError("could not be read")),
    "interrupted": lambda mirror_setup: sync(mirror_setup.settings(), progress=Interrupting()),
    "not inspecting": lambda mirror_setup: mirror_setup.sync(inspect="off"),
}


@pytest.mark.parametrize("files", [0, 1], ids=["nothing new", "another file"])
@pytest.mark.parametrize("lost", [False, True], ids=["keeping the state", "losing the state"])
@pytest.mark.parametrize("unweighed", UNWEIGHED)
def test_rows_that_a_run_did_not_examine_are_examined_by_the_next(
    mirror_setup: MirrorSetup, unweighed: str, lost: bool, files: int
) -> None:
    replaced(mirror_setup, range(6))
    fill(mirror_setup.cache, {url_of(n): photo(n) for n in range(10, 20)})
    UNWEIGHED[unweighed](mirror_setup)
    assert set(verdicts(mirror_setup).values()) == {"ok"}
    if lost:
        shutil.rmtree(mirror_setup.state)
    fill(mirror_setup.cache, {url_of(n): photo(n) for n in range(50, 50 + files)})

    assert mirror_setup.sync().flagged["placeholder"] == 6
    found = {url for url, verdict in verdicts(mirror_setup).items() if verdict == "placeholder"}
    assert found == {url_md5(url_of(n)) for n in range(6)}
    again = mirror_setup.sync()
    assert (again.flagged["placeholder"], again.catalog_commits) == (0, 0)
    assert sum(again.requests.values()) == again.requests["list"] == 1


def test_several_runs_that_examined_nothing_lose_nothing(mirror_setup: MirrorSetup) -> None:
    mirror_setup.sync()  # of a cache without files: nothing is left to weigh
    replaced(mirror_setup, range(6))
    for hour in range(3):
        broken_off(mirror_setup, ZeroDivisionError(), now=lambda hour=hour: 1.8e9 + 3600 * hour)
        fill(mirror_setup.cache, {url_of(10 + hour): photo(hour)})
    assert sync(mirror_setup.settings(), now=lambda: 1.9e9).flagged["placeholder"] == 6


def test_a_placeholder_found_in_a_run_without_changes_is_reported(
    mirror_setup: MirrorSetup, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced(mirror_setup, range(6))
    mirror_setup.sync(inspect="off")
    folders = [
        f"--cache={mirror_setup.cache}",
        f"--state={mirror_setup.state}",
        f"--bucket={mirror_setup.place.url}",
    ]
    assert run(["sync", *folders]) == 0
    assert "placeholder 6" in capsys.readouterr().out


def test_runs_that_do_not_inspect_stay_at_one_request(mirror_setup: MirrorSetup) -> None:
    replaced(mirror_setup, range(6))
    mirror_setup.sync(inspect="off")
    report = mirror_setup.sync(inspect="off")
    assert sum(report.requests.values()) == report.requests["list"] == 1


@pytest.mark.parametrize("which", ["sha256", "content_hash"])
def test_a_known_bad_content_never_enters(
    mirror_setup: MirrorSetup, tmp_path: Path, which: str
) -> None:
    from mirror.content.digest import digest_of

    listed = tmp_path / "bad.txt"
    listed.write_text(
        f"# the replacement picture\n{getattr(digest_of(REPLACEMENT), which).hex()}\n"
    )
    replaced(mirror_setup, [1])
    report = sync_with(mirror_setup, known_bad=str(listed))
    assert (report.flagged["placeholder"], report.uploaded) == (1, 0)
    assert mirror_setup.objects() == {}
    assert verdicts(mirror_setup)[url_md5(url_of(1))] == "placeholder"
