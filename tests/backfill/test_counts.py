"""Each wanted URL is counted once, whatever happens to it in a run; obstacles are reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.backfill.backfill_report import BackfillReport
from mirror.backfill.pacing import DAY
from mirror.backfill.run_backfill import BackfillOptions
from tests.backfill.backfill_setup import Scene
from tests.backfill.fake_inaturalist import First, Image, gone
from tests.support.photos import blank, fill, name_of, photo

SAME = Image(photo(777))


def counted(report: BackfillReport) -> dict[str, int]:
    """The counts that are not zero; checks their sum, which docs/backfill.md promises."""
    told = report.as_json()
    parts = {name: told[name] for name in ("downloaded", "overtaken", "left")}
    parts |= {
        "gone before": told["gone_before"],
        "given up": told["given_up_before"],
        **told["failed"],
    }
    assert all(number >= 0 for number in parts.values())
    assert sum(parts.values()) == told["wanted"]
    return {name: number for name, number in parts.items() if number}


def after_requests(scene: Scene, number: int, do: Callable[[], object]) -> None:
    """Another program acts once, while the server answers the n-th request."""
    todo = [do]

    def clock() -> float:
        if todo and len(scene.server.hits) == number:
            todo.pop()()
        return scene.time.now

    scene.server.clock = clock


def test_files_removed_for_an_earlier_run_are_no_failures_of_this_one(scene: Scene) -> None:
    before = [scene.server.photo(n, SAME) for n in range(1, 5)]
    assert counted(scene.run(before)) == {"downloaded": 4}
    scene.time.now += DAY
    more = [scene.server.photo(n, Image(photo(n))) for n in range(6, 36)]
    urls = [*before, scene.server.photo(5, SAME), *more]
    report = scene.run(urls, BackfillOptions(max_images=10))
    assert counted(report) == {"downloaded": 10, "placeholder": 1, "left": 20}
    assert (report.plan.already, report.taken_back, len(report.failures)) == (4, 4, 1)
    assert counted(scene.run(urls)) == {"downloaded": 20, "gone before": 5}


def test_a_removed_image_that_was_fetched_twice_is_counted_once(scene: Scene) -> None:
    urls = [scene.server.photo(n, SAME) for n in range(1, 6)]
    scene.run([urls[0], scene.server.photo(9, Image(photo(9)))])
    (scene.cache / name_of(urls[0])).unlink()
    report = scene.run(urls)
    assert counted(report) == {"placeholder": 5}
    assert report.taken_back == 4


def test_a_removed_image_does_not_count_as_replaced(scene: Scene) -> None:
    urls = [scene.server.photo(n, SAME) for n in range(1, 6)]
    good = scene.server.photo(9, Image(photo(9)))
    fill(scene.cache, {urls[0]: blank(), good: blank()})
    report = scene.run([*urls, good])
    assert counted(report) == {"downloaded": 1, "placeholder": 5}
    assert report.replaced == 1


def test_a_failed_image_that_appears_before_the_next_try_is_counted_once(scene: Scene) -> None:
    url = scene.server.photo(1, First(1, gone(500), Image(photo(1))))
    other = scene.server.photo(2, Image(photo(2)))
    # robots.txt, then the failure
    after_requests(scene, 2, lambda: fill(scene.cache, {url: photo(50)}))
    report = scene.run([url, other])
    assert counted(report) == {"downloaded": 1, "overtaken": 1}
    assert (report.exit_status, report.failures) == (0, [])


def test_an_overtaken_image_stays_when_its_copies_are_removed(scene: Scene) -> None:
    urls = [scene.server.photo(n, SAME) for n in range(1, 6)]
    after_requests(scene, 1, lambda: fill(scene.cache, {urls[0]: photo(50)}))
    report = scene.run(urls)
    assert counted(report) == {"overtaken": 1, "placeholder": 4}
    assert scene.files() == [name_of(urls[0])]
    assert scene.run(urls).plan.cached == 1


def link_to_a_file(path: Path) -> None:
    there = path.parent.parent / "elsewhere.jpg"
    there.write_bytes(photo(1))
    path.symlink_to(there)


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "link to a good image": link_to_a_file,
    "link to nowhere": lambda path: path.symlink_to("/nowhere"),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("put", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_an_unreadable_file_in_the_way_is_reported_by_every_run(
    scene: Scene, put: Callable[[Path], object]
) -> None:
    url = scene.server.photo(1, Image(photo(1)))
    good = scene.server.photo(2, Image(photo(2)))
    scene.cache.mkdir()
    path = scene.cache / name_of(url)
    put(path)
    assert counted(scene.run([url, good])) == {"downloaded": 1, "unreadable": 1}
    report = scene.run([url, good])
    assert counted(report) == {"unreadable": 1}
    assert (report.requests, report.exit_status) == (0, 3)
    ((failed, kind, why),) = report.failures
    assert (failed, kind) == (url, "unreadable")
    assert name_of(url) in why
    path.rmdir() if path.is_dir() else path.unlink()
    assert counted(scene.run([url, good])) == {"downloaded": 1}
